import io

import numpy as np
import pytest
import torch
from PIL import Image

from seenet.data.shapes import SHAPES
from seenet.experiments.drawing import (
    Panel,
    class_legend,
    in_colours,
    map_panel,
    model_names,
    panel_grid,
    shown_size,
)

GREY = np.full((30, 40, 3), 128, np.uint8)


def size_of(*rows: list[Panel | None], **options: object) -> tuple[int, int]:
    with Image.open(io.BytesIO(panel_grid(rows, **{"caption": "", **options}))) as image:
        assert image.format == "PNG"
        return image.size


def test_panels_stand_in_a_grid():
    width, height = size_of([Panel(GREY)])
    assert size_of([Panel(GREY), Panel(GREY)])[0] == pytest.approx(2 * width, rel=0.05)
    assert size_of([Panel(GREY)], [Panel(GREY), None])[1] > 1.8 * height
    legend = class_legend([np.arange(6)], SHAPES)
    full = [Panel(GREY, "title", "note", "side")]
    assert size_of(full, caption="words", legend=legend)[1] > height
    assert panel_grid([full], "b", legend) == panel_grid([full], "b", legend)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_strips_and_single_pixels_have_a_figure(shape):
    width, height = size_of([Panel(np.zeros(shape), "map"), Panel(np.zeros((*shape, 3), np.uint8))])
    assert 50 < height < 1500
    assert 500 < width < 1500


def test_a_dollar_in_a_name_is_no_formula():
    size_of([Panel(GREY, "price$", "100 $ or \\frac{$", "$")], caption="caption of $\\nothing$")


def test_a_map_is_drawn_from_its_least_to_its_greatest_value():
    picture = in_colours(np.array([[-5.0, 0.0], [2.5, 10.0]]))
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [68, 1, 84]  # the ends of viridis
    assert picture[1, 1].tolist() == [253, 231, 36]
    assert (in_colours(np.full((2, 2), 3.0)) == [68, 1, 84]).all()
    panel = map_panel(np.array([[0.0123456, 12.3456]]), "map", torch.zeros(1, 3, 4, 5))
    assert panel.note == "0.0123 to 12.3 (3 channels, 4 x 5 points)"
    sizes = [shown_size(360, 480), shown_size(3000, 4000), shown_size(1, 10**6)]
    assert sizes == [(360, 480), (720, 960), (1, 960)]


def test_the_legend_names_the_classes_of_the_masks():
    masks = [np.array([[5, 1]], np.uint8), np.array([[1, 255, 77]], np.uint8)]
    keys = class_legend(masks, SHAPES)
    assert [key.get_label() for key in keys] == ["disc", "pole", "ignored"]
    assert [round(255 * part) for part in keys[0].get_facecolor()[:3]] == list(SHAPES.colours[1])


def test_models_are_named_by_run_or_file_unless_two_are_the_same(tmp_path):
    files = [tmp_path / "runs/a/model.safetensors", tmp_path / "b.safetensors"]
    assert model_names(files, ["x", "y"]) == ["a", "b"]
    files.append(tmp_path / "other/a/model.safetensors")
    assert model_names(files, ["x", "y", "z"]) == ["x", "b", "z"]
