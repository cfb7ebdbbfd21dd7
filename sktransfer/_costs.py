"""How long a fit will take on this machine, from a short one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from ._classifier import FineTunedCNNClassifier
from ._features import PretrainedCNNFeatures
from ._finetuning import resolve_recipe
from ._images import as_images
from ._inputs import make_extractor, resolve_backbone

PILOT = 32  # images


def pilot_rows(y: np.ndarray, n: int = PILOT) -> np.ndarray:
    """Return positions of about `n` images, with at least two of each of the most frequent classes."""
    classes, counts = np.unique(y, return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")][: n // 2]
    each = max(2, n // len(frequent))
    return np.sort(np.concatenate([np.flatnonzero(y == label)[:each] for label in frequent]))


def sample_rows(y: np.ndarray, n: int, random_state: int = 0) -> np.ndarray:
    """Return the positions of `n` images, stratified; all of them if there are no more."""
    rows = np.arange(len(y))
    if n >= len(rows):
        return rows
    counts = np.unique(y, return_counts=True)[1]
    strata = y if counts.min() > 1 and n >= len(counts) else None
    return np.sort(train_test_split(rows, train_size=n, stratify=strata, random_state=random_state)[0])


def expected_seconds(estimator: BaseEstimator, X: Any, y: np.ndarray, n_train: int, n_test: int = 0) -> float:
    """Return about how many seconds it takes to fit `n_train` such images and to predict `n_test`.

    The extraction of features and an epoch of training are timed on a few images. What lies behind the features, a
    linear model or an estimator without images, is taken as free.
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    rows = pilot_rows(y)
    images = _safe_indexing(X, rows)
    if not isinstance(last, FineTunedCNNClassifier):
        extractors = [step for _, step in getattr(estimator, "steps", []) if isinstance(step, PretrainedCNNFeatures)]
        return (n_train + n_test) * sum(extraction_seconds_per_image(step, images) for step in extractors)

    names = set(PretrainedCNNFeatures().get_params()) & set(last.get_params())
    features = PretrainedCNNFeatures(**{name: getattr(last, name) for name in names})
    extraction = extraction_seconds_per_image(features, images)
    views = 0 if last.augment is None else last.n_views or 0
    tested = 1 if last.augment is None else last.tta
    epochs = resolve_recipe(last, n_train, pretrained=last.weights is not None).max_epochs
    training = epochs * training_seconds_per_image(last, images, y[rows])
    return n_train * (extraction * (1 + views) + training) + n_test * extraction * tested


def extraction_seconds_per_image(features: PretrainedCNNFeatures, images: Any, *, anew: bool = False) -> float:
    """Time the extraction of features; those that are stored cost nearly nothing, unless computed `anew`."""
    backbone = resolve_backbone(features)
    extractor = make_extractor(features, backbone)
    extractor.verbose = 0
    if anew:
        extractor.store = None
    images = as_images(images, image_shape=features.image_shape, value_range=features.value_range)
    cuts = [len(backbone.stages)]
    extractor.run(images, cuts, features.pooling, indices=[0])  # loads, converts and compiles
    rest = range(1, len(images))
    start = time.perf_counter()
    extractor.run(images, cuts, features.pooling, indices=rest)
    return (time.perf_counter() - start) / len(rest)


def training_seconds_per_image(classifier: FineTunedCNNClassifier, images: Any, y: np.ndarray) -> float:
    """Time an epoch of training on a few images, per image; the first epoch warms up."""
    pilot = clone(classifier).set_params(max_epochs=2, early_stopping=False, warm_start=False, callbacks=None, verbose=0)
    return pilot.fit(images, y).history_[-1]["seconds"] / len(y)
