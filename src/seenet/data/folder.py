"""The user's own data: folders of images and masks, described by a `seenet.yaml`."""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from seenet.core.errors import DataError, UsageError
from seenet.core.files import digest, read_text
from seenet.core.images import read_image
from seenet.core.labels import IGNORE, LabelSet, voc_colours
from seenet.core.recipe_files import explain, read_yaml
from seenet.core.settings import DataSettings, Section
from seenet.data.masks import Decode, MaskReader, remap_line
from seenet.data.pairing import SAME_NAME, PairRule, Pairs, normal, pair_files, without_suffix
from seenet.data.split import FileSplit, file_split, need_folder, read_list

FILE = "seenet.yaml"
HINT = "`seenet data init FOLDER` proposes one"
SPLITS = ("train", "val", "test", "all")


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
    numbers = isinstance(value, list | tuple) and len(value) == 2
    if value is not None and not (
        numbers and all(isinstance(one, int | float) for one in value) and value[0] < value[1]
    ):
        raise ValueError(f"found {value!r}, expected [low, high], such as [0, 4095]")
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
    value_range: Annotated[tuple[float, float] | None, BeforeValidator(_check_range)] = None
    """Values of grey pictures that become black and white; null: the whole range of 8 or 16
    bits."""
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


def open_folder(settings: DataSettings, which: str) -> FileSplit:
    """Open train, val, test or all of the images that a `seenet.yaml` describes."""
    if which not in SPLITS:
        raise UsageError(f"folder has no split {which}; choose {', '.join(SPLITS)}")
    path = description_path(settings)
    about = read_description(path)
    pairs = described_pairs(about, path)
    images = pairs.images
    if about.unlabelled == "skip":
        images = {name: image for name, image in images.items() if name in pairs.masks}
    empty = f"look at {path} and its lists"
    if which == "train" and about.train is not None:
        train = path.parent / about.train
        empty = f"{train} names none, or none that validation or test does not hold back"
    elif which == "test" and about.test is None:
        empty = f"set test in {path}: a list or a folder"
    elif images and isinstance(about.val, float):
        fell, change = ("none", "raise") if which == "val" else ("all", "lower")
        empty = (
            f"the share val: {about.val:g} fell on {fell} of {len(images)} pictures; "
            f"{change} it or give a list"
        )
    elif pairs.images and not images:
        empty = "no picture has a mask"
    files = []
    for name in _split_names(about, path, images, which):
        # A missing file keeps its expected path, for the error that names it.
        image = images.get(name, path.parent / about.images / name)
        files.append((name, image, pairs.masks.get(name) or _expected(about, path, image)))
    title = f"{path.parent.resolve().name}/{which}"
    upright = about.exif == "apply"
    picture = (
        read_image
        if upright and about.value_range is None
        else partial(read_image, upright=upright, value_range=about.value_range)
    )
    reader = mask_reader(about)
    return file_split(title, about.labels(), files, reader, empty=empty, picture=picture)


def rule_of(about: FolderDescription) -> PairRule:
    """Return the rule that pairs a picture with its mask."""
    if about.pair:
        return PairRule.parse(about.pair)
    return PairRule("{id}.*", f"{{id}}{about.mask_suffix}.*") if about.mask_suffix else SAME_NAME


def described_pairs(about: FolderDescription, path: Path) -> Pairs:
    """Find pictures and masks that the `seenet.yaml` at `path` describes.

    Raises:
        DataError: a folder is missing, or two files share a name.
    """
    home = path.parent
    for folder in (about.images, about.masks):
        need_folder(home / folder, f"{path} names it; {HINT}")
    return pair_files(home / about.images, home / about.masks, rule_of(about))


