"""VOC's lists, and trainaug from .mat files, its list against the published one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from seenet.core.errors import DataError
from seenet.core.images import read_ids
from seenet.core.settings import DataSettings
from seenet.data import open_split, voc
from seenet.data.check.scan import check_split
from seenet.data.voc import VOC21, build_trainaug, trainaug_names
from tests.data.pictures import picture

SIZE = (6, 8)


def test_colours_are_the_published_ones() -> None:
    assert VOC21.colours == (
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128),
        (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0),
        (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0),
        (0, 192, 0), (128, 192, 0), (0, 64, 128),
    )  # fmt: skip


def test_real_pairs(shared: Path) -> None:
    split = open_split(DataSettings(kind="voc", root=shared / "data" / "VOCdevkit"), "val")
    assert len(split) == 60
    assert set(np.unique(split.read(0)[1])) <= {*range(21), 255}


def test_lists_are_combined(tmp_path: Path) -> None:
    home = tmp_path / "VOC2012"
    lists, own = home / "ImageSets" / "Segmentation", tmp_path / "my+list.txt"
    lists.mkdir(parents=True)
    for name, folder, value in (("a", "", 1), ("a", "Aug", 2), ("b", "Aug", 2)):
        picture(home / "JPEGImages" / f"{name}.jpg")
        picture(home / f"SegmentationClass{folder}" / f"{name}.png", np.full(SIZE, value, np.uint8))
    for path, text in (
        (lists / "val.txt", "a\n"),
        (lists / "trainaug.txt", "b\na\n"),
        (own, "b\n"),
    ):
        path.write_text(text)
    settings = DataSettings(kind="voc", root=tmp_path)
    split = open_split(settings, "val+trainaug")
    assert split.name == "voc/val+trainaug"
    assert [(split.key(i), int(split.read(i)[1][0, 0])) for i in range(2)] == [("a", 1), ("b", 2)]
    assert len(open_split(settings, str(own))) == 1
    with pytest.raises(DataError, match=r"vall\.txt: no such list"):
        open_split(settings, "trainaug+vall")


def mat(path: Path, mask: object) -> None:
    """Write a file as SBD's: GTcls with Boundaries, Segmentation and CategoriesPresent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"Boundaries": np.zeros((20, 1)), "Segmentation": mask, "CategoriesPresent": [[1]]}
    savemat(path, {"GTcls": content}, do_compression=True)


def ids(seed: int) -> np.ndarray:
    """Return a mask, in columns as MATLAB's."""
    rng = np.random.default_rng(seed)
    return np.asfortranarray(rng.integers(0, 21, SIZE, dtype=np.uint8))


