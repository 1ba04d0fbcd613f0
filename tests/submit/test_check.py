"""`seenet submit check`: archives of others, right and wrong ones."""

import gzip
import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
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


def png(ids: np.ndarray, mode: str = "P", **options: object) -> bytes:
    image = Image.fromarray(ids.astype(np.uint8))
    if mode == "P":
        image.putpalette(VOC21.palette().tobytes())
    elif mode != "L":
        image = image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


GOOD = {f"{FOLDER}/{name}.png": png(np.random.default_rng(0).integers(0, 21, size)) for name, size in SIZES.items()}
FIRST, SECOND = GOOD


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, size in SIZES.items():
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "pictures" / f"{name}.jpg")
    return tmp_path / "pictures"


def tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", **options: object) -> Path:
    """As other tools make them: with folders, times and owners."""
    with tarfile.open(path, mode, **options) as archive:  # type: ignore[call-overload]
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
    assert caught.value.exit_code == 6


def test_an_archive_of_another_tool(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.tar.gz", "b.tgz"):
        assert check_submission(tar(tmp_path / name, {f"./{name}": content for name, content in GOOD.items()}), pictures).count == 2
    refused(tmp_path / "a.tar.gz", None, "2 masks, expected 1456, one for each picture of voc's test set")
    monkeypatch.setattr(check, "VOC", replace(check.VOC, test_count=2))
    done = check_submission(tmp_path / "a.tar.gz")
    assert "only plausible" in done.line()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({SECOND: None}, r"no mask of 2008_000002 \(1 of 2"),
        ({f"{FOLDER}/2008_000003.png": GOOD[FIRST]}, r"2008_000003\.png: none of the 2 pictures"),
        ({f"{FOLDER}/readme.txt": b"hello"}, r"readme\.txt: not a name that voc takes"),
        ({"results/VOC2012/Segmentation/comp5_test_cls/2008_000001.png": GOOD[FIRST], FIRST: None}, "lies beside"),
        ({"2008_000001.png": GOOD[FIRST], FIRST: None}, r"2008_000001\.png: not a name that voc takes; expected results/VOC2012"),
        ({FIRST: png(np.zeros((9, 6)))}, r"2008_000001\.png: 9 x 6 pixels, expected 6 x 9, its picture's size"),
        ({FIRST: png(np.full((6, 9), 21))}, r"2008_000001\.png: values 21, expected 0 to 20 alone"),
        ({FIRST: png(np.full((6, 9), 255))}, r"2008_000001\.png: values 255, .*255 is no answer"),
        ({FIRST: png(np.zeros((6, 9)), "L")}, r"2008_000001\.png: mode L, expected P"),
        ({FIRST: png(np.zeros((6, 9)), "RGB")}, r"2008_000001\.png: mode RGB, expected P"),
        ({FIRST: b""}, r"2008_000001\.png: an empty file"),
        ({FIRST: b"text"}, r"2008_000001\.png: not a picture"),
        ({FIRST: GOOD[FIRST][:-20]}, r"2008_000001\.png: cannot be decoded"),
    ],
)
def test_wrong_archives(tmp_path: Path, pictures: Path, change: dict[str, bytes | None], message: str) -> None:
    files = {name: content for name, content in {**GOOD, **change}.items() if content is not None}
    refused(tar(tmp_path / "a.tar.gz", files), pictures, message)


