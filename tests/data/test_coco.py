"""COCO as VOC's classes: rules by hand, real annotations against a slow oracle, bad files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from seenet.core.errors import DataError, UsageError
from seenet.core.settings import DataSettings
from seenet.data import coco, open_split
from seenet.data.check.scan import split_stats
from seenet.data.coco import CATEGORIES, COCO21, CocoSplit
from seenet.data.voc import VOC21

pytest.importorskip("pycocotools")

H, W = 40, 60
PERSON, DOG, CAR, KITE = 1, 18, 3, 38
NAMES = {**CATEGORIES, KITE: "kite"}


def box(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return the run lengths by columns, background first."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths: list[int] = np.diff([0, *edges, H * W]).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def rle(top: int, left: int, bottom: int, right: int) -> dict[str, Any]:
    mask = np.zeros((H, W), bool)
    mask[top:bottom, left:right] = True
    return {"size": [H, W], "counts": run_lengths(mask)}


def entry(category: int, segmentation: object, crowd: int = 0, image: int = 1) -> dict[str, Any]:
    values = {"image_id": image, "category_id": category, "iscrowd": crowd}
    return {**values, "segmentation": segmentation}


def write(root: Path, entries: list[dict[str, Any]], part: str = "val2017", **changes: Any) -> Path:
    ids = sorted({1} | {one["image_id"] for one in entries})
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": H, "width": W}
            for number in ids
        ],
        "annotations": entries,
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    }
    path = root / "annotations" / f"instances_{part}.json"
    for folder in (root / part, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        Image.new("RGB", (W, H)).save(root / part / image["file_name"])
    path.write_text(json.dumps({**content, **changes}))
    return path


def opened(root: Path, which: str = "val", **settings: Any) -> CocoSplit:
    split = open_split(DataSettings(kind="coco", root=root, **settings), which)
    assert isinstance(split, CocoSplit)
    return split


def mask_of(root: Path, entries: list[dict[str, Any]], **settings: Any) -> np.ndarray:
    write(root, entries)
    image, mask = opened(root, **settings).read(0)
    assert (image.shape, mask.dtype) == ((H, W, 3), np.uint8)
    return mask


def test_categories_are_in_vocs_order() -> None:
    other = {
        "airplane": "aeroplane", "dining table": "diningtable", "motorcycle": "motorbike",
        "potted plant": "pottedplant", "couch": "sofa", "tv": "tvmonitor",
    }  # fmt: skip
    names = tuple(other.get(name, name) for name in CATEGORIES.values())
    assert names == VOC21.classes[1:] == COCO21.classes[1:]
    assert (COCO21.name, COCO21.ignore, COCO21.rim) == ("coco21", 255, False)


def test_classes_and_others(tmp_path: Path) -> None:
    kite = entry(KITE, box(0, 0, 30, 40))
    entries = [entry(PERSON, box(0, 0, 10, 10)), entry(DOG, rle(20, 30, 40, 60)), kite]
    expected = np.zeros((H, W), np.uint8)
    expected[:10, :10], expected[20:, 30:] = 15, 12
    assert np.array_equal(mask_of(tmp_path, entries), expected)


def test_overlap(tmp_path: Path) -> None:
    entries = [
        entry(DOG, box(5, 5, 15, 15)),
        entry(PERSON, box(0, 0, 10, 30)),
        entry(PERSON, rle(0, 20, 20, 50)),
        entry(CAR, rle(0, 0, 2, 2)),
    ]
    expected = np.zeros((H, W), np.uint8)
    expected[:10, :30] = expected[:20, 20:50] = 15  # two persons overlap: one class
    expected[5:15, 5:15] = 12
    expected[5:10, 5:15] = expected[:2, :2] = 255
    assert np.array_equal(mask_of(tmp_path, entries), expected)
    expected[5:10, 5:15], expected[:2, :2] = 12, 7
    assert np.array_equal(mask_of(tmp_path, entries, overlap="smallest-on-top"), expected)
    assert np.array_equal(mask_of(tmp_path, entries[::-1], overlap="smallest-on-top"), expected)


def test_of_equal_instances_the_later_is_on_top(tmp_path: Path) -> None:
    entries = [entry(DOG, box(0, 0, 8, 8)), entry(CAR, box(4, 4, 12, 12))]
    assert mask_of(tmp_path, entries, overlap="smallest-on-top")[5, 5] == 7
    assert mask_of(tmp_path, entries[::-1], overlap="smallest-on-top")[5, 5] == 12


@pytest.mark.parametrize("overlap", ["ignore", "smallest-on-top"])
def test_crowds_are_ignored(tmp_path: Path, overlap: str) -> None:
    entries = [
        entry(DOG, box(0, 0, 10, 10)),
        entry(PERSON, rle(5, 0, 20, 60), crowd=1),
        entry(KITE, rle(30, 0, 40, 60), crowd=1),
    ]
    expected = np.zeros((H, W), np.uint8)
    expected[5:20] = 255
    expected[:10, :10] = 12
    assert np.array_equal(mask_of(tmp_path, entries, overlap=overlap), expected)


def test_run_lengths_and_compressed_ones(tmp_path: Path) -> None:
    from pycocotools import mask as tools

    shape = np.random.default_rng(0).random((H, W)) < 0.3
    shape[:, 20:50] = np.arange(H)[:, None] > 7
    text = tools.encode(np.asfortranarray(shape.astype(np.uint8)))["counts"].decode()
    for counts in (text, run_lengths(shape)):
        mask = mask_of(tmp_path, [entry(CAR, {"size": [H, W], "counts": counts})])
        assert np.array_equal(mask, np.where(shape, 7, 0))


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images for training, with an own cache; the first and the last are large enough."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entries = [
        entry(PERSON, rle(0, 0, 20, 50)), entry(PERSON, rle(30, 0, 40, 60), crowd=1),  # 1,000
        entry(PERSON, rle(0, 0, 27, 37), image=2),  # 999
        entry(PERSON, rle(0, 0, 20, 50), image=3), entry(DOG, rle(0, 0, 1, 1), image=3),  # 999
        entry(PERSON, rle(0, 0, 40, 60), crowd=1, image=4),  # none
        entry(KITE, rle(0, 0, 40, 60), image=5),  # none
        entry(PERSON, rle(0, 0, 20, 25), image=6), entry(CAR, rle(20, 0, 40, 25), image=6),  # 1,000
    ]  # fmt: skip
    write(tmp_path, entries, "train2017")
    write(tmp_path, entries[:1])
    return tmp_path


def test_images_for_training_need_1000_pixels(train: Path) -> None:
    split = opened(train, "train")
    assert [split.key(index) for index in range(len(split))] == [
        "train2017/000000000001",
        "train2017/000000000006",
    ]
    assert len(opened(train, "train", overlap="smallest-on-top")) == 3
    assert (len(opened(train, "val")), len(opened(train, "trainval"))) == (1, 3)


def test_counted_pixels_are_cached(train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(opened(train, "train")) == 2
    with monkeypatch.context() as patch:
        patch.setattr(coco, "draw", lambda *_: pytest.fail("drawn again"))
        assert len(opened(train, "train")) == 2
    (cache,) = (train / "cache" / "seenet").iterdir()
    for damaged in ("", "[]", '{"key": 1, "pictures": [2]}', '{"key": "x"}'):
        cache.write_text(damaged)
        assert len(opened(train, "train")) == 2
    path = train / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"category_id": 3,', '"category_id": 38,'))
    assert len(opened(train, "train")) == 1


Instances = list[tuple[dict[str, Any], np.ndarray, int]]
"""Annotation, mask and area of each instance."""


def oracle(instances: Instances, y: int, x: int, overlap: str) -> int:
    """Apply the rules to one pixel, one instance after the other."""
    order = list(CATEGORIES)
    found, crowd = [], False
    for place, (one, mask, area) in enumerate(instances):
        if mask[y, x] and one["category_id"] in CATEGORIES:
            crowd |= bool(one["iscrowd"])
            if not one["iscrowd"]:
                found.append((area, -place, order.index(one["category_id"]) + 1))
    if not found:
        return 255 if crowd else 0
    if overlap == "ignore" and len({label for _, _, label in found}) > 1:
        return 255
    return min(found)[2]


@pytest.mark.parametrize("overlap", ["ignore", "smallest-on-top"])
def test_real_annotations_against_the_oracle(shared: Path, overlap: str) -> None:
    from pycocotools.coco import COCO

    root = shared / "data" / "coco"
    reader = COCO(str(root / "annotations" / "instances_val2017.json"))
    split = opened(root, overlap=overlap)
    assert len(split) == 24
    for index, image in enumerate(reader.dataset["images"]):
        entries = [one for one in reader.dataset["annotations"] if one["image_id"] == image["id"]]
        mask = split.read(index)[1]
        assert split.key(index) == f"val2017/{image['id']:012d}"
        masks = [reader.annToMask(one) for one in entries]
        instances = [(one, of, int(of.sum())) for one, of in zip(entries, masks, strict=True)]
        for y, x in np.random.default_rng(index).integers(0, mask.shape, (500, 2)).tolist():
            assert mask[y, x] == oracle(instances, y, x, overlap), (image["file_name"], y, x)
    assert split_stats(split).void > 0


def test_real_outlines_against_pillow(shared: Path) -> None:
    """A decoder apart from pycocotools: large instances agree but for their outline."""
    root = shared / "data" / "coco"
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    split = opened(root)
    places = {picture.id: index for index, picture in enumerate(split.pictures)}
    large = [
        one
        for one in content["annotations"]
        if not one["iscrowd"] and one["category_id"] in CATEGORIES and one["area"] >= 20_000
    ]
    shares = []
    for one in large:
        mask = split.mask(places[one["image_id"]])
        drawn = Image.new("1", mask.shape[::-1])
        for outline in one["segmentation"]:
            ImageDraw.Draw(drawn).polygon(outline, fill=1)
        label = list(CATEGORIES).index(one["category_id"]) + 1
        shares.append(np.isin(mask[np.asarray(drawn)], (label, 255)).mean())
    assert len(shares) > 5 and min(shares) > 0.97


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "without outlines"),
        ([[1, 1, 5, 5]], "at least three corners"),
        ([[1, 1, 5, 5, 9]], "at least three corners"),
        ([[1, 1, 5, 5, 9, "a"]], "corner at 'a'"),
        ([[1, 1, 5, 5, 9, 1e12]], "corner at"),
        ("text", "neither outlines nor run lengths"),
        ({"size": [W, H], "counts": [H * W]}, "neither outlines nor run lengths"),
        ({"size": [H, W], "counts": [5]}, "of 5 pixels for a picture of 2400"),
        ({"size": [H, W], "counts": [H * W + 5]}, "of 2405 pixels"),
        ({"size": [H, W], "counts": [-5, H * W + 5]}, "no whole numbers"),
        ({"size": [H, W]}, "no whole numbers"),
        ({"size": [H, W], "counts": "oooo"}, "end too early"),
        ({"size": [H, W], "counts": "o" * 40}, "cannot be read"),
        ({"size": [H, W], "counts": "é"}, "cannot be read"),
        ({"size": [H, W], "counts": "32"}, "of 5 pixels"),
    ],
)
def test_bad_segmentations_are_named_when_read(
    tmp_path: Path, segmentation: object, message: str
) -> None:
    write(tmp_path, [entry(PERSON, segmentation), entry(PERSON, box(0, 0, 9, 9), image=2)])
    split = opened(tmp_path)
    assert split.mask(1)[0, 0] == 15
    with pytest.raises(DataError, match=message) as caught:
        split.mask(0)
    assert "000000000001.jpg" in str(caught.value) and "\n" not in str(caught.value)


IMAGE = {"id": 1, "file_name": "000000000001.jpg", "height": H, "width": W}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [1]}, "not COCO's instances"),
        ({"categories": []}, "category 5 is None"),
        ({"categories": [{"id": c, "name": "road"} for c in NAMES]}, "category 5 is 'road'"),
        ({"images": [IMAGE, IMAGE]}, "share an id"),
        ({"annotations": [entry(PERSON, [], image=7)]}, "KeyError"),
        ({"images": []}, "no pictures found"),
        *(
            ({"images": [{**IMAGE, "file_name": name}]}, "no plain file name")
            for name in ("../a.jpg", "/etc/passwd", "..", "a\\b.jpg", "")
        ),
        ({"images": [{**IMAGE, "height": 0}]}, "0 x 60 pixels"),
        ({"images": [{**IMAGE, "height": 10**6, "width": 10**6}]}, "expected 1 to"),
        ({"images": [{**IMAGE, "file_name": "other.jpg"}]}, "no such picture"),
    ],
)  # fmt: skip
def test_bad_annotation_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path, [], **changes)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_files_that_are_no_annotations(tmp_path: Path, text: str) -> None:
    write(tmp_path, []).write_text(text)
    with pytest.raises(DataError, match="not COCO's instances"):
        opened(tmp_path)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    write(tmp_path, [], images=[{**IMAGE, "height": 41}])
    with pytest.raises(DataError, match=r"41 x 60 pixels, but its picture .*40 x 60"):
        opened(tmp_path).read(0)


def test_without_pycocotools_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pip install 'seenet\[coco\]'"):
        mask_of(tmp_path, [entry(PERSON, box(0, 0, 9, 9))])
