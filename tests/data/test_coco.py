"""COCO as VOC's classes: drawn annotations by hand, the real ones against a slow oracle, and what is said of bad files."""

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
from seenet.data.coco import CATEGORIES, COCO21, CocoSplit, read_annotations
from seenet.data.voc import VOC21

pytest.importorskip("pycocotools")

H, W = 40, 60
PERSON, DOG, CAR, KITE = 1, 18, 3, 38
ALL = {**CATEGORIES, KITE: "kite"}


def box(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column by column, background first."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def rle(top: int, left: int, bottom: int, right: int) -> dict[str, Any]:
    mask = np.zeros((H, W), bool)
    mask[top:bottom, left:right] = True
    return {"size": [H, W], "counts": run_lengths(mask)}


def entry(category: int, segmentation: object, crowd: int = 0, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


def write(root: Path, entries: list[dict[str, Any]], part: str = "val2017", **changes: Any) -> Path:
    ids = sorted({1} | {one["image_id"] for one in entries})
    images = [{"id": number, "file_name": f"{number:012d}.jpg", "height": H, "width": W} for number in ids]
    (root / part).mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(root / part / str(image["file_name"]))
    content = {"images": images, "annotations": entries, "categories": [{"id": c, "name": n} for c, n in ALL.items()], **changes}
    path = root / "annotations" / f"instances_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def opened(root: Path, which: str = "val", **settings: Any) -> CocoSplit:
    split = open_split(DataSettings(kind="coco", root=root, **settings), which)
    assert isinstance(split, CocoSplit)
    return split


def mask_of(root: Path, entries: list[dict[str, Any]], **settings: Any) -> np.ndarray:
    write(root, entries)
    image, mask = opened(root, **settings).read(0)
    assert image.shape == (H, W, 3)
    assert mask.dtype == np.uint8
    return mask


def test_categories_in_vocs_order() -> None:
    assert list(CATEGORIES) == [5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
    other = {"airplane": "aeroplane", "dining table": "diningtable", "motorcycle": "motorbike", "potted plant": "pottedplant",
             "couch": "sofa", "tv": "tvmonitor"}  # fmt: skip
    assert tuple(other.get(name, name) for name in CATEGORIES.values()) == VOC21.classes[1:] == COCO21.classes[1:]
    assert (COCO21.name, COCO21.ignore, COCO21.rim) == ("coco21", 255, False)


def test_classes_and_others(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, [entry(PERSON, box(0, 0, 10, 10)), entry(DOG, rle(20, 30, 40, 60)), entry(KITE, box(0, 0, 30, 40))])
    expected = np.zeros((H, W), np.uint8)
    expected[:10, :10], expected[20:, 30:] = 15, 12
    assert np.array_equal(mask, expected)


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


def test_of_equal_ones_the_later_is_on_top(tmp_path: Path) -> None:
    entries = [entry(DOG, box(0, 0, 8, 8)), entry(CAR, box(4, 4, 12, 12))]
    assert mask_of(tmp_path, entries, overlap="smallest-on-top")[5, 5] == 7
    assert mask_of(tmp_path, entries[::-1], overlap="smallest-on-top")[5, 5] == 12


@pytest.mark.parametrize("overlap", ["ignore", "smallest-on-top"])
def test_crowds(tmp_path: Path, overlap: str) -> None:
    entries = [entry(DOG, box(0, 0, 10, 10)), entry(PERSON, rle(5, 0, 20, 60), crowd=1), entry(KITE, rle(30, 0, 40, 60), crowd=1)]
    expected = np.zeros((H, W), np.uint8)
    expected[5:20] = 255
    expected[:10, :10] = 12
    assert np.array_equal(mask_of(tmp_path, entries, overlap=overlap), expected)


def test_compressed_run_lengths(tmp_path: Path) -> None:
    from pycocotools import mask as tools

    shape = np.random.default_rng(0).random((H, W)) < 0.3
    shape[:, 20:50] = np.arange(H)[:, None] > 7
    text = tools.encode(np.asfortranarray(shape.astype(np.uint8)))["counts"].decode()
    mask = mask_of(tmp_path, [entry(CAR, {"size": [H, W], "counts": text})])
    assert np.array_equal(mask == 7, shape)
    assert np.array_equal(mask, mask_of(tmp_path, [entry(CAR, {"size": [H, W], "counts": run_lengths(shape)})]))


def test_train_needs_a_thousand_pixels_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entries = [
        entry(PERSON, rle(0, 0, 20, 50)), entry(PERSON, rle(30, 0, 40, 60), crowd=1),  # 1,000
        entry(PERSON, rle(0, 0, 27, 37), image=2),  # 999
        entry(PERSON, rle(0, 0, 20, 50), image=3), entry(DOG, rle(0, 0, 1, 1), image=3),  # 999 by an overlap
        entry(PERSON, rle(0, 0, 40, 60), crowd=1, image=4), entry(KITE, rle(0, 0, 40, 60), image=5),  # none
        entry(PERSON, rle(0, 0, 20, 25), image=6), entry(CAR, rle(20, 0, 40, 25), image=6),  # 1,000 of two classes
    ]  # fmt: skip
    path = write(tmp_path, entries, "train2017")
    train = opened(tmp_path, "train")
    assert [train.key(index) for index in range(len(train))] == ["train2017/000000000001", "train2017/000000000006"]
    assert train.name == "coco/train"
    (store,) = (tmp_path / "cache" / "seenet").iterdir()

    def forbidden(*_: object) -> None:
        raise AssertionError("drawn again")

    with monkeypatch.context() as patch:
        patch.setattr(coco, "draw", forbidden)
        assert len(opened(tmp_path, "train")) == 2
        with pytest.raises(AssertionError):
            opened(tmp_path, "train", overlap="smallest-on-top")
    assert len(opened(tmp_path, "train", overlap="smallest-on-top")) == 3
    for damaged in ("", "[]", '{"key": 1, "pictures": [2]}', '{"key": "x"}'):
        store.write_text(damaged)
        assert len(opened(tmp_path, "train")) == 2
    path.write_text(path.read_text().replace('"category_id": 3,', '"category_id": 38,'))
    assert len(opened(tmp_path, "train")) == 1
    write(tmp_path, entries[:1])
    assert len(opened(tmp_path, "val")) == 1
    assert len(opened(tmp_path, "trainval")) == 2


def oracle(annotations: list[dict[str, Any]], masks: list[np.ndarray], areas: list[int], y: int, x: int, overlap: str) -> int:
    """The rules for one pixel, one annotation after the other."""
    order = list(CATEGORIES)
    found, crowd = [], False
    for place, one in enumerate(annotations):
        if masks[place][y, x] and one["category_id"] in CATEGORIES:
            if one["iscrowd"]:
                crowd = True
            else:
                found.append((areas[place], -place, order.index(one["category_id"]) + 1))
    if not found:
        return 255 if crowd else 0
    if overlap == "ignore" and len({label for _, _, label in found}) > 1:
        return 255
    return min(found)[2]


@pytest.mark.parametrize("overlap", ["ignore", "smallest-on-top"])
def test_real_pictures(shared: Path, overlap: str) -> None:
    from pycocotools.coco import COCO

    root = shared / "data" / "coco"
    path = root / "annotations" / "instances_val2017.json"
    reader = COCO(str(path))
    content = json.loads(path.read_text())
    split = opened(root, "val", overlap=overlap)
    assert len(split) == 24
    for index, image in enumerate(content["images"]):
        entries = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        picture, mask = split.read(index)
        assert picture.shape[:2] == mask.shape
        assert split.key(index) == f"val2017/{image['id']:012d}"
        masks = [reader.annToMask(one) for one in entries]
        areas = [int(one.sum()) for one in masks]
        for y, x in np.random.default_rng(index).integers(0, mask.shape, (500, 2)).tolist():
            assert mask[y, x] == oracle(entries, masks, areas, y, x, overlap), (image["file_name"], y, x)
    stats = split_stats(split)
    assert stats.void > 0
    assert stats.pixels.sum() > 0


def test_real_outlines_lie_where_pillow_draws_them(shared: Path) -> None:
    """A decoder that has nothing to do with pycocotools: large single instances agree but for their outline."""
    root = shared / "data" / "coco"
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    split = opened(root)
    places = {picture.id: index for index, picture in enumerate(split.pictures)}
    seen = 0
    for one in content["annotations"]:
        if one["iscrowd"] or one["category_id"] not in CATEGORIES or one["area"] < 20_000:
            continue
        drawn = Image.new("1", sizes[one["image_id"]])
        for outline in one["segmentation"]:
            ImageDraw.Draw(drawn).polygon(outline, fill=1)
        label = list(CATEGORIES).index(one["category_id"]) + 1
        inside = split.mask(places[one["image_id"]])[np.asarray(drawn)]
        assert ((inside == label) | (inside == 255)).mean() > 0.97
        seen += 1
    assert seen > 5


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
def test_bad_segmentations(tmp_path: Path, segmentation: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        mask_of(tmp_path, [entry(PERSON, segmentation)])
    assert "000000000001.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "none")
    with pytest.raises(UsageError, match="nearest: train"):
        opened(tmp_path, "trainn")
    path = write(tmp_path, [])
    good = json.loads(path.read_text())
    assert opened(tmp_path).mask(0).max() == 0

    def said(content: object) -> str:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(DataError) as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    image = good["images"][0]
    assert "JSONDecodeError" in said("{")
    assert "not COCO's instances" in said([])
    assert "not COCO's instances" in said("[" * 100_000)
    assert "category 5 is None" in said({**good, "categories": []})
    assert "category 1 is 'road'" in said({**good, "categories": [{"id": c, "name": "road" if c == 1 else n} for c, n in ALL.items()]})
    assert "share an id" in said({**good, "images": [image, image]})
    assert "KeyError" in said({**good, "annotations": [entry(PERSON, [], image=7)]})
    assert "no pictures found" in said({**good, "images": []})
    for name in ("../a.jpg", "/etc/passwd", "..", "a\\b.jpg", ""):
        assert "no plain file name" in said({**good, "images": [{**image, "file_name": name}]})
    assert "0 x 60 pixels" in said({**good, "images": [{**image, "height": 0}]})
    assert "expected 1 to" in said({**good, "images": [{**image, "height": 10**6, "width": 10**6}]})
    assert "no such picture" in said({**good, "images": [{**image, "file_name": "other.jpg"}]})
    write(tmp_path, [])
    path.write_text(json.dumps({**good, "images": [{**image, "height": 41}]}))
    with pytest.raises(DataError, match=r"41 x 60 pixels, but its picture .*40 x 60"):
        opened(tmp_path).read(0)
    path.unlink()
    with pytest.raises(DataError, match=r"instances_val2017\.json: no such file"):
        opened(tmp_path)


def test_without_pycocotools_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [entry(PERSON, box(0, 0, 9, 9))])
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"pip install 'seenet\[coco\]'"):
        opened(tmp_path).read(0)


def test_reading_is_lazy(tmp_path: Path) -> None:
    """A broken annotation is told when its picture is read, and by a file's own order."""
    path = write(tmp_path, [entry(PERSON, [], image=3), entry(PERSON, box(0, 0, 9, 9), image=2)])
    pictures = list(read_annotations(path, tmp_path / "val2017"))
    assert [picture.id for picture in pictures] == [1, 2, 3]
    split = opened(tmp_path)
    assert split.mask(1)[0, 0] == 15
    with pytest.raises(DataError):
        split.mask(2)
