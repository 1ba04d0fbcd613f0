"""Look at a packed submission as its server would: count, names, sizes, values.

Files are read one by one into memory; nothing is unpacked to disk.
"""

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import files_below
from seenet.core.images import IMAGE_SUFFIXES, image_size, png_header, png_ids
from seenet.core.progress import bar, track
from seenet.data.split import read_list
from seenet.submit.benchmark import Benchmark
from seenet.submit.cityscapes import CITYSCAPES
from seenet.submit.voc import VOC

# What the readers raise over archives that are damaged.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, LookupError,
    RuntimeError, NotImplementedError, OverflowError,
)  # fmt: skip


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
                raise CheckError(f"{where}: not a name that {benchmark.name} takes; expected {benchmark.expected} and nothing else")
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


def suffix_of(path: Path) -> str:
    """`.tar.gz` or `.zip` by the first bytes; DataError where there is no file, CheckError where it is neither."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected an archive to check") from None
    if start[:2] == b"\x1f\x8b":
        return ".tar.gz"
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return ".zip"
    raise CheckError(f"{path}: neither a .tar.gz nor a .zip; expected results packed as the benchmark asks")


def read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file, in the archive's order; folders are left out.

    Raises CheckError: a link or device, a damaged archive; DataError: no file.
    """
    members = _zipped if suffix_of(path) == ".zip" else _tarred
    try:
        for name, content in members(path):
            if content is None:
                raise CheckError(f"{path}: {name}: a link or a device; expected plain files")
            # Other tools pack `./name`.
            yield PurePosixPath(name).as_posix(), content
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckError(f"{path}: damaged ({reason}); pack it again") from None


def _zipped(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, None if stat.S_ISLNK(entry.external_attr >> 16) else archive.read(entry)


def _tarred(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with gzip.open(path) as stream:
        with tarfile.open(fileobj=stream) as archive:
            for member in archive:
                if not member.isdir():
                    file = archive.extractfile(member) if member.isreg() else None
                    yield member.name, None if file is None else file.read()
        # Read on to the end, where gzip's checksum stands.
        while stream.read(2**20):
            pass


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