def _expected(about: FolderDescription, path: Path, image: Path) -> Path:
    """Return where the mask of a picture would be."""
    home = path.parent
    name = image.relative_to(home / about.images).as_posix()
    rule = rule_of(about)
    fields = rule.fields_of(name) or rule.fields_of(f"{name}.png")
    mask = rule.mask_of(fields) if fields else f"{name}.png"
    return home / about.masks / (mask[:-2] + ".png" if mask.endswith(".*") else mask)


def _split_names(
    about: FolderDescription, path: Path, images: dict[str, Path], which: str
) -> list[str]:
    """Return the names of the images in a split.

    The share for validation and the images for test are never trained on, even if the list for
    training names them.
    """
    if which == "all":
        return list(images)
    test = [] if about.test is None else read_names(about.test, path, images)
    if which == "test":
        return test
    if isinstance(about.val, Path):
        val = read_names(about.val, path, images)
    else:
        val = in_share([name for name in images if name not in set(test)], about.val)
    if which == "val":
        return val
    listed = list(images) if about.train is None else read_names(about.train, path, images)
    # Two lists may share names, which `seenet data check` reports as a leak.
    by_lists = about.train is not None and isinstance(about.val, Path)
    held_out = set() if by_lists else {*val, *test}
    return [name for name in listed if name not in held_out]


def read_names(where: Path, source: Path, images: dict[str, Path]) -> list[str]:
    """Return the names of the images in a folder, or in a list.

    A line of a list is a name with or without suffix, or a path of the picture, also with folders
    above the data set's; more columns (masks) are left out. What fits no image is returned as it
    stands.

    Args:
        where: the folder or the list, relative to that of `source`.
        source: the `seenet.yaml` that names it.
        images: all images, by name.
    """
    path = source.parent / where
    if path.is_dir():
        return [name for name, image in images.items() if path in image.parents]
    hint = f"{source} names it, expected a list, one name a line, or a folder of pictures"
    known = known_names(source.parent, images)
    return [find_name(line, known) for line in read_list(path, hint)]


def known_names(home: Path, images: dict[str, Path]) -> dict[str, str]:
    """Return the name of each image by all that a list may call it, for `find_name`."""
    known: dict[str, str] = {}
    for name, image in images.items():
        known.setdefault(normal(Path(name).name), name)
        known[normal(without_suffix(image.relative_to(home).as_posix()))] = name
    return known | {normal(name): name for name in images}


def find_name(line: str, known: dict[str, str]) -> str:
    """Return the image that a line of a list names; the line itself if there is none."""
    columns = line.split()
    for text in (line, *columns[:1], line.split(",")[0].strip()):
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            rest = "/".join(parts[start:])
            for name in (normal(rest), normal(without_suffix(rest))):
                if name in known:
                    return known[name]
    return without_suffix(line)


def in_share(stems: Iterable[str], share: float) -> list[str]:
    """Select the names whose hash is below the share.

    The choice is the same on every machine, and adding images does not change it. Of two or more
    names at least one is selected and one is not, by the order of the hashes; only this exception
    depends on the other names, so that a list is better for a small folder. A share of 0 selects
    none.
    """
    hashes = {stem: int(digest(stem)[:16], 16) for stem in stems}
    ranked = sorted(hashes, key=hashes.__getitem__)
    count = sum(number < share * 2**64 for number in hashes.values())
    if share and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    selected = set(ranked[:count])
    return [stem for stem in hashes if stem in selected]


def mask_reader(about: FolderDescription) -> MaskReader:
    """Return the reader of mask files that a description declares."""
    colours: dict[tuple[int, int, int], int] = {}
    if about.decode == "rgb":
        colours = {colour: label for label, colour in enumerate(about.labels().colours)}
        colours |= dict.fromkeys(about.ignore_colours, about.ignore)
    return MaskReader(
        about.decode,
        colours=colours,
        table=about.remap,
        others=about.ignore if about.remap_others == "ignore" else None,
        threshold=about.threshold,
        tolerance=about.tolerance,
        channel=about.channel,
        upright=about.exif == "apply",
    )
