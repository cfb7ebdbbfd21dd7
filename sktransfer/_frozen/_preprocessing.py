"""Resize and crop an image in the way in which the weights were trained.

A decoded image becomes a *canvas*: a uint8 image of exactly the size that the network expects. Subtracting the mean
and dividing by the deviation is the first step of the network (`CutNetwork`), where it is done once per batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._images._decoding import resize


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing with which the weights were trained: geometry, interpolation and normalisation."""

    size: tuple[int, int]  # height and width of the canvas in pixels
    crop_fraction: float = 0.875  # share of each side of the resized image that the central crop keeps
    interpolation: str = "bilinear"  # as `resize` takes it
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of each channel (RGB), for values in [0, 1]
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: str = "crop"  # what happens to what does not fit: "crop" cuts it off, "squash" distorts, "pad" fills up

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing of a model file. Earlier ones hold `squash`, True or False, instead of `resize`."""
        fields = dict(fields)
        if "squash" in fields:
            fields["resize"] = "squash" if fields.pop("squash") else "crop"
        return cls(**fields)

    def with_image_size(
        self, image_size: int | Sequence[int] | None, crop: bool = True, resize: str = "auto"
    ) -> Preprocessing:
        """Return the same preprocessing for another canvas size; the size before the crop changes in proportion.

        With ``crop=False``, only what does not fit the aspect ratio of `size` is cut off. If `image_size` is None too,
        the canvas gets the size that images have before the crop, so that the scale stays that of pretraining. If
        `resize` is "pad" or "squash", the canvas shows the whole image.
        """
        whole = self if crop else replace(self, size=self.resized_to, crop_fraction=1.0)
        if resize in ("pad", "squash"):
            whole = replace(whole, resize=resize, crop_fraction=1.0)
        elif resize == "crop":
            whole = replace(whole, resize=resize)
        if image_size is None:
            return whole
        height, width = np.broadcast_to(image_size, 2)
        return replace(whole, size=(int(height), int(width)))

    @property
    def resized_to(self) -> tuple[int, int]:
        """Height and width that the image is resized to before the crop, as `resize_mode` says."""
        # The epsilon keeps 224 / (224 / 232) from falling to 231.
        height, width = (math.floor(side / self.crop_fraction + 1e-6) for side in self.size)
        return height, width

    @property
    def resize_mode(self) -> str:
        """How the image is resized to `resized_to`.

        ``"exact"`` gives it this size. ``"cover"`` keeps its aspect ratio, and it just covers this size. With
        ``"shorter side"`` its shorter side gets this size, and the other side is rounded down. With ``"fit"`` it just
        fits into this size, in the middle, and the rest is filled with `fill`.
        """
        if self.resize != "crop":
            return {"squash": "exact", "pad": "fit"}[self.resize]
        height, width = self.resized_to
        return "shorter side" if height == width else "cover"

    @property
    def fill(self) -> tuple[int, ...]:
        """The mean colour of pretraining, uint8, which the network sees as zero."""
        return tuple(round(255 * value) for value in self.mean)

    @property
    def in_words(self) -> str:
        """The steps from a file to the input of the network, as text for people who prepare images elsewhere."""
        (height, width), (whole_height, whole_width) = self.size, self.resized_to
        resize = {
            "shorter side": f"resize the image so that its shorter side has {whole_height} pixels",
            "cover": f"resize the image so that it just covers {whole_height} × {whole_width} pixels",
            "exact": f"resize the image to {whole_height} × {whole_width} pixels",
            "fit": f"resize the image so that it just fits into {whole_height} × {whole_width} pixels, and put it into "
            f"the middle of an area of this size and of the colour {self.fill}",
        }[self.resize_mode]
        antialias = "" if self.interpolation == "nearest" else ", antialiased as Pillow does it"
        return (
            "Turn the image upright as its EXIF orientation says, and convert it to RGB with 8 bits per channel. Put a "
            f"transparent image on white. Then {resize} ({self.interpolation}{antialias}), and cut out the central "
            f"{height} × {width} pixels. The model itself subtracts the mean and divides by the deviation."
        )

    @property
    def least_side(self) -> int:
        """Least number of pixels that the shorter side should have before resizing: twice the number after it."""
        return 2 * max(self.resized_to)

    def canvas(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one uint8 image of shape (H, W, 3) to the uint8 canvas of shape (*size, 3)."""
        whole = self._resized(*image.shape[:2])
        if self.resize == "pad":
            canvas = np.empty((*self.size, 3), np.uint8)
            canvas[:] = self.fill
            top, left = (round((self.size[axis] - whole[axis]) / 2) for axis in (0, 1))
            canvas[top : top + whole[0], left : left + whole[1]] = resize(image, whole, self.interpolation)
            return canvas
        top, left = (round((whole[axis] - self.size[axis]) / 2) for axis in (0, 1))
        return resize(image, whole, self.interpolation, crop=(top, left, *self.size))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the whole image before the crop, rounded as in torchvision and timm."""
        target_h, target_w = self.resized_to
        if self.resize_mode == "exact":
            return target_h, target_w
        if self.resize_mode == "fit":
            if width * target_h > height * target_w:  # as Pillow's ImageOps.pad does
                return max(1, round(height / width * target_w)), target_w
            return target_h, max(1, round(width / height * target_h))
        if self.resize_mode == "cover":  # as timm's ResizeKeepRatio does
            ratio = min(height / target_h, width / target_w)
            return round(height / ratio), round(width / ratio)
        if height <= width:
            return target_h, int(target_h * width / height)
        return int(target_w * height / width), target_w
