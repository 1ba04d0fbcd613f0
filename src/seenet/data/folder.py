"""The user's own data: folders of images and masks, described by a `seenet.yaml`."""

from collections.abc import Iterable
from pathlib import Path

from seenet.core.errors import UsageError
from seenet.core.files import digest
from seenet.core.settings import DataSettings
from seenet.data.description import HINT, FolderDescription, description_path, read_description
from seenet.data.pairing import Pairs, normal, pair_files, without_suffix
from seenet.data.split import FileSplit, file_split, need_folder, read_list

SPLITS = ("train", "val", "test", "all")


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
    return file_split(
        title,
        about.labels(),
        files,
        about.mask_reader(),
        empty=empty,
        picture=about.picture_reader(),
        normalization=(about.mean, about.std) if about.mean and about.std else None,
    )


def described_pairs(about: FolderDescription, path: Path) -> Pairs:
    """Find pictures and masks that the `seenet.yaml` at `path` describes.

    Raises:
        DataError: a folder is missing, or two files share a name.
    """
    home = path.parent
    for folder in (about.images, about.masks):
        need_folder(home / folder, f"{path} names it; {HINT}")
    return pair_files(home / about.images, home / about.masks, about.pair_rule())


def _expected(about: FolderDescription, path: Path, image: Path) -> Path:
    """Return where the mask of a picture would be."""
    home = path.parent
    name = image.relative_to(home / about.images).as_posix()
    rule = about.pair_rule()
    fields = rule.fields_of(name) or rule.fields_of(f"{name}.png")
    mask = rule.mask_of(fields) if fields else f"{name}.png"
    return home / about.masks / (mask[:-2] + ".png" if mask.endswith(".*") else mask)


def _split_names(
    about: FolderDescription, path: Path, images: dict[str, Path], which: str
) -> list[str]:
    """Return the names of the images in a split.

    The images for test and the share for validation are never trained on, even if the list for
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
    # Lists for train and val may share names, which `seenet data check` reports as a leak.
    by_lists = about.train is not None and isinstance(about.val, Path)
    held_out = {*test, *([] if by_lists else val)}
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
