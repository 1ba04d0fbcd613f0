import io

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.data.shapes import SHAPES
from seenet.experiments.drawing import (
    Panel,
    check_png,
    class_legend,
    in_colours,
    model_names,
    panel_grid,
    shown_size,
    value_range,
    write_figure,
)

GREY = np.full((30, 40, 3), 128, np.uint8)


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return image.size


def test_panels_stand_in_a_grid():
    one = size(panel_grid([[Panel(GREY)]], ""))
    assert size(panel_grid([[Panel(GREY), Panel(GREY)]], ""))[0] == pytest.approx(2 * one[0], rel=0.05)
    assert size(panel_grid([[Panel(GREY)], [Panel(GREY), None]], ""))[1] > 1.8 * one[1]
    assert size(panel_grid([[Panel(GREY, "title", "note", "side")]], "words", class_legend([np.arange(6)], SHAPES)))[1] > one[1]


def test_the_same_panels_are_the_same_bytes():
    assert panel_grid([[Panel(GREY, "a")]], "b") == panel_grid([[Panel(GREY, "a")]], "b")


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_strips_and_single_pixels_still_give_a_figure(shape):
    width, height = size(panel_grid([[Panel(np.zeros(shape), "map", "0 to 0"), Panel(np.zeros((*shape, 3), np.uint8))]], ""))
    assert 50 < height < 1500
    assert 500 < width < 1500


def test_a_dollar_in_a_name_is_no_formula():
    panel_grid([[Panel(GREY, "price$", "100 $ or \\frac{$", "$")]], "caption of $\\nothing$")


def test_a_map_is_drawn_from_its_least_to_its_greatest_value():
    picture = in_colours(np.array([[-5.0, 0.0], [2.5, 10.0]]))
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [68, 1, 84]  # viridis's ends
    assert picture[1, 1].tolist() == [253, 231, 36]
    assert (in_colours(np.full((2, 2), 3.0)) == [68, 1, 84]).all()
    assert value_range(np.array([0.0123456, 12.3456])) == "0.0123 to 12.3"


def test_a_map_is_drawn_no_larger_than_a_panel_can_show():
    assert shown_size(360, 480) == (360, 480)
    assert shown_size(3000, 4000) == (720, 960)
    assert shown_size(1, 10**6) == (1, 960)


def test_the_legend_names_the_classes_that_are_there():
    masks = [np.array([[5, 1]], np.uint8), np.array([[1, 255, 77]], np.uint8)]
    keys = class_legend(masks, SHAPES)
    assert [key.get_label() for key in keys] == ["disc", "pole", "ignored"]
    assert [round(255 * part) for part in keys[0].get_facecolor()[:3]] == list(SHAPES.colours[1])


def test_models_are_called_by_run_or_file_unless_two_are_the_same(tmp_path):
    files = [tmp_path / "runs/a/model.safetensors", tmp_path / "b.safetensors"]
    assert model_names(files, ["x", "y"]) == ["a", "b"]
    assert model_names([*files, tmp_path / "other/a/model.safetensors"], ["x", "y", "z"]) == ["x", "b", "z"]


def test_a_figure_is_a_png_that_replaces_nothing_unasked(tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"taken\.png: exists already; use --overwrite"):
        check_png(taken, overwrite=False)
    check_png(taken, overwrite=True)
    assert taken.read_bytes() == b"mine"
    with pytest.raises(UsageError, match=r"ends in \.png"):
        check_png(tmp_path / "a.jpg", overwrite=True)


def test_a_disk_that_does_not_take_it_is_one_line(tmp_path, monkeypatch):
    from seenet.experiments import drawing

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawing, "replacing", full)
    with pytest.raises(DataError, match="No space left"):
        write_figure(tmp_path / "a.png", b"")
