"""Data sets as they are published: with lists of classes and of splits, and more files beside.

Also data sets that are refused, with what the message has to name.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.layouts import (
    COLOURS,
    Truth,
    fill,
    layout,
    named_layout,
    save,
    save_colours,
    save_ids,
    word,
)
from tests.data.noise import framed

Rng = np.random.Generator
NAMES = {0: "background", 1: "disc", 2: "ring", 3: "never"}
"""Names of labels; no mask holds the last one."""
KITTI = np.array([7, 26, 24], np.uint8)


def instances_of(ids: np.ndarray, factor: int) -> np.ndarray:
    """Number the objects of a class; the background, the first label, has no number."""
    return np.where(ids == KITTI[0], ids, ids.astype(int) * factor + 1).astype(np.uint16)


def write_list(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@named_layout
def kitti(root: Path, rng: Rng) -> Truth:
    """Write ids, colours and instances of one name in folders beside one another."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, KITTI[ids])
        save(root / "training/semantic_rgb" / path.name, COLOURS[ids])
        save(root / "training/instance" / path.name, instances_of(KITTI[ids], 256))
        return ids

    rule = ("{split}/image_2/{id}_10.png", "{split}/semantic/{id}_10.png", "training -testing")
    truth = fill(root, rng, *rule, names=[f"{n % 10:06d}" for n in range(20)], store=store)
    truth.named += ("instance",)
    return truth


@named_layout
def cityscapes_like(root: Path, rng: Rng) -> Truth:
    """Write ids, instances, colours and polygons of one picture beside one another."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        save(path, KITTI[ids])
        start = path.name.removesuffix("_labelIds.png")
        save(path.with_name(f"{start}_instanceIds.png"), instances_of(KITTI[ids], 1000))
        colours = np.dstack([COLOURS[ids], np.full(ids.shape, 255, np.uint8)])
        save(path.with_name(f"{start}_color.png"), colours)
        polygons = {"imgHeight": ids.shape[0], "imgWidth": ids.shape[1], "objects": []}
        path.with_name(f"{start}_polygons.json").write_text(json.dumps(polygons))
        return ids

    pictures = "leftImg8bit/{split}/{city}/{city}_{id}_leftImg8bit.png"
    masks = "gtFine/{split}/{city}/{city}_{id}_gtFine_labelIds.png"
    names = [f"{n:06d}_000019" for n in range(40)]
    truth = fill(root, rng, pictures, masks, "train val -test", names=names, store=store)
    truth.named += ("_instanceIds", "_color")
    return truth


@named_layout
def idd_lite(root: Path, rng: Rng) -> Truth:
    """Write drives below the split, and void."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        truth = framed(ids)
        save(path, truth.astype(np.uint8))
        return truth

    pictures = "leftImg8bit/{split}/{city}/frame{id}_image.jpg"
    masks = "gtFine/{split}/{city}/frame{id}_label.png"
    return fill(root, rng, pictures, masks, "train val", store=store)


@named_layout
def camvid_of_segnet(root: Path, rng: Rng) -> Truth:
    """Write lists with two columns and a root that is not here."""
    rule = ("{split}/{id}.png", "{split}annot/{id}.png", "train val test")
    truth = fill(root, rng, *rule, names=[f"0001TP_{n:06d}" for n in range(40)])
    for part in ("train", "val", "test"):
        lines = [
            f"/SegNet/CamVid/{path} /SegNet/CamVid/{path.replace('/', 'annot/')}"
            for path, split in truth.split.items()
            if split == part
        ]
        write_list(root / f"{part}.txt", lines)
    return truth


@named_layout
def camvid_with_colours(root: Path, rng: Rng) -> Truth:
    rule = ("{split}/{id}.png", "{split}_labels/{id}_L.png", "train val test")
    truth = fill(root, rng, *rule, store=save_colours)
    lines = [f"{name},{','.join(map(str, COLOURS[label]))}" for label, name in NAMES.items()]
    write_list(root / "class_dict.csv", ["name,r,g,b", *lines])
    truth.classes = NAMES
    return truth


