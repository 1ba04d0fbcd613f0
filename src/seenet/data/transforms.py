"""Random transforms of an image together with its mask, for training.

Sec. 4 of the paper: flip, scale 0.5 to 2, crop, zero padding.
"""

from math import ceil, sqrt
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


class JointTransform:
    """Random transform that changes an image and its mask alike.

    In this order: the user's own transform, scale (image bilinear and antialiased, mask
    NEAREST_EXACT), rotation, flip, random crop, colour jitter, normalisation, padding below and on
    the right. Random numbers come from torch's global generator: seed it before the call.

    Called with an H x W x C uint8 image and H x W ids, it returns a C x h x w float32 image
    (normalised, padded with zeros) and h x w int64 ids (padded with `ignore`).

    Args:
        settings: `transforms` of a recipe.
        mean, std: normalisation of each of C channels, 0 to 1.
        ignore: id of padded pixels.
        classes: number of classes, to check the ids of the user's own transform; 0: no check.
    """

    def __init__(
        self,
        settings: TransformSettings,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        ignore: int,
        *,
        classes: int = 0,
    ) -> None:
        self.settings, self.ignore, self.classes = settings, ignore, classes
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]
        self.custom = (
            load_callable(settings.custom, "transforms.custom", "(image=, mask=)")
            if settings.custom
            else None
        )

    @property
    def reach(self) -> int:
        """Side in pixels of the square of an image that holds any sample, rotation included."""
        side = max(self.settings.crop) / self.settings.scale[0]
        return ceil(side * (sqrt(2) if self.settings.rotation else 1)) + 1

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        settings = self.settings
        if self.custom is not None:
            image, mask = self._apply_custom(image, mask)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        ids = torch.from_numpy(np.ascontiguousarray(mask).astype(np.int32, copy=False))[None]
        factor = _uniform(*settings.scale)
        height, width = (max(1, round(side * factor)) for side in mask.shape)
        if (height, width) != mask.shape:
            pixels = TF.resize(pixels, [height, width], InterpolationMode.BILINEAR, antialias=True)
            ids = resize_mask(ids, (height, width))
        if settings.rotation:
            pixels, ids = self._rotate(pixels, ids)
        if torch.rand(()).item() < settings.flip:
            pixels, ids = pixels.flip(-1), ids.flip(-1)
        crop_height, crop_width = settings.crop
        top, left = _random_offset(height - crop_height), _random_offset(width - crop_width)
        pixels = pixels[:, top : top + crop_height, left : left + crop_width]
        ids = ids[0, top : top + crop_height, left : left + crop_width].long()
        if settings.jitter:
            pixels = self._jitter(pixels)
        normalised = (pixels.float() / 255 - self.mean) / self.std
        padding = (0, crop_width - ids.shape[1], 0, crop_height - ids.shape[0])
        return F.pad(normalised, padding), F.pad(ids, padding, value=self.ignore)

    def _apply_custom(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply the user's own transform.

        Raises:
            UsageError: it fails, or returns something else than an image and a mask of the classes.
        """
        name = f"transforms.custom={self.settings.custom}"
        try:
            result = self.custom(image=image, mask=mask) if self.custom else None
        except SeenetError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UsageError(f"{name}: raised {what}; fix it, or leave it out") from error
        image, mask = _check_custom(result, name, len(self.mean))
        invalid = mask[((mask < 0) | (mask >= self.classes)) & (mask != self.ignore)]
        if self.classes and invalid.size:
            raise UsageError(
                f"{name}: gave a mask with id {invalid[0]}, "
                f"expected 0 to {self.classes - 1}, or {self.ignore} (ignored)"
            )
        return image, mask

    def _rotate(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        angle = _uniform(-self.settings.rotation, self.settings.rotation)
        fill = (self.mean.flatten() * 255).tolist()  # zero after normalisation
        pixels = TF.rotate(pixels, angle, InterpolationMode.BILINEAR, fill=fill)
        return pixels, TF.rotate(ids, angle, InterpolationMode.NEAREST, fill=[self.ignore])

    def _jitter(self, pixels: Tensor) -> Tensor:
        strength = self.settings.jitter
        if len(pixels) != 3:
            return self._jitter_bands(pixels, strength)
        for adjust in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
            pixels = adjust(pixels, _uniform(1 - strength, 1 + strength))
        hue = min(0.5, strength / 4)
        result: Tensor = TF.adjust_hue(pixels, _uniform(-hue, hue))
        return result

    @staticmethod
    def _jitter_bands(pixels: Tensor, strength: float) -> Tensor:
        """Change brightness and contrast of bands that are no colours, all alike."""
        brightness, contrast = (_uniform(1 - strength, 1 + strength) for _ in range(2))
        bright = (pixels.float() * brightness).clamp(0, 255)
        middle = bright.mean()
        return ((bright - middle) * contrast + middle).clamp(0, 255).round().to(torch.uint8)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _random_offset(room: int) -> int:
    return int(torch.randint(room + 1, ()).item()) if room > 0 else 0


def resize_mask(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize 1 x H x W ids by NEAREST_EXACT; plain NEAREST shifts them against the image."""
    resized: Tensor = TF.resize(ids, list(size), InterpolationMode.NEAREST_EXACT)
    return resized


def _check_custom(result: Any, name: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask from the result of a user's transform.

    Raises:
        UsageError: they are missing, or of a wrong type or size.
    """
    if not (
        isinstance(result, dict)
        and all(isinstance(result.get(key), np.ndarray) for key in ("image", "mask"))
    ):
        raise UsageError(
            f"{name}: gave no dict with arrays `image` and `mask`; "
            "return {'image': ..., 'mask': ...}"
        )
    image, mask = result["image"], result["mask"]
    if (
        image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != channels
        or image.shape[:2] != mask.shape
        or mask.dtype.kind not in "iu"
        or not mask.size
    ):
        raise UsageError(
            f"{name}: gave image {image.shape} {image.dtype} and mask {mask.shape} {mask.dtype}; "
            f"expected H x W x {channels} uint8 and H x W integers (normalisation comes afterwards)"
        )
    return image, mask
