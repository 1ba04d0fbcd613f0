"""Each data set from files as users have them, and what is said where they are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError, UsageError
from seenet.core.images import read_ids, write_mask
from seenet.core.labels import CAMVID11, CITYSCAPES19, CITYSCAPES_TRAIN_IDS, SHAPES, VOC21, LabelSet
from seenet.core.settings import DataSettings
from seenet.data import open_split
from seenet.data.check import check_ids, check_split
from seenet.data.propose import propose, write_proposal
from seenet.data.shapes import DISC, RING, ShapesSplit, _object, outer_rim
from seenet.data.split import FileSplit
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
    with pytest.raises(DataError, match=r"0001TP_1\.png: ids 255 \(3 pixels\).*masks of camvid11 hold no others"):
        check_split(split)
    picture(camvid / "trainannot" / "0001TP_1.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(DataError, match="5 x 8 pixels, but its picture"):
        check_split(split)


@pytest.mark.parametrize(
    ("ids", "classes", "ignore", "cause"),
    [
        ([0, 255], 2, 254, "looks like a 0/255 mask"),
        ([1, 2, 3], 3, 255, "looks like ids counted from 1, or void as 3"),
        ([0, 1, 4, 255], 3, 254, "looks like void as 255"),
        ([7, 33, 255], 19, 255, "looks like Cityscapes' labelIds"),
        ([0, 9], 3, 255, "add the classes"),
    ],
)
def test_causes_in_a_folder_of_ones_own(ids: list[int], classes: int, ignore: int, cause: str) -> None:
    names = tuple(map(str, range(classes)))
    with pytest.raises(DataError, match=cause):
        check_ids(np.array([ids]), LabelSet("folder", names, tuple((index, 0, 0) for index in range(classes)), ignore), Path("a.png"))


def test_check_decodes_pictures_and_survives_its_own_cache(camvid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = open_split(DataSettings(kind="camvid", root=camvid), "val")
    check_split(split)
    (store,) = (tmp_path / "cache" / "seenet").iterdir()
    store.write_text("{broken")
    check_split(split)
    path = camvid / "val" / "0016E5_3.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"0016E5_3\.png: .*truncated"):
        check_split(split)


@pytest.mark.parametrize("text", ["", "[1, 2]", '["a stamp of the first format"]', '{"a stamp": 3}', '{"a stamp": {"road": 1}}'])
def test_cache_of_another_format_counts_as_empty(camvid: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = open_split(DataSettings(kind="camvid", root=camvid), "train")
    assert isinstance(split, FileSplit)
    counts = check_split(split)
    assert counts == [{0: 48}, {11: 48}]
    (store,) = (tmp_path / "cache" / "seenet").iterdir()
    store.write_text(text)
    assert check_split(split) == counts


def test_counts_are_remembered(camvid: Path) -> None:
    decoded = []

    def decode(path: Path) -> np.ndarray:
        decoded.append(path.stem)
        return read_ids(path)

    opened = open_split(DataSettings(kind="camvid", root=camvid), "train")
    assert isinstance(opened, FileSplit)
    split = replace(opened, decode=decode)
    first = split_stats(split)
    assert sorted(decoded) == ["0001TP_1", "0016E5_2"]
    again = split_stats(split)
    assert len(decoded) == 2
    assert (again.table(), again.holding_pixels.tolist()) == (first.table(), first.holding_pixels.tolist())
    picture(camvid / "trainannot" / "0001TP_1.png", np.full((6, 8), 4, np.uint8))
    assert split_stats(split).pixels[4] == 48
    assert decoded[2:] == ["0001TP_1"]


def test_check_says_labelids(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    picture(root / "leftImg8bit" / "val" / "ulm" / "ulm_1_leftImg8bit.png")
    picture(root / "gtFine" / "val" / "ulm" / "ulm_1_gtFine_labelTrainIds.png", np.full((6, 8), 26, np.uint8))
    split = open_split(DataSettings(kind="cityscapes", root=root, ids="trainIds"), "val")
    with pytest.raises(DataError, match=r"ids 26 \(48 pixels\).*looks like labelIds; set data.ids=labelIds"):
        check_split(split)
    with pytest.raises(DataError, match=r"ids 26 \(48 pixels\)"):
        split_stats(split)


def test_stats_by_hand(camvid: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[:2], mask[5] = 3, 11
    picture(camvid / "trainannot" / "0001TP_1.png", mask)
    stats = split_stats(open_split(DataSettings(kind="camvid", root=camvid), "train"))
    assert (stats.pixels[0], stats.pixels[3], stats.void) == (24, 16, 8 + 48)
    assert (stats.images[0], stats.images[3], stats.sizes) == (1, 1, {(6, 8): 2})
    # Frequencies 24/48 and 16/48, void in the denominator; their median is 20/48.
    assert [stats.median_frequency()[index] for index in (0, 3, 5)] == pytest.approx([20 / 24, 20 / 16, 0])


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


def test_cityscapes_trainval(tmp_path: Path) -> None:
    for part, city in (("train", "ulm"), ("train", "aachen"), ("val", "lindau"), ("test", "berlin")):
        picture(tmp_path / "leftImg8bit" / part / city / f"{city}_1_leftImg8bit.png")
        if part != "test":
            picture(
                tmp_path / "gtFine" / part / city / f"{city}_1_gtFine_labelIds.png", np.full((6, 8), 7 if city == "ulm" else 33, np.uint8)
            )
    split = open_split(DataSettings(kind="cityscapes", root=tmp_path), "trainval")
    assert [split.key(index) for index in range(len(split))] == ["train/aachen/aachen_1", "train/ulm/ulm_1", "val/lindau/lindau_1"]
    assert [int(split.read(index)[1][0, 0]) for index in range(3)] == [18, 0, 18]
    check_split(split)
    with pytest.raises(UsageError, match="no split test with labels"):
        open_split(DataSettings(kind="cityscapes", root=tmp_path), "test")


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

    def test_a_changed_table_is_checked_again(self, home: Path) -> None:
        self.write(home, "decode: remap\nremap: {0: 1}\nremap_others: ignore\nclasses: [a, b]\n")
        check_split(open_split(self.settings(home), "train"))
        self.write(home, "decode: remap\nremap: {0: 1}\nclasses: [a, b]\n")
        with pytest.raises(DataError, match="has no entry"):
            check_split(open_split(self.settings(home), "train"))

    def test_lists_and_shares(self, home: Path) -> None:
        def keys(which: str) -> set[str]:
            split = open_split(self.settings(home), which)
            return {split.key(index) for index in range(len(split))}

        self.write(home, "decode: index\nclasses: [a, b, c]\nval: 0.4\n")
        assert keys("train") | keys("val") == keys("all")
        assert not keys("train") & keys("val")
        share = keys("val")
        (home / "train.txt").write_text("".join(f"p{number:02d}.jpg\n" for number in range(20)))
        (home / "val.txt").write_text("p03\np05\n")
        self.write(home, "decode: index\nclasses: [a, b, c]\nval: 0.4\ntrain: train.txt\n")
        assert keys("train") == keys("all") - share
        self.write(home, "decode: index\nclasses: [a, b, c]\nval: val.txt\n")
        assert keys("val") == {"p03", "p05"}
        assert keys("train") == keys("all") - {"p03", "p05"}
        (home / "val.txt").write_text("p03\nnowhere\n")
        with pytest.raises(DataError, match="nowhere: no such picture"):
            keys("val")

    def test_pictures_and_masks_side_by_side(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            picture(tmp_path / f"{name}.jpg")
            picture(tmp_path / f"{name}_mask.png", np.zeros((6, 8), np.uint8))
        self.write(tmp_path, "images: .\nmasks: .\nmask_suffix: _mask\ndecode: index\nclasses: [x]\n")
        assert len(open_split(self.settings(tmp_path), "all")) == 2

    def test_missing_and_broken(self, home: Path) -> None:
        self.write(home, "decode: index\nclasses: [a, b, c]\n")
        (home / "masks" / "p07.png").unlink()
        with pytest.raises(DataError, match=r"no mask for p07\.jpg"):
            open_split(self.settings(home), "all")
        self.write(home, "images: pictures\ndecode: index\nclasses: [a]\n")
        with pytest.raises(DataError, match="pictures: no such folder"):
            open_split(self.settings(home), "all")
        self.write(home, "val: 0\ndecode: index\nclasses: [a]\n")
        with pytest.raises(DataError, match="no pictures found"):
            open_split(self.settings(home), "val")

    @pytest.mark.parametrize("kind", ["colours", "zero and 255", "other ids", "a gap", "palette", "16 bit", "grey pictures"])
    def test_every_proposal_opens(self, tmp_path: Path, kind: str) -> None:
        ids = np.array([[0, 1], [2, 1]]).repeat(3, 0).repeat(4, 1)
        for number in range(8):
            path = tmp_path / "masks" / f"yes{number}_gt.png"
            picture(tmp_path / "off" / f"yes{number}.png")
            if kind == "palette":
                path.parent.mkdir(exist_ok=True)
                write_mask(path, ids, CAMVID11)
            elif kind == "colours":
                picture(path, np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)[ids])
            else:
                table = {"zero and 255": (0, 255, 0), "other ids": (7, 90, 200), "a gap": (0, 1, 3), "16 bit": (0, 999, 5000)}.get(
                    kind, (0, 1, 2)
                )
                picture(path, np.array(table, np.uint16 if kind == "16 bit" else np.uint8)[ids])
            if kind == "grey pictures":
                Image.open(tmp_path / "off" / f"yes{number}.png").convert("L").save(tmp_path / "off" / f"yes{number}.png")
        text = propose(tmp_path)
        self.write(tmp_path, text)
        split = open_split(self.settings(tmp_path), "all")
        check_split(split)
        mask = split.read(0)[1]
        found = {"zero and 255": 2}.get(kind, 3)
        assert len(split) == 8
        assert len(np.unique(mask)) == found
        assert mask.max() < split.labels.num_classes == found + (kind == "a gap")

    def test_nothing_to_propose(self, tmp_path: Path) -> None:
        picture(tmp_path / "images" / "a.png")
        with pytest.raises(DataError, match="no folder of pictures beside a folder of masks"):
            propose(tmp_path)
        for name in ("images", "masks"):
            picture(tmp_path / name / "b.png", np.random.default_rng(3).integers(0, 255, (40, 40, 3), dtype=np.uint8))
        picture(tmp_path / "masks" / "a.png", np.zeros((6, 8, 3), np.uint8))
        with pytest.raises(DataError, match="over 256 colours"):
            propose(tmp_path)

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

    def test_every_ring_has_a_hole_from_42_pixels_on(self) -> None:
        def hole(seed: int, side: int) -> bool:
            disc, ring = (_object(np.random.default_rng(seed), kind, side) for kind in (DISC, RING))
            return bool((disc & ~ring).any())

        assert all(hole(seed, 42) for seed in range(1000))
        assert sum(hole(seed, 16) for seed in range(100)) < 20


def test_voc_colours_are_the_published_ones() -> None:
    assert VOC21.colours == (
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128),
        (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    )  # fmt: skip


def test_camvid_labels() -> None:
    assert CAMVID11.palette()[3].tolist() == [128, 64, 128]
