"""Label sets: class names, colours and the ignored id of each data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from seenet.core.errors import UsageError, nearest

IGNORE = 255
"""Ignored id of most sets, and what padding gets."""


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of classes 0..K-1, and the id that is not scored.

    `rim` says that ignored pixels trace the objects' outlines, so that a trimap band around them is meaningful.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore: int = IGNORE
    rim: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.colours):
            raise ValueError(f"{self.name}: {len(self.classes)} classes but {len(self.colours)} colours")
        if 0 <= self.ignore < len(self.classes):
            raise ValueError(f"{self.name}: ignore {self.ignore} is also a class; use 255, or any id outside 0..{len(self.classes) - 1}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` made, read back from a file; KeyError, TypeError or ValueError where it is something else."""
        colours = tuple((int(r), int(g), int(b)) for r, g, b in values["colours"])
        if not all(0 <= part <= 255 for colour in colours for part in colour):
            raise ValueError("a colour is not of 0 to 255")
        return cls(str(values["name"]), tuple(map(str, values["classes"])), colours, int(values["ignore"]), bool(values["rim"]))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def indices(self, names: Sequence[str]) -> list[int]:
        """Ids of classes by name, ascending, each once; UsageError for a name that the set does not have."""
        for name in names:
            if name not in self.classes:
                raise UsageError(f"class {name!r}: not in {self.name}; {nearest(name, self.classes)}")
        return sorted({self.classes.index(name) for name in names})

    def palette(self) -> np.ndarray:
        """256 x 3 uint8: the classes' colours, black elsewhere, white for the ignored id."""
        table = np.zeros((256, 3), np.uint8)
        shown = min(self.num_classes, 256)
        table[:shown] = np.array(self.colours, np.uint8).reshape(-1, 3)[:shown]
        if 0 <= self.ignore < 256:
            table[self.ignore] = 255
        return table


def voc_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Pascal VOC's colour map: the bits of the class id, dealt in turn to red, green and blue from the highest bit down."""
    ids = np.arange(count)
    table = np.zeros((count, 3), int)
    for bit in range(8):
        for channel in range(3):
            table[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return tuple((int(r), int(g), int(b)) for r, g, b in table)


VOC21 = LabelSet(
    "voc21",
    (
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
    voc_colours(21),
    rim=True,
)

# No rim: what COCO ignores are crowds and overlaps.
COCO21 = LabelSet("coco21", VOC21.classes, VOC21.colours)

CAMVID11 = LabelSet(
    "camvid11",
    ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ignore=11,
)  # fmt: skip

# Official Cityscapes table: labelId of each trainId, in the order of trainIds, with name and colour.
_CITYSCAPES = (
    (7, "road", (128, 64, 128)), (8, "sidewalk", (244, 35, 232)), (11, "building", (70, 70, 70)), (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)), (17, "pole", (153, 153, 153)), (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)), (21, "vegetation", (107, 142, 35)), (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)), (24, "person", (220, 20, 60)), (25, "rider", (255, 0, 0)), (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)), (28, "bus", (0, 60, 100)), (31, "train", (0, 80, 100)), (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)  # fmt: skip

CITYSCAPES19 = LabelSet("cityscapes19", tuple(name for _, name, _ in _CITYSCAPES), tuple(colour for _, _, colour in _CITYSCAPES))

CITYSCAPES_CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
"""The scored classes of each category of the official table, one after the other by trainId."""

CITYSCAPES_TRAIN_IDS = {label: train_id for train_id, (label, _, _) in enumerate(_CITYSCAPES)}
"""labelId -> trainId of the 19 scored classes."""

SHAPES = LabelSet(
    "shapes",
    ("background", "disc", "square", "triangle", "ring", "pole"),
    ((40, 44, 52), (224, 90, 71), (66, 135, 245), (245, 187, 66), (140, 90, 200), (80, 190, 120)),
    rim=True,
)
