"""The scikit-learn steps behind the features, as an ONNX graph made by skl2onnx."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from .._exceptions import ExportError
from .._fitted_parts import Step
from .._linear import OneThreadLogisticRegression
from .._warnings import warnings_ignored

OPSETS = {"": 18, "ai.onnx.ml": 3}
KNOWN_CLASSES = "iuUO"  # kinds of dtypes whose labels skl2onnx writes as they are
VALUES = "values"  # name of the output with probabilities or scores


def steps_to_onnx(steps: list[Step], n_features: int, n_classes: int) -> Any:
    """Return an ONNX model from ``features`` to ``label``, and to ``values``: probabilities or scores (n, n_classes).

    Raises
    ------
    ExportError
        If skl2onnx cannot convert a step. The message names the step.
    """
    plain = [(name, _of_known_class(step)) for name, step in steps]
    classifier = plain[-1][1]
    try:
        model = _converted(Pipeline(plain), classifier, n_features)
    except Exception as error:  # converters raise errors of many types
        name, step = _culprit(plain)
        raise ExportError(
            f"skl2onnx cannot convert the step {name!r}, a {type(step).__name__}: {type(error).__name__}: {error}"
        ) from error
    # skl2onnx writes the oldest opset that has the operators in the form that the newest one has them.
    next(each for each in model.opset_import if each.domain == "").version = OPSETS[""]
    label, values = model.graph.output
    rename(model.graph, label.name, "label")
    rename(model.graph, values.name, VALUES)
    if n_classes == 2 and not hasattr(classifier, "predict_proba"):
        _make_two_columns(model.graph)
    return model


def _of_known_class(step: Any) -> Any:
    """Return the same step as an instance of scikit-learn's own class, with classes that are text or whole numbers.

    skl2onnx knows neither subclasses nor other classes.
    """
    is_ours = isinstance(step, OneThreadLogisticRegression)
    classes = getattr(step, "classes_", None)
    has_odd_classes = isinstance(classes, np.ndarray) and classes.dtype.kind not in KNOWN_CLASSES
    if not (is_ours or has_odd_classes):
        return step
    plain: Any = object.__new__(LogisticRegression if is_ours else type(step))
    vars(plain).update(vars(step))
    if has_odd_classes:
        plain.classes_ = np.arange(len(step.classes_))  # the label is then found by its position
    return plain


def _converted(model: Any, classifier: Any, n_features: int) -> Any:
    """Convert a model with those options that the converter of its classifier knows."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    scores = {} if hasattr(classifier, "predict_proba") else {"raw_scores": True}
    for options in ({"zipmap": False, **scores}, scores, {"zipmap": False}, {}):
        try:
            with warnings_ignored(""):
                return convert_sklearn(
                    model,
                    initial_types=[("features", FloatTensorType([None, n_features]))],
                    target_opset=OPSETS,
                    options={id(classifier): options} if options else None,
                )
        except NameError as error:  # an option that this converter does not know
            if not options:
                raise error
    raise AssertionError  # the last turn returns or raises


def _culprit(steps: list[Step]) -> Step:
    """Return the first step that cannot be converted alone."""
    for name, step in steps:
        try:
            _converted(step, step, step.n_features_in_)
        except Exception:  # as in `steps_to_onnx`
            return name, step
    return steps[-1]


def rename(graph: Any, old: str, new: str) -> None:
    """Give an input, an output or an intermediate result of a graph another name."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for each in (*graph.input, *graph.output):
        if each.name == old:
            each.name = new


def _make_two_columns(graph: Any) -> None:
    """Let the scores of two classes be (-d, d), where d, the decision function, is the last column of the scores."""
    from onnx import TensorProto, helper

    rename(graph, VALUES, "decision")
    graph.initializer.append(helper.make_tensor("decision_column", TensorProto.INT64, [1], [-1]))
    graph.node.extend(
        [
            helper.make_node("Gather", ["decision", "decision_column"], ["decision_of_second"], axis=1),
            helper.make_node("Neg", ["decision_of_second"], ["decision_of_first"]),
            helper.make_node("Concat", ["decision_of_first", "decision_of_second"], [VALUES], axis=1),
        ]
    )
    del graph.output[1:]
    graph.output.append(helper.make_tensor_value_info(VALUES, TensorProto.FLOAT, [None, 2]))
