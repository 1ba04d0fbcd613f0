"""The one decoder: every mode to the right values, and everything hostile to one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import MAX_PIXELS, image_size, read_colours, read_ids, read_image, write_mask
from seenet.core.labels import CAMVID11, LabelSet, voc_colours

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_grey_and_16_bit(tmp_path: Path) -> None:
    grey = read_image(saved(tmp_path / "g.png", Image.fromarray(RAMP)))
    wide = read_image(saved(tmp_path / "w.png", Image.fromarray(RAMP.astype(np.uint16) * 257)))
    assert np.array_equal(grey, np.repeat(RAMP[:, :, None], 3, 2))
    assert np.array_equal(wide, grey)


def test_palette_alpha_and_cmyk(tmp_path: Path) -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2] = (255, 0, 0)
    image = Image.fromarray(rgb)
    assert np.array_equal(read_image(saved(tmp_path / "p.png", image.convert("P", palette=Image.Palette.ADAPTIVE))), rgb)
    alpha = image.convert("RGBA")
    alpha.putalpha(0)
    assert np.array_equal(read_image(saved(tmp_path / "a.png", alpha)), rgb)
    assert np.array_equal(read_image(saved(tmp_path / "c.tif", image.convert("CMYK"))), rgb)
    assert read_image(saved(tmp_path / "b.png", image.convert("1"))).shape == (4, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "e.png", Image.fromarray(RAMP), exif=exif)
    turned = {
        1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.T, 6: np.rot90(RAMP, -1),
        7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP, 1),
    }[orientation]  # fmt: skip
    assert np.array_equal(read_image(path)[..., 0], turned)
    assert np.array_equal(read_ids(path), turned)
    assert image_size(path) == turned.shape


def test_ids_are_never_luminance(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 10], [11, 3, 2]], np.uint8)
    write_mask(tmp_path / "m.png", ids, CAMVID11)
    assert np.array_equal(read_ids(tmp_path / "m.png"), ids)
    assert Image.open(tmp_path / "m.png").mode == "P"
    assert tuple(read_colours(tmp_path / "m.png")[0, 1]) == CAMVID11.colours[1]


def test_many_classes_stay_16_bit(tmp_path: Path) -> None:
    labels = LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=65535)
    ids = np.array([[0, 299], [256, 65535]])
    write_mask(tmp_path / "m.png", ids, labels)
    assert np.array_equal(read_ids(tmp_path / "m.png"), ids)


def test_colour_mask_must_be_declared(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", Image.new("RGB", (3, 3)))
    with pytest.raises(DataError, match="declare `decode: rgb`"):
        read_ids(path)


def test_hostile_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    saved(tmp_path / "moving.gif", Image.new("L", (4, 4)), save_all=True, append_images=[Image.new("L", (4, 4), 200)])
    for name, message in {
        "none.png": "no such file", "empty.png": "an empty file", "text.jpg": "not a picture", "cut.jpg": "truncated",
        "moving.gif": "animated",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=message) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    path = saved(tmp_path / "bomb.png", Image.new("1", (side, side)))
    for read in (read_image, image_size, read_ids):
        with pytest.raises(DataError, match="cut it into tiles"):
            read(path)