A, B, C, D, E, F = (f"2008_00000{letter}" for letter in "abcdef")
LISTS = {
    "sbd/dataset/train": [A, B],
    "sbd/dataset/val": [C, D],
    "VOC2012/ImageSets/Segmentation/train": [A, E],
    "VOC2012/ImageSets/Segmentation/val": [D, F],
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """SBD and VOC: trainaug is A, B, C and E; A and E have official masks."""
    for seed, name in enumerate((A, B, C, D, E, F)):
        picture(tmp_path / "VOC2012" / "JPEGImages" / f"{name}.jpg")
        if name in (A, B, C, D):
            mat(tmp_path / "sbd" / "dataset" / "cls" / f"{name}.mat", ids(seed))
        if name not in (B, C):
            official = tmp_path / "VOC2012" / "SegmentationClass" / f"{name}.png"
            picture(official, np.full(SIZE, 3, np.uint8))
    for path, names in LISTS.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{path}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def tree(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_build(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = build_trainaug(home / "sbd", home)
    assert (done.total, done.official, done.written, done.there) == (4, 2, 2, 0)
    assert "expected 10582" in caplog.text
    assert done.path.read_text().split() == [A, B, C, E]
    extra = home / "VOC2012" / "SegmentationClassAug"
    assert sorted(path.stem for path in extra.iterdir()) == [B, C]
    with Image.open(extra / f"{B}.png") as image:
        assert bytes(image.getpalette() or ())[:63] == VOC21.palette()[:21].tobytes()
    split = open_split(DataSettings(kind="voc", root=home), "trainaug")
    check_split(split)
    # The official mask of A is kept, though SBD has one too.
    for index, expected in enumerate((3, ids(1), ids(2), 3)):
        assert (split.read(index)[1] == expected).all()


def test_called_again_it_completes_what_is_missing(home: Path) -> None:
    build_trainaug(home / "sbd" / "dataset", home / "VOC2012")
    before = tree(home)
    done = build_trainaug(home / "sbd", home)
    assert (done.written, done.there) == (0, 2)
    assert tree(home) == before
    # As after a kill: one mask and the list are missing.
    (home / "VOC2012" / "SegmentationClassAug" / f"{C}.png").unlink()
    done.path.unlink()
    assert build_trainaug(home / "sbd", home).written == 1
    after = tree(home)
    assert {path: content for path, (content, _) in after.items()} == {
        path: content for path, (content, _) in before.items()
    }


def test_existing_files_that_differ_need_overwrite(home: Path) -> None:
    mine = home / "VOC2012" / "SegmentationClassAug" / f"{C}.png"
    picture(mine, np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match=r"c\.png: exists already and differs.*--overwrite"):
        build_trainaug(home / "sbd", home)
    assert not read_ids(mine).any()
    path = home / "VOC2012" / "ImageSets" / "Segmentation" / "trainaug.txt"
    path.write_text(f"{A}\n{D}\n")
    with pytest.raises(DataError, match=r"trainaug\.txt: exists already and differs in 4 names"):
        build_trainaug(home / "sbd", home)
    assert build_trainaug(home / "sbd", home, overwrite=True).written == 2
    assert path.read_text().split() == [A, B, C, E]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, r"b\.mat: no such file, and 2008_00000b has no official mask"),
        (lambda path: path.write_bytes(b""), r"b\.mat: no GTcls"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), r"b\.mat: no GTcls"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n" + b"\0" * 600), r"b\.mat: no GTcls"),
        (lambda path: savemat(path, {"GTinst": 1}), r"b\.mat: no GTcls"),
        (lambda path: savemat(path, {"GTcls": 1}), r"b\.mat: no GTcls"),
        (lambda path: mat(path, np.full(SIZE, 21, np.uint8)), r"b\.mat: id 21 \(48 pixels"),
        (lambda path: mat(path, np.full(SIZE, -1, np.int8)), r"b\.mat: id -1"),
        (
            lambda path: mat(path, np.zeros((8, 6), np.uint8)),
            r"b\.mat: 8 x 6 pixels, but .*b\.jpg has 6 x 8",
        ),
        (lambda path: mat(path, np.zeros(SIZE)), r"b\.mat: .*float64"),
        (
            lambda path: (path.parents[1] / "val.txt").unlink(),
            r"val\.txt: no such list; expected dataset",
        ),
        (
            lambda path: (path.parents[1] / "val.txt").write_text("..\n"),
            r"\.\.: no name of a picture",
        ),
        (
            lambda path: (path.parents[3] / "VOC2012" / "JPEGImages" / f"{C}.jpg").unlink(),
            r"c\.jpg: no such picture",
        ),
    ],
)
def test_bad_input_is_named_and_leaves_no_list(
    home: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(home / "sbd" / "dataset" / "cls" / f"{B}.mat")
    with pytest.raises(DataError, match=message) as caught:
        build_trainaug(home / "sbd", home)
    assert "\n" not in str(caught.value)
    assert not (home / "VOC2012" / "ImageSets" / "Segmentation" / "trainaug.txt").exists()


def test_a_full_disk_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(voc, "write_mask", full)
    with pytest.raises(DataError, match="No space left on device"):
        build_trainaug(home / "sbd", home)


@pytest.mark.parametrize(
    ("sbd", "root", "message"),
    [("VOC2012", ".", "of SBD"), ("sbd", "sbd", "no folder JPEGImages")],
)
def test_wrong_folders_are_named(home: Path, sbd: str, root: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_trainaug(home / sbd, home / root)


def test_the_published_list(shared: Path) -> None:
    """The rule returns the published list from any SBD lists that, with VOC train, contain it."""
    devkit = shared / "data" / "VOCdevkit"
    published = (devkit / "trainaug-10582.txt").read_text().split()
    val = (devkit / "val-1449.txt").read_text().split()
    assert (len(published), len(set(published)), len(set(val))) == (10_582, 10_582, 1_449)
    assert not set(published) & set(val)
    # SBD also has images of VOC's val; their order does not matter.
    sbd = published[:9_000] + val[:900]
    names = trainaug_names(sbd[::2] + sbd[1::2], voc_train=published[8_500:], voc_val=val)
    assert names == published
