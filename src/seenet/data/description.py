"""`seenet.yaml`: what a folder of pictures and masks holds, validated."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from seenet.core.errors import DataError, UsageError
from seenet.core.files import read_text
from seenet.core.labels import IGNORE, LabelSet, voc_colours
from seenet.core.recipe_files import explain
from seenet.core.settings import DataSettings, Section
from seenet.core.yaml_text import read_yaml

FILE = "seenet.yaml"
HINT = "`seenet data init FOLDER` proposes one"


# Checked before pydantic does: of a union it names every member, and says of none what was meant.
def _as_colour(value: Any) -> Any:
    if not (isinstance(value, list | tuple) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value)):
        raise ValueError(f"found {value!r}, expected a colour: [r, g, b], whole numbers from 0 to 255")
    return value


def _as_classes(value: Any) -> Any:
    if not isinstance(value, list | dict):
        raise ValueError(f"found {value!r}, expected names: [road, sky], or names with colours: {{road: [128, 64, 128], ...}}")
    if not value:
        raise ValueError("found none, expected the name of at least one class")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"found {name!r}, expected a name; what YAML reads as no text (yes, no, on, off, 1) needs quotes")
    for name, colour in value.items() if isinstance(value, dict) else ():
        try:
            _as_colour(colour)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    name, times = Counter(list(value)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"found {name} {times} times, expected a name once")
    return value


def _as_part(value: Any) -> Any:
    if isinstance(value, str | Path) or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1):
        return value
    raise ValueError(f"found {value!r}, expected a share from 0 to below 1, or a list or folder: val.txt, images/val")


Colour = Annotated[tuple[int, int, int], BeforeValidator(_as_colour)]


class FolderDescription(Section):
    """What `seenet.yaml` says; paths are relative to it."""

    images: Path = Path("images")
    masks: Path = Path("masks")
    mask_suffix: str = ""
    """What a mask's stem has behind its picture's: `_mask` for a.jpg and a_mask.png."""
    train: Path | None = None
    """List of stems, one a line, or a folder in that of the pictures; null: everything that is not in val."""
    val: Annotated[Path | float, BeforeValidator(_as_part)] = 0.2
    """List of stems, a folder in that of the pictures, or the share chosen by a hash of the name."""
    classes: Annotated[dict[str, Colour] | list[str], BeforeValidator(_as_classes)]
    """Names in the order of their ids, with colours or without."""
    ignore: int = IGNORE
    rim: bool = False
    """Whether ignored pixels trace the objects' outlines, as in VOC, so that a trimap (`seenet eval --boundary trimap`) means something."""
    decode: Literal["index", "palette", "rgb", "remap"]
    """What mask files hold: ids as grey values, ids as palette indices, colours of the classes, or other ids (`remap`)."""
    ignore_colours: tuple[Colour, ...] = ()
    remap: dict[int, int] = Field(default_factory=dict)
    remap_others: Literal["ignore", "error"] = "error"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.decode == "rgb":
            if not isinstance(self.classes, dict):
                raise ValueError("decode: rgb needs the colour of each class: `classes: {road: [128, 64, 128], ...}`")
            owners: dict[tuple[int, int, int], str] = {}
            for name, colour in [*self.classes.items(), *(("ignore_colours", colour) for colour in self.ignore_colours)]:
                if owners.setdefault(colour, name) != name:
                    raise ValueError(f"decode: rgb: {owners[colour]} and {name} have one colour, {list(colour)}; expected one each")
        if (self.decode == "remap") != bool(self.remap):
            raise ValueError("decode: remap and a table `remap: {file id: class id, ...}` belong together")
        wrong = [target for target in self.remap.values() if not 0 <= target < len(self.classes) and target != self.ignore]
        if wrong:
            raise ValueError(f"remap names class id {wrong[0]}, expected 0 to {len(self.classes) - 1} or ignore ({self.ignore})")
        if 0 <= self.ignore < len(self.classes):
            raise ValueError(f"ignore {self.ignore} is also a class; use 255, or any id outside 0 to {len(self.classes) - 1}")
        return self

    def labels(self) -> LabelSet:
        colours = tuple(self.classes.values()) if isinstance(self.classes, dict) else voc_colours(len(self.classes))
        return LabelSet("folder", tuple(self.classes), colours, self.ignore, self.rim)


def description_path(settings: DataSettings) -> Path:
    """The `seenet.yaml` that `data.root` names, or that stands in it."""
    root = Path(settings.root or "")
    return root / FILE if root.is_dir() else root


def read_description(path: Path) -> FolderDescription:
    """Validate a `seenet.yaml`; DataError where it is not there, UsageError in one line where it is wrong."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a description of your pictures and masks; {HINT}, data.root=FOLDER says where")
    values = read_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise UsageError(f"{path}: found {type(values).__name__}, expected a mapping with decode and classes; {HINT}")
    try:
        return FolderDescription.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, FolderDescription)}") from None
