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

Change = Callable[[torch.Tensor], torch.Tensor]
"""A change whose random numbers are drawn: it maps uint8 images (…, 3, H, W) to images of the same shape."""


@dataclass(frozen=True)
class RandomChange:
    """A `View` in two steps: draw the random numbers, then change the image. An exported network needs the latter."""

    draw: Callable[[torch.Generator, tuple[int, int]], Change]  # from the generator, and height and width

    def __call__(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        height, width = image.shape[-2:]
        return self.draw(generator, (height, width))(image)


def _unchanged(image: torch.Tensor) -> torch.Tensor:
    return image


def _flip(dims: tuple[int, ...]) -> RandomChange:
    """Flip an image along an axis with probability 0.5."""

    def draw(generator: torch.Generator, size: tuple[int, int]) -> Change:
        return _unchanged if torch.rand(1, generator=generator) >= 0.5 else lambda image: image.flip(dims)

    return RandomChange(draw)


def _jitter(degrees: float, shift: float, zoom: tuple[float, float]) -> RandomChange:
    """Rotate by up to `degrees`, shift by up to `shift` of the side, magnify by a factor within `zoom`.

    The image is mirrored at its borders, because the network could learn from black corners.
    """

    def draw(generator: torch.Generator, size: tuple[int, int]) -> Change:
        turn, right, down, magnification = torch.rand(4, generator=generator).tolist()
        angle = math.radians(degrees * (2 * turn - 1))
        scale = 1 / (zoom[0] + magnification * (zoom[1] - zoom[0]))
        cos, sin, aspect = scale * math.cos(angle), scale * math.sin(angle), size[1] / size[0]
        # The position from which each pixel comes, in coordinates from -1 to 1 over the image.
        origin = torch.tensor(
            [[[cos, sin / aspect, 2 * shift * (2 * right - 1)], [-sin * aspect, cos, 2 * shift * (2 * down - 1)]]]
        )
        grid = nn.functional.affine_grid(origin, [1, 3, *size], align_corners=False)

        def jitter(image: torch.Tensor) -> torch.Tensor:
            images = image.reshape(-1, *image.shape[-3:]).float()
            grids = grid.expand(images.shape[0], -1, -1, -1)
            moved = nn.functional.grid_sample(images, grids, padding_mode="reflection", align_corners=False)
            return moved.reshape(image.shape).round().to(torch.uint8)

        return jitter

    return RandomChange(draw)


def _turn(generator: torch.Generator, size: tuple[int, int]) -> Change:
    """Turn by 0, 90, 180 or 270 degrees; by 0 or 180 if the image is not square."""
    step = 1 if size[0] == size[1] else 2
    quarters = step * int(torch.randint(4, (), generator=generator))
    return lambda image: torch.rot90(image, quarters, dims=(-2, -1))


_quarter_turn = RandomChange(_turn)


def _jitter_colours(strength: float) -> RandomChange:
    """Change brightness, contrast and saturation by up to `strength`, in random order.

    torchvision's ``ColorJitter`` draws the same factors in the same order, but uses the global generator.
    """
    changes = [adjust_brightness, adjust_contrast, adjust_saturation]

    def draw(generator: torch.Generator, size: tuple[int, int]) -> Change:
        order = torch.randperm(4, generator=generator).tolist()  # the fourth is the hue, which is not changed
        factors = [float(torch.empty(1).uniform_(1 - strength, 1 + strength, generator=generator)) for _ in changes]

        def jitter(image: torch.Tensor) -> torch.Tensor:
            for which in order:
                if which < len(changes):
                    image = changes[which](image, factors[which])
            return image

        return jitter

    return RandomChange(draw)


AUGMENTATIONS_VERSION = 1  # version of the presets; changing it invalidates every stored view
AUGMENTATIONS: dict[str, list[RandomChange]] = {
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


def drawn_change(augment: str, seed: int, size: tuple[int, int]) -> Change:
    """Return the change that `augment_canvas` makes with this preset and seed to canvases of this size."""
    generator = torch.Generator().manual_seed(seed)
    changes = [change.draw(generator, size) for change in AUGMENTATIONS[augment]]
    return functools.partial(_all_of, changes)


def _all_of(changes: list[Change], images: torch.Tensor) -> torch.Tensor:
    for change in changes:
        images = change(images)
    return images


def _one_after_the_other(changes: list[RandomChange], image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
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
