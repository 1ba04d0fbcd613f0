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
    png = panel_grid([("", row) for row in rows], **{"caption": "", **options})
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.size


def test_panels_stand_in_a_grid():
    width, height = size_of([Panel(GREY)])
    assert size_of([Panel(GREY), Panel(GREY)])[0] == pytest.approx(2 * width, rel=0.05)
    assert size_of([Panel(GREY)], [Panel(GREY), None])[1] > 1.8 * height
    assert size_of([Panel(GREY)], legend=class_legend([np.arange(6)], SHAPES))[1] > height
    # A $ in a user's text is no formula.
    rows = [("$", [Panel(GREY, "price$", "100 $ or \\frac{$")])]
    one, same = (panel_grid(rows, "caption of $\\nothing$") for _ in range(2))
    assert one == same


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_strips_and_single_pixels_have_a_figure(shape):
    width, height = size_of([Panel(np.zeros(shape), "map"), Panel(np.zeros((*shape, 3), np.uint8))])
    assert 50 < height < 1500 and 500 < width < 1500


def test_a_map_is_drawn_from_its_least_to_its_greatest_value():
    low, high = [68, 1, 84], [253, 231, 36]  # the ends of viridis
    picture = in_colours(np.array([[-5.0, 0.0], [2.5, 10.0]]))
    assert picture.dtype == np.uint8 and picture[[0, 1], [0, 1]].tolist() == [low, high]
    assert (in_colours(np.full((2, 2), 3.0)) == low).all()
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
