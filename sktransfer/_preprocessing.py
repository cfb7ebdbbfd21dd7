"""Resize and crop an image as the weights were trained; augmentation.

Both work on uint8: a decoded image becomes a *canvas*, the uint8 image of exactly the size the network
sees. Augmentation acts on the canvas. Subtracting the mean and dividing by the deviation is the first
step of the network itself (`sktransfer._engines.CutNetwork`), where it runs once per batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_saturation

from ._decoding import resize
from ._random import global_generator


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


Augmentation = Callable[[torch.Tensor], torch.Tensor]
"""What users pass: a function of one uint8 image (3, H, W), which may draw from torch's global generator."""

View = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""The same with a generator of its own, so that threads cannot disturb each other's draws."""


def _flip(dims: tuple[int, ...]) -> View:
    """Flip one image of two along an axis."""

    def flip(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return image if torch.rand(1, generator=generator) >= 0.5 else image.flip(dims)

    return flip


def _jitter(degrees: float, shift: float, zoom: tuple[float, float]) -> View:
    """Rotate by up to `degrees`, shift by up to `shift` of the side, magnify by a factor within `zoom`.

    The image goes on beyond its borders as in a mirror, since black corners would be a feature to learn.
    """

    def jitter(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        turn, right, down, size = torch.rand(4, generator=generator).tolist()
        angle = math.radians(degrees * (2 * turn - 1))
        scale = 1 / (zoom[0] + size * (zoom[1] - zoom[0]))
        cos, sin, aspect = scale * math.cos(angle), scale * math.sin(angle), image.shape[-1] / image.shape[-2]
        # Where each pixel comes from, in coordinates that run from -1 to 1 over the image.
        origin = torch.tensor(
            [[[cos, sin / aspect, 2 * shift * (2 * right - 1)], [-sin * aspect, cos, 2 * shift * (2 * down - 1)]]]
        )
        grid = nn.functional.affine_grid(origin, [1, *image.shape], align_corners=False)
        moved = nn.functional.grid_sample(image[None].float(), grid, padding_mode="reflection", align_corners=False)
        return moved[0].round().to(torch.uint8)

    return jitter


def _quarter_turn(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn by 0, 90, 180 or 270 degrees; by 0 or 180 where the image is not square."""
    step = 1 if image.shape[-1] == image.shape[-2] else 2
    return torch.rot90(image, step * int(torch.randint(4, (), generator=generator)), dims=(-2, -1))


def _jitter_colours(strength: float) -> View:
    """Change brightness, contrast and saturation by up to `strength`, in random order.

    torchvision's ``ColorJitter`` draws the same factors in the same order, but from the global generator.
    """
    changes = [adjust_brightness, adjust_contrast, adjust_saturation]

    def jitter(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        order = torch.randperm(4, generator=generator).tolist()  # the fourth is the hue, which is left as it is
        factors = [float(torch.empty(1).uniform_(1 - strength, 1 + strength, generator=generator)) for _ in changes]
        for which in order:
            if which < len(changes):
                image = changes[which](image, factors[which])
        return image

    return jitter


VERSION = 1  # of the presets; a change makes every stored view unknown
AUGMENTATIONS: dict[str, list[View]] = {
    "photo": [_flip((-1,)), _jitter(degrees=10, shift=0.1, zoom=(1.0, 1.3)), _jitter_colours(0.2)],
    "any_orientation": [
        _flip((-1,)),
        _flip((-2,)),
        _quarter_turn,
        _jitter(degrees=3, shift=0.02, zoom=(1.0, 1.0)),
    ],
    "text": [_jitter(degrees=5, shift=0.1, zoom=(0.9, 1.1))],
}
"""Presets by domain, each a list of random changes that are made one after the other."""


def resolve_augmentation(augment: str | Augmentation | None) -> View | None:
    """Turn the public ``augment`` parameter into a function of one uint8 tensor (3, H, W) and a generator."""
    if augment is None:
        return None
    if callable(augment):
        return functools.partial(_with_global_generator, augment)
    return functools.partial(_one_after_the_other, AUGMENTATIONS[augment])


def _one_after_the_other(changes: list[View], image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    for change in changes:
        image = change(image, generator)
    return image


def _with_global_generator(augment: Augmentation, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    with global_generator(generator.initial_seed()):
        return augment(image)


def augment_canvas(canvas: np.ndarray, augment: View, seed: int) -> np.ndarray:
    """Return one augmented view of a canvas; the same seed gives the same view, in any thread."""
    view = augment(torch.from_numpy(canvas).permute(2, 0, 1), torch.Generator().manual_seed(seed))
    return view.permute(1, 2, 0).contiguous().numpy()
