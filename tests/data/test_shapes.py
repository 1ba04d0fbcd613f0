"""Synthetic scenes: fixed by split and index, with a rim of one pixel."""

import numpy as np

from seenet.data.shapes import DISC, RING, SHAPES, ShapesSplit, _object, outer_rim


def test_scenes_are_fixed_and_have_every_class() -> None:
    split = ShapesSplit("val", 50, 96)
    assert all(np.array_equal(a, b) for a, b in zip(split.read(7), split.read(7), strict=True))
    assert not np.array_equal(split.read(7)[0], ShapesSplit("train", 50, 96).read(7)[0])
    found = set(np.unique([split.read(index)[1] for index in range(20)]))
    assert found == {*range(SHAPES.num_classes), SHAPES.ignore}


def test_the_rim_is_one_pixel_outside() -> None:
    owner = np.zeros((7, 7), np.uint8)
    owner[2:5, 2:5] = 1
    rim = outer_rim(owner)
    assert rim.sum() == 12
    assert not rim[owner == 1].any()


def test_every_ring_has_a_hole_from_42_pixels_on() -> None:
    def hole(seed: int, side: int) -> bool:
        disc, ring = (_object(np.random.default_rng(seed), kind, side) for kind in (DISC, RING))
        return bool((disc & ~ring).any())

    assert all(hole(seed, 42) for seed in range(1000))
    assert sum(hole(seed, 16) for seed in range(100)) < 20
