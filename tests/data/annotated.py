"""Data sets that hold other labels than one mask a picture: polygons, or several masks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.data.layouts import HEIGHT, IGNORED, WIDTH, Truth, fill, layout, named_layout, save, word

Rng = np.random.Generator
NAMES = {1: "disc", 2: "ring", 3: "never"}
"""Names of labels; nothing is drawn of the last one."""
SLACK = 0.02
"""Share of a picture that rasterisers may decide otherwise: the outlines of two discs."""


def outline(ids: np.ndarray, label: int) -> np.ndarray:
    """Return 64 points (x, y) about the disc of a label; a pixel's centre is at half."""
    rows, columns = np.nonzero(ids == label)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.sqrt(len(rows) / np.pi)
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    return (centre + radius * np.column_stack([np.cos(angles), np.sin(angles)])).round(2)


def keep(drawn: dict[str, np.ndarray]) -> Callable[[Path, np.ndarray, int], np.ndarray]:
    """Return a function that writes no mask and keeps the labels by the file's stem."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        drawn[path.name.partition(".")[0]] = ids
        return ids

    return store


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Return COCO's uncompressed run lengths, column by column, from a run of zeros."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


def coco_text(pictures: dict[str, np.ndarray], suffix: str = ".jpg") -> str:
    """Describe discs as nested or flat polygons, or as a crowd of run lengths, in turn."""
    numbers = {1: 3, 2: 9, 3: 12}
    images, annotations = [], []
    for number, (stem, ids) in enumerate(pictures.items()):
        images.append({"id": 100 + number, "file_name": stem + suffix, "height": HEIGHT,
                       "width": WIDTH})  # fmt: skip
        for label in (1, 2):
            points = outline(ids, label).ravel().tolist()
            crowd = number % 3 == 2
            form = ([points], points, run_lengths(ids == label))[number % 3]
            annotations.append({
                "id": len(annotations) + 1, "image_id": 100 + number, "iscrowd": int(crowd),
                "category_id": numbers[label], "segmentation": form, "area": 1,
                "bbox": [0, 0, 1, 1],
            })  # fmt: skip
    categories = [{"id": numbers[label], "name": name} for label, name in NAMES.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def polygons(truth: Truth) -> Truth:
    truth.classes, truth.slack = NAMES, SLACK
    return truth


def without_crowds(truth: Truth) -> Truth:
    """Ignore the discs of every third picture, which are crowds."""
    for number, (picture, ids) in enumerate(truth.masks.items()):
        if number % 3 == 2:
            truth.masks[picture] = np.where(ids > 0, IGNORED, ids.astype(int))
    return truth


@layout
def coco(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    drawn: dict[str, np.ndarray] = {}
    folder = word(rng) if renamed else "annotations"
    rule = ("images/{id}.jpg", f"{folder}/{{id}}")
    truth = fill(root, rng, *rule, store=keep(drawn))
    file = word(rng) if renamed else "instances_default"
    (root / folder / f"{file}.json").write_text(coco_text(drawn))
    return polygons(without_crowds(truth))


@named_layout
def coco_of_roboflow(root: Path, rng: Rng) -> Truth:
    """Write pictures and the file of their annotations into the folder of their split."""
    truth = Truth()
    for part, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        drawn: dict[str, np.ndarray] = {}
        names = [f"{part}{number}" for number in range(6)]
        rule = (f"{part}/{{id}}.jpg", f"{part}/{{id}}")
        found = fill(root, rng, *rule, names=names, store=keep(drawn))
        (root / part / "_annotations.coco.json").write_text(coco_text(drawn))
        truth.masks |= without_crowds(found).masks
        truth.split |= dict.fromkeys(found.masks, split)
    return polygons(truth)


@layout
def labelme(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write a file of polygons beside each picture."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        shapes = [
            {"label": NAMES[label], "points": outline(ids, label).tolist(), "group_id": None,
             "shape_type": "polygon", "flags": {}}
            for label in (1, 2)
        ]  # fmt: skip
        content = {
            "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{path.stem}.jpg",
            "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH,
        }  # fmt: skip
        path.write_text(json.dumps(content))
        return ids

    truth = fill(root, rng, "data/{id}.jpg", "data/{id}.json", store=store, renamed=renamed)
    truth.classes, truth.slack = {1: "disc", 2: "ring"}, SLACK
    return truth


@named_layout
def cvat(root: Path, rng: Rng) -> Truth:
    drawn: dict[str, np.ndarray] = {}
    truth = fill(root, rng, "images/{id}.jpg", "{id}", store=keep(drawn))
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES.values())
    lines = ["<annotations><version>1.1</version>", f"<meta><task><labels>{labels}</labels></task>"]
    lines.append("</meta>")
    for number, (stem, ids) in enumerate(drawn.items()):
        lines.append(
            f'<image id="{number}" name="{stem}.jpg" width="{WIDTH}" height="{HEIGHT}">'
        )  # fmt: skip
        for label in (1, 2):
            points = ";".join(f"{x},{y}" for x, y in outline(ids, label))
            lines.append(f'<polygon label="{NAMES[label]}" points="{points}" z_order="0"/>')
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>\n"]))
    return polygons(truth)


@named_layout
def yolo(root: Path, rng: Rng) -> Truth:
    """Write lines of a class and of x and y as shares of the picture."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        lines = []
        for label in (1, 2):
            shares = (outline(ids, label) / [WIDTH, HEIGHT]).ravel()
            lines.append(f"{label - 1} {' '.join(f'{share:.6f}' for share in shares)}")
        path.write_text("\n".join(lines) + "\n")
        return ids

    rule = ("images/{split}/{id}.jpg", "labels/{split}/{id}.txt", "train val")
    truth = fill(root, rng, *rule, store=store)
    names = "".join(f"  {label - 1}: {name}\n" for label, name in NAMES.items())
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return polygons(truth)


@layout
def file_of_each_instance(root: Path, rng: Rng, renamed: bool = False) -> Truth:
    """Write a folder for each picture, with a folder of masks of one object each."""

    def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
        for label in (1, 2):
            save(path.parent / f"{rng.bytes(8).hex()}.png", np.uint8(255) * (ids == label))
        return (ids > 0).astype(np.uint8)

    pictures, masks, top = ("images", "masks", "stage1_train")
    if renamed:
        pictures, masks, top = (word(rng) for _ in range(3))
    rule = (f"{top}/{{id}}/{pictures}/{{id}}.png", f"{top}/{{id}}/{masks}/{{id}}")
    return fill(root, rng, *rule, store=store, renamed=False)


def files_of_classes(template: str, name: str) -> None:
    """Enter a data set with a mask of 0 and 255 for each class."""

    def generator(root: Path, rng: Rng) -> Truth:
        def store(path: Path, ids: np.ndarray, number: int) -> np.ndarray:
            for label in (1, 2):
                values = {"id": path.stem, "class": NAMES[label]}
                save(root / template.format(**values), np.uint8(255) * (ids == label))
            return ids

        truth = fill(root, rng, "images/{id}.jpg", "masks/{id}", store=store)
        truth.classes = {1: "disc", 2: "ring"}
        return truth

    generator.__name__ = name
    named_layout(generator)


files_of_classes("masks/{id}_{class}.png", "files_of_classes")
files_of_classes("masks/{class}/{id}.png", "folders_of_classes")
