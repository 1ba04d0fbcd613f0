"""The content of a `seenet.yaml`, which describes the user's own data, and its validation."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from seenet.core.errors import DataError, UsageError
from seenet.core.files import read_text
from seenet.core.labels import IGNORE, LabelSet, voc_colours
from seenet.core.picture_reader import PictureReader, Range
from seenet.core.recipe_files import explain, read_yaml
from seenet.core.settings import DataSettings, Section
from seenet.data.masks import Decode, MaskReader, remap_line
from seenet.data.pairing import SAME_NAME, PairRule

FILE = "seenet.yaml"
HINT = "`seenet data init FOLDER` proposes one"


# These run before pydantic's own checks, whose messages list every member of a union.
def _check_colour(value: Any) -> Any:
    if not (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    ):
        raise ValueError(
            f"found {value!r}, expected a colour: [r, g, b], whole numbers from 0 to 255"
        )
    return value


def _check_classes(value: Any) -> Any:
    if not isinstance(value, list | dict):
        raise ValueError(
            f"found {value!r}, expected names: [road, sky], "
            "or names with colours: {road: [128, 64, 128], ...}"
        )
    if not value:
        raise ValueError("found none, expected the name of at least one class")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(
                f"found {name!r}, expected a name; "
                "what YAML reads as no text (yes, no, on, off, 1) needs quotes"
            )
    for name, colour in value.items() if isinstance(value, dict) else ():
        try:
            _check_colour(colour)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    name, times = Counter(list(value)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"found {name} {times} times, expected a name once")
    return value


def _check_val(value: Any) -> Any:
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    if not is_share and not isinstance(value, str | Path):
        raise ValueError(
            f"found {value!r}, expected a share from 0 to below 1, "
            "or a list or folder: val.txt, images/val"
        )
    return value


def _check_range(value: Any) -> Any:
    several = isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple)
    for pair in value if several else [] if value is None else [value]:
        numbers = isinstance(pair, list | tuple) and len(pair) == 2
        if not (
            numbers and all(isinstance(one, int | float) for one in pair) and pair[0] < pair[1]
        ):
            raise ValueError(
                f"found {pair!r}, expected [low, high], such as [0, 4095], or one pair for each of "
                "`channels`"
            )
    return value


def _check_channels(value: Any) -> Any:
    if value is not None and not (
        isinstance(value, list | tuple)
        and value
        and all(type(number) is int and number > 0 for number in value)
    ):
        raise ValueError(f"found {value!r}, expected numbers of bands, from 1: [4, 3, 2]")
    return value


def _check_pair(value: Any) -> Any:
    PairRule.parse(str(value))
    return str(value)


Colour = Annotated[tuple[int, int, int], BeforeValidator(_check_colour)]


class FolderDescription(Section):
    """Content of a `seenet.yaml`; its paths are relative to it."""

    images: Path = Path("images")
    masks: Path = Path("masks")
    pair: Annotated[str | None, BeforeValidator(_check_pair)] = None
    """Rule from a picture's path below `images` to its mask's below `masks`, such as
    "{id}_image.jpg -> {id}_label.png"; null: the same name. `{id}` is any text, also with slashes,
    `{split}` text without; a suffix `.*` is that of any image. Case does not count."""
    mask_suffix: str = ""
    """The short form of `pair: "{id}.* -> {id}_mask.*"`: `_mask`."""
    train: Path | None = None
    """List of names, one per line, or a folder of pictures; null: all that is not in val or
    test."""
    val: Annotated[Path | float, BeforeValidator(_check_val)] = 0.2
    """List of names, a folder of pictures, or a share chosen by a hash of the name."""
    test: Path | None = None
    """List of names or a folder of pictures, which are never trained on; null: none."""
    unlabelled: Literal["error", "skip"] = "error"
    """Whether pictures without masks are an error or left out."""
    exif: Literal["apply", "ignore"] = "apply"
    """Whether pictures and masks are rotated by their EXIF tags, or taken as stored."""
    channels: Annotated[tuple[int, ...] | None, BeforeValidator(_check_channels)] = None
    """Numbers of the bands that the network sees, from 1, as GDAL counts them: [4, 3, 2]; null:
    red, green and blue, as the file says."""
    value_range: Annotated[Range | tuple[Range, ...] | None, BeforeValidator(_check_range)] = None
    """Values of grey pictures, or of `channels`, that become 0 and 255: one pair, or one for each
    of `channels`; null: the whole range of 8 or 16 bits."""
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Mean and standard deviation of each channel, 0 to 1 (`seenet data stats`); null: those that
    the backbone's weights were trained with."""
    classes: Annotated[dict[str, Colour] | list[str], BeforeValidator(_check_classes)]
    """Names in the order of their ids, with or without colours."""
    ignore: int = IGNORE
    rim: bool = False
    """Whether ignored pixels trace the outlines of objects, as in VOC, so that a trimap is useful
    (`seenet eval --boundary trimap`)."""
    decode: Decode
    """Content of mask files: ids as grey values, ids as palette indices, colours of the classes,
    other ids (`remap`), two classes with noise (`threshold`), other ids with noise (`nearest`)."""
    channel: Literal["red", "green", "blue", "alpha"] | None = None
    """Channel of colour masks that holds the ids; null: masks have one channel."""
    threshold: int = 128
    """`decode: threshold`: smallest value of the second class."""
    tolerance: Annotated[int, Field(ge=0, le=255)] = 0
    """`decode: rgb`: largest difference of red, green or blue to the nearest class colour."""
    ignore_colours: tuple[Colour, ...] = ()
    remap: dict[int, int] = Field(default_factory=dict)
    """Class id of each id in the files, for `remap` and `nearest`."""
    remap_others: Literal["ignore", "error"] = "error"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pair and self.mask_suffix:
            raise ValueError("pair and mask_suffix say the same; give one of them")
        self._check_bands()
        if self.decode == "rgb":
            self._check_colours()
        if (self.decode in {"remap", "nearest"}) != bool(self.remap):
            raise ValueError(
                "decode: remap (or nearest) and a table `remap: {file id: class id, ...}` "
                "belong together"
            )
        last = len(self.classes) - 1
        for target in self.remap.values():
            if not 0 <= target <= last and target != self.ignore:
                raise ValueError(
                    f"remap names class id {target}, expected 0 to {last} or ignore ({self.ignore})"
                )
        if self.decode == "threshold" and last != 1:
            raise ValueError(f"decode: threshold makes two classes, found {last + 1}")
        if 0 <= self.ignore <= last:
            raise ValueError(self._ignored_class(last))
        return self

    def _check_bands(self) -> None:
        """Check that what is said of each channel is said of all.

        Raises:
            ValueError: it is not.
        """
        count = self.picture_reader().count
        limits = self.value_range
        several = len(limits) if limits and isinstance(limits[0], tuple) else 0
        if several and several != (len(self.channels) if self.channels else 0):
            raise ValueError(
                f"value_range has {several} pairs, expected one pair, or one for each of `channels`"
            )
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; give both")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != count:
                raise ValueError(
                    f"{name} has {len(values)} numbers, expected one for each of {count} channels"
                )

    def _check_colours(self) -> None:
        """Check that colours are given, and differ.

        Raises:
            ValueError: they do not.
        """
        if not isinstance(self.classes, dict):
            raise ValueError(
                "decode: rgb needs the colour of each class: `classes: {road: [128, 64, 128], ...}`"
            )
        owners: dict[tuple[int, int, int], str] = {}
        ignored = [("ignore_colours", colour) for colour in self.ignore_colours]
        for name, colour in [*self.classes.items(), *ignored]:
            if owners.setdefault(colour, name) != name:
                raise ValueError(
                    f"decode: rgb: {owners[colour]} and {name} have one colour, "
                    f"{list(colour)}; expected one each"
                )

    def _ignored_class(self, last: int) -> str:
        """Return the error for an ignored id that is a class, with the table that cures it."""
        found = f"ignore {self.ignore} is also a class ({list(self.classes)[self.ignore]})"
        if self.decode not in {"index", "palette"}:
            return f"{found}; use 255, or any id outside 0 to {last}"
        kept = [number for number in range(last + 2) if number != self.ignore]
        table = {number: place for place, number in enumerate(kept)} | {self.ignore: IGNORE}
        return (
            f"{found}; if the {last + 1} classes are the other ids, set `ignore: {IGNORE}`, "
            f"`decode: remap` and `{remap_line(table)}`"
        )

    def labels(self) -> LabelSet:
        colours = (
            tuple(self.classes.values())
            if isinstance(self.classes, dict)
            else voc_colours(len(self.classes))
        )
        return LabelSet("folder", tuple(self.classes), colours, self.ignore, self.rim)

    def picture_reader(self) -> PictureReader:
        return PictureReader(self.channels, self.value_range, self.exif == "apply")

    def mask_reader(self) -> MaskReader:
        colours: dict[tuple[int, int, int], int] = {}
        if self.decode == "rgb":
            colours = {colour: label for label, colour in enumerate(self.labels().colours)}
            colours |= dict.fromkeys(self.ignore_colours, self.ignore)
        return MaskReader(
            self.decode,
            colours=colours,
            table=self.remap,
            others=self.ignore if self.remap_others == "ignore" else None,
            threshold=self.threshold,
            tolerance=self.tolerance,
            channel=self.channel,
            upright=self.exif == "apply",
        )

    def pair_rule(self) -> PairRule:
        """Return the rule that pairs a picture with its mask."""
        if self.pair:
            return PairRule.parse(self.pair)
        return PairRule("{id}.*", f"{{id}}{self.mask_suffix}.*") if self.mask_suffix else SAME_NAME


def description_path(settings: DataSettings) -> Path:
    """Return the `seenet.yaml` that `data.root` names or holds."""
    root = Path(settings.root or "")
    return root / FILE if root.is_dir() else root


def read_description(path: Path) -> FolderDescription:
    """Read and validate a `seenet.yaml`.

    Raises:
        DataError: it is missing.
        UsageError: it is invalid.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; expected a description of your pictures and masks; "
            f"{HINT}, data.root=FOLDER says where"
        )
    values = read_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: found {type(values).__name__}, "
            f"expected a mapping with decode and classes; {HINT}"
        )
    try:
        return FolderDescription.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, FolderDescription)}") from None
