"""Heat maps of the backbone's stages and of the pyramid's levels for any picture (Fig. 1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from seenet.core.errors import UsageError
from seenet.core.images import as_rgb, read_ids
from seenet.data.split import size_mismatch
from seenet.evaluation.confusion import pair_codes
from seenet.experiments.drawing import (
    Panel,
    Row,
    class_legend,
    draw_each,
    map_panel,
    miou_note,
    panel_grid,
    shown_size,
)
from seenet.experiments.probe import find_model_with_stages
from seenet.model import PEERS, VARIANTS, Segmenter
from seenet.prediction.batch import PredictReport
from seenet.prediction.loading import load_trained
from seenet.prediction.pictures import find_inputs
from seenet.prediction.predictor import Predictor
from seenet.prediction.result import colourize, to_mask

INPUTS = {"P2": ("B2",), "P3": ("P2", "B3"), "P4": ("P3", "B4")}
"""Input of each level of the pyramid, as far as the variant has it (Sec. 3.4)."""
KINDS = {"conv": "3x3 convolution", "seem": "SeEM", "fs": "SeEM-FS"}


def write_heat_maps(
    model: str,
    images: Sequence[str],
    out: Path,
    *,
    mask: Path | None = None,
    whole: bool = False,
    device: str = "auto",
    overwrite: bool = False,
) -> PredictReport:
    """Draw B2 to B4 (of a peer B1 too), P2 to P4 and the segmentation of each picture.

    Args:
        model: run folder, .safetensors file or bundled name.
        images: files, folders and patterns.
        out: folder of the figures, NAME.png for each picture.
        mask: truth of the one picture, ids of the model's classes.
        whole: draw a level together with the input that SeEM passes on, not only what SeEM adds.
        device: auto, cpu, cuda or mps.
        overwrite: replace figures.

    Raises:
        UsageError: a network of `model.factory`, or a mask for several pictures.
        DataError: no such model or picture, a mask that does not fit, or a figure exists.
    """
    path = find_model_with_stages(model)
    pictures = find_inputs(images, out)
    if mask is not None and len(pictures) > 1:
        raise UsageError(
            f"--mask {mask}: the truth of one picture, found {len(pictures)} pictures; "
            "give one at a time"
        )
    predictor = load_trained(path, device)
    truth = None if mask is None else read_truth(mask, pictures[0].path, predictor)
    return draw_each(
        predictor,
        pictures,
        out,
        lambda _, image: heat_figure(predictor, image, truth, whole=whole),
        what="heat maps",
        overwrite=overwrite,
    )


def read_truth(mask: Path, picture: Path, predictor: Predictor) -> np.ndarray:
    """Read H x W ids; DataError for an unknown id or another size than the picture's."""
    ids = read_ids(mask)
    labels, size = predictor.labels, predictor.reader.size(picture)
    if ids.shape != size:
        raise size_mismatch(picture, size, mask, ids.shape)
    pair_codes(ids, np.zeros_like(ids), labels.num_classes, labels.ignore, str(mask))
    return ids


def heat_figure(
    predictor: Predictor, image: np.ndarray, truth: np.ndarray | None = None, *, whole: bool = False
) -> bytes:
    """Draw Fig. 1 for an H x W x 3 uint8 picture and its H x W true ids, if known; return a PNG."""
    features = predictor.features(image)
    network: Segmenter = predictor.model  # type: ignore[assignment]
    labels, size = predictor.labels, shown_size(*image.shape[:2])
    variant = str(network.options["variant"])
    kinds = zip(INPUTS, VARIANTS[variant].levels, strict=True) if variant in VARIANTS else ()
    levels = {name: kind for name, kind in kinds if kind and name in features}
    stages = [name for name in ("B1", "B2", "B3", "B4") if name in features]

    def panel(tensor: Tensor, title: str) -> Panel:
        enlarged = network.resize(heat_map(tensor.cpu()), features["logits"], size)
        return map_panel(enlarged[0, 0].numpy(), title, tensor)

    def level(name: str) -> Panel:
        title = f"{name}: {KINDS[levels[name]]}"
        if levels[name] == "conv":
            return panel(features[name], title)
        if whole:
            return panel(features[name], f"{title}, with its input")
        return panel(added(features, name), f"{title}, what it adds")

    first = 0 if variant in PEERS else 1
    rows: list[Row] = [("backbone", [panel(features[name], name) for name in stages[first:]])]
    if levels:
        rows.append(("enhanced", [level(name) if name in levels else None for name in INPUTS]))
    mask = to_mask(features["logits"][0])
    shown = [Panel(as_rgb(image), "picture")]
    if truth is not None:
        shown.append(Panel(colourize(truth, labels), "ground truth"))
    shown.append(Panel(colourize(mask, labels), "segmentation", miou_note(truth, mask, labels)))
    caption = (
        "Each map is the root mean square over a tensor's channels at every grid point, enlarged "
        "bilinearly, in its own colours: dark blue is the least value, yellow the greatest; both "
        "stand below it."
    )
    if {"seem", "fs"} & set(levels.values()):
        caption += " SeEM passes its input on beside what it adds" + (
            ": both are shown together." if whole else ", which is shown alone."
        )
    return panel_grid([*rows, ("", shown)], caption, class_legend([truth, mask], labels))


def heat_map(tensor: Tensor) -> Tensor:
    """Return the RMS over channels, L2 norm / sqrt(C): 1 x C x h x w -> 1 x 1 x h x w, float64."""
    return tensor.double().square().mean(1, keepdim=True).sqrt()


def added(features: dict[str, Tensor], name: str) -> Tensor:
    """Return the channels that a level's SeEM adds; its input comes first (Fig. 4a)."""
    inputs = [features[given] for given in INPUTS[name] if given in features]
    return features[name][:, sum(tensor.shape[1] for tensor in inputs) :]
