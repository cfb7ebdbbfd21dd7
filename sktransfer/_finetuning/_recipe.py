"""How a network is trained: the learning rate and its schedule, the epochs, the loss, the views at prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .._protocols import FineTunes

LABEL_SMOOTHING = 0.1
GRADIENT_NORM = 1.0  # longer gradients are cut to this length
WARMUP = 0.2  # share of the steps


class Recipe(NamedTuple):
    """What ``"auto"`` stands for."""

    lr: float
    max_epochs: int


def resolve_recipe(estimator: FineTunes, n_images: int, pretrained: bool) -> Recipe:
    """Return the learning rate and the number of epochs that the classifier's parameters ask for.

    What a network needs is steps: the fewer the images, the more often it sees them. TRAIN-02 in
    docs/design/training.md explains these figures; benchmarks/recipe.py tries others.
    """
    lr, max_epochs = estimator.lr, estimator.max_epochs
    if lr == "auto":
        lr = 3e-3 if pretrained else 1e-3
    if max_epochs == "auto":
        n_seen, least, most = (24_000, 6, 30) if pretrained else (60_000, 10, 60)
        max_epochs = min(max(round(n_seen / n_images), least), most)
    return Recipe(float(lr), int(max_epochs))


def resolve_tta(estimator: FineTunes) -> int:
    """Return over how many views of an image, itself among them, predictions are averaged."""
    if estimator.augment is None:
        return 1
    if estimator.tta == "auto":
        return 8 if estimator.augment == "any_orientation" else 1  # as many as a square has orientations
    return int(estimator.tta)


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy of each image times its weight, averaged over the batch.

    Parameters
    ----------
    label_smoothing : float
        Share of the target that is spread over all classes.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the loss; `target` holds class indices and weights, both (n,)."""
        labels, weights = target
        losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return (losses * weights).mean()


def warmup_cosine(n_steps: int, warmup: float = WARMUP) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step: up in a line, then down along a cosine.

    Parameters
    ----------
    n_steps : int
        Batches in the whole training.
    warmup : float
        Share of them before the peak.
    """
    rise = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))

    return factor
