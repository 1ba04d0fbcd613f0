"""Look at a packed submission as its server would: count, names, sizes, values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES, image_size, png_header, png_ids
from seenet.core.progress import bar, track
from seenet.data.split import read_list
from seenet.experiments.submit_archive import read_archive, suffix_of
from seenet.experiments.submit_formats import CITYSCAPES, VOC, Benchmark


@dataclass(frozen=True)
class Submission:
    """An archive that was found right. `against_pictures`: names and sizes were held against the pictures, not only against the
    benchmark's rules.
    """

    path: Path
    benchmark: str
    count: int
    against_pictures: bool

    def line(self) -> str:
        """What to tell."""
        how = (
            "names and sizes are the pictures'"
            if self.against_pictures
            else "pictures were not given, so names and sizes are only plausible"
        )
        return f"{self.path}: {self.count} masks for {self.benchmark}, all as they should be ({how})"


def check_submission(path: Path, images: Path | None = None) -> Submission:
    """Check an archive made anywhere: a .tar.gz is VOC's, a .zip Cityscapes'.

    Args:
        images: folder or list of the pictures it must answer for, as for `find_pictures`; None: as many as the test set has.

    Raises CheckError that names the first offending file; DataError where archive or pictures cannot be read.
    """
    benchmark = CITYSCAPES if suffix_of(path) == ".zip" else VOC
    return check_archive(path, benchmark, None if images is None else sizes_of(find_pictures(images, benchmark)))


def check_archive(path: Path, benchmark: Benchmark, sizes: Mapping[str, tuple[int, int]] | None) -> Submission:
    """Check against the pictures' ids and sizes (height, width); errors as `check_submission`."""
    seen: dict[str, str] = {}
    folder: str | None = None
    with bar(f"checking for {benchmark.name}", benchmark.test_count if sizes is None else len(sizes)) as advance:
        for name, content in read_archive(path):
            where = f"{path}: {name}"
            match = benchmark.member.fullmatch(name)
            if match is None:
                raise CheckError(f"{where}: not a name that {benchmark.name} takes; expected {expected_name(benchmark)} and nothing else")
            key, inside = match["id"], match.groupdict().get("folder")
            if folder not in (None, inside):
                raise CheckError(f"{where}: lies beside {folder}; expected one folder for all")
            folder = inside
            if key in seen:
                raise CheckError(f"{where}: a second mask of {key}, besides {seen[key]}; pack one")
            if sizes is not None and key not in sizes:
                raise CheckError(f"{where}: none of the {len(sizes)} pictures is called {key}; leave it out, or give other --images")
            seen[key] = name
            _check_png(content, where, benchmark, sizes[key] if sizes is not None else None)
            advance()
    if sizes is not None and len(seen) < len(sizes):
        first = min(set(sizes) - set(seen))
        raise CheckError(f"{path}: no mask of {first} ({len(seen)} of {len(sizes)} pictures have one); every picture needs one")
    if sizes is None and len(seen) != benchmark.test_count:
        raise CheckError(
            f"{path}: {len(seen)} masks, expected {benchmark.test_count}, one for each picture of {benchmark.name}'s test set; "
            "for other pictures give --images"
        )
    return Submission(path, benchmark.name, len(seen), sizes is not None)


def _check_png(content: bytes, where: str, benchmark: Benchmark, size: tuple[int, int] | None) -> None:
    try:
        mode, shape = png_header(content, where)
        fault = benchmark.fault(shape, size)
        if mode not in benchmark.modes:
            fault = (
                f"mode {mode}, expected {' or '.join(sorted(benchmark.modes))}: one 8-bit value a pixel{' and a palette' * (mode == 'L')}"
            )
        if fault is None:
            # The size is right, so there is no more to decode than there should be.
            fault = benchmark.wrong_values(png_ids(content, where))
    except DataError as error:
        raise CheckError(str(error)) from None
    if fault is not None:
        raise CheckError(f"{where}: {fault}")


def expected_name(benchmark: Benchmark) -> str:
    """A name as it should be, for errors."""
    stem = Path(benchmark.example).stem.removesuffix("_leftImg8bit")
    return f"results/VOC2012/Segmentation/comp5_test_cls/{stem}.png (or comp6)" if benchmark is VOC else f"{stem}*.png"


def find_pictures(images: Path, benchmark: Benchmark) -> dict[str, Path]:
    """The benchmark's ids of the pictures in a folder (and below it), or on a list, in the order of the ids.

    A list names one picture a line: by paths from the list's own folder, or as VOC's lists in ImageSets/Segmentation do.
    Raises DataError: nothing there, a picture that is missing or not named as the benchmark's; UsageError: one id twice.
    """
    if images.is_dir():
        paths = files_below(images, IMAGE_SUFFIXES)
    else:
        paths = [_listed(images, line) for line in read_list(images, "expected a folder of pictures or a list of them (--images)")]
    if not paths:
        raise DataError(f"{images}: no pictures found; expected files such as {benchmark.example}")
    found: dict[str, Path] = {}
    for path in paths:
        key = benchmark.id_of(path)
        if key in found:
            raise UsageError(f"{path}: a second picture of {key}, besides {found[key]}; give --images a folder or list with one of them")
        found[key] = path
    return dict(sorted(found.items()))


def sizes_of(pictures: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    """Height and width of each; DataError for one that cannot be read."""
    return {key: image_size(path) for key, path in track(pictures.items(), "sizes of the pictures", len(pictures))}


def _listed(images: Path, line: str) -> Path:
    home = images.resolve().parents
    jpegs = home[2] / "JPEGImages" if len(home) > 2 and home[0].name == "Segmentation" else None
    path = jpegs / f"{line}.jpg" if jpegs and jpegs.is_dir() else images.parent / line
    if not path.is_file():
        raise DataError(f"{path}: no such picture, though {images} lists it; copy it there or take it off the list")
    return path
