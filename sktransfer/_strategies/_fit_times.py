"""Predict how long fits will take on this machine, from short fits on a few of the images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from .._classifier import FineTunedCNNClassifier
from .._feature_classifier import FeatureClassifier
from .._features import PretrainedCNNFeatures
from .._finetuning._recipe import SMALL_EPOCHS, resolve_recipe
from .._finetuning._training import smaller_body
from .._finetuning._training_data import FrozenBody, make_views
from .._images._collection import as_images
from .._parameters import make_extractor, resolve_backbone, resolve_freeze, resolve_outputs
from .._sklearn_compat import safe_indexing
from ._sampling import pilot_rows

ImageReader = PretrainedCNNFeatures | FineTunedCNNClassifier


class Cost(NamedTuple):
    """Seconds per image."""

    frozen: float  # per image, once, however many folds it is in
    training: float  # per training image and epoch
    testing: float  # per test image

    def seconds(self, estimator: BaseEstimator, n_images: int, n_train: Sequence[int], n_test: Sequence[int]) -> float:
        """Return the total seconds of fits on `n_train` images each and of tests on `n_test` images each."""
        seen = sum(_n_seen(estimator, n_train))
        return self.frozen * n_images + self.training * seen + self.testing * sum(n_test)


def measure_cost(estimator: BaseEstimator, X: Any, y: np.ndarray, *, anew: bool = False) -> Cost:
    """Time an estimator on a few images.

    Activations that are already stored cost almost nothing, as they will in the fits; `anew` ignores them. Models after
    the features, such as a linear model, and estimators without a network count as free. Their time does not grow in
    proportion to the number of images, so a short fit cannot predict it.
    """
    rows = pilot_rows(y)
    labels = y[rows]
    cost = Cost(0.0, 0.0, 0.0)
    for part, images in image_readers(estimator, safe_indexing(X, rows)):
        part = clone(part).set_params(verbose=0)
        if isinstance(part, FineTunedCNNClassifier):
            more = _cost_of_training(part, images, labels, anew)
        else:
            more = Cost(seconds_of_features(part, images, anew=anew), 0.0, 0.0)
        cost = Cost(*map(sum, zip(cost, more, strict=True)))
    return cost


def image_readers(estimator: Any, X: Any) -> Iterator[tuple[ImageReader, Any]]:
    """Yield the parts of an estimator that read images directly from X, each with the images that it reads.

    A column transformer passes columns of a table to each of its transformers. In a pipeline, only the first step
    reads X. A search counts as one fit, since the number of its fits is not known.
    """
    if isinstance(estimator, ImageReader):
        yield estimator, X
    elif isinstance(estimator, FeatureClassifier):
        yield from image_readers(estimator.transformer, X)
    elif isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
        yield from image_readers(steps[0], X)
    elif isinstance(estimator, FeatureUnion):
        for _, part in estimator.transformer_list:
            yield from image_readers(part, X)
    elif isinstance(estimator, ColumnTransformer):
        for _, part, columns in estimator.transformers:
            if not isinstance(part, str):  # "drop", "passthrough"
                chosen = columns(X) if callable(columns) else columns
                yield from image_readers(part, safe_indexing(X, chosen, axis=1))
    elif isinstance(getattr(estimator, "estimator", None), BaseEstimator):
        yield from image_readers(estimator.estimator, X)


def seconds_of_features(features: PretrainedCNNFeatures, images: Any, *, anew: bool = False) -> float:
    """Return the seconds that the features of one image take; `anew` ignores stored activations."""
    backbone = resolve_backbone(features)
    extractor = make_extractor(features, backbone, anew=anew)
    images = as_images(images, image_shape=features.image_shape, value_range=features.value_range)
    outputs = resolve_outputs(features.layer, features.pooling, backbone)
    return _per_image(lambda rows: extractor.run(images, outputs, indices=rows), len(images))


def _cost_of_training(classifier: FineTunedCNNClassifier, images: Any, labels: np.ndarray, anew: bool) -> Cost:
    frozen = _seconds_of_frozen_stages(classifier, images, anew)
    pilot = clone(classifier).set_params(max_epochs=5, early_stopping=False, warm_start=False, callbacks=None)
    pilot.fit(images, labels)
    start = time.perf_counter()
    pilot.predict(images)
    testing = (time.perf_counter() - start) / len(labels)
    # Three of the five epochs show smaller images, if any do. The first epoch of each size warms up.
    seconds = [epoch["seconds"] for epoch in pilot.history_]
    small, whole = seconds[len(seconds) // 2], seconds[-1]
    return Cost(frozen, (SMALL_EPOCHS * small + (1 - SMALL_EPOCHS) * whole) / len(labels), testing)


def _seconds_of_frozen_stages(classifier: FineTunedCNNClassifier, images: Any, anew: bool) -> float:
    """Return the seconds of one image before training: its features for the first head, and its views at the cut."""
    backbone = resolve_backbone(classifier)
    body = FrozenBody(make_extractor(classifier, backbone, anew=anew), resolve_freeze(classifier.freeze, backbone))
    images = as_images(images, image_shape=classifier.image_shape, value_range=classifier.value_range)
    seconds = 0.0
    if body.n_frozen > 0:  # the maps at the cut come first, because the features start from them
        views = None
        if classifier.augment is not None and classifier.n_views is not None:
            views = make_views(classifier, classifier.n_views)
        seconds += _per_image(lambda rows: body.activations(images, rows, views), len(images))
    if backbone.pretrained:
        seconds += _per_image(lambda rows: body.features(images, rows), len(images))
    return seconds


def _per_image(work: Callable[[np.ndarray], object], n: int) -> float:
    work(np.array([0]))  # loads, converts and compiles
    start = time.perf_counter()
    work(np.arange(1, n))
    return (time.perf_counter() - start) / (n - 1)


def _n_seen(estimator: BaseEstimator, n_train: Sequence[int]) -> Iterator[int]:
    """Yield how many images each fit shows to the network, counted in every epoch."""
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, FineTunedCNNClassifier):
        return
    backbone = resolve_backbone(last)
    body = FrozenBody(make_extractor(last, backbone), resolve_freeze(last.freeze, backbone))
    small_first = smaller_body(last, body) is not None
    for n in n_train:
        yield n * resolve_recipe(last, n, backbone.pretrained, small_first=small_first).max_epochs
