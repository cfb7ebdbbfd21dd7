"""Random numbers that depend only on the seed of one fit, one layer or one view, not on the rest of the process.

torch's initialisers and users' augmentations draw from torch's global generator, which all threads share. Code that
cannot use its own generator runs within `global_generator`. It lets in one thread at a time, and restores the state of
the global generator afterwards, so that the user's random numbers are not affected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

_drawing = threading.RLock()


@contextmanager
def global_generator(seed: int) -> Iterator[None]:
    """Seed torch's global generator of the CPU for this block, and restore it afterwards.

    `torch.manual_seed` would also seed the generators of all devices, which takes longer and would not be undone here.
    """
    with _drawing:
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(state)


class OwnDropout(nn.Module):
    """Dropout whose masks depend only on a seed and the number of calls.

    Each unit is dropped as a whole: elements or channels in dropout, images or batches in stochastic depth.
    """

    def __init__(self, p: float, seed: int, unit: str = "element") -> None:
        super().__init__()
        self.p, self.seed, self.unit, self.calls = p, seed, unit, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop units of `x` (n, …) in training, and scale up the others; in eval mode return `x` unchanged."""
        if not self.training or self.p == 0:
            return x
        if self.p == 1:
            return torch.zeros_like(x)
        self.calls += 1
        generator = torch.Generator(device=x.device).manual_seed(hash((self.seed, self.calls)) % 2**63)
        n_axes = {"batch": 0, "image": 1, "channel": 2, "element": x.ndim}[self.unit]
        shape = x.shape[:n_axes] + (1,) * (x.ndim - n_axes)
        mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p, generator=generator)
        return x * mask.div_(1 - self.p)

    def extra_repr(self) -> str:
        """Show the probability and the unit."""
        return f"p={self.p}, unit={self.unit!r}"


def with_own_dropout(module: nn.Module, seed: int) -> None:
    """Replace all layers in `module` that use the global generator in training by `OwnDropout`."""
    own = {name: layer for name, layer in module.named_modules() if _own(layer, 0) is not None}
    for number, (name, layer) in enumerate(own.items()):
        module.set_submodule(name, cast(OwnDropout, _own(layer, seed + number)).train(layer.training))


def _own(layer: Any, seed: int) -> OwnDropout | None:
    if type(layer) is nn.Dropout:
        return OwnDropout(layer.p, seed)
    if type(layer) in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        return OwnDropout(layer.p, seed, "channel")
    if type(layer).__name__ == "StochasticDepth":  # torchvision
        return OwnDropout(layer.p, seed, "image" if layer.mode == "row" else "batch")
    if type(layer).__name__ == "DropPath":  # timm
        return OwnDropout(layer.drop_prob or 0.0, seed, "image")
    return None
