"""Heat maps of the backbone's stages and of the pyramid's levels for any picture (the paper's Fig. 1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from seenet.core.errors import UsageError
from seenet.core.images import image_size, read_ids
from seenet.core.labels import LabelSet
from seenet.data.split import size_mismatch
from seenet.evaluation.confusion import confusion_matrix, pair_codes
from seenet.evaluation.metrics.iou import iou_scores
from seenet.experiments.drawing import Panel, class_legend, draw_each, panel_grid, shown_size, value_range
from seenet.experiments.probe import with_stages
from seenet.model import PEERS, VARIANTS, Segmenter
from seenet.prediction.batch import PredictReport
from seenet.prediction.colours import colourize
from seenet.prediction.inputs import find_inputs
from seenet.prediction.loading import load_trained
from seenet.prediction.predictor import Predictor, to_mask

INPUTS = {"P2": ("B2",), "P3": ("P2", "B3"), "P4": ("P3", "B4")}
"""What each level of the pyramid is given, as far as the variant has it (Sec. 3.4)."""


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
    """Write OUT/NAME.png for each picture: B2, B3, B4 (peers: B1 too), P2, P3, P4 where the network has them, picture, truth, segmentation.

    Args:
        mask: the truth of the one picture, ids of the model's classes (8 bits or a palette).
        whole: levels with the input that SeEM passes on; else what it adds.

    Raises UsageError: a network of `model.factory`, a mask for several pictures; DataError: no such model or picture, a mask that does not
    fit, figures there already.
    """
    path = with_stages(model)
    pictures = find_inputs(images, out)
    if mask is not None and len(pictures) > 1:
        raise UsageError(f"--mask {mask}: the truth of one picture, found {len(pictures)} pictures; give one at a time")
    predictor = load_trained(path, device)
    truth = None if mask is None else read_truth(mask, pictures[0].path, predictor.labels)
    return draw_each(
        predictor, pictures, out, lambda _, image: heat_figure(predictor, image, truth, whole=whole), what="heat maps", overwrite=overwrite
    )


def read_truth(mask: Path, picture: Path, labels: LabelSet) -> np.ndarray:
    """H x W ids of a mask file; DataError where one is no class and not ignored, or the size is not the picture's."""
    ids = read_ids(mask)
    size = image_size(picture)
    if ids.shape != size:
        raise size_mismatch(picture, size, mask, ids.shape)
    pair_codes(ids, np.zeros_like(ids), labels.num_classes, labels.ignore, str(mask))
    return ids


def heat_figure(predictor: Predictor, image: np.ndarray, truth: np.ndarray | None = None, *, whole: bool = False) -> bytes:
    """PNG of Fig. 1 for a picture, H x W x 3 uint8; `truth` H x W ids."""
    features = predictor.features(image)
    network: Segmenter = predictor.model  # type: ignore[assignment]
    variant = str(network.options["variant"])
    stages = ("B1", "B2", "B3", "B4") if variant in PEERS else ("B2", "B3", "B4")

    def panel(name: str, tensor: Tensor, what: str, side: str) -> Panel:
        values = network.resize(heat_map(tensor.cpu()), features["logits"], shown_size(*image.shape[:2]))[0, 0].numpy()
        channels, height, width = tensor.shape[1:]
        return Panel(values, f"{name}{what}", f"{value_range(values)} ({channels} channels, {height} x {width} points)", side)

    before = [panel(name, features[name], "", "backbone" if name == stages[0] else "") for name in stages]
    levels = [name for name in INPUTS if name in features]
    after = [
        panel(
            name, features[name] if whole else added(features, name, variant), _what(name, variant, whole),
            "enhanced" if name == levels[0] else "",
        )
        if name in levels
        else None
        for name in INPUTS
    ]  # fmt: skip
    found = to_mask(features["logits"][0])
    masks = [found] if truth is None else [truth, found]
    shown = [Panel(image, "picture")]
    if truth is not None:
        shown.append(Panel(colourize(truth, predictor.labels), "ground truth"))
    shown.append(Panel(colourize(found, predictor.labels), "segmentation", _score(found, truth, predictor.labels)))
    caption = (
        "Each map is the root mean square over a tensor's channels at every grid point, enlarged bilinearly, in its own colours: "
        "dark blue is the least value, yellow the greatest; both stand below it."
    )
    if any(_enhances(name, variant) for name in levels):
        caption += " SeEM passes its input on beside what it adds" + (": both are shown together." if whole else ", which is shown alone.")
    rows: list[Sequence[Panel | None]] = [before, after, shown] if levels else [before, shown]
    return panel_grid(rows, caption, class_legend(masks, predictor.labels))


def heat_map(tensor: Tensor) -> Tensor:
    """1 x C x h x w -> 1 x 1 x h x w: root mean square over the channels, L2 norm / sqrt(C), so that widths do not count; float64."""
    return tensor.double().square().mean(1, keepdim=True).sqrt()


def added(features: dict[str, Tensor], name: str, variant: str) -> Tensor:
    """The channels of P2, P3 or P4 that their module made: SeEM and SeEM-FS pass their input on as the first channels (Fig. 4a)."""
    if not _enhances(name, variant):
        return features[name]
    return features[name][:, sum(features[given].shape[1] for given in INPUTS[name] if given in features) :]


def _enhances(name: str, variant: str) -> bool:
    return VARIANTS[variant].levels[list(INPUTS).index(name)] in {"seem", "fs"}


def _what(name: str, variant: str, whole: bool) -> str:
    kind = VARIANTS[variant].levels[list(INPUTS).index(name)]
    if kind == "conv":
        return ": 3x3 convolution"
    return f": {'SeEM' if kind == 'seem' else 'SeEM-FS'}, {'with its input' if whole else 'what it adds'}"


def _score(found: np.ndarray, truth: np.ndarray | None, labels: LabelSet) -> str:
    miou = None if truth is None else iou_scores(confusion_matrix(truth, found, labels.num_classes, labels.ignore))["miou"]
    return "" if miou is None else f"mIoU {100 * miou:.1f} %"
