"""Random numbers that belong to one fit, one layer or one view, and never to the process.

torch's initialisers and the augmentations of users draw from torch's global generator, which all threads share. What
cannot draw from a generator of its own runs within `global_generator`: one thread at a time, and the state that the
user's own draws depend on is put back.
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

    `torch.manual_seed` would seed the generators of all devices too, which takes longer and is not undone here.
    """
    with _drawing:
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(state)


class OwnDropout(nn.Module):
    """Dropout whose masks follow from a seed and the number of calls, and from nothing else.

    Parameters
    ----------
    p : float
        Share of what is dropped in training.
    seed : int
    unit : {"element", "channel", "image", "batch"}
        What is dropped or kept as a whole: dropout takes elements or channels, stochastic depth images or batches.
    """

    def __init__(self, p: float, seed: int, unit: str = "element") -> None:
        super().__init__()
        self.p, self.seed, self.unit, self.calls = p, seed, unit, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop parts of `x` (n, …) in training, and scale up the rest; return it as it is otherwise."""
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
        """Show the share and the unit."""
        return f"p={self.p}, unit={self.unit!r}"


def with_own_dropout(module: nn.Module, seed: int) -> None:
    """Replace what draws from the global generator in training, within `module`, by `OwnDropout`."""
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
