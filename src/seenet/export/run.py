"""Export a model as a bundle, once it is verified against the model: what `seenet export` does."""

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

import seenet
from seenet.core.errors import DataError, PassingError, UsageError
from seenet.core.files import check_free, sha256
from seenet.core.images import read_image
from seenet.core.recipe_files import load_recipe
from seenet.core.settings import Recipe
from seenet.data import Split, open_split
from seenet.export.openvino import MOST, check_count
from seenet.export.verify import Verification, verify
from seenet.model.files import SavedModel, load_model
from seenet.prediction.bundles.bundle import BundlePredictor, Card, Opened
from seenet.prediction.bundles.formats import BUNDLE_FORMATS, bundle_files, check_path
from seenet.prediction.bundles.runtimes import open_bundle, require
from seenet.prediction.pictures import find_pictures
from seenet.prediction.predictor import Predictor

log = logging.getLogger("seenet")
Format = Literal["onnx", "openvino", "torch"]
CHECKED = 4
"""Pictures on which a bundle is compared with its model."""
MOST_SIDE = 640
"""Side in pixels that larger pictures are cropped to for the comparison."""


@dataclass(frozen=True)
class ExportReport:
    """Files of a bundle, and their verification."""

    files: list[Path]
    card: Card
    runtime: str
    verification: Verification

    def result(self) -> dict[str, Any]:
        """Return the report as JSON values, always the same for the same export."""
        files = [path for path in self.files if not path.name.endswith(".check.json")]
        return {
            "files": {path.name: sha256(path) for path in files if path.is_file()},
            "model_sha256": self.card.model_sha256,
            "precision": self.card.precision,
            "version": self.card.version,
            "runtime": self.runtime,
            **self.verification.result(),
        }


def run_export(
    model: str | Path,
    out: Path,
    kind: Format,
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
    card_precision = _precision(kind, int8=int8, half=half, plain=plain)
    _check_out(out, kind, overwrite)
    require(
        *BUNDLE_FORMATS[kind].runs_with,
        *BUNDLE_FORMATS[kind].written_with,
        *(["nncf"] if int8 else []),
    )
    labelled = _open_labelled(recipe, overrides, split)
    paths = checking_pictures(images, out)
    if int8:
        # The bundled photographs do not look like the pictures that it will be used on.
        check_count(len(paths) if images else 0)
    saved = load_model(model, factory=factory)
    reading = paths[:MOST] if int8 else paths[:CHECKED]
    pictures = [fitted(read_image(path), saved) for path in reading]
    card = Card(
        labels=saved.labels,
        mean=saved.model.normalization.mean,
        std=saved.model.normalization.std,
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
            _write(path, kind, saved, card, pictures if int8 else (), plain=plain)
        log.info("comparing with the model")
        opened = _open(path, kind)
        bundle = BundlePredictor(opened, info={"file": str(out), "sha256": sha256(path)})
        reference = Predictor(
            saved.model,
            saved.labels,
            device="cpu",
            info={"file": str(saved.path), "sha256": saved.sha256},
        )
        verification = verify(reference, bundle, pictures[:CHECKED], labelled)
        verification.check()
        report = ExportReport(_parts(out), card, opened.runtime, verification)
        with _on_disk(out):
            _publish(path, out, report)
        return report


def _precision(kind: Format, *, int8: bool, half: bool, plain: bool) -> str:
    if int8 and half:
        raise UsageError("--int8 and --fp16: expected one of them")
    for option, given in (("--int8", int8), ("--fp16", half)):
        if given and option not in BUNDLE_FORMATS[kind].options:
            having = ", ".join(
                name for name, row in BUNDLE_FORMATS.items() if option in row.options
            )
            safetensors = " (and --format fp16 writes a .safetensors)" * half
            raise UsageError(f"{option}: not for {kind}; available for {having}{safetensors}")
    if plain and (int8 or "--plain" not in BUNDLE_FORMATS[kind].options):
        raise UsageError(f"--plain: {'--int8' if int8 else kind} is so anyway; leave it out")
    return "int8" if int8 else "fp16" if half else "fp32"


def _parts(out: Path) -> list[Path]:
    """Return the files of a bundle and its table, in the order in which they are renamed."""
    *weights, last = bundle_files(out)
    return [*weights, check_path(out), last]


def _check_out(out: Path, kind: Format, overwrite: bool) -> None:
    if out.suffix != BUNDLE_FORMATS[kind].suffix:
        raise DataError(
            f"{out}: found suffix {out.suffix!r}, expected {BUNDLE_FORMATS[kind].suffix} for "
            f"--format {kind}"
        )
    check_free(_parts(out), overwrite=overwrite)


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


def fitted(picture: np.ndarray, saved: SavedModel) -> np.ndarray:
    """Crop a picture to `MOST_SIDE` and to the network's channels, repeated if it takes more."""
    channels = len(saved.model.normalization.mean)
    return np.ascontiguousarray(
        picture[:MOST_SIDE, :MOST_SIDE, np.arange(channels) % picture.shape[2]]
    )


def _write(
    path: Path,
    kind: Format,
    saved: SavedModel,
    card: Card,
    calibration: Sequence[np.ndarray],
    *,
    plain: bool,
) -> None:
    """Write with the format's own module, imported here since it needs packages of its own."""
    import_module(f"seenet.export.{kind}").write(
        path, saved.model, card, plain=plain, calibration=calibration
    )


def _open(path: Path, kind: Format) -> Opened:
    """Open a bundle that was just written; one that is not read elsewhere, by its writer."""
    if BUNDLE_FORMATS[kind].read:
        return open_bundle(path)
    from seenet.export.torch import open_written

    return open_written(path)


@contextlib.contextmanager
def _on_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PassingError(
            f"{out}: cannot be written ({error.strerror or error}); make room or choose another "
            "--out"
        ) from None


def _publish(path: Path, out: Path, report: ExportReport) -> None:
    """Write the table beside the bundle, then rename each file."""
    result = replace(report, files=_parts(path)).result()
    check_path(path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for part, final in zip(_parts(path), _parts(out), strict=True):
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(final)


def table(report: ExportReport) -> Group:
    """Return a table with a row for each size that was run, and a summary."""
    found = report.verification
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
