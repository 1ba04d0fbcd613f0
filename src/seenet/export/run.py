"""Export a model as a bundle that has proved to answer as the model does: what `seenet export` does."""

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from seenet.prediction.bundle import BundlePredictor, Card
from seenet.prediction.formats import BUNDLE_FORMATS, bundle_files, check_path
from seenet.prediction.inputs import find_pictures
from seenet.prediction.predictor import Predictor
from seenet.prediction.runtimes import open_bundle, require

log = logging.getLogger("seenet")
Format = Literal["onnx", "openvino", "torch"]
CHECKED = 4
"""Pictures on which a bundle is compared with its model at their own size."""
MOST_SIDE = 640
"""Larger pictures are cut to this for the comparison, pixels."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it answers."""

    files: list[Path]
    card: Card
    runtime: str
    verification: Verification

    def result(self) -> dict[str, Any]:
        """As JSON values; the same for the same export."""
        return {
            "files": {path.name: sha256(path) for path in self.files if path.is_file() and not path.name.endswith(".check.json")},
            "model_sha256": self.card.model_sha256, "precision": self.card.precision, "version": self.card.version,
            "runtime": self.runtime, **self.verification.result(),
        }  # fmt: skip


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
    """Write `out` (.onnx; .xml with .bin; .pt2) and OUT.check.json from a run, file or bundled name, once the bundle has passed `verify`.

    Args:
        int8: quantise weights and activations, calibrated on `images` (onnx, openvino).
        half: store weights in fp16 (openvino).
        plain: leave convolutions as they are, for graphics cards (onnx, openvino); otherwise some are written out as products, for
            processors.
        images: pictures, folders or patterns to compare on; none: the photographs that come with the package.
        recipe: with `overrides` says which labelled data to compare the mIoU on; None: no labels.
        split: of that data; None: its `data.val`.
        factory: as `prediction.loading.load`.

    Raises DataError: no such model or pictures, a network that cannot be traced, files there already (without `overwrite`); UsageError:
    settings, a missing package; CheckError: the bundle does not answer as the model (nothing is written).
    """
    card_precision = _precision(kind, int8=int8, half=half, plain=plain)
    _check_out(out, kind, overwrite)
    require(*BUNDLE_FORMATS[kind].runs_with, *BUNDLE_FORMATS[kind].written_with, *(["nncf"] if int8 else []))
    labelled = _open_labelled(recipe, overrides, split)
    paths = checking_pictures(images, out)
    if int8:
        # The bundled photographs are not what it will see.
        check_count(len(paths) if images else 0)
    saved = load_model(model, factory=factory)
    reading = paths[:MOST] if int8 else paths[:CHECKED]
    pictures = [fitted(read_image(path), saved) for path in reading]
    card = Card(
        labels=saved.labels, mean=saved.model.normalization.mean, std=saved.model.normalization.std, precision=card_precision,
        version=seenet.__version__, model_sha256=saved.sha256,
    )  # fmt: skip
    with _on_disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        path = Path(folder) / out.name
        log.info("exporting to %s (a minute or two)", kind)
        # Exporters talk on stdout, where results go.
        with contextlib.redirect_stdout(sys.stderr), _on_disk(out):
            _write(path, kind, saved, card, pictures if int8 else (), plain=plain)
        log.info("comparing with the model")
        opened = open_bundle(path)
        bundle = BundlePredictor(opened, info={"file": str(out), "sha256": sha256(path)})
        reference = Predictor(saved.model, saved.labels, device="cpu", info={"file": str(saved.path), "sha256": saved.sha256})
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
            having = ", ".join(name for name, row in BUNDLE_FORMATS.items() if option in row.options)
            safetensors = " (and --format fp16 writes a .safetensors)" * half
            raise UsageError(f"{option}: not for {kind}; available for {having}{safetensors}")
    if plain and (int8 or "--plain" not in BUNDLE_FORMATS[kind].options):
        raise UsageError(f"--plain: {'--int8' if int8 else kind} is so anyway; leave it out")
    return "int8" if int8 else "fp16" if half else "fp32"


def _parts(out: Path) -> list[Path]:
    """Return the files of a bundle and its table, in the order in which they get their names."""
    *weights, last = bundle_files(out)
    return [*weights, check_path(out), last]


def _check_out(out: Path, kind: Format, overwrite: bool) -> None:
    if out.suffix != BUNDLE_FORMATS[kind].suffix:
        raise DataError(f"{out}: found suffix {out.suffix!r}, expected {BUNDLE_FORMATS[kind].suffix} for --format {kind}")
    check_free(_parts(out), overwrite=overwrite)


def _open_labelled(recipe: str | Path | Recipe | None, overrides: Sequence[str], split: str | None) -> Split | None:
    if recipe is None:
        if overrides or split:
            raise UsageError("--split and key=value say which data to compare the mIoU on; give --recipe too")
        return None
    settings = load_recipe(recipe, list(overrides)).data
    return open_split(settings, split or settings.val or "val")


def checking_pictures(images: Sequence[str | Path], out: Path) -> list[Path]:
    """What an export is verified on: those given, else the bundled photographs."""
    if images:
        return [path for path, _ in find_pictures(images, out)]
    return sorted(Path(str(resources.files("seenet") / "photos")).glob("*.jpg"))


def fitted(picture: np.ndarray, saved: SavedModel) -> np.ndarray:
    """At most `MOST_SIDE` a side, and as many channels as the network takes (the first again, where it takes more)."""
    channels = len(saved.model.normalization.mean)
    return np.ascontiguousarray(picture[:MOST_SIDE, :MOST_SIDE, np.arange(channels) % picture.shape[2]])


def _write(path: Path, kind: Format, saved: SavedModel, card: Card, calibration: Sequence[np.ndarray], *, plain: bool) -> None:
    """Write by the format's own module, imported when it is asked for: it needs packages of its own."""
    import_module(f"seenet.export.{kind}").write(path, saved.model, card, plain=plain, calibration=calibration)


@contextlib.contextmanager
def _on_disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PassingError(f"{out}: cannot be written ({error.strerror or error}); make room or choose another --out") from None


def _publish(path: Path, out: Path, report: ExportReport) -> None:
    """Write the table beside the bundle, then give each file its name."""
    text = json.dumps(ExportReport(_parts(path), report.card, report.runtime, report.verification).result(), indent=1) + "\n"
    check_path(path).write_text(text, encoding="utf-8")
    for part, final in zip(_parts(path), _parts(out), strict=True):
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(final)


def table(report: ExportReport) -> Group:
    """A row for each size that was run, and what all of them say together."""
    found = report.verification
    shown = Table(title=f"{report.card.precision} in {report.runtime}, beside the model", title_justify="left")
    for name in ("batch", "height", "width", "largest score", "largest difference", "same class"):
        shown.add_column(name, justify="right")
    for row in found.rows:
        share = f"{100 * row['agreeing'] / row['pixels']:.3f} %"
        shown.add_row(*(str(row[key]) for key in ("batch", "height", "width")), f"{row['largest']:.2f}", f"{row['difference']:.1e}", share)
    lines = [f"largest difference of a score {found.difference:.1e}, same class in {100 * found.agreement:.4f} % of the pixels"]
    if found.miou is None:
        lines.append("mIoU not compared: no labels; give --recipe")
    else:
        model, bundle = 100 * found.miou["model"], 100 * found.miou["bundle"]
        lines.append(f"mIoU on {found.miou['data']}, {found.miou['images']} pictures: {bundle:.3f} %, the model's {model:.3f} %")
    return Group(shown, *map(Text, lines))