def test_other_kinds_of_picture(tmp_path: Path, pictures: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(stream, "JPEG")
    refused(tar(tmp_path / "a.tar.gz", {**GOOD, FIRST: stream.getvalue()}), pictures, r"of kind JPEG, expected PNG")
    frames = [Image.fromarray(np.full((6, 9), value, np.uint8)) for value in (0, 9)]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    refused(tar(tmp_path / "a.tar.gz", {**GOOD, FIRST: stream.getvalue()}), pictures, "animated")


def test_cityscapes_values_and_names(tmp_path: Path) -> None:
    def zipped(files: dict[str, bytes]) -> Path:
        write_archive(tmp_path / "a.zip", ".zip", files.items())
        return tmp_path / "a.zip"

    frame = "ulm_000000_000019"
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((1024, 2048), np.uint8)).save(tmp_path / "pictures" / f"{frame}_leftImg8bit.png")
    good = np.full((1024, 2048), 7)
    good[:9] = 33
    assert check_submission(zipped({f"results/ulm/{frame}_pred.png": png(good, "L")}), tmp_path / "pictures").benchmark == "cityscapes"
    assert check_submission(zipped({f"{frame}.png": png(good)}), tmp_path / "pictures").count == 1
    for files, message in (
        (
            {f"{frame}.png": png(np.arange(2048) % 19 + np.zeros((1024, 1)), "L")},
            r"values 0, 1, .*looks like trainIds.*: seenet submit cityscapes --masks FOLDER$",
        ),
        ({f"{frame}.png": png(good * 0 + 255, "L")}, "255 is no answer"),
        ({f"{frame}.png": png(np.full((128, 256), 7), "L")}, "128 x 256 pixels, expected 1024 x 2048"),
        ({f"{frame}.png": png(good, "L"), f"a/{frame}_b.png": png(good, "L")}, "a second mask of ulm_000000_000019"),
        ({f"{frame}1.png": png(good, "L")}, "not a name that cityscapes takes"),
        ({}, "no mask of ulm_000000_000019"),
    ):
        refused(zipped(files), tmp_path / "pictures", message)
    refused(zipped({f"{frame}.png": png(good, "L")}), None, "1 masks, expected 1525")


def tar_of(name: str, kind: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)

    return make


def named(name: str) -> Callable[[Path], None]:
    return lambda path: write_archive(path, ".zip" if path.suffix == ".zip" else ".tar.gz", [(name, b"x")])


def zip_link(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("ulm_000000_000019.png")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    ("suffix", "make", "message"),
    [
        (".tar.gz", named(f"/{FIRST}"), "not a name that voc takes"),
        (".tar.gz", named("../escape.png"), "not a name that voc takes"),
        (".tar.gz", named(f"{FOLDER}/../../../../x.png"), "not a name that voc takes"),
        (".zip", named("/ulm_000000_000019.png"), "not a name that cityscapes takes"),
        (".zip", named("../ulm_000000_000019.png"), "not a name that cityscapes takes"),
        (".zip", zip_link, "a link or a device"),
        (".tar.gz", tar_of(FIRST, tarfile.SYMTYPE), "a link or a device"),
        (".tar.gz", tar_of(FIRST, tarfile.CHRTYPE), "a link or a device"),
        (".tar.gz", lambda path: path.write_bytes(gzip.compress(b"no archive at all" * 99)), "damaged"),
        (".tar.gz", lambda path: path.write_bytes(b"\x1f\x8b\x08"), "damaged"),
        (".zip", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "damaged"),
        (".zip", lambda path: path.write_bytes(b"Rar!"), "neither a .tar.gz nor a .zip"),
        (".zip", lambda path: path.write_bytes(b""), "neither a .tar.gz nor a .zip"),
    ],
)
def test_what_is_no_plain_archive(tmp_path: Path, suffix: str, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / f"a{suffix}"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    refused(path, None, message)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        check_submission(tmp_path / "none.zip")


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_what_was_written_is_read_back_and_damage_is_refused(tmp_path: Path, suffix: str) -> None:
    files = list(GOOD.items())
    path = tmp_path / f"a{suffix}"
    write_archive(path, suffix, files)
    assert list(read_archive(path)) == files
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(10, len(whole), 100).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            found = list(read_archive(path))
        except CheckError:
            continue
        # What no checksum covers (times, a zip's attributes) says nothing of the files.
        assert [content for _, content in found] == [content for _, content in files]
    for end in random.integers(4, len(whole), 20).tolist():
        path.write_bytes(whole[:end])
        with pytest.raises(CheckError):
            list(read_archive(path))


def test_a_damaged_tar_header_hides_no_file(tmp_path: Path, pictures: Path) -> None:
    tar(tmp_path / "plain.tar", GOOD, "w")
    content = bytearray((tmp_path / "plain.tar").read_bytes())
    content[content.index(SECOND.encode())] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(content)))
    refused(tmp_path / "a.tar.gz", pictures, r"damaged|no mask of 2008_000002 \(1 of 2")
