"""Export a model as a bundle, once it is verified against the model: what `seenet export` does."""

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

import seenet
from seenet.core.errors import DataError, PassingError, UsageError, nearest
from seenet.core.files import check_free, load_callable, own_code, sha256
from seenet.core.picture_reader import PLAIN
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.data import Split, open_split
from seenet.export.openvino import MOST, check_count
from seenet.export.verify import Verification, verify
from seenet.model.files import SavedModel, load_model
from seenet.prediction.bundles.bundle import BundlePredictor, Card, Opened
from seenet.prediction.bundles.formats import BUNDLE_FORMATS, BundleFormat, check_path
from seenet.prediction.bundles.runtimes import open_bundle, require
from seenet.prediction.pictures import find_pictures
from seenet.prediction.predictor import Predictor

log = logging.getLogger("seenet")
Run = Callable[[np.ndarray], Any]
"""Function that a user's writer may return: images N x H x W x C uint8 -> scores N x K x H x W."""
CHECKED = 4
"""Pictures on which a bundle is compared with its model."""
MOST_SIDE = 640
"""Side in pixels that larger pictures are cropped to for the comparison."""


@dataclass(frozen=True)
class ExportReport:
    """Files of a bundle, and their verification (None: a user's format that cannot be run)."""

    files: list[Path]
    card: Card
    runtime: str
    verification: Verification | None

    def result(self) -> dict[str, Any]:
        """Return the report as JSON values, always the same for the same export."""
        files = [path for path in self.files if not path.name.endswith(".check.json")]
        return {
            "files": {path.name: sha256(path) for path in files if path.is_file()},
            "model_sha256": self.card.model_sha256,
            "precision": self.card.precision,
            "version": self.card.version,
            "runtime": self.runtime,
            **({"verified": False} if self.verification is None else self.verification.result()),
        }


