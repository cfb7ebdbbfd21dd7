"""The parts of a fitted model: what reads images, the steps behind it, and the classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils.validation import check_is_fitted

from ._classifier import FineTunedCNNClassifier
from ._exceptions import ExportError
from ._feature_classifier import FeatureClassifier
from ._features import PretrainedCNNFeatures
from ._frozen._backbones import DEFAULT_BACKBONE, Backbone
from ._parameters import as_seen

Step = tuple[str, Any]  # the name of a step and its fitted estimator


class Reader(NamedTuple):
    """A fitted estimator that reads images, with the backbone that it runs on them."""

    name: str
    estimator: PretrainedCNNFeatures | FineTunedCNNClassifier
    backbone: Backbone  # with the preprocessing of the estimator's images
    factor: float = 1.0  # by which a feature union multiplies the features


class Parts(NamedTuple):
    """A fitted classifier of images, taken apart."""

    readers: list[Reader]  # their features lie side by side; a `FineTunedCNNClassifier` is the only reader
    steps: list[Step]  # what comes behind the features, the classifier last; empty behind a fine-tuned network
    classes: np.ndarray
    has_probabilities: bool


def parts_of(model: Any) -> Parts:
    """Take a fitted model apart: a classifier of this package, a pipeline that starts with one, or a search over them.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    ExportError
        If the model has other parts, or if it has no classes.
    """
    if isinstance(model, type) or not hasattr(model, "get_params"):
        raise ExportError(f"Expected a fitted classifier; got {model!r}, a {type(model).__name__}.")
    check_is_fitted(model)
    (name, first), *steps = _chain(type(model).__name__, model)
    readers = _readers(name, first)
    has_network = isinstance(readers[0].estimator, FineTunedCNNClassifier)
    if has_network and steps:
        raise ExportError(f"The step {steps[0][0]!r} stands behind a fine-tuned network, which must be the last step.")
    last = steps[-1][1] if steps else first
    if not hasattr(last, "classes_"):
        raise ExportError(f"The last step, {type(last).__name__}, is no classifier: it has no classes.")
    return Parts(readers, steps, np.asarray(last.classes_), hasattr(last, "predict_proba"))


def weights_of(reader: Reader) -> str:
    """Say where the weights of a reader's backbone come from, and under which licence they are, if that is known."""
    estimator, name = reader.estimator, reader.backbone.name
    if estimator.weights is None:
        return "random weights" if isinstance(estimator, PretrainedCNNFeatures) else "trained from scratch"
    if estimator.weights != "default":
        return "weights of a local file; its licence is not known to sktransfer"
    if name == DEFAULT_BACKBONE:
        return "ImageNet weights of EfficientNet-Lite0 by Google, Apache-2.0, embedded in sktransfer"
    source = "timm" if name.startswith("timm/") else "torchvision"
    return f"published weights of {name}; see {source} for their licence"


def _chain(name: str, model: Any) -> list[Step]:
    """Return the steps of a model in order, without the pipelines and searches around them."""
    if isinstance(model, Pipeline):
        used = [(name, step) for name, step in model.steps if step is not None and step != "passthrough"]
        return [link for name, step in used for link in _chain(name, step)]
    if hasattr(model, "best_estimator_"):
        return _chain(name, model.best_estimator_)
    if isinstance(model, FeatureClassifier):
        return [*_chain("features", model.features_), (name, model)]
    return [(name, model)]


def _readers(name: str, step: Any) -> list[Reader]:
    if isinstance(step, PretrainedCNNFeatures | FineTunedCNNClassifier):
        return [Reader(name, step, as_seen(step, step._fitted_backbone()))]
    if isinstance(step, FeatureUnion):
        weights = step.transformer_weights or {}
        used = [(name, part) for name, part in step.transformer_list if part != "drop"]
        for name, part in used:
            if not isinstance(part, PretrainedCNNFeatures):
                raise ExportError(_strange(name, part))
        return [reader._replace(factor=weights.get(n, 1.0)) for n, part in used for reader in _readers(n, part)]
    raise ExportError(_strange(name, step))


def _strange(name: str, step: Any) -> str:
    return (
        f"The step {name!r}, a {type(step).__name__}, reads the images. Only FineTunedCNNClassifier, "
        "PretrainedCNNFeatures and a FeatureUnion of the latter may stand there."
    )
