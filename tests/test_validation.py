"""One door for y: the same words for the same slip, in every function that takes labels."""

import datetime
import enum
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import DataConversionWarning

from sktransfer import (
    FineTunedCNNClassifier,
    LabelError,
    compare_strategies,
    make_feature_classifier,
    make_strategies,
    rank_backbones,
    recommend_strategy,
)
from tiny import FLAT, TINY, digits

X = digits(30)[0]
Y = np.array(["cat", "dog", "owl"] * 10)


def fit(images, y):
    FineTunedCNNClassifier(**TINY, **FLAT, max_epochs=1).fit(images, y)


def partial_fit(images, y):
    FineTunedCNNClassifier(**TINY, **FLAT).partial_fit(images, y, classes=["cat", "dog", "owl"])


def fit_on_features(images, y):
    make_feature_classifier(**TINY, **FLAT, cv=3).fit(images, y)


def compare(images, y):
    compare_strategies(images, y, strategies={"a": DummyClassifier()}, cv=3)


def rank(images, y):
    rank_backbones(images, y, [TINY["backbone"]], cv=3, weights=None, image_size=32, **FLAT)


def recommend(images, y):
    recommend_strategy(images, y, **TINY, **FLAT)


DOORS = [fit, partial_fit, fit_on_features, compare, rank, recommend]


def with_missing(missing):
    y = Y.astype(object)
    y[[3, 17]] = missing
    return y


MISSING = {
    "None": lambda: with_missing(None),
    "nan": lambda: with_missing(np.nan),
    "NA": lambda: with_missing(pd.NA),
    "list": lambda: with_missing(None).tolist(),
    "numbers": lambda: np.where(np.isin(np.arange(30), [3, 17]), np.nan, np.arange(30) % 3),
    "masked text": lambda: np.ma.masked_array(Y, np.isin(np.arange(30), [3, 17])),
    "masked numbers": lambda: np.ma.masked_array(np.arange(30) % 3, np.isin(np.arange(30), [3, 17])),
    "string": lambda: pd.Series(with_missing(None), dtype="string"),
    "categorical": lambda: pd.Series(with_missing(None), dtype="category"),
    "Int64": lambda: pd.Series(np.arange(30) % 3, dtype="Int64").mask(np.isin(np.arange(30), [3, 17])),
    "polars": lambda: pl.Series(with_missing(None).tolist()),
    "dates": lambda: np.where(np.isin(np.arange(30), [3, 17]), np.datetime64("NaT"), np.datetime64("2020-01-01")),
}


@pytest.mark.parametrize("door", DOORS)
def test_missing_labels_are_named_by_their_rows(door):
    for kind, make in MISSING.items():
        with pytest.raises(ValueError) as caught:
            door(X, make())
        assert re.match(r"y is missing .* at rows 3, 17\. ", str(caught.value)), kind


SLIPS = {
    "mixed": (["a", 1] * 15, r"y mixes text \('a' at row 0\) and numbers \(1 at row 1\)"),
    "truth and numbers": ([True, 2] * 15, r"y mixes truth values \(True at row 0\) and numbers \(2 at row 1\)"),
    "one-hot": (np.eye(3)[np.arange(30) % 3], r"1d array.*\(30, 3\).*argmax"),
    "nothing": (None, "y should be a 1d array, one label for each image; got None"),
    "dict": (dict.fromkeys(range(30), "a"), r"y is a dict.*list\(y.values\(\)\)"),
    "generator": ((label for label in Y), r"y is a generator.*list\(y\)"),
    "text": ("cat", "y is a single label, 'cat'"),
    "set": ({"a", "b"}, "no order"),
    "short": (Y[:29], "X holds 30 images and y 29 labels. Pass one label for each image"),
    "continuous": (np.linspace(0, 1, 30), "continuous numbers, such as 0.03.* at row 1"),
    "infinite": (np.full(30, np.inf), "continuous numbers, such as inf at row 0"),
    "bytes": ([b"a", b"b"] * 15, r"bytes, such as b'a'.*label\.decode"),
    "array of bytes": (np.array([b"a", b"b"] * 15), r"bytes, such as b'a'.*label\.decode"),
    "huge": ([10**30, 1] * 15, r"too large, such as 10{30}"),
    "wide": ([-1, 2**64 - 1] * 15, "too large, such as 18446744073709551615"),
    "empty": ([], "y is empty"),
    "empty bytes": (np.array([], dtype="S"), "y is empty"),
    "complex": (np.arange(30) % 3 * 1j, "complex128"),
    "lists of several lengths": ([["a"], ["a", "b"]] * 15, r"y holds \['a'\], a list"),
    "enum": (list(enum.Enum("Animal", "cat dog")) * 15, "<Animal.cat: 1>, a Animal"),
    "dates of datetime": ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)] * 15, "a date"),
    "one number": (5, "y is 5, a int"),
}


@pytest.mark.parametrize("door", DOORS)
def test_slips_are_named(door):
    for slip, (y, match) in SLIPS.items():
        with pytest.raises(LabelError) as caught:
            door(X, y)
        assert re.search(match, str(caught.value)), slip