def run_export(
    model: str | Path,
    out: Path,
    kind: str,
    *,
    int8: bool = False,
    half: bool = False,
    plain: bool = False,
    images: Sequence[str | Path] = (),
    recipe: str | Path | Recipe | None = None,
    overrides: Sequence[str] = (),
    split: str | None = None,
    factory: str | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write a bundle and its table of verification (OUT.check.json), once it has passed `verify`.

    Args:
        model: Run folder, model file or bundled name.
        out: The file: .onnx; .xml (with .bin beside it); .pt2.
        kind: onnx, openvino, torch; or `package.module:callable` of the user's, called as
            f(path, model, card), which writes one file and may return a function that runs it
            (`Run`). Without that function the file is not verified, and the report says so.
        int8: Quantise weights and activations, calibrated on `images` (onnx, openvino).
        half: Store weights in fp16 (openvino).
        plain: Leave convolutions as they are, for graphics cards (onnx, openvino); otherwise some
            are written as matrix products, for processors.
        images: Pictures, folders or patterns to compare on; none: the bundled photographs.
        recipe, overrides: Labelled data to compare the mIoU on; None: no labels.
        split: Split of that data; None: its `data.val`.
        factory: As `prediction.loading.load`.
        overwrite: Replace existing files.

    Raises:
        DataError: There is no such model or picture, the network cannot be traced, or files exist
            (without `overwrite`).
        UsageError: Settings that do not fit together, or a missing package.
        CheckError: The bundle does not answer as the model; nothing is written.
    """
    row = _row(kind, out)
    card_precision = _precision(kind, row, int8=int8, half=half, plain=plain)
    _check_out(out, kind, row, overwrite)
    require(*row.runs_with, *row.written_with, *(["nncf"] if int8 else []))
    labelled = _open_labelled(recipe, overrides, split)
    paths = checking_pictures(images, out)
    if int8:
        # The bundled photographs do not look like the pictures that it will be used on.
        check_count(len(paths) if images else 0)
    saved = load_model(model, factory=factory)
    pictures = checking_arrays(saved, paths[: MOST if int8 else CHECKED], own=bool(images))
    card = Card(
        labels=saved.labels,
        mean=saved.model.normalization.mean,
        std=saved.model.normalization.std,
        reader=saved.model.reader,
        precision=card_precision,
        version=seenet.__version__,
        model_sha256=saved.sha256,
    )
    with _on_disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        path = Path(folder) / out.name
        log.info("exporting to %s (a minute or two)", kind)
        # Exporters print on stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr), _on_disk(out):
            run = _write(path, kind, saved, card, pictures if int8 else (), plain=plain)
        opened = _open(path, kind, card, run)
        verification = None
        if opened is not None:
            log.info("comparing with the model")
            bundle = BundlePredictor(opened, info={"file": str(out), "sha256": sha256(path)})
            reference = Predictor(
                saved.model,
                saved.labels,
                device="cpu",
                info={"file": str(saved.path), "sha256": saved.sha256},
            )
            verification = verify(reference, bundle, pictures[:CHECKED], labelled)
            verification.check()
        runtime = kind if opened is None else opened.runtime
        report = ExportReport(_parts(out, row), card, runtime, verification)
        with _on_disk(out):
            _publish(path, row, report)
        return report


def _row(kind: str, out: Path) -> BundleFormat:
    """Return what is known of a format; UsageError for a name that is none."""
    if ":" in kind:
        return BundleFormat(out.suffix, ())
    if kind not in BUNDLE_FORMATS:
        hint = nearest(kind, ["fp16", *BUNDLE_FORMATS])
        raise UsageError(f"--format {kind}: unknown; {hint}, or package.module:callable of yours")
    return BUNDLE_FORMATS[kind]


def _precision(kind: str, row: BundleFormat, *, int8: bool, half: bool, plain: bool) -> str:
    if int8 and half:
        raise UsageError("--int8 and --fp16: expected one of them")
    asked = {"--int8": int8, "--fp16": half, **({"--plain": plain} if ":" in kind else {})}
    for option, given in asked.items():
        if given and option not in row.options:
            having = ", ".join(
                name for name, other in BUNDLE_FORMATS.items() if option in other.options
            )
            safetensors = " (and --format fp16 writes a .safetensors)" * (option == "--fp16")
            raise UsageError(f"{option}: not for {kind}; available for {having}{safetensors}")
    if plain and (int8 or "--plain" not in row.options):
        raise UsageError(f"--plain: {'--int8' if int8 else kind} is so anyway; leave it out")
    return "int8" if int8 else "fp16" if half else "fp32"


def _parts(out: Path, row: BundleFormat) -> list[Path]:
    """Return the files of a bundle and its table, in the order in which they are renamed."""
    weights = [] if row.weights is None else [out.with_suffix(row.weights)]
    return [*weights, check_path(out), out]


def _check_out(out: Path, kind: str, row: BundleFormat, overwrite: bool) -> None:
    if out.suffix != row.suffix:
        raise DataError(
            f"{out}: found suffix {out.suffix!r}, expected {row.suffix} for --format {kind}"
        )
    check_free(_parts(out, row), overwrite=overwrite)


def _open_labelled(
    recipe: str | Path | Recipe | None, overrides: Sequence[str], split: str | None
) -> Split | None:
    if recipe is None:
        if overrides or split:
            raise UsageError(
                "--split and key=value choose the data to compare the mIoU on; give --recipe too"
            )
        return None
    settings = load_recipe(recipe, list(overrides)).data
    return open_split(settings, split or settings.val or "val")


def checking_pictures(images: Sequence[str | Path], out: Path) -> list[Path]:
    """Return the pictures to verify an export on: those given, or the bundled photographs."""
    if images:
        return [path for path, _ in find_pictures(images, out)]
    return sorted(Path(str(resources.files("seenet") / "photos")).glob("*.jpg"))


def checking_arrays(saved: SavedModel, paths: Sequence[Path], *, own: bool) -> list[np.ndarray]:
    """Read `checking_pictures`, cropped to `MOST_SIDE`; `own`: they are the user's.

    The bundled photographs get as many channels as the network takes, repeated if it takes more.
    """
    reader = saved.model.reader if own else PLAIN
    channels = np.arange(len(saved.model.normalization.mean))
    pictures = map(reader, paths)
    return [
        np.ascontiguousarray(picture[:MOST_SIDE, :MOST_SIDE, channels % picture.shape[2]])
        for picture in pictures
    ]


def _write(
    path: Path,
    kind: str,
    saved: SavedModel,
    card: Card,
    calibration: Sequence[np.ndarray],
    *,
    plain: bool,
) -> Run | None:
    """Write with the format's own module, imported here since it needs packages of its own; or with
    the user's callable, and return what it returned.
    """
    if ":" in kind:
        return _write_own(path, kind, saved, card)
    import_module(f"seenet.export.{kind}").write(
        path, saved.model, card, plain=plain, calibration=calibration
    )
    return None


def _open(path: Path, kind: str, card: Card, run: Run | None) -> Opened | None:
    """Open a bundle that was just written; None for a user's format without a `run`.

    A format that SeENet does not read elsewhere is opened by its writer.
    """
    if ":" in kind:
        own = None if run is None else partial(_run_own, kind, run, card.labels.num_classes)
        return None if own is None else Opened(card, kind, card.precision, own)
    if BUNDLE_FORMATS[kind].read:
        return open_bundle(path)
    from seenet.export.torch import open_written

    return open_written(path)


def _write_own(path: Path, kind: str, saved: SavedModel, card: Card) -> Run | None:
    """Write by the user's callable; UsageError where it fails, or writes another file."""
    name = f"--format {kind}"
    writer = load_callable(kind, "--format", "(path, model, card)")
    with own_code(name):
        run: Run | None = writer(path, saved.model, card)
    found = sorted(one.name for one in path.parent.iterdir())
    if found != [path.name] or not path.is_file():
        raise UsageError(
            f"{name}: wrote {', '.join(found) or 'nothing'}, expected the file {path.name} alone"
        )
    if run is not None and not callable(run):
        raise UsageError(
            f"{name}: returned a {type(run).__name__}, expected a function of images, or None"
        )
    return run


def _run_own(
    kind: str, run: Run, classes: int, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and class maps of images by what the user's callable gave to run."""
    name = f"--format {kind}"
    with own_code(name):
        scores = np.asarray(run(images), np.float32)
    batch, height, width, _ = images.shape
    if scores.shape != (batch, classes, height, width):
        raise UsageError(
            f"{name}: gives scores {scores.shape} for images {images.shape}, expected "
            f"{(batch, classes, height, width)}"
        )
    return scores, scores.argmax(1)


@contextlib.contextmanager
def _on_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PassingError(
            f"{out}: cannot be written ({error.strerror or error}); make room or choose another "
            "--out"
        ) from None


def _publish(path: Path, row: BundleFormat, report: ExportReport) -> None:
    """Write the table beside the bundle at `path`, then rename each file."""
    written = _parts(path, row)
    text = json.dumps(replace(report, files=written).result(), indent=1) + "\n"
    check_path(path).write_text(text, encoding="utf-8")
    for part, final in zip(written, report.files, strict=True):
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(final)


def table(report: ExportReport) -> Group:
    """Return a table with a row for each size that was run, and a summary."""
    found = report.verification
    if found is None:
        return Group(Text(f"not verified: --format {report.runtime} returned nothing to run"))
    shown = Table(
        title=f"{report.card.precision} in {report.runtime}, beside the model", title_justify="left"
    )
    for name in ("batch", "height", "width", "largest score", "largest difference", "same class"):
        shown.add_column(name, justify="right")
    for row in found.rows:
        share = f"{100 * row['agreeing'] / row['pixels']:.3f} %"
        shown.add_row(
            *(str(row[key]) for key in ("batch", "height", "width")),
            f"{row['largest']:.2f}",
            f"{row['difference']:.1e}",
            share,
        )
    lines = [
        f"largest difference of a score {found.difference:.1e}, "
        f"same class in {100 * found.agreement:.4f} % of the pixels"
    ]
    if found.miou is None:
        lines.append("mIoU not compared: no labels; give --recipe")
    else:
        model, bundle = 100 * found.miou["model"], 100 * found.miou["bundle"]
        lines.append(
            f"mIoU on {found.miou['data']}, {found.miou['images']} pictures: {bundle:.3f} %, "
            f"the model's {model:.3f} %"
        )
    return Group(shown, *map(Text, lines))
