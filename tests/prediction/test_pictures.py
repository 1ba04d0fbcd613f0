"""Pictures that a predictor takes from Python and a command from the shell, and refusals."""

import io
import itertools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, SeenetError, UsageError
from seenet.prediction.pictures import EXPECTED, find_inputs, find_pictures
from seenet.prediction.predictor import Predictor
from tests.prediction.doubles import LABELS, RedNet, draw, picture

COLOURS = picture(6, 9)


@pytest.fixture(scope="module")
def net() -> Predictor:
    return Predictor(RedNet(), LABELS, device="cpu")


@pytest.fixture
def street(tmp_path: Path) -> Path:
    draw(tmp_path / "street.png")
    return tmp_path / "street.png"


def in_zip(path: Path) -> Any:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.write(path, "inner.png")
    return zipfile.ZipFile(path.with_suffix(".zip")).open("inner.png")


@pytest.mark.parametrize(
    ("name", "give"),
    [
        ("street", str),
        ("street", Path),
        ("image", Path.read_bytes),
        ("image", lambda path: bytearray(path.read_bytes())),
        ("image", lambda path: memoryview(path.read_bytes())),
        ("street", lambda path: path.open("rb")),
        ("image", lambda path: io.BytesIO(path.read_bytes())),
        # A stream that cannot be rewound.
        ("image", lambda path: SimpleNamespace(read=path.read_bytes)),
        ("inner", in_zip),
        ("image", Image.open),
        ("image", lambda _: Image.fromarray(COLOURS)),
        ("image", lambda _: COLOURS),
        ("image", lambda _: np.asfortranarray(COLOURS)),
        ("image", lambda _: np.ascontiguousarray(COLOURS[:, ::-1])[:, ::-1]),
    ],
)
def test_a_picture_in_any_form(
    net: Predictor, street: Path, name: str, give: Callable[[Path], Any]
) -> None:
    given = give(street)
    for _ in range(2):  # an open file is read from its start again
        result = net(given)
        assert (result.name, np.array_equal(result.image, COLOURS)) == (name, True)
    if hasattr(given, "close"):
        given.close()


def test_grey_arrays_become_rgb(net: Predictor) -> None:
    assert np.array_equal(net(COLOURS[..., 0]).image, np.repeat(COLOURS[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    "kind", [list, tuple, iter, lambda items: (item for item in items), itertools.chain]
)
def test_several_pictures(net: Predictor, street: Path, kind: Callable[[list[Any]], Any]) -> None:
    results = net(kind([COLOURS, street, street.read_bytes()]))
    assert [result.name for result in results] == ["image-1", "street", "image-3"]
    assert all(np.array_equal(result.image, COLOURS) for result in results)
    assert net(kind([])) == []


def closed(stream: io.BytesIO) -> io.BytesIO:
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *((given, EXPECTED) for given in (None, 7, 1.5, True, {"a.png"}, object(), [["a.png"]])),
        *((given, EXPECTED) for given in (range, b"".join)),
        (io.StringIO("text"), "open it with 'rb'"),
        (closed(io.BytesIO(b"P6")), "closed"),
        ("http://a.org/a.jpg", "not fetched"),
        ("s3://bucket/a.png", "not fetched"),
        ("file:///a.png", "not fetched"),
    ],
)
def test_what_is_no_picture_is_refused(net: Predictor, given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        net(given)


@pytest.mark.parametrize(
    ("give", "kind"),
    [
        (lambda path: b"", "empty"),
        (lambda path: io.BytesIO(), "empty"),
        (lambda path: b"hello", "format"),
        (Path.read_bytes, "damaged"),
        (lambda path: io.BytesIO(path.read_bytes()), "damaged"),
        (Image.open, "damaged"),
    ],
)
def test_unreadable_content_is_a_data_error(
    net: Predictor, street: Path, give: Callable[[Path], Any], kind: str
) -> None:
    draw(street, size=(60, 60))
    street.write_bytes(street.read_bytes()[:2000])
    with pytest.raises(DataError) as caught:
        net(give(street))
    assert caught.value.kind == kind


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP"])
def test_closed_images_are_refused_unless_they_have_their_pixels(
    net: Predictor, tmp_path: Path, form: str
) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a", form)
    with Image.open(tmp_path / "a") as loaded, Image.open(tmp_path / "a") as unread:
        loaded.load()
    assert net(loaded).mask.shape == (6, 9)
    closed = Image.open(tmp_path / "a")
    closed.load()
    closed.close()
    with (tmp_path / "a").open("rb") as stream:
        lost = Image.open(stream)
    for image in (unread, closed, lost):
        with pytest.raises(UsageError, match="closed"):
            net(image)


@pytest.mark.parametrize(
    "array",
    [
        COLOURS.astype(np.float32),
        COLOURS.astype(np.uint16),
        COLOURS[..., 0].astype(np.int32),
        COLOURS > 99,
        COLOURS[None],
        np.zeros((6, 9, 4), np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        np.zeros((0, 9), np.uint8),
        np.zeros(9, np.uint8),
        np.array(7, np.uint8),
        np.array(["a.png"]),
        np.array([None]),
    ],
)
def test_other_arrays_are_refused(net: Predictor, array: np.ndarray) -> None:
    with pytest.raises(SeenetError, match="expected uint8 height x width x 3") as caught:
        net(array)
    assert f"{array.dtype} {'x'.join(map(str, array.shape))}" in str(caught.value)


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        (1.5, (1.5,)),
        (1, (1.0,)),
        (np.float32(0.5), (0.5,)),
        (np.array([0.5, 1.0]), (0.5, 1.0)),
        (iter([1, 2]), (1.0, 2.0)),
        *[(wrong, None) for wrong in ("1.5", None, (), 0, -1.0, 9, float("nan"), [1, None])],
        *[(wrong, None) for wrong in ([[1.0]], 17 * (1.0,), object())],
    ],
)
def test_scales(scales: Any, expected: tuple[float, ...] | None) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="expected 1 to 16 numbers"):
            Predictor(RedNet(), LABELS, device="cpu", scales=scales)
    else:
        scales = Predictor(RedNet(), LABELS, device="cpu", scales=scales).scales
        assert scales == expected and all(type(scale) is float for scale in scales)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


