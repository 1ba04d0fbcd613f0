"""Large and georeferenced TIFFs, by windows, and their masks."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, PartialError
from seenet.core.images import read_image
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.prediction import raster
from seenet.prediction.batch import predict_files
from tests.core.tiffs import Page, long, tiff_of
from tests.prediction.doubles import LABELS, red_predictor
from tests.prediction.geotiffs import expected, noise, rasterio, write


def test_what_is_large_goes_by_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.moveaxis(noise(3, 50, 40), 0, 2)
    Image.fromarray(image).save(tmp_path / "plain.tif")
    assert not raster.by_windows(tmp_path / "plain.tif")
    monkeypatch.setattr(raster, "LARGE", 1000)
    assert raster.by_windows(tmp_path / "plain.tif")
    predict_files(red_predictor(), [tmp_path / "plain.tif"], tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/plain.tif")), expected(image[:, :, 0]))


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (noise(1, 20, 30), {}),
        (noise(1, 20, 30), {"photometric": "MINISWHITE"}),
        (noise(1, 20, 30, np.uint16), {}),
        (noise(1, 20, 30, np.uint16), {"photometric": "MINISWHITE"}),
        (noise(1, 20, 30, np.uint16) >> 4, {"nbits": 12}),
        *[(noise(1, 20, 30) >> 8 - bits, {"nbits": bits}) for bits in (1, 2, 4)],
        *[(noise(1, 20, 30) >> 8 - bits, {"nbits": bits, "photometric": "MINISWHITE"}) for bits in (1, 2, 4)],
        (noise(2, 20, 30), {}),
        (noise(3, 20, 30), {}),
        (noise(4, 20, 30), {}),
        (noise(3, 20, 30), {"interleave": "band", "tiled": True, "blockxsize": 16, "blockysize": 16}),
        (noise(4, 20, 30), {"photometric": "CMYK"}),
    ],
)
def test_windows_are_what_the_one_decoder_reads(tmp_path: Path, values: np.ndarray, options: dict[str, Any]) -> None:
    write(tmp_path / "field.tif", values, **options)
    whole = read_image(tmp_path / "field.tif").astype(int)
    assert raster.by_windows(tmp_path / "field.tif") and whole.std() > 20
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        # GDAL and Pillow round colours of CMYK each in its own way.
        assert abs(picture[2:9, 5:40] - whole[2:9, 5:40]).max() <= (options.get("photometric") == "CMYK")
        assert np.array_equal(picture[:, ::-1][2:9, 5:25], picture[0:20, 0:30][:, ::-1][2:9, 5:25])
        assert picture[0:5, 0:5].shape == (5, 5, 3)


@pytest.mark.parametrize(("values", "kind"), [(noise(3, 20, 30), "CIELAB"), (noise(4, 20, 30, np.uint16), "CMYK")])
def test_colours_that_are_not_read_by_windows(tmp_path: Path, values: np.ndarray, kind: str) -> None:
    write(tmp_path / "field.tif", values, photometric=kind)
    report = predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert "not read by windows; convert it to RGB" in report.failed[0][1]


def test_bands_that_say_nothing_of_colours(tmp_path: Path) -> None:
    """Of a satellite's the first three need not be red, green and blue."""
    write(tmp_path / "field.tif", noise(5, 20, 30))
    report = predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert "a TIFF that is truncated, or of bands, bits or a compression that are not read" in report.failed[0][1]


def test_palettes_and_copies_for_the_web(tmp_path: Path) -> None:
    write(tmp_path / "field.tif", np.tile(np.array([[[0, 1]]], np.uint8), (1, 100, 100)))
    with rasterio.open(tmp_path / "field.tif", "r+") as file:
        file.write_colormap(1, {0: (200, 1, 2), 1: (10, 3, 4)})
        file.build_overviews([2, 4])
    assert raster.by_windows(tmp_path / "field.tif")
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        assert picture[0:1, 0:2].tolist() == [[[200, 1, 2], [10, 3, 4]]]


