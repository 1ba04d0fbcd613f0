"""What a predictor takes from Python and a command from the shell, and what is said of anything else."""

import io
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, SeenetError, UsageError
from seenet.prediction.bundles.bundle import BundlePredictor, Card, Opened
from seenet.prediction.pictures import TAKEN, find_inputs, find_pictures, output_names
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import LABELS, RedNet

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net() -> Predictor:
    return Predictor(RedNet(), LABELS, device="cpu")


@pytest.fixture
def street(tmp_path: Path) -> Path:
    Image.fromarray(COLOURS).save(tmp_path / "street.png")
    return tmp_path / "street.png"


def test_every_way_to_give_a_picture(net: Predictor, street: Path) -> None:
    expected = net(COLOURS).mask
    assert len(np.unique(expected)) == 3
    content = street.read_bytes()
    with street.open("rb") as file, zipfile.ZipFile(io.BytesIO(), "w") as archive:
        archive.writestr("street.png", content)
        for given, name in (
            (str(street), "street"),
            (street, "street"),
            (os.fspath(street), "street"),
            (content, "image"),
            (bytearray(content), "image"),
            (memoryview(content), "image"),
            (file, "street"),
            (io.BytesIO(content), "image"),
            (Image.open(street), "image"),
            (Image.fromarray(COLOURS), "image"),
            (COLOURS, "image"),
            (np.asfortranarray(COLOURS), "image"),
            (np.ascontiguousarray(COLOURS[:, ::-1])[:, ::-1], "image"),
        ):
            result = net(given)
            assert (result.name, np.array_equal(result.mask, expected)) == (name, True), type(given)
        assert np.array_equal(net(file).mask, expected)  # read before, and read again from its start
    with zipfile.ZipFile(street.with_suffix(".zip"), "w") as archive:
        archive.writestr("inner.png", content)
    with zipfile.ZipFile(street.with_suffix(".zip")) as archive, archive.open("inner.png") as member:
        assert net(member).name == "inner"
    assert np.array_equal(net(COLOURS[..., 0]).image, np.repeat(COLOURS[..., :1], 3, axis=2))


def test_a_stream_that_cannot_go_back(net: Predictor, street: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, street.read_bytes())
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        result = net(stream)
    assert (result.name, result.mask.shape) == ("image", (6, 9))


def pictures(street: Path) -> Iterator[Any]:
    yield COLOURS
    yield street
    yield street.read_bytes()


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda items: (item for item in items), itertools.chain])
def test_several_pictures(net: Predictor, street: Path, kind: Callable[[list[Any]], Any]) -> None:
    results = net(kind(list(pictures(street))))
    assert [result.name for result in results] == ["image-1", "street", "image-3"]
    assert all(np.array_equal(result.image, COLOURS) for result in results)
    assert net(kind([])) == []


@pytest.mark.parametrize(
    "given", [None, 7, 1.5, True, {"a.png": 1}, {"a.png"}, object(), np.float32(1), [["a.png"]], range, io.StringIO("text"), b"".join]
)
def test_what_is_no_picture(net: Predictor, given: Any) -> None:
    with pytest.raises(UsageError) as caught:
        net(given)
    assert "\n" not in str(caught.value)
    assert TAKEN in str(caught.value) or "'rb'" in str(caught.value)


@pytest.mark.parametrize("address", ["http://example.org/a.jpg", "https://example.org/a.jpg", "s3://bucket/a.png", "file:///a.png"])
def test_addresses_are_not_fetched(net: Predictor, address: str) -> None:
    with pytest.raises(UsageError, match="not fetched"):
        net(address)


def test_files_that_cannot_be_read(net: Predictor, street: Path) -> None:
    with street.open("rb") as closed:
        pass
    with pytest.raises(UsageError, match="closed"):
        net(closed)
    with street.open(encoding="latin-1") as text, pytest.raises(UsageError, match="'rb'"):
        net(text)
    for content, kind in ((b"", "empty"), (b"hello", "format"), (street.read_bytes()[:60], "damaged")):
        with pytest.raises(DataError) as caught:
            net(content)
        assert caught.value.kind == kind
        with pytest.raises(DataError) as caught:
            net(io.BytesIO(content))
        assert caught.value.kind == kind


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("read", [False, True])
def test_images_that_are_closed(net: Predictor, tmp_path: Path, form: str, read: bool) -> None:
    """Pillow reads pixels when they are asked for."""
    Image.fromarray(COLOURS).save(tmp_path / "a", form)
    with Image.open(tmp_path / "a") as behind:
        if read:
            behind.load()
    if read:
        assert net(behind).mask.shape == (6, 9)  # it has its pixels
    else:
        with pytest.raises(UsageError, match="closed"):
            net(behind)
    image = Image.open(tmp_path / "a")
    if read:
        image.load()
    image.close()
    with pytest.raises(UsageError, match="closed"):
        net(image)
    with (tmp_path / "a").open("rb") as stream:
        lost = Image.open(stream)
    with pytest.raises(UsageError, match="closed"):
        net(lost)


