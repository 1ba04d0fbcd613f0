"""`seenet submit check`: archives of other tools, correct and wrong ones."""

import gzip
import io
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import CheckError, DataError
from seenet.data.voc import VOC21
from seenet.submit import check
from seenet.submit.archive import write_archive
from seenet.submit.check import check_submission, read_archive

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
SIZES = {"2008_000001": (6, 9), "2008_000002": (7, 9)}
FRAME = "ulm_000000_000019"


def encode(ids: np.ndarray, mode: str = "P", kind: str = "PNG", **options: object) -> bytes:
    image = Image.fromarray(ids.astype(np.uint8))
    if mode == "P":
        image.putpalette(VOC21.palette().tobytes())
    stream = io.BytesIO()
    (image if mode == "P" else image.convert(mode)).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


GOOD = {
    f"{FOLDER}/{name}.png": encode(np.random.default_rng(0).integers(0, 21, size))
    for name, size in SIZES.items()
}
FIRST, SECOND = GOOD


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, (height, width) in SIZES.items():
        Image.new("RGB", (width, height)).save(tmp_path / "pictures" / f"{name}.jpg")
    return tmp_path / "pictures"


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """Write as other tools do: with folders, times and owners."""
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("./results")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), time.time(), "somebody"  # type: ignore[assignment]
            archive.addfile(member, io.BytesIO(content))
    return path


def refused(path: Path, pictures: Path | None, message: str) -> None:
    with pytest.raises(CheckError, match=message) as caught:
        check_submission(path, pictures)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_an_archive_of_another_tool(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_tar(tmp_path / name, {f"./{name}": content for name, content in GOOD.items()})
    assert check_submission(path, pictures).count == 2
    refused(path, None, "2 masks, expected 1456, one for each picture of voc's test set")
    monkeypatch.setattr(check, "VOC", replace(check.VOC, test_count=2))
    assert not check_submission(path).against_pictures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({SECOND: None}, r"no mask of 2008_000002 \(1 of 2"),
        ({f"{FOLDER}/2008_000003.png": GOOD[FIRST]}, r"2008_000003\.png: none of the 2 pictures"),
        ({f"{FOLDER}/readme.txt": b"hello"}, r"readme\.txt: not a name that voc takes"),
        ({f"/{FIRST}": GOOD[FIRST]}, "not a name that voc takes"),
        ({FIRST.replace("comp6", "comp5"): GOOD[FIRST], FIRST: None}, "lies beside"),
        ({"2008_000001.png": GOOD[FIRST], FIRST: None}, "not a name .* expected results/VOC2012"),
        ({FIRST: encode(np.zeros((9, 6)))}, "9 x 6 pixels, expected 6 x 9, its picture's size"),
        ({FIRST: encode(np.full((6, 9), 21))}, "values 21, expected 0 to 20 alone"),
        ({FIRST: encode(np.full((6, 9), 255))}, "values 255, .*255 is no answer"),
        ({FIRST: encode(np.zeros((6, 9)), "L")}, "mode L, expected P"),
        ({FIRST: encode(np.zeros((6, 9)), "RGB")}, "mode RGB, expected P"),
        ({FIRST: encode(np.zeros((6, 9)), "L", "JPEG")}, "of kind JPEG, expected PNG"),
        ({FIRST: b""}, "an empty file"),
        ({FIRST: b"text"}, "not a picture"),
        ({FIRST: GOOD[FIRST][:-20]}, "cannot be decoded"),
    ],
)
def test_a_wrong_file_is_named(
    tmp_path: Path, pictures: Path, change: dict[str, bytes | None], message: str
) -> None:
    files = {name: content for name, content in {**GOOD, **change}.items() if content is not None}
    refused(write_tar(tmp_path / "a.tar.gz", files), pictures, message)


SEVEN = np.full((1024, 2048), 7)
TRAIN_IDS = np.arange(2048) % 19 + np.zeros((1024, 1))


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        ([f"results/ulm/{FRAME}_pred.png"], SEVEN, ""),
        ([f"{FRAME}.png"], SEVEN, ""),
        ([f"{FRAME}.png"], TRAIN_IDS, "values 0, 1, .*looks like trainIds.*: seenet submit city"),
        ([f"{FRAME}.png"], SEVEN * 0 + 255, "255 is no answer"),
        ([f"{FRAME}.png"], SEVEN[:128, :256], "128 x 256 pixels, expected 1024 x 2048"),
        ([f"{FRAME}.png", f"a/{FRAME}_b.png"], SEVEN, f"a second mask of {FRAME}"),
        ([f"{FRAME}1.png"], SEVEN, "not a name that cityscapes takes"),
        ([], SEVEN, f"no mask of {FRAME}"),
    ],
)
def test_names_and_values_of_cityscapes(
    tmp_path: Path, names: list[str], ids: np.ndarray, message: str
) -> None:
    path, pictures = tmp_path / "a.zip", tmp_path / "pictures"
    pictures.mkdir()
    Image.new("L", (2048, 1024)).save(pictures / f"{FRAME}_leftImg8bit.png")
    write_archive(path, ".zip", [(name, encode(ids, "L")) for name in names])
    if message:
        refused(path, pictures, message)
    else:
        assert check_submission(path, pictures).benchmark == "cityscapes"
        refused(path, None, "1 masks, expected 1525")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"no archive at all" * 99, mtime=0), "damaged"),
        (b"\x1f\x8b\x08", "damaged"),
        (b"PK\x03\x04" + bytes(99), "damaged"),
        (b"Rar!", "neither a .tar.gz nor a .zip"),
        (b"", "neither a .tar.gz nor a .zip"),
    ],
)
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", None, message)
    with pytest.raises(DataError, match="No such file"):
        check_submission(tmp_path / "none.zip")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_damage_is_refused(tmp_path: Path, suffix: str) -> None:
    path, files = tmp_path / f"a{suffix}", list(GOOD.items())
    write_archive(path, suffix, files)
    assert list(read_archive(path, suffix)) == files
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    random = np.random.default_rng(0)
    cut = [whole[:end] for end in random.integers(4, len(whole), 20).tolist()]
    for content in (bytes(flipped), *cut):
        path.write_bytes(content)
        with pytest.raises(CheckError):
            list(read_archive(path, suffix))
