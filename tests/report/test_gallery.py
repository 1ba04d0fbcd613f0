import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.recipe_files import parse_recipe
from seenet.data.shapes import SHAPES
from seenet.model.segmenter import Normalization
from seenet.report.gallery import GalleryRow, class_shares, data_page, restored, striped, write_gallery
from seenet.report.html import number, percent, photograph, png, shrunk
from tests.report.test_page import Page

LABELS = LabelSet("toy", ("<b>sky</b>", "road"), voc_colours(2))


def decoded(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB"))


def test_png_is_exact_with_few_colours_and_with_many() -> None:
    rng = np.random.default_rng(0)
    for colours in (2, 256, 5000):
        table = rng.integers(0, 256, (colours, 3), np.uint8)
        picture = table[rng.integers(0, colours, (70, 90))]
        assert (decoded(png(picture)) == picture).all()


def test_large_pictures_are_shrunk_and_ids_never_mixed() -> None:
    assert decoded(photograph(np.zeros((500, 4000, 3), np.uint8))).shape == (120, 960, 3)
    ids = np.arange(3 * 2000).reshape(3, 2000) % 7
    small = shrunk(ids)
    assert max(small.shape) <= 960 and set(np.unique(small)) <= set(range(7))
    assert shrunk(ids[:, :960]) is not None and shrunk(ids[:, :960]).shape == (3, 960)


def test_numbers_are_told_honestly() -> None:
    assert [percent(0.0), percent(0.12345), percent(1.0), percent(None), percent(None, "none")] == [
        "0.0 %",
        "12.3 %",
        "100.0 %",
        "absent",
        "none",
    ]
    assert number(1234567) == "1,234,567"


def test_shares_are_of_all_pixels_largest_first_ignored_last() -> None:
    mask = np.array([[0, 1, 1, 255], [255, 255, 255, 255]], np.uint8)
    shares = [(name, share) for name, _, share in class_shares(mask, LABELS)]
    assert shares == [("road", "25.0 %"), ("<b>sky</b>", "12.5 %"), ("ignored", "62.5 %")]


def test_stripes_touch_ignored_pixels_alone() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:] = 255
    picture = np.full((20, 30, 3), 7, np.uint8)
    out = striped(picture, mask, LABELS)
    assert (out[:5] == 7).all() and set(np.unique(out[5:])) == {184, 255} and (picture == 7).all()


def test_restored_undoes_the_normalisation() -> None:
    import torch

    normalization = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    pixels = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - torch.tensor(normalization.mean)[:, None, None]) / torch.tensor(
        normalization.std
    )[:, None, None]
    assert (restored(pixels.float(), normalization) == picture).all()


def test_gallery_escapes_names_and_takes_rows_one_at_a_time(tmp_path: Path) -> None:
    picture = np.zeros((8, 9, 3), np.uint8)
    mask = np.zeros((8, 9), np.uint8)
    rows = (GalleryRow(f'"><script>{k}\udcff', [("image", picture), ("<overlay>", picture)], mask) for k in range(3))
    write_gallery(tmp_path / "new" / "page.html", "T & <t>", "intro <i>", rows, LABELS)
    found = Page((tmp_path / "new" / "page.html").read_text(encoding="utf-8"))
    assert len(found.images) == 6 and "script" not in found.tags and "i" not in found.tags
    assert "T & <t>" in found.texts and '"><script>2?' in found.texts and "<b>sky</b> 100.0 %" in found.texts
    assert found.images[0]["alt"] == 'image: "><script>0?'


def test_data_page_shows_what_training_sees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "seenet")
    recipe = parse_recipe(
        "data: {kind: shapes, size: 48, count: 30}\nmodel: {backbone: resnet18, weights: imagenet}\n"
        "transforms: {crop: [56, 64], scale: [1, 1], flip: 0}\ntraining: {steps: 1, batch: 1}\n",
        "test",
        [],
    )
    path = data_page(recipe, tmp_path, count=3)
    assert path == tmp_path / "index.html"
    found = Page(path.read_text(encoding="utf-8"))
    assert len(found.images) == 18 and "3 of 30 pictures of shapes/train" in found.text
    labels = decoded(str(found.images[3]["src"]))
    assert labels.shape == (56, 64, 3)
    # Padding is right and below: stripes there, and the picture's mean colour.
    assert labels[52:, :].min() > 150 and labels[:, 52:].min() > 150
    seen = decoded(str(found.images[2]["src"]))
    assert abs(seen[52:].reshape(-1, 3).mean(0) - np.array([0.485, 0.456, 0.406]) * 255).max() < 6
    assert all(name in found.text for name in SHAPES.classes)
    assert re.search(r"background \d+\.\d %", found.text)
    # No weights are drawn or read for a page, so none are spoken of.
    assert "weights" not in caplog.text
    written = path.read_bytes()
    with pytest.raises(DataError, match=r"index\.html: exists already; use --overwrite"):
        data_page(recipe, tmp_path, count=1)
    assert path.read_bytes() == written
    data_page(recipe, tmp_path, count=1, overwrite=True)
    assert path.read_bytes() != written


@pytest.mark.parametrize("backbone", ["resnet81", "resnet18.bogus"])
def test_data_page_refuses_a_backbone_that_training_would(tmp_path: Path, backbone: str) -> None:
    text = f"data: {{kind: shapes}}\nmodel: {{backbone: {backbone}}}\ntransforms: {{crop: 40}}\ntraining: {{steps: 1, batch: 1}}\n"
    with pytest.raises(UsageError, match=rf"backbone {backbone}: .*nearest: resnet"):
        data_page(parse_recipe(text, "test", []), tmp_path)
