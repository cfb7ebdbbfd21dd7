"""Checks of y: one label for each image, none missing, all of one type, and enough images of each class.

Messages show the user's own labels, never positions in a list of classes.
"""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import validate_data

from ._exceptions import LabelError
from ._images._collection import Images, as_images, is_flat
from ._protocols import TakesImages

_LISTED = 10  # rows or labels that one message names
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_TO_TEXT = "Make them all text: [str(label) for label in y]."


def check_labels(y: Any, n_images: int | None = None, *, n_classes: int = 2, name: str = "y") -> np.ndarray:
    """Return the labels as an array that can be sorted and compared, or say what is wrong with them.

    They are text, truth values, dates, or numbers without a fractional part. There must be one for each of `n_images`,
    and at least `n_classes` different ones. `name` is that of the argument, for messages.
    """
    try:
        labels = _one_type(_column(_unpacked(y)))
    except LabelError as error:
        raise LabelError(f"{name} {error}") from error.__cause__
    if n_images is not None and len(labels) != n_images:
        raise LabelError(f"X holds {n_images} images and {name} {len(labels)} labels. Pass one label for each image.")
    classes = np.unique(labels)
    if len(classes) < n_classes:
        raise LabelError(
            f"All {len(labels)} images are of one class, {shown(classes[0])}. There is nothing to tell apart: add "
            "images of another class."
            if name == "y"
            else f"{name} holds only one class, {shown(classes[0])}. Pass all classes that will ever occur."
        )
    return labels