@pytest.mark.parametrize("door", [door for door in DOORS if door is not partial_fit])
def test_a_single_class_is_named_as_the_user_wrote_it(door):
    for y in (["a"] * 30, np.array(["a"] * 30), np.zeros(30, dtype=int), pd.Series([7] * 30)):
        label = repr(list(y)[0].item() if isinstance(y, np.ndarray) else list(y)[0])
        with pytest.raises(
            ValueError, match=f"All 30 images are of one class, {label}. There is nothing to tell apart"
        ):
            door(X, y)


@pytest.mark.parametrize(
    ("door", "match"),
    [
        (compare, "cv=3 needs at least 3 images of each class, but class 'owl' has 1"),
        (rank, "cv=3 needs at least 3 images of each class, but class 'owl' has 1"),
        (recommend, "needs at least 2 images of each class, but class 'owl' has 1"),
    ],
)
def test_rare_classes_are_named_with_their_count(door, match):
    with pytest.raises(ValueError, match=match):
        door(X, np.array(["cat"] * 15 + ["dog"] * 14 + ["owl"]))


def test_a_search_behind_features_names_classes_that_are_all_too_small():
    search = make_strategies(**TINY, **FLAT)["features + SVM"]
    with pytest.raises(ValueError, match="cv=3 needs at least 3 images of each class, but class 'cat' has 2, class"):
        search.fit(X[:4], np.array(["cat", "dog"] * 2))


@pytest.mark.parametrize(
    "y",
    [
        Y.tolist(),
        tuple(Y),
        Y.astype(object),
        pd.Series(Y),
        pd.Series(Y, dtype="category"),
        pd.Series(Y, dtype="string"),
        pl.Series(Y.tolist()),
        np.ma.masked_array(Y),
        (np.arange(30) % 3).tolist(),
        pd.Series(np.arange(30) % 3, dtype="Int64"),
        (np.arange(30) % 3).astype(object),
        (np.arange(30) % 3).astype(float),
        torch.arange(30) % 3,
        np.arange(30) % 2 == 0,
        [np.bool_(i % 2) for i in range(30)],
        np.array(["2020-01-01", "2020-01-02"] * 15, dtype="M8[D]"),
    ],
)
def test_labels_come_back_as_they_were(y):
    clf = FineTunedCNNClassifier(**TINY, **FLAT, max_epochs=0, random_state=0).fit(X, y)
    assert set(clf.predict(X).tolist()) <= set(np.asarray(y).tolist())
    assert clf.classes_.tolist() == sorted(set(np.asarray(y).tolist()))


def test_a_column_is_taken_with_a_warning():
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        clf = FineTunedCNNClassifier(**TINY, **FLAT, max_epochs=0).fit(X, pd.DataFrame({"label": Y}))
    assert clf.classes_.tolist() == ["cat", "dog", "owl"]


def test_labels_that_differ_by_a_zero_character_alone_are_two_classes():
    clf = FineTunedCNNClassifier(**TINY, **FLAT, max_epochs=0).fit(X, ["a", "a\0"] * 15)
    assert clf.classes_.tolist() == ["a", "a\0"]


def test_a_label_that_is_not_among_the_classes_is_named():
    clf = FineTunedCNNClassifier(**TINY, **FLAT)
    with pytest.raises(ValueError, match="y holds labels that are not among the classes: 'owl'"):
        clf.partial_fit(X, Y, classes=["cat", "dog"])
    with pytest.raises(ValueError, match="classes is missing"):
        clf.partial_fit(X, Y, classes=["cat", None])


# --- early stopping ---------------------------------------------------------------------------------------


def test_early_stopping_holds_out_one_of_each_class_of_a_small_set():
    y = np.array(list("abcdef") * 5)
    clf = FineTunedCNNClassifier(**TINY, **FLAT, early_stopping=True, max_epochs=1, random_state=0).fit(X, y)
    assert "valid_loss" in clf.history_[0]


def test_early_stopping_needs_two_images_of_each_class():
    y = np.array(["cat"] * 15 + ["dog"] * 14 + ["owl"])
    with pytest.raises(ValueError, match="early_stopping needs at least 2 images of each class, but class 'owl' has 1"):
        FineTunedCNNClassifier(**TINY, **FLAT, early_stopping=True).fit(X, y)


def test_early_stopping_trains_on_the_share_it_is_told_of_each_class(monkeypatch):
    from sktransfer._finetuning import _training

    labels = np.repeat([0, 1, 2], [100, 40, 3])
    clf = FineTunedCNNClassifier(early_stopping=True, validation_fraction=0.2)
    rows, held_out = _training._split(clf, labels, 0)
    assert np.bincount(labels[held_out]).tolist() == [20, 8, 1]
    assert sorted([*rows, *held_out]) == list(range(143))
    assert not np.array_equal(held_out, _training._split(clf, labels, 1)[1])
    clf.set_params(validation_fraction=0.99)
    assert np.bincount(labels[_training._split(clf, labels, 0)[0]]).tolist() == [1, 1, 1]
