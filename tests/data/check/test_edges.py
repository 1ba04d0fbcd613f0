"""Whether edges of masks and pictures meet: by plain loops, and over whole splits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seenet.core.labels import LabelSet, voc_colours
from seenet.data.check.edges import meets
from seenet.data.check.plausible import doubts
from seenet.data.check.scan import examine_all
from seenet.data.check.stats import gather
from seenet.data.masks import MaskReader
from seenet.data.split import file_split
from tests.data.layouts import save, scene

LABELS = LabelSet("toy", ("sky", "road", "tree"), voc_colours(3))


def slow_change(picture: np.ndarray, mask: np.ndarray, *, mirrored: bool) -> int:
    """Sum the changes of a picture where its mask, or the mirrored one, changes."""
    seen = mask[:, ::-1] if mirrored else mask
    total = 0
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            for other in ((row + 1, column), (row, column + 1)):
                inside = other[0] < mask.shape[0] and other[1] < mask.shape[1]
                if inside and seen[row, column] != seen[other]:
                    change = picture[row, column].astype(int) - picture[other]
                    total += int(np.abs(change).sum())
    return total


@given(arrays(np.uint8, (5, 6, 2)), arrays(np.uint8, (5, 6), elements=st.integers(0, 2)))
def test_the_changes_are_those_of_loops(picture: np.ndarray, mask: np.ndarray) -> None:
    own, other = (slow_change(picture, mask, mirrored=way) for way in (False, True))
    assert meets(picture, mask) == (None if own == other else own > other)


@pytest.mark.parametrize(("shift", "doubted"), [(0, False), (1, True)])
def test_masks_of_other_pictures_are_doubted(tmp_path: Path, shift: int, doubted: bool) -> None:
    rng = np.random.default_rng(0)
    scenes = [scene(rng, drawn=True) for _ in range(30)]
    pairs = []
    for number, (picture, _) in enumerate(scenes):
        image, mask = (tmp_path / f"{number}-{kind}.png" for kind in ("image", "mask"))
        save(image, picture)
        save(mask, scenes[(number + shift) % len(scenes)][1])
        pairs.append((str(number), image, mask))
    split = file_split("toy", LABELS, pairs, MaskReader("index"), empty="")
    examined = list(examine_all(split, 1))
    stats = gather(LABELS, [(pair.counts or {}, pair.shape) for pair in examined])
    found = [text for text in doubts(split, examined, stats) if "edges" in text]
    assert len(found) == doubted
    # Too few pairs tell nothing.
    assert not [text for text in doubts(split, examined[:19], stats) if "edges" in text]
