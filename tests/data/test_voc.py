"""VOC's pairs and lists, and trainaug from made .mat files, its list against the published one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from seenet.core.errors import DataError
from seenet.core.settings import DataSettings
from seenet.data import open_split, voc
from seenet.data.check.scan import check_split
from seenet.data.voc import VOC21, build_trainaug, read_sbd_mask, trainaug_names
from tests.data.pictures import picture

SIZE = (7, 9)


def test_voc_colours_are_the_published_ones() -> None:
    assert VOC21.colours == (
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128),
        (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    )  # fmt: skip


def test_voc_pairs(shared: Path) -> None:
    split = open_split(DataSettings(kind="voc", root=shared / "data" / "VOCdevkit"), "val")
    assert len(split) == 60
    image, mask = split.read(0)
    assert image.shape[:2] == mask.shape
    assert set(np.unique(mask)) <= set(range(21)) | {255}


def test_voc_lists_together(tmp_path: Path) -> None:
    home = tmp_path / "VOC2012"
    for name in "abcd":
        picture(home / "JPEGImages" / f"{name}.jpg")
        for folder, value in (("SegmentationClass", 1), ("SegmentationClassAug", 2)):
            if (name, value) != ("d", 1):
                picture(home / folder / f"{name}.png", np.full((6, 8), value, np.uint8))
    (home / "ImageSets" / "Segmentation").mkdir(parents=True)
    for which, names in {"train": "ab", "val": "c", "trainaug": "abd"}.items():
        (home / "ImageSets" / "Segmentation" / f"{which}.txt").write_text("\n".join(names) + "\n")
    settings = DataSettings(kind="voc", root=tmp_path)
    split = open_split(settings, "trainaug+val")
    assert split.name == "voc/trainaug+val"
    assert [split.key(index) for index in range(len(split))] == ["a", "b", "d", "c"]
    assert [int(split.read(index)[1][0, 0]) for index in range(4)] == [1, 1, 2, 1]
    assert len(open_split(settings, "train+trainaug")) == 3
    own = tmp_path / "my+list.txt"
    own.write_text("d\n")
    assert len(open_split(settings, str(own))) == 1
    with pytest.raises(DataError, match=r"vall\.txt: no such list"):
        open_split(settings, "trainaug+vall")


def mat(path: Path, mask: object) -> None:
    """As SBD's: GTcls with Boundaries, Segmentation and CategoriesPresent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": mask, "CategoriesPresent": [[1]]}}, do_compression=True)


def ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 21, SIZE, dtype=np.uint8)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """SBD train a, b, val c, d; VOC train a, e, val d, f: trainaug is a, b, c, e, of which a and e have official masks."""
    names = {name: f"2008_00000{name}" for name in "abcdef"}
    for seed, name in enumerate(names.values()):
        path = tmp_path / "VOC2012" / "JPEGImages" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), 40 * seed, np.uint8)).save(path)
        if seed < 4:
            mat(tmp_path / "sbd" / "dataset" / "cls" / f"{name}.mat", ids(seed))
    official = tmp_path / "VOC2012" / "SegmentationClass"
    official.mkdir()
    for name in "adef":
        Image.fromarray(np.full(SIZE, 3, np.uint8)).save(official / f"{names[name]}.png")
    lists = {"sbd/dataset/train": "ab", "sbd/dataset/val": "cd", "VOC2012/ImageSets/Segmentation/train": "ae",
             "VOC2012/ImageSets/Segmentation/val": "df"}  # fmt: skip
    for path, listed in lists.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{path}.txt").write_text("".join(names[name] + "\n" for name in listed))
    return tmp_path


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_build(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = build_trainaug(home / "sbd", home)
    assert (done.total, done.official, done.written, done.there) == (4, 2, 2, 0)
    assert "expected 10582" in caplog.text
    assert done.path.read_text().split() == ["2008_00000a", "2008_00000b", "2008_00000c", "2008_00000e"]
    extra = home / "VOC2012" / "SegmentationClassAug"
    assert sorted(path.name for path in extra.iterdir()) == ["2008_00000b.png", "2008_00000c.png"]
    with Image.open(extra / "2008_00000b.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), ids(1))
        assert bytes(image.getpalette() or ())[:63] == VOC21.palette()[:21].tobytes()
    split = open_split(DataSettings(kind="voc", root=home), "trainaug")
    check_split(split)
    # The official mask of a is kept, though SBD has one too.
    assert [int(split.read(index)[1].max()) for index in (0, 3)] == [3, 3]
    assert np.array_equal(split.read(2)[1], ids(2))


def test_again_changes_nothing_and_completes_what_is_missing(home: Path) -> None:
    build_trainaug(home / "sbd" / "dataset", home / "VOC2012")
    before = tree(home)
    done = build_trainaug(home / "sbd", home)
    assert (done.written, done.there) == (0, 2)
    assert tree(home) == before
    # Killed in the middle: one mask and the list are not there yet.
    (home / "VOC2012" / "SegmentationClassAug" / "2008_00000c.png").unlink()
    done.path.unlink()
    assert build_trainaug(home / "sbd", home).written == 1
    assert {path: content for path, (content, _) in tree(home).items()} == {path: content for path, (content, _) in before.items()}


def test_nothing_is_overwritten_unasked(home: Path) -> None:
    mine = home / "VOC2012" / "SegmentationClassAug" / "2008_00000c.png"
    mine.parent.mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(mine)
    kept = mine.read_bytes()
    with pytest.raises(DataError, match=r"c\.png: exists already and differs.*--overwrite"):
        build_trainaug(home / "sbd", home)
    assert mine.read_bytes() == kept
    path = home / "VOC2012" / "ImageSets" / "Segmentation" / "trainaug.txt"
    assert not path.exists()
    path.write_text("2008_00000a\n2008_00000d\n")
    with pytest.raises(DataError, match=r"trainaug\.txt: exists already and differs in 4 names"):
        build_trainaug(home / "sbd", home)
    assert build_trainaug(home / "sbd", home, overwrite=True).written == 2
    assert len(path.read_text().split()) == 4
    # A list in another order, or of paths, is the same list.
    path.write_text("".join(f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in reversed(path.read_text().split())))
    kept = path.read_bytes()
    build_trainaug(home / "sbd", home)
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda cls: (cls / "2008_00000b.mat").unlink(), r"b\.mat: no such file, and 2008_00000b has no official mask"),
        (lambda cls: (cls / "2008_00000b.mat").write_bytes(b""), r"b\.mat: no GTcls"),
        (lambda cls: (cls / "2008_00000b.mat").write_bytes((cls / "2008_00000b.mat").read_bytes()[:-9]), r"b\.mat: no GTcls"),
        (lambda cls: (cls / "2008_00000b.mat").write_bytes(b"\x89HDF\r\n" + b"\0" * 600), r"b\.mat: no GTcls"),
        (lambda cls: savemat(cls / "2008_00000b.mat", {"GTinst": 1}), r"b\.mat: no GTcls"),
        (lambda cls: savemat(cls / "2008_00000b.mat", {"GTcls": 1}), r"b\.mat: no GTcls"),
        (lambda cls: mat(cls / "2008_00000b.mat", np.full(SIZE, 21, np.uint8)), r"b\.mat: id 21 \(63 pixels"),
        (lambda cls: mat(cls / "2008_00000b.mat", np.full(SIZE, -1, np.int8)), r"b\.mat: id -1"),
        (lambda cls: mat(cls / "2008_00000b.mat", np.zeros((9, 7), np.uint8)), r"b\.mat: 9 x 7 pixels, but .*b\.jpg has 7 x 9"),
        (lambda cls: mat(cls / "2008_00000b.mat", np.zeros(SIZE)), r"b\.mat: .*float64"),
        (lambda cls: (cls.parent / "val.txt").unlink(), r"val\.txt: no such list; expected dataset"),
        (lambda cls: (cls.parent / "val.txt").write_text("..\n"), r"\.\.: no name of a picture"),
        (lambda cls: (cls.parents[2] / "VOC2012" / "JPEGImages" / "2008_00000c.jpg").unlink(), r"c\.jpg: no such picture"),
    ],
)
def test_bad_input_is_named_and_leaves_no_list(home: Path, spoil: object, message: str) -> None:
    spoil(home / "sbd" / "dataset" / "cls")  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        build_trainaug(home / "sbd", home)
    assert "\n" not in str(caught.value)
    assert not (home / "VOC2012" / "ImageSets" / "Segmentation" / "trainaug.txt").exists()


def test_a_full_disk_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(voc, "write_mask", full)
        with pytest.raises(DataError, match="No space left on device"):
            build_trainaug(home / "sbd", home)
    assert build_trainaug(home / "sbd", home).written == 2


def test_wrong_folders(home: Path) -> None:
    with pytest.raises(DataError, match="of SBD"):
        build_trainaug(home / "VOC2012", home)
    with pytest.raises(DataError, match="no folder JPEGImages"):
        build_trainaug(home / "sbd", home / "sbd")


def test_mat_of_a_column_major_mask(tmp_path: Path) -> None:
    mask = np.asfortranarray(ids(5))
    mat(tmp_path / "x.mat", mask)
    assert np.array_equal(read_sbd_mask(tmp_path / "x.mat"), ids(5))


def test_published_list(shared: Path) -> None:
    """The rule gives back the published list from any SBD lists that, with VOC train, hold it; and val stays out."""
    devkit = shared / "data" / "VOCdevkit"
    published = (devkit / "trainaug-10582.txt").read_text().split()
    val = (devkit / "val-1449.txt").read_text().split()
    assert (len(published), len(set(published)), len(set(val))) == (10_582, 10_582, 1_449)
    assert not set(published) & set(val)
    # SBD has 11,355 pictures, many of VOC's val among them; where they are split into its train and val changes nothing.
    sbd = published[:9_000] + val[:900]
    names = trainaug_names(sbd[::2] + sbd[1::2], voc_train=published[8_500:], voc_val=val)
    assert names == published
    assert names == sorted(names)
