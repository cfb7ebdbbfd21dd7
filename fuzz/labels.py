"""Fuzz the door for y: whatever y is, labels that can be told apart, or a LabelError that says what is wrong.

    python fuzz/labels.py CORPUS -runs=200000

Labels that pass are encoded, drawn from for early stopping and for samples, and checked for folds.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import sys
import warnings

import atheris

with atheris.instrument_imports(include=["sktransfer"]):
    from sktransfer._exceptions import LabelError
    from sktransfer._validation import check_class_sizes, check_folds, check_labels, drawn, encoded

import numpy as np
import pandas as pd

Animal = enum.Enum("Animal", "cat dog")


class Hostile:
    """Refuses whatever it is asked."""

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]  # which is how Python marks what cannot be hashed

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")


def a_label(data: atheris.FuzzedDataProvider, depth: int = 0) -> object:
    """Return anything that somebody may take for a label."""
    makers = [
        lambda: data.ConsumeUnicode(3),
        lambda: data.ConsumeUnicodeNoSurrogates(2) + "\0",
        lambda: data.ConsumeInt(1),
        lambda: data.ConsumeInt(9),
        lambda: data.ConsumeInt(40),
        data.ConsumeBool,
        data.ConsumeFloat,
        lambda: float(data.ConsumeIntInRange(-3, 3)),
        lambda: data.ConsumeBytes(2),
        lambda: None,
        lambda: float("nan"),
        lambda: pd.NA,
        lambda: pd.NaT,
        lambda: np.ma.masked,
        lambda: np.datetime64("NaT"),
        lambda: np.datetime64(data.ConsumeIntInRange(0, 9), data.PickValueInList(["D", "ns"])),
        lambda: np.str_(data.ConsumeUnicode(2).rstrip("\0")),  # numpy drops these when it compares
        lambda: np.int8(data.ConsumeIntInRange(-9, 9)),
        lambda: np.uint64(data.ConsumeIntInRange(0, 2**64 - 1)),
        lambda: np.float32(data.ConsumeFloatInRange(-1e30, 1e30)),
        lambda: np.bool_(data.ConsumeBool()),
        lambda: complex(data.ConsumeFloat(), 0),
        lambda: decimal.Decimal("sNaN"),
        lambda: datetime.date(2020, 1, data.ConsumeIntInRange(1, 9)),
        lambda: data.PickValueInList(list(Animal)),
        lambda: np.array(data.ConsumeIntInRange(0, 3)),
        Hostile,
        lambda: {data.ConsumeIntInRange(0, 3): 1},
    ]
    if depth < 2:
        makers.append(lambda: [a_label(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 3))])
        makers.append(lambda: tuple(a_label(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 3))))
    return data.PickValueInList(makers)()


def some_labels(data: atheris.FuzzedDataProvider) -> list:
    """Return labels, most often drawn from a few, so that classes have several images."""
    few = [a_label(data) for _ in range(data.ConsumeIntInRange(1, 4))]
    n = data.ConsumeIntInRange(0, 24)
    return [a_label(data) if data.ConsumeProbability() > 0.95 else data.PickValueInList(few) for _ in range(n)]


def objects(labels: list) -> np.ndarray:
    """Return an array of objects, whatever these are."""
    array = np.empty(len(labels), dtype=object)
    for i, label in enumerate(labels):
        array[i] = label
    return array


def masked(data: atheris.FuzzedDataProvider, labels: list) -> np.ma.MaskedArray:
    """Return a masked array of them."""
    return np.ma.masked_array(objects(labels), [data.ConsumeBool() for _ in labels])


def a_container(data: atheris.FuzzedDataProvider, labels: list) -> object:
    """Return the labels in something that holds labels; raises whatever that does to some of them."""
    containers = [
        lambda: labels,
        lambda: tuple(labels),
        lambda: objects(labels),
        lambda: np.array(labels),
        lambda: np.array(labels, dtype=data.PickValueInList(["U", "S", "f4", "i8", "u1", "?", "M8[D]", "m8[s]", "c8"])),
        lambda: masked(data, labels),
        lambda: objects(labels).reshape(data.PickValueInList([(-1, 1), (1, -1), (2, -1), (-1, 2)])),
        lambda: pd.Series(labels),
        lambda: pd.Series(labels, dtype=data.PickValueInList(["category", "string", "Int64", "boolean", "Float64"])),
        lambda: pd.DataFrame({"label": labels}),
        lambda: pd.Index(labels),
        lambda: pd.Categorical(labels),
        lambda: iter(labels),
        lambda: dict(enumerate(labels)),
        lambda: set(labels),
        lambda: a_label(data),
        lambda: b"".join(map(bytes, labels)),
        lambda: range(len(labels)),
        lambda: memoryview(bytes(len(labels))),
    ]
    return data.PickValueInList(containers)()


def one_target(content: bytes) -> None:
    """Take labels in through the door; encode and draw from what passes."""
    data = atheris.FuzzedDataProvider(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns, and of numpy and pandas while they build the container
        try:
            y = a_container(data, some_labels(data))
        except Exception:  # no such container of these labels
            return
        n_classes = data.ConsumeIntInRange(1, 2)
        try:
            labels = check_labels(y, n_classes=n_classes)
        except LabelError as error:
            assert str(error).isprintable() and len(str(error)) < 2000, str(error)
            return
    classes = np.unique(labels)
    assert labels.ndim == 1 and len(labels) and len(classes) >= n_classes
    codes = encoded(labels, classes)
    assert (classes[codes] == labels).all() and len(set(labels.tolist())) == len(classes)
    if isinstance(y, (list, tuple)) and not isinstance(y[0], (list, tuple)):  # those are a column
        assert labels.tolist() == list(y), repr(y)
    try:
        check_class_sizes(labels, 2, "early_stopping", "Add images.")
        counts = np.bincount(codes)
        held_out = drawn(codes, np.clip(np.round(data.ConsumeProbability() * counts), 1, counts - 1), 0)
        assert set(codes[held_out]) == set(codes[~held_out]) == set(range(len(classes)))
        check_folds(labels, data.ConsumeIntInRange(2, 9))
    except LabelError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_target)
    atheris.Fuzz()
