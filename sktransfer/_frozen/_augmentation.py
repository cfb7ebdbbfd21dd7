"""Random changes of a canvas, and the stored views of an image.

The changes are made on uint8, after resizing and before normalisation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from torch import nn
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_saturation

from .._random import global_generator

Augmentation = Callable[[torch.Tensor], torch.Tensor]
"""The function that a user passes: it takes one uint8 image (3, H, W), and may use torch's global generator."""

View = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""The same function with its own generator, so that threads do not affect each other's random numbers."""


def _flip(dims: tuple[int, ...]) -> View:
    """Flip an image along an axis with probability 0.5."""

    def flip(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return image if torch.rand(1, generator=generator) >= 0.5 else image.flip(dims)

    return flip


def _jitter(degrees: float, shift: float, zoom: tuple[float, float]) -> View:
    """Rotate by up to `degrees`, shift by up to `shift` of the side, magnify by a factor within `zoom`.

    The image is mirrored at its borders, because the network could learn from black corners.
    """

    def jitter(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        turn, right, down, size = torch.rand(4, generator=generator).tolist()
        angle = math.radians(degrees * (2 * turn - 1))
        scale = 1 / (zoom[0] + size * (zoom[1] - zoom[0]))
        cos, sin, aspect = scale * math.cos(angle), scale * math.sin(angle), image.shape[-1] / image.shape[-2]
        # The position from which each pixel comes, in coordinates from -1 to 1 over the image.
        origin = torch.tensor(
            [[[cos, sin / aspect, 2 * shift * (2 * right - 1)], [-sin * aspect, cos, 2 * shift * (2 * down - 1)]]]
        )
        grid = nn.functional.affine_grid(origin, [1, *image.shape], align_corners=False)
        moved = nn.functional.grid_sample(image[None].float(), grid, padding_mode="reflection", align_corners=False)
        return moved[0].round().to(torch.uint8)

    return jitter


def _quarter_turn(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn by 0, 90, 180 or 270 degrees; by 0 or 180 if the image is not square."""
    step = 1 if image.shape[-1] == image.shape[-2] else 2
    return torch.rot90(image, step * int(torch.randint(4, (), generator=generator)), dims=(-2, -1))


def _jitter_colours(strength: float) -> View:
    """Change brightness, contrast and saturation by up to `strength`, in random order.

    torchvision's ``ColorJitter`` draws the same factors in the same order, but uses the global generator.
    """
    changes = [adjust_brightness, adjust_contrast, adjust_saturation]

    def jitter(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        order = torch.randperm(4, generator=generator).tolist()  # the fourth is the hue, which is not changed
        factors = [float(torch.empty(1).uniform_(1 - strength, 1 + strength, generator=generator)) for _ in changes]
        for which in order:
            if which < len(changes):
                image = changes[which](image, factors[which])
        return image

    return jitter


AUGMENTATIONS_VERSION = 1  # version of the presets; changing it invalidates every stored view
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


@dataclass(frozen=True)
class Views:
    """Augmented views of each image, which are the same each time they are made."""

    augment: View
    name: str | None  # under which the views are stored; those of an augmentation without a name are not stored
    count: int
    seed: int

    def seed_of(self, content: bytes, view: int) -> int:
        """Return the seed of one view of the image whose fingerprint is `content`."""
        return xxhash.xxh3_64_intdigest(f"{self.seed}|{view}|".encode() + content) >> 1
