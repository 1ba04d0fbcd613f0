"""Rules of Pascal VOC 2012's server (development kit, section 3.3).

One .tar.gz of results/VOC2012/Segmentation/comp{5,6}_test_cls/ID.png: palette PNGs of the picture's
size with the classes 0 to 20.
"""

import re

from seenet.data.voc import VOC21
from seenet.submit.benchmark import Benchmark

VOC_FOLDER = "results/VOC2012/Segmentation/comp{}_test_cls"

_ID = r"(?P<id>\d{4}_\d{6})"

VOC = Benchmark(
    name="voc",
    suffix=".tar.gz",
    labels=VOC21,
    stored={label: label for label in range(VOC21.num_classes)},
    modes=frozenset({"P"}),
    member=re.compile(
        r"(?P<folder>results/VOC2012/Segmentation/comp[56]_test_cls)/" + _ID + r"\.png", re.ASCII
    ),
    mask=re.compile(rf"{_ID}\.png", re.ASCII),
    written="{}.png",
    picture=re.compile(_ID, re.ASCII),
    example="2008_000001.jpg",
    expected="results/VOC2012/Segmentation/comp5_test_cls/2008_000001.png (or comp6)",
    test_count=1456,  # Sec. 4.1
    size=None,
    largest=(500, 500),
)
