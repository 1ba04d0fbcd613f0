"""Build an archive for an evaluation server; keep it only if `check_archive` accepts it."""

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from seenet.core.errors import CheckError, DataError, UsageError
from seenet.core.files import check_free, files_below, replacing, writing_to
from seenet.core.images import read_ids
from seenet.core.progress import track
from seenet.prediction.base import BasePredictor
from seenet.prediction.batch import predict_files
from seenet.submit.benchmark import Benchmark
from seenet.submit.check import Submission, check_archive, find_pictures, sizes_of


def submit_model(
    benchmark: Benchmark,
    predictor: BasePredictor,
    images: Path,
    out: Path,
    *,
    folder: str = "",
    overwrite: bool = False,
) -> Submission:
    """Predict every picture and pack the masks.

    Args:
        benchmark: whose server takes the archive.
        predictor: of a model that knows the benchmark's classes.
        images: folder or list, as for `find_pictures`.
        out: the archive. Predictions are in `predictions_folder(out)`, where an interrupted call
            goes on.
        folder: of the masks in the archive; "" for none.
        overwrite: replace the archive, and predictions of another model or other settings.

    Raises:
        CheckError: pictures or masks that the server would refuse.
        DataError: bad pictures, a model of other classes, or the archive exists.
        PartialError: some pictures could not be predicted.
    """
    _check_out(out, benchmark, overwrite=overwrite)
    if predictor.labels.classes != benchmark.labels.classes:
        model = predictor.info.get("file", "the model")
        labels, expected = predictor.labels, benchmark.labels
        raise DataError(
            f"{model}: knows {labels.num_classes} classes ({labels.name}), "
            f"{benchmark.name} has {expected.num_classes} ({expected.name}); "
            "use a model trained on these"
        )
    pictures = find_pictures(images, benchmark)
    sizes = sizes_of(pictures, benchmark)
    work = predictions_folder(out, benchmark)
    predict_files(predictor, list(pictures.values()), work, overwrite=overwrite).check()
    masks = {key: work / "masks" / f"{path.stem}.png" for key, path in pictures.items()}
    return _build(benchmark, masks, sizes, out, folder, benchmark.stored)


def submit_masks(
    benchmark: Benchmark,
    masks: Path,
    images: Path,
    out: Path,
    *,
    folder: str = "",
    stored: bool = False,
    overwrite: bool = False,
) -> Submission:
    """Pack masks that exist: one PNG for each picture, of the same name, in a folder or below it.

    Args:
        benchmark, images, out, folder, overwrite: as for `submit_model`.
        masks: the folder.
        stored: the masks hold the server's ids (Cityscapes' labelIds), not the model's classes.

    Raises:
        CheckError: pictures or masks that the server would refuse.
        DataError: bad pictures or masks, or the archive exists.
    """
    _check_out(out, benchmark, overwrite=overwrite)
    pictures = find_pictures(images, benchmark)
    sizes = sizes_of(pictures, benchmark)
    if not masks.is_dir():
        raise DataError(
            f"{masks}: no such folder; expected predicted masks, one PNG a picture (--masks)"
        )
    paths: dict[str, Path] = {}
    for path in files_below(masks, {".png"}):
        match = benchmark.mask.fullmatch(path.name)
        if match is None or match["id"] not in pictures:
            raise CheckError(
                f"{path}: belongs to none of the {len(pictures)} pictures; take it out, or give "
                "other --images"
            )
        first = paths.setdefault(match["id"], path)
        if first != path:
            raise CheckError(
                f"{path}: a second mask of {match['id']}, besides {first}; take one out"
            )
    if missing := pictures.keys() - paths.keys():
        raise CheckError(
            f"{masks}: no mask of {pictures[min(missing)].name} ({len(paths)} of {len(pictures)} "
            "are there); every picture needs one"
        )
    table = {value: value for value in benchmark.stored.values()} if stored else benchmark.stored
    return _build(benchmark, paths, sizes, out, folder, table)


def predictions_folder(out: Path, benchmark: Benchmark) -> Path:
    """Return the folder of the predicted masks: voc.tar.gz has voc-predictions beside it."""
    return out.with_name(out.name.removesuffix(benchmark.suffix) + "-predictions")


def _check_out(out: Path, benchmark: Benchmark, *, overwrite: bool) -> None:
    if not out.name.endswith(benchmark.suffix):
        raise UsageError(
            f"--out {out}: {benchmark.name} takes {benchmark.suffix}; name the archive so"
        )
    check_free([out], overwrite=overwrite)


def _build(
    benchmark: Benchmark,
    masks: Mapping[str, Path],
    sizes: Mapping[str, tuple[int, int]],
    out: Path,
    folder: str,
    table: Mapping[int, int],
) -> Submission:
    """Pack into a temporary file, check it as an archive made elsewhere, then give it its name."""
    files = (
        (
            f"{folder}/{benchmark.written.format(key)}".removeprefix("/"),
            _encode(masks[key], benchmark, sizes[key], table),
        )
        for key in track(sorted(masks), f"packing {out.name}", len(masks))
    )
    with writing_to(out), replacing(out) as temporary:
        write_archive(temporary, benchmark.suffix, files)
        try:
            done = check_archive(temporary, benchmark, sizes)
        except CheckError as error:
            raise CheckError(str(error).replace(str(temporary), str(out))) from None
    return replace(done, path=out)


def write_archive(path: Path, suffix: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Pack (name, content) as `.tar.gz` or `.zip`, in order; the same files give the same bytes."""
    if suffix == ".zip":
        # Stored, since PNGs are compressed already; 1980 is the earliest date of a zip.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in files:
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, content)
        return
    with (
        path.open("wb") as stream,
        gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))


def _encode(
    path: Path, benchmark: Benchmark, size: tuple[int, int], table: Mapping[int, int]
) -> bytes:
    """Return a mask as the server's PNG; CheckError for one of another size or with other ids."""
    ids = read_ids(path)
    fault = benchmark.size_fault(ids.shape, size)
    unknown = sorted(set(np.unique(ids).tolist()) - set(table))
    if not fault and unknown:
        fault = (
            f"ids {', '.join(map(str, unknown[:6]))} are no classes of {benchmark.labels.name}; "
            "is it another kind of mask?"
        )
    if fault:
        raise CheckError(f"{path}: {fault}")
    values = np.zeros(256, np.uint8)
    values[list(table)] = list(table.values())
    image = Image.fromarray(values[ids])
    if "L" not in benchmark.modes:
        image.putpalette(benchmark.labels.palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
