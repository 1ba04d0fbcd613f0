"""Check a packed submission as its server would: number of files, names, sizes, values."""

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES, image_size
from seenet.core.png import png_header, png_ids
from seenet.core.progress import bar, track
from seenet.data.split import read_list
from seenet.submit.benchmark import CITYSCAPES, VOC, Benchmark

# What the readers raise for damaged archives.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError,
    RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """Archive that the check accepts."""

    path: Path
    benchmark: str
    count: int
    against_pictures: bool
    """Names and sizes were compared with the pictures, not only with the benchmark's rules."""

    def line(self) -> str:
        """Return the result as a line for people."""
        how = "pictures were not given, so names and sizes are only plausible"
        if self.against_pictures:
            how = "names and sizes are the pictures'"
        return f"{self.path}: {self.count} masks for {self.benchmark}, all correct ({how})"


def check_submission(path: Path, images: Path | None = None) -> Submission:
    """Check an archive made anywhere: a .tar.gz for VOC or a .zip for Cityscapes.

    Args:
        path: the archive.
        images: pictures it must answer for, as for `find_pictures`; None: as many as the test set.

    Raises:
        CheckError: the server would refuse it; the error names the first wrong file.
        DataError: archive or pictures cannot be read.
    """
    benchmark = benchmark_of(path)
    sizes = None if images is None else sizes_of(find_pictures(images, benchmark), benchmark)
    return check_archive(path, benchmark, sizes)


def check_archive(
    path: Path, benchmark: Benchmark, sizes: Mapping[str, tuple[int, int]] | None
) -> Submission:
    """Check an archive against a benchmark and, where given, the sizes of the pictures.

    Args:
        path: the archive.
        benchmark: rules for names, folder, sizes and values.
        sizes: height and width of each picture by id; each needs one mask, and no others may be
            there. None: as many masks as the test set has, of any plausible id and size.

    Raises:
        CheckError: the server would refuse it, or it cannot be read; names the first wrong file.
    """
    names: dict[str, str] = {}
    folder: str | None = None
    total = benchmark.test_count if sizes is None else len(sizes)
    with bar(f"checking for {benchmark.name}", total) as advance:
        for name, content in read_archive(path, benchmark.suffix):
            where = f"{path}: {name}"
            match = benchmark.member.fullmatch(name)
            if match is None:
                raise CheckError(
                    f"{where}: not a name that {benchmark.name} takes; "
                    f"expected {benchmark.expected} and nothing else"
                )
            key, inside = match["id"], match.groupdict().get("folder")
            if folder not in (None, inside):
                raise CheckError(f"{where}: lies beside {folder}; expected one folder for all")
            folder = inside
            if key in names:
                raise CheckError(f"{where}: a second mask of {key}, besides {names[key]}; pack one")
            if sizes is not None and key not in sizes:
                raise CheckError(
                    f"{where}: none of the {len(sizes)} pictures is called {key}; leave it out, "
                    "or give other --images"
                )
            names[key] = name
            _check_png(content, where, benchmark, sizes[key] if sizes else None)
            advance()
    if sizes is not None and len(names) < len(sizes):
        raise CheckError(
            f"{path}: no mask of {min(set(sizes) - set(names))} ({len(names)} of {len(sizes)} "
            "pictures have one); every picture needs one"
        )
    if len(names) != total:
        raise CheckError(
            f"{path}: {len(names)} masks, expected {total}, one for each picture of "
            f"{benchmark.name}'s test set; for other pictures give --images"
        )
    return Submission(path, benchmark.name, len(names), sizes is not None)


def _check_png(
    content: bytes, where: str, benchmark: Benchmark, size: tuple[int, int] | None
) -> None:
    try:
        mode, shape = png_header(content, where)
        fault = benchmark.size_fault(shape, size)
        if mode not in benchmark.modes:
            modes = " or ".join(sorted(benchmark.modes))
            palette = " and a palette" if mode == "L" else ""
            fault = f"mode {mode}, expected {modes}: one 8-bit value a pixel{palette}"
        fault = fault or benchmark.value_fault(png_ids(content, where))
    except DataError as error:
        raise CheckError(str(error)) from None
    if fault:
        raise CheckError(f"{where}: {fault}")


def benchmark_of(path: Path) -> Benchmark:
    """Return the benchmark that takes such an archive, by the first bytes of the file.

    Raises:
        DataError: the file cannot be read.
        CheckError: it is neither a .tar.gz nor a .zip.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); expected an archive to check"
        ) from None
    if start.startswith(b"\x1f\x8b"):
        return VOC
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return CITYSCAPES
    raise CheckError(
        f"{path}: neither a .tar.gz nor a .zip; expected results packed as the benchmark asks"
    )


def read_archive(path: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each plain file, in the archive's order, without unpacking to disk.

    Args:
        suffix: kind of archive, `.tar.gz` or `.zip`.

    Raises:
        CheckError: a damaged archive.
    """
    members = _zip_files if suffix == ".zip" else _tar_files
    try:
        for name, content in members(path):
            # Other tools pack `./name`.
            yield PurePosixPath(name).as_posix(), content
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckError(f"{path}: damaged ({reason}); pack it again") from None


def _zip_files(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, archive.read(entry)


def _tar_files(path: Path) -> Iterator[tuple[str, bytes]]:
    with gzip.open(path) as stream:
        with tarfile.open(fileobj=stream) as archive:
            for member in archive:
                if member.isreg() and (file := archive.extractfile(member)):
                    yield member.name, file.read()
        # To the end, where gzip's checksum is.
        while stream.read(2**20):
            pass


def find_pictures(images: Path, benchmark: Benchmark) -> dict[str, Path]:
    """Find pictures in a folder (and below it) or on a list; return them by their id, in its order.

    A list has a picture a line: a path from the list's own folder, or a stem as in VOC's lists.

    Raises:
        DataError: no picture, one that is missing, or one that is not named as the benchmark's.
        UsageError: two pictures of one id.
    """
    if images.is_dir():
        paths = files_below(images, IMAGE_SUFFIXES)
    else:
        hint = "expected a folder of pictures or a list of them (--images)"
        paths = [_listed_picture(images, line) for line in read_list(images, hint)]
    if not paths:
        raise DataError(f"{images}: no pictures found; expected files such as {benchmark.example}")
    found: dict[str, Path] = {}
    for path in paths:
        key = benchmark.id_of(path)
        if key in found:
            raise UsageError(
                f"{path}: a second picture of {key}, besides {found[key]}; give --images a folder "
                "or list with one of them"
            )
        found[key] = path
    return dict(sorted(found.items()))


def sizes_of(pictures: Mapping[str, Path], benchmark: Benchmark) -> dict[str, tuple[int, int]]:
    """Read height and width of each picture.

    Raises:
        DataError: a picture cannot be read.
        CheckError: a size that no picture of the benchmark has.
    """
    sizes = {}
    for key, path in track(pictures.items(), "sizes of the pictures", len(pictures)):
        sizes[key] = image_size(path)
        if fault := benchmark.size_fault(sizes[key], None):
            raise CheckError(f"{path}: {fault}")
    return sizes


def _listed_picture(images: Path, line: str) -> Path:
    """Find a picture by its line of a list: VOC's are in ImageSets/Segmentation."""
    home = images.resolve().parents
    jpegs = home[2] / "JPEGImages" if len(home) > 2 and home[0].name == "Segmentation" else None
    path = jpegs / f"{line}.jpg" if jpegs and jpegs.is_dir() else images.parent / line
    if not path.is_file():
        raise DataError(
            f"{path}: no such picture, though {images} lists it; copy it there or take it off "
            "the list"
        )
    return path
