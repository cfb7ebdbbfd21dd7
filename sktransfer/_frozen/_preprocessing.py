"""Resize and crop an image as the weights were trained.

A decoded image becomes a *canvas*, the uint8 image of exactly the size the network sees. Subtracting the mean and
dividing by the deviation is the first step of the network itself (`CutNetwork`), where it runs once per batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._images._decoding import resize


@dataclass(frozen=True)
class Preprocessing:
    """What the weights were trained on: geometry, interpolation and normalisation.

    Parameters
    ----------
    size : tuple of int
        Height and width in pixels of what the network sees.
    crop_fraction : float
        Share of the resized image that the central crop keeps, per side.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box"}
        Antialiased filter of the resize.
    mean, std : tuple of float
        Per channel (RGB), for values in [0, 1].
    squash : bool
        Resize to the target's own aspect ratio instead of keeping the image's.
    """

    size: tuple[int, int]
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    squash: bool = False

    def with_image_size(self, image_size: int | Sequence[int] | None, crop: bool = True) -> Preprocessing:
        """Return the same preprocessing for another size; the resize grows or shrinks along.

        Without the crop nothing is cut off but what makes an image the shape of `size`. When the size is not given
        either, it grows to what the weights' own resize makes of an image, so that its scale stays the same.
        """
        whole = self if crop else replace(self, size=self._target(), crop_fraction=1.0)
        if image_size is None:
            return whole
        height, width = np.broadcast_to(image_size, 2)
        return replace(whole, size=(int(height), int(width)))

    @property
    def least_side(self) -> int:
        """Pixels that the shorter side of an image should have before the resize: twice as many as after it."""
        return 2 * max(self._target())

    def canvas(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one uint8 image of shape (H, W, 3) to the uint8 canvas of shape (*size, 3)."""
        whole = self._resized(*image.shape[:2])
        top, left = (round((whole[axis] - self.size[axis]) / 2) for axis in (0, 1))
        return resize(image, whole, self.interpolation, crop=(top, left, *self.size))

    def _target(self) -> tuple[int, int]:
        # The epsilon keeps 224 / (224 / 232) from falling to 231.
        height, width = (math.floor(side / self.crop_fraction + 1e-6) for side in self.size)
        return height, width

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the whole image before the crop: torchvision's and timm's own rounding."""
        target_h, target_w = self._target()
        if self.squash:
            return target_h, target_w
        if target_h != target_w:  # cover the target, as timm's ResizeKeepRatio does
            ratio = min(height / target_h, width / target_w)
            return round(height / ratio), round(width / ratio)
        if height <= width:
            return target_h, int(target_h * width / height)
        return int(target_w * height / width), target_w