@pytest.mark.parametrize(
    ("files", "patterns", "expected"),
    [
        # Folders keep their subfolders; hidden files and others than pictures are skipped.
        (
            "in/b.jpg in/sub/a.PNG in/.git/x.jpg in/._b.jpg in/notes.txt in/sub/deep/c.jpeg",
            ["in"],
            {"in/b.jpg": "b", "in/sub/a.PNG": "sub/a", "in/sub/deep/c.jpeg": "sub/deep/c"},
        ),
        # Each file is found once.
        (
            "in/sub/a.jpg b.jpg",
            ["in/sub/a.jpg", "b.jpg", "./b.jpg", "{folder}/b.jpg"],
            {"in/sub/a.jpg": "a", "b.jpg": "b"},
        ),
        # A file that is named needs no known suffix, and may look like a pattern.
        ("frame.0001", ["frame.0001"], {"frame.0001": "frame"}),
        ("a[1].jpg a1.jpg", ["a[1].jpg"], {"a[1].jpg": "a[1]"}),
        # Patterns keep the subfolders from their first wildcard on.
        ("in/x/a.jpg in/y/a.jpg", ["in/*/a.jpg"], {"in/x/a.jpg": "x/a", "in/y/a.jpg": "y/a"}),
        ("in/y/z/b.png in/y/t.txt", ["in/**/*.png"], {"in/y/z/b.png": "y/z/b"}),
        ("in/y/a.jpg in/y/t.txt", ["in/y/*"], {"in/y/a.jpg": "a"}),
        # Clashing stems keep their suffix.
        *(
            (" ".join(expected), ["in"], expected)
            for expected in (
                {"in/a.jpg": "a.jpg", "in/a.png": "a.png", "in/b.jpg": "b"},
                {"in/x/a.jpg": "x/a", "in/y/a.jpg": "y/a"},
                {"in/a.jpg": "a.jpg", "in/a.png": "a.png", "in/a.jpg.png": "a.jpg.png"},
                {"in/a.b.jpg": "a.b", "in/a.c.jpg": "a.c"},
            )
        ),
        # Outputs are not inputs.
        (
            "a.jpg out/masks/a.png outside/b.jpg",
            ["."],
            {"a.jpg": "a", "outside/b.jpg": "outside/b"},
        ),
    ],
)
def test_inputs_and_their_names(
    folder: Path, files: str, patterns: list[str], expected: dict[str, str]
) -> None:
    touch(*files.split())
    found = find_inputs([pattern.format(folder=folder) for pattern in patterns], Path("out"))
    assert {item.path.as_posix(): item.name for item in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        (["nothing.jpg"], DataError, r"nothing\.jpg"),
        (["nowhere/"], DataError, "nowhere"),
        (["*.jpg"], DataError, r"\*\.jpg"),
        (["empty"], DataError, "empty"),
        (["out/masks"], DataError, "another --out"),
        (["x/a.jpg", "y/a.jpg"], UsageError, "a folder that holds both"),
    ],
)
def test_inputs_that_are_refused(
    folder: Path, patterns: list[str], error: type[Exception], message: str
) -> None:
    touch("x/a.jpg", "y/a.jpg", "out/masks/a.png")
    with pytest.raises(error, match=message):
        find_inputs(patterns, Path("out"))


def test_pictures_of_several_folders_may_have_the_same_name(folder: Path) -> None:
    touch("x/a.jpg", "y/a.jpg", "y/sub/b.png")
    found = find_pictures(["x", "y", "./x/a.jpg"], Path("out"))
    assert [path.as_posix() for path, _ in found] == ["x/a.jpg", "y/a.jpg", "y/sub/b.png"]
    assert [name for _, name in found] == ["a.jpg", "a.jpg", "sub/b.png"]