@named_layout
def roboflow(root: Path, rng: Rng) -> Truth:
    names = [f"p{n:02d}_jpg.rf.{rng.bytes(16).hex()}" for n in range(40)]
    rule = ("{split}/{id}.jpg", "{split}/{id}_mask.png", "train valid test")
    truth = fill(root, rng, *rule, names=names)
    for part in ("train", "valid", "test"):
        lines = [f"{label}, {name}" for label, name in NAMES.items()]
        write_list(root / part / "_classes.csv", ["Pixel Value, Class", *lines])
    (root / "README.dataset.txt").write_text("https://example.org\n")
    truth.classes = NAMES
    return truth


@named_layout
def voc(root: Path, rng: Rng) -> Truth:
    """Write palette files of classes and of objects, and lists in ImageSets/Segmentation."""
    palette = rng.integers(0, 256, 768, np.uint8).tobytes()

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        classes = np.array([0, 1 + number % 3, 1 + number // 3 % 3])[ids]
        truth = framed(classes)
        for folder, values in (("SegmentationClass", truth), ("SegmentationObject", framed(ids))):
            mask = Image.fromarray(values.astype(np.uint8)).convert("P")
            mask.putpalette(palette)
            (root / folder).mkdir(exist_ok=True)
            mask.save(root / folder / path.name)
        return truth

    rule = ("JPEGImages/{id}.jpg", "SegmentationClass/{id}.png")
    names = [f"2007_{n:06d}" for n in range(12)]
    truth = fill(root, rng, *rule, count=12, names=names, store=store)
    for number, path in enumerate(truth.masks):
        truth.split[path] = "val" if number % 4 == 1 else "train"
    for part in ("train", "val"):
        lines = [Path(path).stem for path, split in truth.split.items() if split == part]
        write_list(root / f"ImageSets/Segmentation/{part}.txt", lines)
    write_list(root / "ImageSets/Segmentation/trainval.txt", sorted(names))
    truth.named = ("SegmentationObject",)
    return truth


@layout
def lists_of_two_columns(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    pictures, masks = (word(rng), word(rng)) if renamed else ("images", "masks")
    truth = fill(root, rng, f"{pictures}/{{id}}.jpg", f"{masks}/{{id}}.png")
    for number, path in enumerate(truth.masks):
        truth.split[path] = "val" if number % 3 == 1 else "train"
    for part in ("train", "val"):
        paths = [path for path, split in truth.split.items() if split == part]
        lines = [f"{path} {masks}/{Path(path).stem}.png" for path in paths]
        write_list(root / f"{part}.txt", lines)
    return truth


@named_layout
def cvat_masks(root: Path, rng: Rng) -> Truth:
    """Write CVAT's export of masks: colours of classes and of objects, and labelmap.txt."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        objects = rng.integers(1, 255, (3, 3), np.uint8) * np.array([[0], [1], [1]], np.uint8)
        save(root / "SegmentationObject" / path.name, objects[ids])
        return save_colours(path, ids, number)

    truth = fill(root, rng, "JPEGImages/{id}.jpg", "SegmentationClass/{id}.png", store=store)
    lines = [f"{name}:{','.join(map(str, COLOURS[label]))}::" for label, name in NAMES.items()]
    write_list(root / "labelmap.txt", ["# label:color_rgb:parts:actions", *lines])
    stems = [Path(path).stem for path in truth.masks]
    write_list(root / "ImageSets/Segmentation/default.txt", stems)
    truth.classes, truth.named = NAMES, ("SegmentationObject",)
    return truth


def class_list(file: str) -> None:
    """Enter a data set with a list of classes, one a line."""

    def generator(root: Path, rng: Rng, renamed: bool = False) -> Truth:
        truth = fill(root, rng, renamed=renamed)
        write_list(root / file, list(NAMES.values()))
        truth.classes = NAMES
        return truth

    generator.__name__ = file.replace(".", "_")
    layout(generator)


class_list("class_names.txt")
class_list("classes.txt")


@named_layout
def folder_for_test(root: Path, rng: Rng) -> Truth:
    """Write pictures without masks in a folder whose name ends in _test."""
    truth = fill(root, rng)
    more = fill(root, rng, "images_test/{id}.jpg", "none/{id}.png", "-test")
    truth.outside, truth.named = more.outside, ("images_test",)
    return truth


@named_layout
def images_of_test(root: Path, rng: Rng) -> Truth:
    rule = ("images/{split}/{id}.jpg", "masks/{split}/{id}.png", "train val -test")
    return fill(root, rng, *rule)


def divided(*, names: list[str], rare: int = 0) -> Callable[[Path, Rng], Truth]:
    """Return a generator of pairs with these names; only so many masks hold class 2 (11)."""

    def generator(root: Path, rng: Rng) -> Truth:
        chosen = set(rng.permutation(len(names))[:rare].tolist())

        def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
            if rare and number not in chosen:
                ids = np.where(ids == 2, 1, ids).astype(np.uint8)
            return save_ids(path, ids, number)

        return fill(root, rng, count=len(names), names=names, store=store)

    return generator


def refused(masks: str, content: str | bytes, *, pictures: str = "images/{id}.jpg") -> Callable:
    """Return a generator of pictures beside files that hold no masks.

    Args:
        masks: template of their paths; without {id} it is one file for all.
        content: of each file, with {id}.
        pictures: template of the pictures' paths.
    """

    def generator(root: Path, rng: Rng) -> None:
        def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
            text = content.replace("{id}", f"p{number:02d}") if isinstance(content, str) else ""
            path.write_bytes(text.encode() if text else content)
            return ids

        fill(root, rng, pictures, masks, store=store)

    return generator


def unknown_pictures(root: Path, rng: Rng) -> None:
    fill(root, rng, "images/{id}.xyz", show=lambda path, pixels: path.write_bytes(b"\0\1"))


_POLYGON = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}
_VIA = {
    "p00.jpg100": {
        "filename": "p00.jpg", "size": 100,
        "regions": [{"shape_attributes": _POLYGON, "region_attributes": {"kind": "disc"}}],
        "file_attributes": {},
    }
}  # fmt: skip
_SUPERVISELY = {
    "description": "", "tags": [], "size": {"height": 96, "width": 128},
    "objects": [{
        "classTitle": "disc", "geometryType": "polygon", "tags": [],
        "points": {"exterior": [[1, 1], [9, 1], [9, 9]], "interior": []},
    }],
}  # fmt: skip
_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 1234\n"
_MAT = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\1IM"


def nnunet(root: Path, rng: Rng) -> None:
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"\x1f\x8b\x08\0" + bytes(40))
    text = json.dumps({"labels": {"background": 0, "disc": 1}, "file_ending": ".nii.gz"})
    (root / "dataset.json").write_text(text)


REFUSED: dict[str, tuple[Callable[[Path, Rng], None], tuple[str, ...]]] = {
    "empty masks": (refused("masks/{id}.png", b""), ("masks",)),
    "unknown pictures": (unknown_pictures, ("images", ".xyz")),
    "json": (refused("labels/{id}.json", '{"any": []}'), ("labels", ".json")),
    "csv": (refused("labels/{id}.csv", "any,thing\n1,2\n"), ("labels", ".csv")),
    "mat": (refused("masks/{id}.mat", _MAT), ("masks", ".mat")),
    "unknown masks": (refused("masks/{id}.xyz", b"\0\1"), ("masks", ".xyz")),
    "via": (refused("via_region_data.json", json.dumps(_VIA)), ("VIA",)),
    "supervisely": (
        refused("ds/ann/{id}.jpg.json", json.dumps(_SUPERVISELY), pictures="ds/img/{id}.jpg"),
        ("Supervisely",),
    ),
    "nnu-net": (nnunet, ("nnU-Net",)),
    "kaggle": (refused("train.csv", "ImageId,EncodedPixels\np00.jpg,1 3 9 4\n"), ("RLE",)),
    "lfs": (refused("masks/{id}.png", _LFS), ("masks", "git lfs pull")),
    "empty": (lambda root, rng: None, ()),
}
"""Generator, and what the message has to name, of what is not read."""