def test_an_image_whose_file_is_damaged(net: Predictor, street: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(street)
    street.write_bytes(street.read_bytes()[:2000])
    with pytest.raises(DataError) as caught:
        net(Image.open(street))
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize(
    "array",
    [
        COLOURS.astype(np.float32), COLOURS / 255, COLOURS.astype(np.uint16), COLOURS[..., 0].astype(np.int32), COLOURS > 99,
        COLOURS[None], np.zeros((6, 9, 4), np.uint8), np.zeros((3, 6, 9), np.uint8), np.zeros((0, 9, 3), np.uint8),
        np.zeros((0, 9), np.uint8), np.zeros(9, np.uint8), np.array(7, np.uint8), np.array(["a.png"]), np.array([None]),
    ],
)  # fmt: skip
def test_other_arrays_are_one_error(net: Predictor, array: np.ndarray) -> None:
    with pytest.raises(SeenetError) as caught:
        net(array)
    assert f"{array.dtype} {'x'.join(map(str, array.shape))}" in str(caught.value)
    assert "expected uint8 height x width x 3" in str(caught.value)


def test_float_images_are_refused_as_their_files_are(net: Predictor, tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[-3.2, 1041]], np.float32))
    image.save(tmp_path / "a.tif")
    for given in (image, tmp_path / "a.tif", (tmp_path / "a.tif").read_bytes()):
        with pytest.raises(DataError, match=r"float32 values from -3\.2 to 1041, expected 8 or 16 bits"):
            net(given)


def of_bundle(scales: Any) -> BundlePredictor:
    card = Card(LABELS, (0, 0, 0), (1, 1, 1), "fp32", "0", "0" * 64)
    return BundlePredictor(Opened(card, "none 1", "fp32", lambda images: (images, images)), scales=scales)


@pytest.mark.parametrize("scales", [1.5, 1, np.float32(0.5), (1.5,), [0.5, 1], np.array([0.5, 1.0]), iter([1, 2])])
def test_scales(scales: Any) -> None:
    found = Predictor(RedNet(), LABELS, device="cpu", scales=scales).scales
    assert isinstance(found, tuple) and all(type(scale) is float for scale in found)
    assert found in {(1.5,), (1.0,), (0.5,), (0.5, 1.0), (1.0, 2.0)}


@pytest.mark.parametrize("scales", ["1.5", "12", None, (), 0, -1.0, 9, float("nan"), [1, None], [[1.0]], 17 * (1.0,), object()])
def test_scales_that_make_no_sense(scales: Any) -> None:
    for make in (lambda: Predictor(RedNet(), LABELS, device="cpu", scales=scales), lambda: of_bundle(scales)):
        with pytest.raises(UsageError, match="expected 1 to 16 numbers"):
            make()


def test_a_bundle_takes_a_bare_one() -> None:
    assert of_bundle(1).scales == (1.0,)
    with pytest.raises(UsageError, match=r"scales \[1\.5\]"):
        of_bundle(1.5)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(patterns, out="out"):
    return [(item.path.as_posix(), item.name) for item in find_inputs(patterns, Path(out))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_keep_their_subfolders_and_skip_what_is_hidden_or_no_picture(folder):
    touch(folder, "in/b.jpg", "in/sub/a.PNG", "in/.git/x.jpg", "in/._b.jpg", "in/notes.txt", "in/sub/deep/c.jpeg")
    assert names(["in"]) == [("in/b.jpg", "b"), ("in/sub/a.PNG", "sub/a"), ("in/sub/deep/c.jpeg", "sub/deep/c")]


def test_files_by_name_alone_and_each_once(folder):
    touch(folder, "in/sub/a.jpg", "b.jpg")
    assert names(["in/sub/a.jpg", "b.jpg", "./b.jpg", folder / "b.jpg"]) == [("in/sub/a.jpg", "a"), ("b.jpg", "b")]


def test_a_named_file_needs_no_known_suffix(folder):
    touch(folder, "frame.0001")
    assert names(["frame.0001"]) == [("frame.0001", "frame")]


def test_patterns_keep_subfolders_from_the_first_wildcard(folder):
    touch(folder, "in/x/a.jpg", "in/y/a.jpg", "in/y/z/b.png", "in/y/t.txt")
    assert names(["in/*/a.jpg"]) == [("in/x/a.jpg", "x/a"), ("in/y/a.jpg", "y/a")]
    assert names(["in/**/*.png"]) == [("in/y/z/b.png", "y/z/b")]
    assert names(["in/y/*"]) == [("in/y/a.jpg", "a")]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder):
    touch(folder, "a[1].jpg", "a1.jpg")
    assert names(["a[1].jpg"]) == [("a[1].jpg", "a[1]")]


def test_outputs_are_no_inputs(folder):
    touch(folder, "a.jpg", "out/masks/a.png", "outside/b.jpg")
    assert names(["."]) == [("a.jpg", "a"), ("outside/b.jpg", "outside/b")]
    with pytest.raises(DataError, match="another --out"):
        names(["out/masks"])


@pytest.mark.parametrize("pattern", ["nothing.jpg", "nowhere/", "*.jpg", "empty"])
def test_nothing_there_is_an_error(folder, pattern):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=pattern.rstrip("/").replace("*", r"\*")):
        names([pattern])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
    ],
)
def test_clashing_stems_keep_their_suffix(given, expected):
    assert output_names([(Path(name), name) for name in given]) == expected


def test_same_name_from_two_folders_is_refused(folder):
    touch(folder, "x/a.jpg", "y/a.jpg")
    with pytest.raises(UsageError, match="a folder that holds both"):
        names(["x/a.jpg", "y/a.jpg"])


def test_where_nothing_is_named_after_them_they_may_be_called_the_same(folder):
    touch(folder, "x/a.jpg", "y/a.jpg", "y/sub/b.png")
    expected = [("x/a.jpg", "a.jpg"), ("y/a.jpg", "a.jpg"), ("y/sub/b.png", "sub/b.png")]
    assert [(path.as_posix(), name) for path, name in find_pictures(["x", "y", "./x/a.jpg"], Path("out"))] == expected