def with_copies(path: Path, pixels: np.ndarray, **options: Any) -> None:
    """A GeoTIFF with an internal mask, and smaller copies of both."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, pixels, tiled=True, blockxsize=16, blockysize=16, **options)
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.indices(pixels.shape[1:]).sum(0) > 9)
            file.build_overviews([2, 4])


THUMBNAIL, GEO = {254: long(1)}, {33550: (12, 3, np.array([0.5, 0.5, 0]).tobytes()), 33922: (12, 6, np.zeros(6).tobytes())}


@pytest.mark.parametrize("kind", ["copies", "deflated copies", "thumbnail before", "thumbnail behind"])
def test_one_picture_whoever_reads_it(tmp_path: Path, kind: str) -> None:
    """Smaller copies, masks and thumbnails are no pages: in `predict`, by windows or whole, from Python, and in training."""
    path, pixels = tmp_path / "images/field.tif", noise(3, 40, 50)
    path.parent.mkdir()
    whole = np.moveaxis(pixels, 0, 2)
    pages = [Page(whole, GEO), Page(np.ascontiguousarray(whole[::2, ::2]), THUMBNAIL)]
    if "copies" in kind:
        with_copies(path, pixels, **({"compress": "deflate"} if "deflated" in kind else {}))
    else:
        path.write_bytes(tiff_of(*(pages if kind.endswith("behind") else pages[::-1])))
    assert raster.by_windows(path)
    with raster.opened_raster(path) as picture:
        assert np.array_equal(picture[0:40, 0:50], whole)
    assert np.array_equal(read_image(path), whole)
    assert np.array_equal(red_predictor()(path).image, whole)
    assert predict_files(red_predictor(), [path], tmp_path / "out").written == 1
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/field.tif")), expected(pixels[0]))
    (tmp_path / "masks").mkdir()
    Image.fromarray(expected(pixels[0]).astype(np.uint8)).save(tmp_path / "masks/field.png")
    (tmp_path / "all.txt").write_text("field\n")
    (tmp_path / "seenet.yaml").write_text("decode: index\ntrain: all.txt\nval: all.txt\nclasses: [sky, road, tree]\n")
    split = open_split(DataSettings(kind="folder", root=tmp_path), "train")
    assert np.array_equal(split.read(0)[0], whole)


def test_several_pages_are_refused_whoever_reads_them(tmp_path: Path) -> None:
    whole = np.moveaxis(noise(3, 40, 50), 0, 2)
    path = tmp_path / "pages.tif"
    path.write_bytes(tiff_of(Page(whole, GEO), Page(whole, GEO)))
    assert not raster.by_windows(path)
    for read in (read_image, red_predictor(), lambda path: raster.opened_raster(path).__enter__()):
        with pytest.raises(DataError) as caught:
            read(path)
        assert caught.value.kind == "animated"
    report = predict_files(red_predictor(), [path], tmp_path / "out")
    assert "several pages" in report.failed[0][1]


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.int8, np.uint32])
def test_values_without_a_scale_are_refused_with_one_message(tmp_path: Path, dtype: type) -> None:
    values = np.linspace(-3 if np.dtype(dtype).kind != "u" else 0, 104, 20 * 30).reshape(1, 20, 30).astype(dtype)
    write(tmp_path / "field.tif", values)
    assert raster.by_windows(tmp_path / "field.tif")
    said = []
    for read in (read_image, red_predictor(), lambda path: raster.opened_raster(path).__enter__()):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "field.tif")
        said.append(str(caught.value))
    assert len(set(said)) == 1
    assert f"{np.dtype(dtype)} values from {values.min():.7g} to {values.max():.7g}, expected 8 or 16 bits" in said[0]
    report = predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert report.failed[0][1] == said[0]


def test_floats_that_are_no_numbers(tmp_path: Path) -> None:
    values = np.full((1, 20, 30), np.nan, np.float32)
    write(tmp_path / "none.tif", values)
    values[0, 3, 4:6] = 2, -np.inf
    write(tmp_path / "one.tif", values)
    for name, found in (("none.tif", "none of them finite"), ("one.tif", "from 2 to 2")):
        with pytest.raises(DataError, match=found), raster.opened_raster(tmp_path / name):
            pass


@pytest.mark.parametrize(
    ("bands", "dtype", "interleave", "compress"),
    [
        (2, np.uint8, "pixel", None),
        (2, np.uint8, "pixel", "deflate"),
        (4, np.uint8, "pixel", None),
        (4, np.uint8, "pixel", "deflate"),
        (4, np.uint16, "pixel", None),
        (4, np.uint16, "pixel", "deflate"),
        (4, np.uint8, "band", "deflate"),
        (4, np.uint16, "band", "deflate"),
    ],
)
def test_colours_multiplied_by_alpha(tmp_path: Path, bands: int, dtype: type, interleave: str, compress: str | None) -> None:
    values = noise(bands, 20, 30, dtype)
    values[-1, :5] = 0
    values[-1, 5:9] = np.iinfo(dtype).max
    options: dict[str, Any] = {"compress": compress} if compress else {}
    options |= {"photometric": "RGB"} if bands == 4 else {}
    write(tmp_path / "field.tif", values, alpha="PREMULTIPLIED", interleave=interleave, **options)
    whole = read_image(tmp_path / "field.tif")
    with raster.opened_raster(tmp_path / "field.tif") as picture:
        assert np.array_equal(picture[2:19, 3:25], whole[2:19, 3:25])
        assert np.array_equal(picture[:, ::-1][0:9, 0:30], whole[0:9, ::-1])
        assert picture.reduced(5, 6).shape == (5, 6, 3)


@pytest.mark.parametrize(
    ("bands", "dtype", "options"),
    [
        (3, np.uint16, {}),
        (3, np.uint16, {"tiled": True, "blockxsize": 16, "blockysize": 16}),
        (4, np.uint16, {"photometric": "RGB"}),
        (2, np.uint8, {"alpha": "NON-PREMULTIPLIED"}),
        (4, np.uint8, {"photometric": "RGB", "alpha": "PREMULTIPLIED"}),
        (2, np.uint8, {"alpha": "PREMULTIPLIED"}),
        (2, np.uint8, {"alpha": "PREMULTIPLIED", "compress": "deflate"}),
    ],
)
def test_bands_one_behind_the_other_that_pillow_mistakes(tmp_path: Path, bands: int, dtype: type, options: dict[str, Any]) -> None:
    """It reads something else from them in silence."""
    write(tmp_path / "field.tif", noise(bands, 20, 30, dtype), interleave="band", **options)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "field.tif")
    assert caught.value.kind == "format"
    assert predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out").failed[0][1] == str(caught.value)


@pytest.mark.parametrize(("bands", "dtype"), [(3, np.uint8), (3, np.uint16), (4, np.uint16)])
def test_bands_one_behind_the_other_are_those_of_each_pixel(tmp_path: Path, bands: int, dtype: type) -> None:
    options: dict[str, Any] = {"photometric": "RGB", **({"compress": "deflate"} if dtype == np.uint16 else {})}
    for interleave in ("band", "pixel"):
        write(tmp_path / f"{interleave}.tif", noise(bands, 20, 30, dtype), interleave=interleave, **options)
    assert np.array_equal(read_image(tmp_path / "band.tif"), read_image(tmp_path / "pixel.tif"))


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    # A small one is read whole, without its place.
    assert predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "small").written == 1
    assert (tmp_path / "small/masks/field.png").is_file()
    monkeypatch.setattr(raster, "LARGE", 1000)
    report = predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    assert "pip install 'seenet[geo]'" in report.failed[0][1]


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    monkeypatch.setattr(raster, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match="1600 pixels, expected at most 1000"), raster.opened_raster(tmp_path / "field.tif"):
        pass


@pytest.mark.parametrize("flip", [False, True])
def test_the_mask_is_a_geotiff_in_the_same_place(tmp_path: Path, flip: bool) -> None:
    values = write(tmp_path / "field.tif", noise(3, 300, 170), tiled=True, blockxsize=64, blockysize=64)
    report = predict_files(red_predictor(flip=flip), [tmp_path / "field.tif"], tmp_path / "out")
    assert (report.written, report.failed) == (1, [])
    with rasterio.open(tmp_path / "out/masks/field.tif") as mask, rasterio.open(tmp_path / "field.tif") as source:
        assert (mask.crs, mask.transform, mask.shape) == (source.crs, source.transform, source.shape)
        assert np.array_equal(mask.read(1), expected(values[0]))
        assert mask.colormap(1)[1][:3] == LABELS.colours[1]
    with Image.open(tmp_path / "out/overlays/field.jpg") as overlay:
        assert overlay.size == (170, 300)
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"field.tif", "field.jpg", "manifest.json"}
    assert predict_files(red_predictor(flip=flip), [tmp_path / "field.tif"], tmp_path / "out").skipped == 1


def test_overlays_of_large_ones_are_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "OVERLAY_SIDE", 100)
    write(tmp_path / "field.tif", np.repeat(np.linspace(0, 255, 250).astype(np.uint8)[None, :, None], 3, 0).repeat(130, 2))
    predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    overlay = read_image(tmp_path / "out/overlays/field.jpg")
    assert overlay.shape == (84, 44, 3)
    # Half grey, half the class's colour, which changes at a third and two thirds.
    for row, grey, colour in ((5, 15, LABELS.colours[0]), (42, 128, LABELS.colours[1]), (79, 240, LABELS.colours[2])):
        assert np.abs(overlay[row, 20].astype(int) - (grey + np.array(colour)) // 2).max() < 12


def test_what_cannot_be_read_is_one_line_and_the_rest_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "fields"
    folder.mkdir()
    write(folder / "a.tif", noise(3, 40, 40))
    write(folder / "float.tif", np.zeros((3, 40, 40), np.float32))
    write(folder / "cut.tif", noise(3, 400, 400))
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:100_000])
    report = predict_files(red_predictor(), [folder], tmp_path / "out")
    assert report.written == 1
    messages = {path.name: message for path, message in report.failed}
    assert set(messages) == {"float.tif", "cut.tif"}
    assert all(len(message.splitlines()) == 1 and name in message for name, message in messages.items())
    with pytest.raises(PartialError):
        report.check()
    assert sorted(path.name for path in (tmp_path / "out/masks").iterdir()) == ["a.tif"]


def test_probabilities_are_not_written(tmp_path: Path) -> None:
    write(tmp_path / "field.tif", noise(3, 40, 40))
    report = predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out", probabilities=True)
    assert "leave --probabilities out" in report.failed[0][1]


def test_no_block_is_written_twice(tmp_path: Path) -> None:
    """What is written again goes to the file's end, and what was there is left as a hole."""
    write(tmp_path / "field.tif", noise(3, 600, 900))
    predict_files(red_predictor(), [tmp_path / "field.tif"], tmp_path / "out")
    mask = tmp_path / "out/masks/field.tif"
    with rasterio.open(mask) as file:
        write(tmp_path / "once.tif", file.read(), compress="deflate", tiled=True, blockxsize=256, blockysize=256)
    assert mask.stat().st_size < 1.1 * (tmp_path / "once.tif").stat().st_size
