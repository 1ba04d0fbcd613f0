"""Line 5: prediction over scales and flips beside its forward passes, and counting beside one."""

from typing import Any

import numpy as np
import torch

from benchmarks.contestants import ready
from benchmarks.measuring import interleaved, significant, spread
from seenet.evaluation.confusion import confusion_matrix
from seenet.prediction.loading import load_trained
from seenet.prediction.predictor import Predictor, resized

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
SIZE = (360, 480)


def measure() -> dict[str, Any]:
    """Return ratios of medians, with the bundled model.

    The prediction over the sum of its passes, and the confusion matrix over a pass at one scale.
    """
    plain = load_trained("camvid-lite0", "cpu")
    labels = plain.labels
    predictor = Predictor(plain.model, labels, device="cpu", scales=SCALES, flip=True)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    truth, mask = (rng.integers(0, labels.num_classes, SIZE, dtype=np.uint8) for _ in range(2))
    network: Any = ready("seenet", plain.model)
    pixels = torch.randn(1, 3, *SIZE).contiguous(memory_format=torch.channels_last)

    def forward(scale: float) -> torch.Tensor:
        with torch.inference_mode():
            views = resized(pixels, scale)
            return network(torch.cat([views, views.flip(-1)]), size=SIZE)

    passes = {f"pass {scale:g}": lambda scale=scale: forward(scale) for scale in SCALES}
    counting = {
        "one scale": lambda: plain.mask(picture),
        "matrix": lambda: confusion_matrix(truth, mask, labels.num_classes, labels.ignore),
    }
    found = interleaved(
        {"all scales": lambda: predictor.mask(picture), **passes, **counting}, seconds=45
    )
    times = {name: spread(values) for name, values in found["seconds"].items()}
    medians = {name: one["median"] for name, one in times.items()}
    return {
        "values": {
            "scales and flips": significant(
                medians["all scales"] / sum(medians[name] for name in passes)
            ),
            "confusion matrix": significant(medians["matrix"] / medians["one scale"]),
        },
        "seconds": times,
        "rounds": len(found["seconds"]["matrix"]),
        "others": found["others"],
    }
