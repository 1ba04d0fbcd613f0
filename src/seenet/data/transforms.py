"""Change a picture and its mask together before training.

Sec. 4 of the paper: flip, scale 0.5 to 2, crop, zero padding.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from seenet.core.errors import SeenetError, UsageError
from seenet.core.files import load_callable
from seenet.core.settings import TransformSettings


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _random_offset(room: int) -> int:
    return int(torch.randint(room + 1, ()).item()) if room > 0 else 0


class JointTransform:
    """Random changes, the same for a picture and its mask.

    In turn: the user's own transform, scale (picture bilinear and antialiased, mask NEAREST_EXACT),
    rotation, flip, crop at a random place, colour jitter, normalisation, padding below and right.
    All draws come from torch's global generator: seed it before the call.

    Args:
        settings: `transforms` of a recipe.
        mean, std: normalisation of R, G and B, 0 to 1.
        ignore: id of padded pixels.
        classes: where given, how many ids the user's own transform may give.

    Called with H x W x 3 uint8 and H x W ids it returns 3 x h x w float32 (normalised, padded with
    zeros) and h x w int64 (padded with `ignore`).
    """

    def __init__(
        self, settings: TransformSettings, mean: tuple[float, ...], std: tuple[float, ...], ignore: int, *, classes: int = 0
    ) -> None:
        self.settings, self.ignore, self.classes = settings, ignore, classes
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]
        self.custom = load_callable(settings.custom, "transforms.custom", "(image=, mask=)") if settings.custom else None

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        settings = self.settings
        if self.custom is not None:
            image, mask = self._apply_custom(image, mask)
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        ids = torch.from_numpy(np.ascontiguousarray(mask).astype(np.int32, copy=False))[None]
        height, width = ids.shape[-2:]
        factor = _uniform(*settings.scale)
        height, width = max(1, round(height * factor)), max(1, round(width * factor))
        if (height, width) != tuple(ids.shape[-2:]):
            picture = TF.resize(picture, [height, width], InterpolationMode.BILINEAR, antialias=True)
            ids = resize_mask(ids, (height, width))
        if settings.rotation:
            picture, ids = self._rotate(picture, ids)
        if torch.rand(()).item() < settings.flip:
            picture, ids = picture.flip(-1), ids.flip(-1)
        crop_height, crop_width = settings.crop
        top, left = _random_offset(height - crop_height), _random_offset(width - crop_width)
        picture = picture[:, top : top + crop_height, left : left + crop_width]
        ids = ids[:, top : top + crop_height, left : left + crop_width]
        if settings.jitter:
            picture = self._jitter(picture)
        below, right = crop_height - picture.shape[1], crop_width - picture.shape[2]
        normalised = (picture.float() / 255 - self.mean) / self.std
        return F.pad(normalised, (0, right, 0, below)), F.pad(ids[0].long(), (0, right, 0, below), value=self.ignore)

    def _apply_custom(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply the user's own transform.

        Raises:
            UsageError: it fails, or gives what is no picture and mask of the data's classes.
        """
        name = f"transforms.custom={self.settings.custom}"
        try:
            changed = self.custom(image=image, mask=mask) if self.custom else None
        except SeenetError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UsageError(f"{name}: raised {what}; mend it, or leave it out") from error
        image, mask = _check_custom(changed, name)
        strange = mask[((mask < 0) | (mask >= self.classes)) & (mask != self.ignore)] if self.classes else mask[:0]
        if strange.size:
            raise UsageError(f"{name}: gave a mask with id {strange[0]}, expected 0 to {self.classes - 1}, or {self.ignore} (ignored)")
        return image, mask

    def _rotate(self, picture: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        angle = _uniform(-self.settings.rotation, self.settings.rotation)
        fill = (self.mean.flatten() * 255).tolist()  # zero after normalisation
        picture = TF.rotate(picture, angle, InterpolationMode.BILINEAR, fill=fill)
        return picture, TF.rotate(ids, angle, InterpolationMode.NEAREST, fill=[self.ignore])

    def _jitter(self, picture: Tensor) -> Tensor:
        strength = self.settings.jitter
        for adjust in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
            picture = adjust(picture, _uniform(1 - strength, 1 + strength))
        hue = min(0.5, strength / 4)
        result: Tensor = TF.adjust_hue(picture, _uniform(-hue, hue))
        return result


def resize_mask(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize 1 x H x W ids by NEAREST_EXACT: plain NEAREST shifts labels against the picture."""
    resized: Tensor = TF.resize(ids, list(size), InterpolationMode.NEAREST_EXACT)
    return resized


def _check_custom(changed: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return picture and mask as a user's transform gave them.

    Raises:
        UsageError: they are of another kind or size.
    """
    if not (isinstance(changed, dict) and all(isinstance(changed.get(key), np.ndarray) for key in ("image", "mask"))):
        raise UsageError(f"{name}: gave no dict with arrays `image` and `mask`; return {{'image': ..., 'mask': ...}}")
    image, mask = changed["image"], changed["mask"]
    if (
        image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or image.shape[:2] != mask.shape
        or mask.dtype.kind not in "iu"
        or not mask.size
    ):
        raise UsageError(
            f"{name}: gave image {image.shape} {image.dtype} and mask {mask.shape} {mask.dtype}; "
            "expected H x W x 3 uint8 and H x W integers (normalisation comes afterwards)"
        )
    return image, mask
