"""`seenet data convert`: each format with the same objects, the files it meets, bad ones."""

import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seenet.core.errors import DataError
from seenet.core.images import read_ids
from seenet.data.convert import Converted, convert, find_annotations, find_unsupported
from tests.cli.commands import run

pytest.importorskip("pycocotools")

H, W = 40, 60
# Class, left, top, right, bottom; the small dog lies over the car.
Box = tuple[str, int, int, int, int]
SCENES: dict[str, list[Box]] = {
    "a": [("dog", 30, 10, 40, 20), ("car", 20, 5, 55, 30)],
    "b": [("car", 0, 0, 10, 40)],
}
OVERLAPPED = 100


def truth(name: str, classes: list[str], scenes: dict[str, list[Box]] = SCENES) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    area = lambda one: (one[3] - one[1]) * (one[4] - one[2])  # noqa: E731
    for label, left, top, right, bottom in sorted(scenes[name], key=area, reverse=True):
        mask[top:bottom, left:right] = classes.index(label)
    return mask


def photo(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 255, (H, W, 3), np.uint8)).save(path, **options)
    return path


def corners(box: Box) -> list[float]:
    _, left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(
    path: Path, names: list[str], scenes: dict[str, list[Box]] = SCENES, **changes: Any
) -> Path:
    ids = {"car": 3, "dog": 17, "person": 1}
    content = {
        "images": [
            {"id": number, "file_name": name, "height": H, "width": W}
            for number, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": number, "category_id": ids[box[0]], "segmentation": [corners(box)]}
            for number, name in enumerate(names)
            for box in scenes.get(Path(name).stem, [])
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    return write(path, {**content, **changes})


def make_coco(root: Path) -> list[str]:
    photo(root / "images" / "a.jpg"), photo(root / "images" / "b.jpg")
    coco(root / "annotations" / "instances.json", ["a.jpg", "b.jpg"])
    return ["background", "person", "car", "dog"]


def make_roboflow(root: Path) -> list[str]:
    for split, name in (("train", "a"), ("valid", "b")):
        photo(root / split / f"{name}.jpg")
        path = coco(root / split / "_annotations.coco.json", [f"{name}.jpg"])
        content = json.loads(path.read_text())
        content["categories"] = [
            {"id": 0, "name": "things", "supercategory": "none"},
            *({**one, "supercategory": "things"} for one in content["categories"]),
        ]
        write(path, content)
    return ["background", "person", "car", "dog"]


def labelme(boxes: list[Box], picture: str, **changes: Any) -> dict[str, Any]:
    shapes = []
    for place, box in enumerate(boxes):
        values = corners(box)
        points = [[values[i], values[i + 1]] for i in range(0, 8, 2)]
        kind = {"points": points, "shape_type": "polygon"}
        if place == 0:
            kind = {"points": [points[2], points[0]], "shape_type": "rectangle"}
        shapes.append({"label": box[0], **kind})
    size = {"imageHeight": H, "imageWidth": W}
    return {"version": "5", "shapes": shapes, "imagePath": picture, **size, **changes}


def make_labelme(root: Path) -> list[str]:
    for name, boxes in SCENES.items():
        photo(root / f"{name}.jpg")
        write(root / f"{name}.json", labelme(boxes, f"{name}.jpg"))
    return ["background", "car", "dog"]


def make_labelme_in_folders(root: Path) -> list[str]:
    paths = {"a": "..\\images\\a.jpg", "b": "C:\\Users\\me\\data\\images\\b.jpg"}
    for name, boxes in SCENES.items():
        photo(root / "images" / f"{name}.jpg")
        write(root / "json" / f"{name}.json", labelme(boxes, paths[name]))
    return ["background", "car", "dog"]


def cvat(scenes: dict[str, list[Box]], extra: str = "", head: str = "") -> str:
    images = []
    for name, boxes in scenes.items():
        shapes = []
        for place, box in enumerate(boxes):
            label, left, top, right, bottom = box
            if place == 0:
                points = f"{left},{top};{right},{top};{right},{bottom};{left},{bottom}"
                shapes.append(f'<polygon label="{label}" points="{points}" z_order="0"/>')
            else:
                sides = f'xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"'
                shapes.append(f'<box label="{label}" {sides} z_order="0"/>')
        images.append(
            f'<image id="0" name="{name}.jpg" width="{W}" height="{H}">{"".join(shapes)}{extra}'
            '<tag label="dog"/></image>'
        )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "sky", "car"))
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    return f"<?xml version='1.0'?>{head}<annotations>{meta}{''.join(images)}</annotations>"


