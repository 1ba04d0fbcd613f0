"""Build an archive for an evaluation server; leave it only where the check finds it right."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import check_free, files_below, replacing
from seenet.core.images import read_ids
from seenet.core.progress import track
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import predict_files
from seenet.submit.benchmark import Benchmark
from seenet.submit.check import Submission, check_archive, find_pictures, sizes_of

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip


def submit_model(
    benchmark: Benchmark, predictor: BasePredictor, images: Path, out: Path, *, folder: str = "", overwrite: bool = False
) -> Submission:
    """Predict every picture and pack the masks.

    Predictions go to `predictions_folder(out)`, where an interrupted run goes on and one can look at them.

    Args:
        images: folder or list, as for `find_pictures`.
        folder: in the archive; "" for none.
        overwrite: replace the archive, and predictions of another model or other settings.

    Raises CheckError: pictures or masks that the server would refuse; DataError: bad pictures, another model's classes, an archive
    there already; PartialError: some pictures could not be predicted.
    """
    _check_out(out, benchmark, overwrite=overwrite)
    if predictor.labels.classes != benchmark.labels.classes:
        raise DataError(
            f"{predictor.info.get('file', 'the model')}: knows {predictor.labels.num_classes} classes ({predictor.labels.name}), "
            f"{benchmark.name} asks for {benchmark.labels.num_classes} ({benchmark.labels.name}); use a model trained on these"
        )
    pictures = find_pictures(images, benchmark)
    sizes = _checked_sizes(pictures, benchmark)
    work = predictions_folder(out, benchmark)
    predict_files(predictor, list(pictures.values()), work, overwrite=overwrite).check()
    masks = {key: work / "masks" / f"{path.stem}.png" for key, path in pictures.items()}
    return _build(benchmark, masks, sizes, out, folder, benchmark.stored)


def submit_masks(
    benchmark: Benchmark, masks: Path, images: Path, out: Path, *, folder: str = "", stored: bool = False, overwrite: bool = False
) -> Submission:
    """Pack masks that are there: one PNG for each picture, named as it is, in a folder or below it.

    Args:
        stored: the masks hold the server's ids (Cityscapes' labelIds) already, not the model's classes.

    The rest, and errors, as `submit_model`.
    """
    _check_out(out, benchmark, overwrite=overwrite)
    pictures = find_pictures(images, benchmark)
    sizes = _checked_sizes(pictures, benchmark)
    if not masks.is_dir():
        raise DataError(f"{masks}: no such folder; expected predicted masks, one PNG a picture (--masks)")
    found: dict[str, Path] = {}
    for path in files_below(masks, {".png"}):
        match = benchmark.mask.fullmatch(path.name)
        key = match["id"] if match else None
        if key is None or key not in pictures:
            raise CheckError(f"{path}: belongs to none of the {len(pictures)} pictures; take it out, or give other --images")
        if key in found:
            raise CheckError(f"{path}: a second mask of {key}, besides {found[key]}; take one out")
        found[key] = path
    for key, picture in pictures.items():
        if key not in found:
            raise CheckError(f"{masks}: no mask of {picture.name} ({len(found)} of {len(pictures)} are there); every picture needs one")
    table = {value: value for value in benchmark.stored.values()} if stored else benchmark.stored
    return _build(benchmark, found, sizes, out, folder, table)


def predictions_folder(out: Path, benchmark: Benchmark) -> Path:
    """Where the masks of an archive are kept: voc.tar.gz has voc-predictions beside it."""
    return out.with_name(out.name.removesuffix(benchmark.suffix) + "-predictions")


def _build(
    benchmark: Benchmark, masks: Mapping[str, Path], sizes: Mapping[str, tuple[int, int]], out: Path, folder: str, table: Mapping[int, int]
) -> Submission:
    """Pack beside `out`, check what was packed as one made elsewhere is checked, then give it its name."""

    def files() -> Iterator[tuple[str, bytes]]:
        for key in track(sorted(masks), f"packing {out.name}", len(masks)):
            name = benchmark.written.format(key)
            yield f"{folder}/{name}" if folder else name, _encoded(masks[key], benchmark, sizes[key], table)

    try:
        with replacing(out) as temporary:
            write_archive(temporary, benchmark.suffix, files())
            try:
                done = check_archive(temporary, benchmark, sizes)
            except CheckError as error:
                raise CheckError(str(error).replace(str(temporary), str(out))) from None
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); make room or choose another --out") from None
    return replace(done, path=out)


def write_archive(path: Path, suffix: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Pack (name, content) as `.tar.gz` or `.zip` in the order given, without times, owners or own name: same files, same bytes."""
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
            for name, content in files:
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, content)
        return
    with (
        path.open("wb") as stream,
        gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))


def _encoded(path: Path, benchmark: Benchmark, size: tuple[int, int], table: Mapping[int, int]) -> bytes:
    """A mask as the server's PNG; CheckError that names the mask where it is none."""
    ids = read_ids(path)
    fault = benchmark.fault(ids.shape, size)
    if fault is None:
        unknown = sorted(set(np.unique(ids).tolist()) - set(table))
        if unknown:
            fault = f"ids {', '.join(map(str, unknown[:6]))} are no classes of {benchmark.labels.name}; is it another kind of mask?"
    if fault is not None:
        raise CheckError(f"{path}: {fault}")
    values = np.zeros(256, np.uint8)
    for label, value in table.items():
        values[label] = value
    image = Image.fromarray(values[ids])
    if "L" not in benchmark.modes:
        image.putpalette(benchmark.labels.palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _check_out(out: Path, benchmark: Benchmark, *, overwrite: bool) -> None:
    if not out.name.endswith(benchmark.suffix):
        raise UsageError(f"--out {out}: {benchmark.name} takes {benchmark.suffix}; name the archive so")
    check_free([out], overwrite=overwrite)


def _checked_sizes(pictures: Mapping[str, Path], benchmark: Benchmark) -> dict[str, tuple[int, int]]:
    """Sizes of the pictures; CheckError for one that the benchmark cannot have, before hours are spent on it."""
    sizes = sizes_of(pictures)
    for key, size in sizes.items():
        fault = benchmark.fault(size, None)
        if fault is not None:
            raise CheckError(f"{pictures[key]}: {fault}")
    return sizes