def encoded(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the position of each label among the classes."""
    positions = {label: position for position, label in enumerate(classes.tolist())}
    strange = sorted({shown(label) for label in y.tolist() if label not in positions})
    if strange:
        more = f" and {len(strange) - _LISTED} more" if len(strange) > _LISTED else ""
        raise LabelError(
            f"y holds labels that are not among the classes: {', '.join(strange[:_LISTED])}{more}. Pass the classes "
            "that will ever occur in the first call, or fit anew."
        )
    return np.array([positions[label] for label in y.tolist()])


def check_class_sizes(y: np.ndarray, least: int, need: str, advice: str) -> None:
    """Raise an error that names the classes that have fewer than `least` images.

    In its message, `need` is the subject of "needs at least 5", and `advice` a sentence that says what to do about it.
    """
    classes, counts = np.unique(y, return_counts=True)
    rare = [(shown(label), count) for label, count in zip(classes, counts, strict=True) if count < least]
    if rare:
        first, rest = rare[:_LISTED], len(rare) - _LISTED
        sizes = ", ".join(f"class {label} has {count}" for label, count in first)
        more = f", and {rest} more classes have too few" if rest > 0 else ""
        raise LabelError(f"{need} needs at least {least} images of each class, but {sizes}{more}. {advice}")


def check_folds(y: np.ndarray, n_folds: int) -> None:
    """Raise an error if some folds would lack a class."""
    advice = "Pass a smaller cv, add images, or leave that class out."
    check_class_sizes(y, n_folds, f"cv={n_folds}", advice)


def drawn(codes: np.ndarray, n_of_each: np.ndarray, seed: int) -> np.ndarray:
    """Draw `n_of_each` rows of each class at random, and return a mask of them; `codes` holds the class of each row."""
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = order[np.argsort(codes[order], kind="stable")]
    counts = np.bincount(codes, minlength=len(n_of_each))
    starts = np.cumsum(counts) - counts
    place = np.empty(len(codes), dtype=int)  # of each row among those of its class, in random order
    place[by_class] = np.arange(len(codes)) - np.repeat(starts, counts)
    most: np.ndarray = n_of_each[codes]
    return place < most


def shown(label: Any) -> str:
    """Return a label as the user wrote it: ``'a'``, not ``np.str_('a')``."""
    if isinstance(label, (np.datetime64, np.timedelta64)):
        return str(label)
    return _SHORT.repr(label.item() if isinstance(label, np.generic) else label)


# The container


def _unpacked(y: Any) -> np.ndarray:
    """Return an array of labels; its dtype is object where numpy would convert labels of several types to one."""
    if y is None:
        raise LabelError("should be a 1d array, one label for each image; got None.")
    fault = ""
    if isinstance(y, (str, bytes, bytearray)):
        fault = f"a single label, {shown(y)}. Pass one for each image"
    elif isinstance(y, Mapping):
        fault = f"a {type(y).__name__}. Pass its labels in the order of the images, for instance list(y.values())"
    elif isinstance(y, Set):
        fault = f"a {type(y).__name__}, which has no order. Pass a list, one label for each image"
    elif hasattr(y, "__next__"):
        fault = f"a {type(y).__name__}. Pass a list: list(y)"
    elif hasattr(y, "toarray"):
        fault = "a sparse matrix. Pass y.toarray().ravel()"
    if fault:
        raise LabelError(f"is {fault}.")
    try:
        labels = _array(y)
    except Exception as error:  # a foreign container may raise anything when it is converted
        raise LabelError(f"is a {type(y).__name__}, not a list of labels: {error}") from error
    if labels.ndim == 0:
        raise LabelError(f"is {shown(y)}, a {type(y).__name__}. Pass a list, one label for each image.")
    return labels


def _array(y: Any) -> np.ndarray:
    if isinstance(y, np.ma.MaskedArray):
        labels = np.asarray(y.data, dtype=object)
        labels[np.ma.getmaskarray(y)] = None
        return labels
    if hasattr(y, "detach"):  # a tensor, wherever it lies
        return np.asarray(y.detach().cpu())
    if hasattr(y, "to_numpy"):  # pandas, polars and similar packages
        return np.asarray(y.to_numpy())
    if hasattr(y, "__array__"):
        return np.asarray(y)
    return np.array(y if isinstance(y, (list, tuple)) or not isinstance(y, Iterable) else list(y), dtype=object)


def _column(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Pass y.ravel() or the column itself.",
            DataConversionWarning,
            stacklevel=4,
        )
        return labels.ravel()
    if labels.ndim > 1:
        hint = " If each row marks its class by a one, pass y.argmax(axis=1)." if labels.ndim == 2 else ""
        raise LabelError(f"should be a 1d array, one label for each image; got the shape {labels.shape}.{hint}")
    return labels


# The labels


def _one_type(labels: np.ndarray) -> np.ndarray:
    """Return labels of one type that can be sorted; raise an error if labels are missing or of several types."""
    if len(labels) == 0:
        raise LabelError("is empty. Pass one label for each image.")
    if labels.dtype.kind not in "OS":
        _refuse_missing(np.flatnonzero(labels != labels) if labels.dtype.kind in "fcmM" else ())
        return _whole(labels)
    values = labels.tolist()
    _refuse_missing([row for row, label in enumerate(values) if _is_missing(label)])
    rows: dict[str, int] = {}  # the first row of each type
    for row, label in enumerate(values):
        rows.setdefault(_kind(label), row)
    if len(rows) > 1:
        found = " and ".join(f"{kind} ({shown(values[row])} at row {row})" for kind, row in rows.items())
        raise LabelError(f"mixes {found}. {_TO_TEXT}")
    if "text" in rows:
        # An array of text drops zero characters at the end of a label.
        return labels if all(type(label) is str for label in values) else np.array(list(map(str, values)), dtype=object)
    values = [label.item() if isinstance(label, np.generic) else label for label in values]
    narrow = np.array(values)
    if narrow.dtype.kind not in "biuf" or narrow.tolist() != values:  # numpy converts some large integers to floats
        raise LabelError(f"holds numbers that are too large, such as {shown(max(values, key=abs))}. {_TO_TEXT}")
    return _whole(narrow)


def _whole(labels: np.ndarray) -> np.ndarray:
    """Return the labels, if their type is allowed and all numbers are whole."""
    if labels.dtype.kind not in "biufUmM":
        raise LabelError(f"holds labels of the type {labels.dtype}. {_TO_TEXT}")
    if labels.dtype.kind == "f":
        fractional = np.flatnonzero(~np.isfinite(labels) | (labels != np.floor(labels)))
        if len(fractional):
            row = fractional[0]
            raise LabelError(
                f"holds continuous numbers, such as {shown(labels[row])} at row {row}; a classifier needs classes. "
                "Pass whole numbers or text."
            )
    return labels


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "text"
    if isinstance(label, (bool, np.bool_)):
        return "truth values"
    if isinstance(label, (int, float, np.integer, np.floating)):
        return "numbers"
    if isinstance(label, (bytes, bytearray)):
        raise LabelError(f"holds bytes, such as {shown(label)}. Decode them: [label.decode() for label in y].")
    raise LabelError(f"holds {shown(label)}, a {type(label).__name__}. {_TO_TEXT}")


def _is_missing(label: Any) -> bool:
    if label is None or label is np.ma.masked or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return (isinstance(label, (float, np.floating)) and math.isnan(label)) or (
        isinstance(label, (np.datetime64, np.timedelta64)) and bool(np.isnat(label))
    )


def _refuse_missing(rows: Any) -> None:
    if len(rows):
        named = ", ".join(map(str, rows[:_LISTED]))
        more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
        raise LabelError(
            f"is missing (None or NaN) at row{'s' if len(rows) > 1 else ''} {named}{more}. Leave these images out, "
            "or give them a label."
        )


def check_images(estimator: TakesImages, X: Any, *, reset: bool) -> Images:
    """Return `X` as images. Flat rows first pass scikit-learn's own checks.

    With `reset`, as in ``fit``, these record ``n_features_in_`` and ``feature_names_in_``.
    """
    if is_flat(X, estimator.image_shape):
        X = validate_data(estimator, X, reset=reset)
    return as_images(X, image_shape=estimator.image_shape, value_range=estimator.value_range)