def make_cvat(root: Path) -> list[str]:
    photo(root / "images" / "a.jpg"), photo(root / "images" / "b.jpg")
    write(root / "annotations.xml", cvat(SCENES))
    return ["background", "dog", "sky", "car"]


def yolo(boxes: list[Box]) -> str:
    lines = []
    for box in boxes:
        values = [value / (W, H)[place % 2] for place, value in enumerate(corners(box))]
        lines.append(f"{['car', 'sky', 'dog'].index(box[0])} {' '.join(map(repr, values))}\n")
    return "".join(lines)


def make_yolo(root: Path) -> list[str]:
    for split, name in (("train", "a"), ("val", "b")):
        photo(root / "images" / split / f"{name}.jpg")
        write(root / "labels" / split / f"{name}.txt", yolo(SCENES[name]))
    write(root / "data.yaml", "path: .\nnames: {0: car, 1: sky, 2: dog}\n")
    return ["background", "car", "sky", "dog"]


def make_yolo_split_first(root: Path) -> list[str]:
    for split, name in (("train", "a"), ("valid", "b")):
        photo(root / split / "images" / f"{name}.jpg")
        write(root / split / "labels" / f"{name}.txt", yolo(SCENES[name]))
    write(root / "data.yaml", "names: [car, sky, dog]\n")
    return ["background", "car", "sky", "dog"]


def make_darknet(root: Path) -> list[str]:
    for name, boxes in SCENES.items():
        photo(root / "obj_train_data" / f"{name}.jpg")
        write(root / "obj_train_data" / f"{name}.txt", yolo(boxes))
    write(root / "obj.names", "car\nsky\ndog\n")
    return ["background", "car", "sky", "dog"]


def class_file(path: Path, boxes: list[Box], label: str) -> None:
    mask = np.zeros((H, W), np.uint8)
    for name, left, top, right, bottom in boxes:
        mask[top:bottom, left:right] |= 255 * (name == label)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def make_class_files(rule: str) -> Callable[[Path], list[str]]:
    def make(root: Path) -> list[str]:
        for name, boxes in SCENES.items():
            photo(root / ("" if rule.startswith("{id}") else "images") / f"{name}.jpg")
            for label in ("car", "dog"):
                class_file(root / rule.format(id=name, label=label), boxes, label)
        return ["background", "car", "dog"]

    return make


