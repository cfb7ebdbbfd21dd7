"""The input of the net: activations at the cut, stored views of them, or canvases to augment in each epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
import torchvision

from .._frozen._augmentation import AUGMENTATIONS_VERSION, View, Views, augment_canvas, resolve_augmentation
from .._frozen._cut_network import Outputs
from .._frozen._engines import Engine
from .._frozen._extraction import Extractor
from .._images._collection import Images
from .._protocols import FineTunes

SMALL_SIDE = 0.7  # side of the smaller images, as a fraction of the whole side
LEAST_SMALL_SIDE = 96  # in pixels; deep stages have hardly a map left of smaller images

Batch = tuple[torch.Tensor, list[torch.Tensor]]


class Examples(NamedTuple):
    """Images with their labels and weights."""

    images: Images
    labels: np.ndarray  # (n_images,), int64: positions of the classes
    weights: np.ndarray  # (n_images,), float32: how much each image counts in the loss


class FrozenBody:
    """The `n_frozen` stages before the cut: images in, activations out.

    If all stages are frozen, activations are pooled to vectors. If none is, they are canvases, which have a quarter of
    the size of normalised images.
    """

    def __init__(self, extractor: Extractor, n_frozen: int) -> None:
        self.extractor = extractor
        self.n_frozen = n_frozen
        self._whole = Outputs((len(extractor.backbone.stages),), extractor.backbone.own_pooling)
        self._outputs = self._whole if n_frozen == len(extractor.backbone.stages) else Outputs((n_frozen,), None)

    def smaller(self) -> FrozenBody | None:
        """Return the same stages for smaller images, or None where that makes no sense.

        That is if no stage is left to train, or if these images would be too small, or if the network refuses them.
        Their sides are multiples of 16 pixels.
        """
        backbone = self.extractor.backbone
        height, width = (16 * round(SMALL_SIDE * side / 16) for side in backbone.preprocessing.size)
        if self.n_frozen == len(backbone.stages) or min(height, width) < LEAST_SMALL_SIDE:
            return None
        if backbone.network is not None:  # its stages are cut for one size
            return None
        try:
            with torch.inference_mode():
                backbone.stages(torch.zeros(1, 3, height, width))
        except (RuntimeError, AssertionError, ValueError, TypeError):  # some networks take images of one size only
            return None
        extractor = copy.copy(self.extractor)
        extractor.backbone = replace(backbone, preprocessing=replace(backbone.preprocessing, size=(height, width)))
        return FrozenBody(extractor, self.n_frozen)

    @property
    def engine(self) -> Engine:
        """The engine that runs canvases through the frozen stages."""
        return self.extractor.engine(self._outputs)

    def activations(self, images: Images, indices: np.ndarray, views: Views | None = None) -> np.ndarray:
        """Return the input of the training, float32 activations or uint8 canvases, one row per index."""
        if self.n_frozen == 0:
            return self.extractor.canvases(images, indices)
        return self.extractor.run(images, self._outputs, indices=indices, views=views, spill=True)

    def blocks(self, images: Images, views: Views | None = None) -> Iterator[np.ndarray]:
        """Yield the activations of all images in order, a few batches at a time."""
        return self.extractor.blocks(images, self._outputs, "Predicting", views)

    def features(self, images: Images, indices: np.ndarray) -> np.ndarray:
        """Return the pooled features of the whole backbone."""
        return self.extractor.run(images, self._whole, indices=indices)


@dataclass(eq=False, repr=False)
class TrainingSet(torch.utils.data.Dataset[Batch]):
    """Activations at the cut with labels and weights, a batch at a time.

    The inputs are activations at the cut, float32 maps (n, h, w, C) or vectors (n, C). Or they are canvases, uint8
    (n, H, W, 3), which are augmented and run through the engine each time they are used.
    """

    inputs: np.ndarray
    labels: np.ndarray  # (n,), int64
    weights: np.ndarray  # (n,), float32
    engine: Engine
    augment: View | None = None
    rng: np.random.Generator | None = None  # picks one of the stored views, or draws the seed of an augmented one
    n_views: int | None = None  # of activations, which have them as second dimension

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: np.ndarray) -> Batch:
        """Return activations at the cut on the engine's device, labels and weights."""
        target = [torch.from_numpy(part[indices]) for part in (self.labels, self.weights)]
        inputs = self._views(indices)
        if inputs.dtype == np.uint8:
            return self.engine(inputs).clone(), target  # autograd accepts a clone, but no inference tensor
        return torch.from_numpy(inputs).to(self.engine.device), target

    def _views(self, indices: np.ndarray) -> np.ndarray:
        if self.n_views is not None and self.rng is not None:
            views: np.ndarray = self.inputs[indices, self.rng.integers(self.n_views, size=len(indices))]
            return views
        inputs: np.ndarray = self.inputs[indices]
        if self.augment is None or self.rng is None:
            return inputs
        seeds = self.rng.integers(2**62, size=len(inputs))
        return np.stack(
            [augment_canvas(canvas, self.augment, int(seed)) for canvas, seed in zip(inputs, seeds, strict=True)]
        )


def make_training_set(
    estimator: FineTunes, body: FrozenBody, examples: Examples, rows: np.ndarray, viewer: np.random.Generator
) -> TrainingSet:
    """Return those rows in the cheapest form that the estimator's augmentation allows; `viewer` draws the views."""
    images, target = examples.images, (examples.labels[rows], examples.weights[rows], body.engine)
    augment = resolve_augmentation(estimator.augment)
    if augment is None:
        return TrainingSet(body.activations(images, rows), *target)
    if estimator.n_views is None or body.n_frozen == 0:
        return TrainingSet(body.extractor.canvases(images, rows), *target, augment, viewer)
    views = make_views(estimator, estimator.n_views)
    return TrainingSet(body.activations(images, rows, views), *target, rng=viewer, n_views=views.count)


def make_views(estimator: FineTunes, count: int) -> Views:
    """Return `count` augmented views of each image, drawn by `random_state` alone, so that folds share them."""
    name = None
    if isinstance(estimator.augment, str):
        versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
        name = f"{estimator.augment} {AUGMENTATIONS_VERSION}, {versions}"
    seed = int(estimator.random_state) if isinstance(estimator.random_state, Integral) else 0
    augment = resolve_augmentation(estimator.augment)
    assert augment is not None  # only called if an augmentation is set
    return Views(augment, name, count, seed)


@dataclass(eq=False)
class EvenBatches:
    """Iterates over a `TrainingSet` in batches whose sizes differ by one at most.

    A last batch of a single image would make BatchNorm fail, or give that image the weight of a whole batch.
    """

    dataset: TrainingSet
    batch_size: int  # the largest
    rng: np.random.Generator | None = None  # shuffles the images again in each epoch

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.dataset)
        order = np.arange(n) if self.rng is None else self.rng.permutation(n)
        return map(self.dataset.batch, np.array_split(order, len(self)))
