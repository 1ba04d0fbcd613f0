"""Each data set from files as users have them, and what is said where they are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.labels import CAMVID11, CITYSCAPES19, CITYSCAPES_TRAIN_IDS, SHAPES
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check import check_split
from seenet.data.propose import write_proposal
from seenet.data.shapes import ShapesSplit, outer_rim
from seenet.data.stats import split_stats


def picture(path: Path, mask: np.ndarray | None = None, size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask is None:
        Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    else:
        Image.fromarray(mask).save(path)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for part, frames in {"train": ["0001TP_1", "0016E5_2"], "val": ["0016E5_3"]}.items():
        for frame in frames:
            picture(tmp_path / part / f"{frame}.png")
            picture(tmp_path / f"{part}annot" / f"{frame}.png", np.full((6, 8), 11, np.uint8) * (frame[-1] == "2"))
        (tmp_path / f"{part}.txt").write_text(
            "".join(f"/SegNet/CamVid/{part}/{f}.png /SegNet/CamVid/{part}annot/{f}.png\n" for f in frames)
        )
    return tmp_path


def test_camvid_lists_and_drives(camvid: Path) -> None:
    def keys(**settings: object) -> list[str]:
        which = str(settings.pop("which"))
        split = open_split(DataSettings(root=camvid, **settings), which)  # type: ignore[arg-type]
        return [split.key(index) for index in range(len(split))]

    assert keys(kind="camvid", which="trainval") == ["train/0001TP_1", "train/0016E5_2", "val/0016E5_3"]
    assert keys(kind="camvid-drives", hold_out="0001TP", which="val") == ["train/0001TP_1"]
    assert keys(kind="camvid-drives", hold_out="0001TP", which="train") == ["train/0016E5_2", "val/0016E5_3"]


def test_bad_camvid(camvid: Path) -> None:
    with pytest.raises(UsageError, match="nearest: train"):
        open_split(DataSettings(kind="camvid", root=camvid), "trian")
    (camvid / "valannot" / "0016E5_3.png").unlink()
    with pytest.raises(DataError, match="no mask for 0016E5_3"):
        open_split(DataSettings(kind="camvid", root=camvid), "val")
    (camvid / "val.txt").write_text("\n")
    with pytest.raises(DataError, match="no pictures found"):
        open_split(DataSettings(kind="camvid", root=camvid), "val")
    with pytest.raises(DataError, match="SegNet"):
        open_split(DataSettings(kind="camvid", root=camvid / "elsewhere"), "val")


def test_check_names_ids_pixels_and_cause(camvid: Path) -> None:
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    check_split(split)
    check_split(split)  # remembered
    mask = np.zeros((6, 8), np.uint8)
    mask[0, :3] = 255
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    with pytest.raises(DataError, match=r"0001TP_1\.png: ids 255 \(3 pixels\).*0/255 mask"):
        check_split(split)
    picture(camvid / "trainannot" / "0001TP_1.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError, match="5 x 8 pixels, but its picture"):
        check_split(split)


def test_camvid_weights_are_the_published_ones(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "CamVid"
    root = tmp_path / "camvid"
    (root / "train").mkdir(parents=True)
    (root / "trainannot").symlink_to(source / "trainannot")
    for name in (source / "train.txt").read_text().split():
        (root / "train" / f"{name}.png").symlink_to(source / "train" / f"{name}.webp")
    (root / "train.txt").symlink_to(source / "train.txt")
    stats = split_stats(open_split(DataSettings(kind="camvid", root=root), "train"))
    expected = [0.279, 0.202, 4.787, 0.149, 1.000, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    assert [round(weight, 3) for weight in stats.median_frequency()] == expected
    assert "Bicyclist" in stats.table()


def test_cityscapes_table_is_the_official_one() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    scored = {label.id: label for label in official if 0 <= label.trainId < 255}
    assert {label.id: label.trainId for label in scored.values()} == CITYSCAPES_TRAIN_IDS
    by_train_id = sorted(scored.values(), key=lambda label: label.trainId)
    assert tuple(label.name for label in by_train_id) == CITYSCAPES19.classes
    assert tuple(label.color for label in by_train_id) == CITYSCAPES19.colours


def test_cityscapes_frame(shared: Path) -> None:
    root = shared / "data" / "cityscapes"
    part = next((root / "leftImg8bit").iterdir()).name
    from_labels = open_split(DataSettings(kind="cityscapes", root=root), part)
    from_train_ids = open_split(DataSettings(kind="cityscapes", root=root, ids="trainIds"), part)
    # Both files of the shared frame were shrunk on their own, so that a few pixels at edges differ.
    assert (from_labels.read(0)[1] == from_train_ids.read(0)[1]).mean() > 0.995


def test_voc_pairs(shared: Path) -> None:
    split = open_split(DataSettings(kind="voc", root=shared / "data" / "VOCdevkit"), "val")
    assert len(split) == 60
    image, mask = split.read(0)
    assert image.shape[:2] == mask.shape
    assert set(np.unique(mask)) <= set(range(21)) | {255}


class TestFolder:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        for number in range(20):
            picture(tmp_path / "images" / f"p{number:02d}.jpg")
            picture(tmp_path / "masks" / f"p{number:02d}.png", np.array([[0, 1], [2, 255]], np.uint8).repeat(3, 0).repeat(4, 1))
        return tmp_path

    def settings(self, home: Path) -> DataSettings:
        return DataSettings(kind="folder", root=home)

    def test_proposal_opens(self, home: Path) -> None:
        write_proposal(home)
        train, val = (open_split(self.settings(home), which) for which in ("train", "val"))
        assert len(train) + len(val) == 20
        assert len(val) > 0
        assert train.labels.num_classes == 3
        check_split(train)
        with pytest.raises(DataError, match="exists already"):
            write_proposal(home)

    def test_no_description(self, home: Path) -> None:
        with pytest.raises(DataError, match="seenet data init"):
            open_split(self.settings(home), "train")

    def write(self, home: Path, text: str) -> None:
        (home / "seenet.yaml").write_text(text)

    def test_remap_and_rgb(self, home: Path) -> None:
        self.write(home, "decode: remap\nremap: {0: 1, 1: 0, 2: 1, 255: 255}\nclasses: [a, b]\n")
        mask = open_split(self.settings(home), "train").read(0)[1]
        assert (mask[0, 0], mask[0, -1], mask[-1, 0], mask[-1, -1]) == (1, 0, 1, 255)
        self.write(home, "decode: remap\nremap: {0: 1}\nclasses: [a, b]\n")
        with pytest.raises(DataError, match=r"id 1 \(12 pixels\) has no entry"):
            open_split(self.settings(home), "train").read(0)
        for path in (home / "masks").iterdir():
            picture(path, np.full((6, 8, 3), (9, 8, 7), np.uint8))
        self.write(home, "decode: rgb\nclasses: {a: [1, 2, 3], b: [9, 8, 7]}\n")
        assert (open_split(self.settings(home), "train").read(0)[1] == 1).all()
        self.write(home, "decode: rgb\nclasses: {a: [1, 2, 3]}\n")
        with pytest.raises(DataError, match=r"colour \[9, 8, 7\] \(48 pixels\)"):
            open_split(self.settings(home), "train").read(0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("decode: index\nclases: [a]\nclasses: [a]\n", "nearest: classes"),
            ("decode: rgb\nclasses: [a]\n", "needs the colour"),
            ("decode: remap\nclasses: [a]\n", "belong together"),
            ("decode: index\nclasses: [a]\nignore: 0\n", "also a class"),
            ("decode: [", "not valid YAML"),
        ],
    )
    def test_wrong_descriptions(self, home: Path, text: str, message: str) -> None:
        self.write(home, text)
        with pytest.raises(UsageError, match=message):
            open_split(self.settings(home), "train")


class TestShapes:
    def test_scenes_are_fixed_and_hold_every_class(self) -> None:
        split = ShapesSplit("val", 50, 96)
        assert all(np.array_equal(a, b) for a, b in zip(split.read(7), split.read(7), strict=True))
        assert not np.array_equal(split.read(7)[0], ShapesSplit("train", 50, 96).read(7)[0])
        assert set(np.unique([split.exact_mask(index) for index in range(20)])) == set(range(SHAPES.num_classes))

    def test_rim_is_one_pixel_outside(self) -> None:
        owner = np.zeros((7, 7), np.uint8)
        owner[2:5, 2:5] = 1
        rim = outer_rim(owner)
        assert rim.sum() == 12
        assert not rim[owner == 1].any()
        split = ShapesSplit("val", 50, 96)
        mask, exact = split.read(3)[1], split.exact_mask(3)
        assert (mask == SHAPES.ignore).any()
        assert np.array_equal(mask[mask != SHAPES.ignore], exact[mask != SHAPES.ignore])


def test_camvid_labels() -> None:
    assert CAMVID11.palette()[3].tolist() == [128, 64, 128]
