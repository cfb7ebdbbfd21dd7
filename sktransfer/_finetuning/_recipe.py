"""How a network is trained: the learning rate and its schedule, the epochs, the loss, the views at prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .._protocols import FineTunes

LABEL_SMOOTHING = 0.1
GRADIENT_NORM = 1.0  # gradients with a larger norm are scaled to this one
WARMUP = 0.2  # fraction of the steps
SMALL_EPOCHS = 0.6  # fraction of the epochs that show smaller images, whose size is in _training_data


class Recipe(NamedTuple):
    """What ``"auto"`` stands for."""

    lr: float
    max_epochs: int
    n_small: int = 0  # of the first epochs show smaller images


def resolve_recipe(estimator: FineTunes, n_images: int, pretrained: bool, *, small_first: bool = False) -> Recipe:
    """Return the learning rate and the numbers of epochs that the classifier's parameters ask for.

    `small_first` says that the first epochs can show smaller images. A network needs a certain number of steps, so it
    trains for more epochs if there are fewer images. TRAIN-02 and TRAIN-16 in docs/design/training.md explain these
    numbers; benchmarks/recipe.py tries others.
    """
    lr, max_epochs = estimator.lr, estimator.max_epochs
    if lr == "auto":
        lr = 3e-3 if pretrained else 1e-3
    if max_epochs == "auto":
        n_seen, least, most = (16_000 if small_first else 24_000, 6, 30) if pretrained else (60_000, 10, 60)
        max_epochs = min(max(round(n_seen / n_images), least), most)
    n_epochs = int(max_epochs)
    n_small = int(SMALL_EPOCHS * n_epochs) if small_first and n_epochs >= 5 else 0
    return Recipe(float(lr), n_epochs, n_small)


def resolve_tta(estimator: FineTunes) -> int:
    """Return the number of views of an image, itself included, over which predictions are averaged."""
    if estimator.augment is None:
        return 1
    if estimator.tta == "auto":
        return 8 if estimator.augment == "any_orientation" else 1  # a square has 8 orientations
    return int(estimator.tta)


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy of each image times its weight, averaged over the batch."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the loss; `target` holds class indices and weights, both (n,)."""
        labels, weights = target
        losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        return (losses * weights).mean()


def warmup_cosine(n_steps: int, warmup: float = WARMUP) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step (batch): a linear rise, then a cosine decay."""
    rise = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))

    return factor
