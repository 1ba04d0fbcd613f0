"""Parts of large TIFFs and their masks: what is read is a part of the whole, and no more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.picture_reader import PictureReader
from seenet.core.settings import TransformSettings
from seenet.data.masks import MaskReader
from seenet.data.sampling import Draw, TrainingSet, read_square
from seenet.data.split import FileSplit, file_split
from seenet.data.transforms import JointTransform
from seenet.data.windows import is_large
from tests.core.tiffs import write_geotiff

HEIGHT, WIDTH, SIDE = 300, 400, 64
LABELS = LabelSet("toy", ("sky", "road", "tree"), voc_colours(3))
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
IDS = ((ROWS // 7 + COLUMNS // 11) % 3).astype(np.uint8)
PLACES = np.stack([ROWS % 256, ROWS // 256, COLUMNS % 256, COLUMNS // 256]).astype(np.uint8)
"""A picture that says of each pixel where it is."""


def split_of(
    folder: Path, mask: Path, decode: MaskReader | None = None, **options: Any
) -> FileSplit:
    picture = folder / "picture.tif"
    write_geotiff(picture, PLACES, **{**TILED, **options})
    return file_split(
        "toy", LABELS, [("a", picture, mask)], decode or MaskReader("index"), empty="",
        picture=PictureReader((1, 2, 3, 4)),
    )  # fmt: skip


def written(path: Path, ids: np.ndarray, **options: Any) -> Path:
    write_geotiff(path, ids if ids.ndim == 3 else ids[None], **{**TILED, **options})
    return path


def place_of(image: np.ndarray) -> tuple[int, int]:
    """Return row and column of a part's first pixel."""
    values = image[0, 0].astype(int)
    return int(values[0] + 256 * values[1]), int(values[2] + 256 * values[3])


COLOURS = {(0, 0, 0): 0, (200, 10, 10): 1, (10, 200, 10): 2}
MASKS: dict[str, tuple[Any, dict[str, Any], MaskReader]] = {
    "ids": (IDS, {}, MaskReader("index")),
    "16 bits": (IDS.astype(np.int16) * 1000 - 500, {},
        MaskReader("remap", table={-500: 0, 500: 1, 1500: 2})),
    "floats": (IDS.astype(np.float32), {}, MaskReader("index")),
    "nearest": (IDS * 100 + ROWS.astype(np.uint8) % 9, {},
        MaskReader("nearest", table={0: 0, 100: 1, 200: 2})),
    "threshold": (IDS * 100, {}, MaskReader("threshold")),
    "colours": (np.moveaxis(np.array(list(COLOURS), np.uint8)[IDS], 2, 0), {"photometric": "RGB"},
        MaskReader("rgb", colours=COLOURS)),
    "0 is white": (255 - IDS, {"photometric": "MINISWHITE"}, MaskReader("index")),
    "1 bit": (IDS % 2, {"nbits": 1}, MaskReader("index")),
    "two bands": (np.stack([IDS, IDS]), {"alpha": "YES"}, MaskReader("index")),
    "a channel": (np.stack([IDS, 0 * IDS, 0 * IDS]), {"photometric": "RGB"},
        MaskReader("index", channel="red")),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_a_square_is_a_part_of_the_whole(tmp_path: Path, kind: str) -> None:
    values, options, decode = MASKS[kind]
    split = split_of(tmp_path, written(tmp_path / "mask.tif", values, **options), decode)
    whole_image, whole_mask = split.read(0)
    assert len(np.unique(whole_mask)) == (2 if kind in ("threshold", "1 bit") else 3)
    torch.manual_seed(0)
    places = set()
    for _ in range(8):
        image, mask = read_square(split, 0, SIDE) or pytest.fail("read whole")
        assert image.shape == (SIDE, SIDE, 4) and mask.shape == (SIDE, SIDE)
        top, left = place_of(image)
        places.add((top, left))
        assert np.array_equal(whole_image[top : top + SIDE, left : left + SIDE], image)
        assert np.array_equal(whole_mask[top : top + SIDE, left : left + SIDE], mask)
    assert len(places) > 4


def test_masks_of_other_formats_are_cut(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "mask.png")
    split = split_of(tmp_path, tmp_path / "mask.png")
    found = read_square(split, 0, SIDE)
    assert found is not None
    top, left = place_of(found[0])
    assert np.array_equal(found[1], IDS[top : top + SIDE, left : left + SIDE])


def test_what_is_not_large_is_read_whole(tmp_path: Path) -> None:
    split = split_of(tmp_path, written(tmp_path / "mask.tif", IDS))
    assert is_large(split, 0, HEIGHT * WIDTH - 1) and not is_large(split, 0, HEIGHT * WIDTH)
    assert read_square(split, 0, 100) is None
    Image.fromarray(IDS).save(tmp_path / "a.png")
    pair = ("a", tmp_path / "a.png", tmp_path / "a.png")
    assert not is_large(file_split("toy", LABELS, [pair], MaskReader("index"), empty=""), 0, 0)


def test_every_place_is_drawn(tmp_path: Path) -> None:
    split = split_of(tmp_path, written(tmp_path / "mask.tif", IDS))
    torch.manual_seed(1)
    squares = [read_square(split, 0, SIDE) for _ in range(200)]
    places = np.array([place_of(square[0]) for square in squares if square is not None], float)
    # The mean of a uniform offset, within four deviations of the mean of 200.
    for offsets, room in zip(places.T, (HEIGHT - SIDE, WIDTH - SIDE), strict=True):
        assert abs(offsets.mean() - room / 2) < 4 * room / 12**0.5 / 200**0.5
        assert offsets.min() < room / 10 and offsets.max() > room * 0.9


def test_only_the_square_is_decoded(tmp_path: Path) -> None:
    split = split_of(tmp_path, written(tmp_path / "mask.tif", IDS))
    for path in split.paths(0):
        content = bytearray(path.read_bytes())
        content[-400:] = bytes(400)  # within the last tiles
        path.write_bytes(content)
    with pytest.raises(DataError):
        split.read(0)
    torch.manual_seed(0)
    read = 0
    for _ in range(20):
        try:
            read += read_square(split, 0, SIDE) is not None
        except DataError:
            continue
    assert read > 10


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    split = split_of(tmp_path, written(tmp_path / "mask.tif", IDS[:200]))
    with pytest.raises(DataError, match=r"mask\.tif: 200 x 400 pixels, but its picture"):
        read_square(split, 0, SIDE)


def test_training_samples_depend_on_seed_and_draw_alone(tmp_path: Path) -> None:
    split = split_of(tmp_path, written(tmp_path / "mask.tif", IDS))
    settings = TransformSettings(crop=[32, 32], scale=[0.5, 2])
    transform = JointTransform(settings, (0.5,) * 4, (0.2,) * 4, 255)
    assert transform.reach == 65
    samples = TrainingSet(split, transform, seed=3)
    first, again, other = (samples[draw] for draw in (Draw(0, 0), Draw(0, 0), Draw(1, 0)))
    assert first[0].shape == (4, 32, 32) and first[1].shape == (32, 32)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    # No sample of a large picture needs padding.
    assert all((samples[Draw(epoch, 0)][1] != 255).all() for epoch in range(20))
