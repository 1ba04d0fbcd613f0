from pathlib import Path

import numpy as np
import pytest
import torch

from seenet.core.errors import DataError
from seenet.core.labels import LabelSet, voc_colours
from seenet.core.recipe_files import parse_recipe
from seenet.data.shapes import SHAPES
from seenet.model.segmenter import Normalization
from seenet.report.gallery import (
    GalleryRow,
    class_shares,
    data_page,
    denormalized,
    striped,
    write_gallery,
)
from seenet.report.html import photograph, png, shrunk
from tests.report.pages import Page, decode

LABELS = LabelSet("toy", ("<b>sky</b>", "road"), voc_colours(2))


@pytest.mark.parametrize("colours", [2, 256, 5000])
def test_png_is_lossless_with_any_number_of_colours(colours: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (colours, 3), np.uint8)[rng.integers(0, colours, (70, 90))]
    assert np.array_equal(decode(png(image)), image)


def test_large_images_are_shrunk_and_ids_subsampled() -> None:
    assert decode(photograph(np.zeros((500, 4000, 3), np.uint8))).shape == (120, 960, 3)
    ids = np.arange(3 * 2000).reshape(3, 2000) % 7
    assert np.array_equal(shrunk(ids), ids[::3, ::3])
    assert shrunk(ids[:, :960]).shape == (3, 960)


def test_shares_are_of_all_pixels_largest_first_ignored_last() -> None:
    mask = np.array([[0, 1, 1, 255], [255, 255, 255, 9]], np.uint8)
    shares = [(name, share) for name, _, share in class_shares(mask, LABELS)]
    assert shares == [("road", "25.0 %"), ("<b>sky</b>", "12.5 %"), ("ignored", "50.0 %")]


def test_stripes_are_on_ignored_pixels_only() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:] = 255
    image = np.full((20, 30, 3), 7, np.uint8)
    out = striped(image, mask, LABELS)
    assert (out[:5] == 7).all() and set(np.unique(out[5:])) == {184, 255} and (image == 7).all()


def test_denormalized_undoes_the_normalisation() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    pixels = torch.from_numpy((image / 255 - mean) / std).permute(2, 0, 1)
    assert np.array_equal(denormalized(pixels.float(), Normalization(mean, std)), image)


def test_gallery_escapes_names(tmp_path: Path) -> None:
    image, mask = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8)
    rows = (
        GalleryRow(f'"><script>{k}\udcff', [("image", image), ("<overlay>", image)], mask)
        for k in range(3)
    )
    path = tmp_path / "new" / "page.html"
    write_gallery(path, "T & <t>", "intro <i>", rows, LABELS)
    found = Page(path.read_text(encoding="utf-8"))
    assert len(found.images) == 6 and not {"script", "i"} & set(found.tags)
    assert {"T & <t>", '"><script>2?', "<b>sky</b> 100.0 %"} <= set(found.texts)
    assert found.images[0]["alt"] == 'image: "><script>0?'


def test_data_page_shows_what_training_sees(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "seenet")
    recipe = parse_recipe(
        "data: {kind: shapes, size: 48, count: 30}\n"
        "model: {backbone: resnet18, weights: imagenet}\n"
        "transforms: {crop: [56, 64], scale: [1, 1], flip: 0}\ntraining: {steps: 1, batch: 1}\n",
        "test",
        [],
    )
    path = data_page(recipe, tmp_path, count=3)
    assert path == tmp_path / "index.html"
    found = Page(path.read_text(encoding="utf-8"))
    assert len(found.images) == 18 and "3 of 30 images of shapes/train" in found.text
    sample, label = (decode(found.images[place]["src"]) for place in (2, 3))
    assert label.shape == (56, 64, 3)
    # Padding is on the right and below: stripes, and the mean colour of the backbone.
    assert label[52:, :].min() > 150 and label[:, 52:].min() > 150
    mean = np.array([0.485, 0.456, 0.406]) * 255
    assert sample[52:].reshape(-1, 3).mean(0) == pytest.approx(mean, abs=6)
    assert all(name in found.text for name in SHAPES.classes)
    # The page needs no weights, so the log does not mention them.
    assert "weights" not in caplog.text
    with pytest.raises(DataError, match=r"index\.html.*--overwrite"):
        data_page(recipe, tmp_path, count=1)
    data_page(recipe, tmp_path, count=1, overwrite=True)
    assert len(Page(path.read_text(encoding="utf-8")).images) == 6