FORMATS: dict[str, tuple[str, Callable[[Path], list[str]], str]] = {
    "coco": ("COCO", make_coco, "images"),
    "roboflow": ("COCO", make_roboflow, "."),
    "labelme": ("Labelme", make_labelme, "."),
    "labelme in folders": ("Labelme", make_labelme_in_folders, "images"),
    "cvat": ("CVAT", make_cvat, "images"),
    "yolo": ("YOLO", make_yolo, "images"),
    "yolo split first": ("YOLO", make_yolo_split_first, "."),
    "darknet": ("YOLO", make_darknet, "obj_train_data"),
    **{
        rule: ("a mask file a class", make_class_files(rule), images)
        for rule, images in (
            ("masks/{label}/{id}.png", "images"), ("{label}/{id}.png", "images"),
            ("masks/{id}_{label}.png", "images"), ("masks/{id}-{label}_mask.png", "images"),
            ("{id}_{label}.png", "."),
        )
    },
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of a random name."""
    letters = "abcxyz é-_"
    name = "".join(random.choice(letters) for _ in range(8)).strip()
    (tmp_path / f"d{name}").mkdir()
    return tmp_path / f"d{name}"


def check_masks(found: Converted, classes: list[str]) -> None:
    assert list(found.classes) == classes
    assert (found.out / "classes.txt").read_text().splitlines() == classes
    written = sorted(path for path in found.out.rglob("*") if path.is_file())
    assert len(written) == found.masks + 1
    for name in found.pictures:
        path = (found.out / name).with_suffix(".png")
        with Image.open(path) as image:
            assert image.mode == "P"
        assert np.array_equal(read_ids(path), truth(path.stem, classes)), path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(root: Path, name: str) -> None:
    title, make, images = FORMATS[name]
    classes = make(root)
    assert find_annotations(root) == title
    before = sorted(root.rglob("*"))
    found = convert(root, root / "seenet-masks")
    assert (found.format, found.images, found.masks) == (title, images, 2)
    assert (found.unlabelled, found.overlapped) == (0, OVERLAPPED)
    check_masks(found, classes)
    assert {path.stem for path in (root / images).rglob("*.jpg")} == {"a", "b"}
    assert [path for path in sorted(root.rglob("*")) if found.out not in {path, *path.parents}] == (
        before
    )
    # What was written is not read as annotations or pictures.
    again = convert(root, root.parent / "again")
    assert (again.masks, again.unlabelled) == (2, 0)


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_coco(root)
    photo(root / "images" / "c.jpg")
    code, out, err = run(capsys, "data", "convert", root)
    assert code == 0, err
    assert out.splitlines() == [
        "COCO: 2 masks of 4 classes (background, person, car, dog)",
        f"written: {root / 'seenet-masks'}, for the pictures in images",
        "left out: pictures without annotation: 1",
        f"overlaps: pixels of two classes, the smaller object on top: {OVERLAPPED}",
    ]
    code, _, err = run(capsys, "data", "convert", root)
    assert code == 4 and err.splitlines()[-1] == (
        f"seenet: {root / 'seenet-masks'}: exists already; move it away, or give another --out"
    )
    (root / "empty").mkdir()
    assert run(capsys, "data", "convert", root, "--out", root / "empty")[0] == 0


def test_a_relative_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_labelme_in_folders(root)
    for start, folder in ((root, "."), (root / "json", ".."), (root.parent, root.name)):
        monkeypatch.chdir(start)
        found = convert(Path(folder), Path(folder, "out"))
        assert found.images == "images"
        shutil.rmtree(root / "out")


def test_objects_of_the_data_science_bowl(root: Path) -> None:
    for name, boxes in SCENES.items():
        photo(root / "stage1_train" / name / "images" / f"{name}.png")
        for number, box in enumerate(boxes):
            class_file(root / "stage1_train" / name / "masks" / f"{number}f.png", [box], box[0])
    photo(root / "stage1_train" / "c" / "images" / "c.png")
    found = convert(root, root / "out")
    assert (found.format, found.images) == ("a mask file an object", "stage1_train")
    assert found.classes == ("background", "object")
    assert found.pictures == ("a/images/a.png", "b/images/b.png")
    assert (found.unlabelled, found.overlapped) == (1, 0)
    for name in SCENES:
        expected = truth(name, ["", "car", "dog"]) > 0
        assert np.array_equal(read_ids(root / "out" / name / "images" / f"{name}.png"), expected)


def test_numbered_masks_beside_the_picture_are_objects(root: Path) -> None:
    boxes = [("car", 0, 0, 10, 40), ("dog", 20, 0, 30, 40)]
    for name in SCENES:
        photo(root / "benign" / f"benign ({name}).png")
        for number, box in enumerate(boxes):
            end = f"_{number}" if number else ""
            class_file(root / "benign" / f"benign ({name})_mask{end}.png", [box], box[0])
    found = convert(root, root / "out")
    assert (found.classes, found.masks) == (("background", "object"), 2)
    assert read_ids(root / "out" / "benign (a).png").sum() == 20 * 40


@pytest.mark.parametrize(
    "folders",
    [
        ("labels", "color"),
        ("annotations", "annotations_detectron2"),
        ("1st_manual", "mask"),
        ("masks", "edges", "skeleton"),
        ("masks",),
    ],
)
def test_ordinary_folders_of_masks_are_no_classes(root: Path, folders: tuple[str, ...]) -> None:
    for name, boxes in SCENES.items():
        photo(root / "images" / f"{name}.jpg")
        for folder in folders:
            class_file(root / folder / f"{name}.png", boxes, "car")
    assert find_annotations(root) is None


def test_masks_of_several_annotators_are_no_objects(root: Path) -> None:
    for name, boxes in SCENES.items():
        photo(root / "images" / f"{name}.jpg")
        for number in (1, 2):
            class_file(root / "masks" / f"{name}_mask{number}.png", boxes, "car")
    assert find_annotations(root) is None


def test_coco_of_all_kinds(root: Path) -> None:
    photo(root / "images" / "a.jpg")
    photo(root / "images" / "b.jpg")
    full = np.zeros((H, W), np.uint8)
    full[5:30, 20:55] = 1
    from pycocotools import mask as tools

    text = tools.encode(np.asfortranarray(full))["counts"].decode()
    entries = [
        {"category_id": 17, "segmentation": corners(SCENES["a"][0])},
        {"category_id": 3, "segmentation": {"size": [H, W], "counts": text}},
        {"category_id": 1, "iscrowd": 1,
         "segmentation": {"size": [H, W], "counts": [0, 4 * H, (W - 4) * H]}},
    ]  # fmt: skip
    coco(
        root / "x.json",
        ["a.jpg", "b.jpg"],
        annotations=[{"image_id": 0, "id": number, **one} for number, one in enumerate(entries)],
    )
    found = convert(root, root / "out")
    expected = truth("a", list(found.classes))
    expected[:, :4] = 255
    assert np.array_equal(read_ids(root / "out" / "a.png"), expected)
    assert not read_ids(root / "out" / "b.png").any()
    assert found.ignore == 255


def test_a_category_of_the_format_may_be_the_background(root: Path) -> None:
    photo(root / "a.jpg")
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 17, "name": "dog"}]
    coco(root / "x.json", ["a.jpg"], categories=[*categories, {"id": 20, "name": "Background"}])
    found = convert(root, root / "out")
    assert found.classes == ("Background", "person", "car", "dog")
    assert np.array_equal(read_ids(root / "out" / "a.png"), truth("a", ["", "", "car", "dog"]))


def test_more_classes_than_a_byte_holds(root: Path) -> None:
    photo(root / "a.jpg")
    names = [{"id": number, "name": f"n{number}"} for number in range(1, 400)]
    coco(root / "x.json", ["a.jpg"], categories=names)
    found = convert(root, root / "out")
    assert (len(found.classes), found.ignore) == (400, 65535)
    ids = read_ids(root / "out" / "a.png")
    assert sorted(np.unique(ids)) == [0, 3, 17]


def test_coco_of_two_files_and_folders(root: Path) -> None:
    """As COCO's own: the same names in both folders are told apart by the file's name."""
    for split in ("train2017", "val2017"):
        photo(root / split / "a.jpg")
        coco(root / "annotations" / f"instances_{split}.json", ["a.jpg"])
        write(root / "annotations" / f"person_keypoints_{split}.json", "{")
    found = convert(root, root / "out")
    assert (found.images, found.pictures) == (".", ("train2017/a.jpg", "val2017/a.jpg"))


def test_a_picture_of_another_split_is_no_replacement(root: Path) -> None:
    for split in ("train", "val"):
        photo(root / "images" / split / "a.jpg")
        coco(root / "annotations" / f"instances_{split}.json", ["a.jpg"])
    (root / "images" / "val" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"instances_val.json: no picture 'a.jpg'"):
        convert(root, root / "out")
    shutil.rmtree(root / "annotations")
    write(root / "labels" / "val" / "a.txt", yolo(SCENES["a"]))
    with pytest.raises(DataError, match=r"a.txt: no picture .*images/val/a\.\*"):
        convert(root, root / "out")


def test_names_in_other_letters(root: Path) -> None:
    photo(root / "images" / "Ä.JPG")
    scenes = {"a\u0308": SCENES["a"]}
    coco(root / "x.json", ["photos/a\u0308.jpg"], scenes)
    assert convert(root, root / "out").pictures == ("Ä.JPG",)


def test_labelme_circles_and_what_is_ignored(root: Path) -> None:
    photo(root / "a.jpg")
    circle = {"label": "dog", "shape_type": "circle", "points": [[30, 20], [40, 20]]}
    void = {"label": "__ignore__", "points": [[0, 0], [40, 0], [40, 40], [0, 40]]}
    hole = {**circle, "label": "_background_", "points": [[30, 20], [30, 22]]}
    write(root / "a.json", labelme([], "a.jpg", shapes=[circle, void, hole]))
    found = convert(root, root / "out")
    ids = read_ids(root / "out" / "a.png")
    y, x = np.mgrid[:H, :W] + 0.5
    distance = np.hypot(y - 20, x - 30)
    assert found.classes == ("_background_", "dog")
    assert (ids[(distance > 3.5) & (distance < 9)] == 1).all() and ids[20, 30] == 0
    assert (ids[(distance > 11) & (x < 40)] == 255).all() and (ids[:, 41:] == 0).all()


def test_a_labelme_picture_that_was_renamed(root: Path) -> None:
    photo(root / "a.png")
    write(root / "a.json", labelme(SCENES["a"], "IMG_0001.JPG"))
    assert convert(root, root / "out").pictures == ("a.png",)


def test_cvat_layers_masks_and_turned_boxes(root: Path) -> None:
    photo(root / "a.jpg")
    counts = [0, 5, 5, 5, 5, 5, 25]  # ten columns, five rows
    extra = (
        '<mask label="sky" rle="{}" left="3" top="30" width="10" height="5" z_order="1"/>'
        '<box label="sky" xtl="0" ytl="5" xbr="30" ybr="15" rotation="90"/>'
        '<polygon label="car" points="30,10;40,10;40,20;30,20" z_order="2"/>'
    ).format(", ".join(map(str, counts)))
    write(root / "annotations.xml", cvat({"a": SCENES["a"][:1]}, extra))
    found = convert(root, root / "out")
    ids = read_ids(root / "out" / "a.png")
    expected = truth("a", list(found.classes), {"a": [("sky", 10, 0, 20, 25)]})
    expected[10:20, 30:40] = 3
    expected[30:33, 3:8] = 2
    expected[32, 3:8] = 2
    rows = np.zeros(50, bool)
    rows[:5] = rows[10:15] = rows[20:25] = True
    expected[30:35, 3:13] = np.where(rows.reshape(5, 10), 2, 0)
    assert np.array_equal(ids, expected)


def test_subsets_of_a_cvat_project(root: Path) -> None:
    text = ""
    for split, scene in (("one", "a"), ("two", "b")):
        photo(root / "images" / split / "a.jpg")
        image = re.findall("<image.*</image>", cvat({"a": SCENES[scene]}))[0]
        text += image.replace("<image ", f'<image subset="{split}" ')
    write(root / "annotations.xml", cvat({}).replace("</annotations>", text + "</annotations>"))
    found = convert(root, root / "out")
    assert found.pictures == ("one/a.jpg", "two/a.jpg")
    for split, scene in (("one", "a"), ("two", "b")):
        ids = read_ids(root / "out" / split / "a.png")
        assert np.array_equal(ids, truth(scene, list(found.classes)))


def test_masks_of_the_pictures_names_are_not_the_pictures(root: Path) -> None:
    make_coco(root)
    photo(root / "overlays" / "a.jpg")
    assert convert(root, root / "out").images == "images"


def test_yolo_without_names_and_with_empty_files(root: Path) -> None:
    photo(root / "images" / "a.jpg")
    photo(root / "images" / "b.jpg")
    write(root / "labels" / "a.txt", yolo(SCENES["a"]))
    write(root / "labels" / "b.txt", "")
    found = convert(root, root / "out")
    assert (found.classes, found.masks) == (("background", "class0", "class1", "class2"), 2)
    assert not read_ids(root / "out" / "b.png").any()


def test_annotations_of_the_stored_and_of_the_upright_picture(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder, size in (("stored", (H, W)), ("upright", (W, H))):
        photo(root / folder / "a.jpg", exif=exif)
        image = {"id": 0, "file_name": "a.jpg", "height": size[0], "width": size[1]}
        coco(root / folder / "x.json", ["a.jpg"], images=[image])
        convert(root / folder, root / f"{folder}-out")
        assert read_ids(root / f"{folder}-out" / "a.png").shape == size


def test_missing_pictures_are_all_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"m{number}.jpg" for number in range(40)]
    photo(root / "images" / "a.jpg")
    coco(root / "x.json", ["a.jpg", *names, "/etc/passwd", "../../b.jpg"])
    code, out, err = run(capsys, "data", "convert", root)
    assert (code, out) == (4, "")
    line = err.splitlines()[-1]
    assert all(repr(name) in line for name in [*names, "/etc/passwd", "../../b.jpg"])
    assert "42 errors" in line and "copy it there" in line
    assert not (root / "seenet-masks").exists()


def test_wrong_outlines_are_all_named_and_nothing_is_left(root: Path) -> None:
    make_coco(root)
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["segmentation"] = []
    write(path, content)
    with pytest.raises(DataError, match=r"2 errors: .*a\.jpg have .*without outlines.*b\.jpg"):
        convert(root, root / "out")
    assert sorted(entry.name for entry in root.iterdir()) == ["annotations", "images"]


def bad_coco(**changes: Any) -> Callable[[Path], object]:
    return lambda root: coco(root / "x.json", ["a.jpg"], **changes)


def bad_labelme(**changes: Any) -> Callable[[Path], object]:
    return lambda root: write(root / "a.json", labelme(SCENES["a"], "a.jpg", **changes))


def bad_cvat(extra: str = "", head: str = "") -> Callable[[Path], object]:
    return lambda root: write(root / "a.xml", cvat({"a": SCENES["a"]}, extra, head))


def bad_yolo(text: str, names: str = "names: [car, sky, dog]") -> Callable[[Path], object]:
    return lambda root: (write(root / "a.txt", text), write(root / "data.yaml", names))


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
IMAGE = {"id": 0, "file_name": "a.jpg", "height": H, "width": W}
BAD: list[tuple[Callable[[Path], object], str]] = [
    (bad_coco(images=[{**IMAGE, "height": 41}]), "41 x 60 pixels, but its picture"),
    (bad_coco(images=[{**IMAGE, "height": 10**300}]), "another size than"),
    (bad_coco(images=[IMAGE, IMAGE]), "share an id"),
    (bad_coco(images=[IMAGE, {**IMAGE, "id": 1}]), "annotated in .* and again"),
    (bad_coco(images=[{**IMAGE, "file_name": 7}]), "not COCO's images"),
    (bad_coco(images=[{**IMAGE, "id": []}]), "not COCO's images"),
    (bad_coco(images=[], annotations=[]), "list no pictures"),
    (bad_coco(annotations=[]), "no object in all of 1 pictures"),
    (bad_coco(categories=[]), "not COCO's images"),
    (bad_coco(categories=[{"id": i, "name": " "} for i in (1, 3, 17)]), "class without a name"),
    (bad_coco(annotations=[{"image_id": 0, "category_id": 3}]), "neither outlines nor run"),
    (lambda root: write(root / "x.json", '"images" "annotations" "categories"'), "not COCO's"),
    (lambda root: write(root / "x.json", '{"images": 1, "annotations": 2, "categories":'
                        + "[" * 10**5), "not COCO's"),
    (bad_labelme(shapes=[{"label": "x", "shape_type": "line", "points": [[0, 0], [9, 9]]}]),
     "'x' is a line of 2 points, expected a polygon, a rectangle or a circle"),
    (bad_labelme(shapes=[{"label": "x", "points": [[0, 0], [9, 9]]}]), "at least three corners"),
    (bad_labelme(shapes=[{"label": "x", "points": 3}]), "not Labelme's"),
    (bad_labelme(shapes=[{"label": "x", "shape_type": "circle", "points": [[0, 0], [1e308, 9]]}]),
     "a corner at"),
    (bad_labelme(shapes=None), "not Labelme's"),
    (bad_labelme(imagePath=None), "not Labelme's"),
    (bad_labelme(shapes=[]), "no object in all of 1 pictures"),
    (bad_cvat('<polyline label="dog" points="1,2;3,4"/>'), "'a.jpg' has a polyline"),
    (bad_cvat('<polygon label="dog" points="1,2;3"/>'), "at least three corners"),
    (bad_cvat('<polygon label="dog" points=""/>'), "not XML of CVAT"),
    (bad_cvat('<mask label="dog" rle="9,1" left="0" top="0" width="3" height="3"/>'),
     "of 10 pixels for a mask of 9"),
    (bad_cvat(head=BOMB), "a DOCTYPE"),
    (bad_cvat("<x>"), "not XML of CVAT"),
    (bad_cvat("<x>" * 10**5 + "</x>" * 10**5), "has a x"),
    (lambda root: write(root / "a.xml", "<annotations><track id='0'/></annotations>"),
     "CVAT for video, expected CVAT for images"),
    (bad_yolo("0 0.5 0.5 0.2 0.2"), "line 1 is a box .* expected an outline; this is for detect"),
    (bad_yolo("0 1 1 30 1 30 30"), "corner at 30, expected shares from 0 to 1"),
    (bad_yolo("9 .1 .1 .5 .1 .5 .5"), "class 9, expected 0 to 2"),
    (bad_yolo("0 .1 .1 .5 .1 .5 .5\n0 a b c"), "not YOLO's"),
    (bad_yolo("0 .1 .1 .5 .1 .5"), "line 1 of 6 numbers"),
    (bad_yolo("0 .1 .1 .5 .1 .5 nan"), "corner at nan"),
    (bad_yolo("0 .1 .1 .5 .1 .5 .5", "names: 3"), "names are no list"),
    (bad_yolo("0 .1 .1 .5 .1 .5 .5", "names: {1: a, 2: b}"), "names are no list"),
    (bad_yolo("0 .1 .1 .5 .1 .5 .5", "names: [a"), "not valid YAML"),
    (lambda root: (photo(root / "a.png"), bad_labelme(imagePath="b.jpg")(root)), "no picture 'b"),
    (lambda root: (bad_yolo(yolo(SCENES["a"]))(root), bad_labelme()(root)), "of two formats"),
    (lambda root: write(root / "x.json", {"_via_img_metadata": {"a": {"regions": [
        {"shape_attributes": {}, "region_attributes": {}}]}}}), "VIA .*convert to masks"),
    (lambda root: write(root / "x.json", {"objects": [{"classTitle": "a"}]}),
     "Supervisely .*convert to masks"),
    (lambda root: write(root / "labelsTr" / "a.nii.gz", "x"), "nnU-Net .*convert to masks"),
    (lambda root: write(root / "a.mat", "x"), "MATLAB .*convert to masks"),
    (lambda root: write(root / "train.csv", "ImageId,EncodedPixels\n"), "Kaggle.*convert to mask"),
    (lambda root: None, "found no annotations, expected COCO, Labelme, CVAT, YOLO"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_annotations(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], object],
    message: str,
) -> None:
    photo(root / "a.jpg")
    make(root)
    started = time.monotonic()
    code, out, err = run(capsys, "data", "convert", root)
    assert (code, out) == (4, ""), err
    last = err.splitlines()[-1]
    assert last.startswith("seenet: ")
    assert re.search(message, last), last
    assert len(last) < 1000 and time.monotonic() - started < 10
    assert not (root / "seenet-masks").exists()
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_unsupported_formats_are_named(root: Path) -> None:
    assert find_unsupported(root) is None
    write(root / "a.mat", "")
    assert find_annotations(root) is None
    assert find_unsupported(root) == "annotations of MATLAB (a.mat)"


def test_without_pycocotools_the_extra_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_labelme(root)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    code, _, err = run(capsys, "data", "convert", root)
    assert code == 2 and "pip install 'seenet[coco]'" in err
