"""Rules of Cityscapes' server (evalPixelLevelSemanticLabeling.py).

A .zip of CITY_SEQUENCE_FRAME*.png in any folder: one channel of labelIds, 2048 x 1024.
"""

import re

from seenet.data.cityscapes import CITYSCAPES19, CITYSCAPES_TRAIN_IDS
from seenet.submit.benchmark import Benchmark

_FRAME = r"(?P<id>[A-Za-z-]+_\d{6}_\d{6})"
_FRAME_FILE = _FRAME + r"(?:[^/\d][^/]*)?\.png"

CITYSCAPES = Benchmark(
    name="cityscapes",
    suffix=".zip",
    labels=CITYSCAPES19,
    stored={train_id: label for label, train_id in CITYSCAPES_TRAIN_IDS.items()},
    modes=frozenset({"L", "P"}),
    member=re.compile(r"(?:\w[^/]*/)*" + _FRAME_FILE, re.ASCII),
    mask=re.compile(_FRAME_FILE, re.ASCII),
    written="{}_labelIds.png",
    picture=re.compile(rf"{_FRAME}(_leftImg8bit)?", re.ASCII),
    example="berlin_000000_000019_leftImg8bit.png",
    expected="berlin_000000_000019*.png",
    test_count=1525,  # Sec. 4.3
    size=(1024, 2048),
    largest=(1024, 2048),
)
