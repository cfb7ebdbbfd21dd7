"""`compare_strategies` and `make_strategies`: which strategies there are, which is the best, and what is refused."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from racers import FROZEN, features_and_linear, numbered
from sktransfer import (
    UnknownBackboneError,
    compare_strategies,
    make_strategies,
)
from tiny import FLAT_64


def test_best_is_fitted_to_all_images(recorder):
    X, y = numbered()
    comparison = compare_strategies(X, y, strategies={"ones": recorder(1), "zeros": recorder(0)}, cv=3)
    assert comparison.best_strategy_ == "zeros" and comparison.cheapest_strategy_ == "ones"
    assert recorder.fits[-1] == (0, list(range(30)))
    assert (comparison.best_estimator_.predict(X) == 0).all()
    without = compare_strategies(X, y, strategies={"zeros": recorder(0)}, cv=3, refit=False)
    assert not hasattr(without, "best_estimator_")


def test_best_estimator_predicts_images_and_keeps_its_parameters(distinct):
    X, y = distinct
    mine = features_and_linear()
    comparison = compare_strategies(X, y, strategies={"chance": DummyClassifier(), "mine": mine}, cv=3)
    assert comparison.best_strategy_ == "mine"
    assert comparison.best_estimator_.score(X, y) > 0.95
    assert comparison.best_estimator_[0].memory is None and mine[0].memory is None
    assert not hasattr(mine[-1], "coef_")


def test_a_search_within_keeps_no_trace_of_the_temporary_folder(distinct):
    X, y = distinct
    search = GridSearchCV(features_and_linear(), {"logisticregression__C": [1, 10]}, cv=2)
    best = compare_strategies(X, y, strategies={"search": search}, cv=2).best_estimator_
    assert best.best_estimator_[0].memory is best.estimator[0].memory is None


def test_scoring_is_what_is_reported(recorder):
    X, y = numbered()
    strategies = {"zeros": recorder(0)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, scoring="balanced_accuracy")
    assert comparison.scoring == "balanced_accuracy"
    np.testing.assert_allclose(comparison.scores_["zeros"], 0.5)


def test_strategies_differ_as_their_names_say():
    known = make_strategies(augment="photo", image_size=96, memory="folder", random_state=3)
    assert list(known)[:3] == FROZEN and len(known) == 8
    assert [known[f"fine-tuned, freeze={k}"].freeze for k in (6, 4, 0)] == [6, 4, 0]
    assert known["shallow from scratch"].weights is known["from scratch"].weights is None
    assert known["shallow from scratch"].backbone == "shallow_cnn"
    for name, estimator in known.items():
        part = getattr(estimator, "features", estimator[0] if name == "features + SVM" else estimator)
        assert part.image_size == 96 and part.memory == "folder", name
    assert "fine-tuned, freeze=2" in make_strategies("resnet18")


def test_some_are_run_in_the_order_of_cost(distinct):
    comparison = compare_strategies(*distinct, strategies=FROZEN[1::-1], cv=2, refit=False, **FLAT_64)
    assert list(comparison.scores_) == FROZEN[:2]


def test_unknown_names_are_refused_with_the_known(distinct):
    with pytest.raises(ValueError, match=r"'nonsense'.*'features \+ linear', .*'from scratch'"):
        compare_strategies(*distinct, strategies=["nonsense"], **FLAT_64)
    with pytest.raises(ValueError, match="no parameter 'max_epochs' that all strategies share"):
        compare_strategies(*distinct, max_epochs=1)
    with pytest.raises(UnknownBackboneError):
        make_strategies("no_such_network")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y": np.zeros(30)}, "of one class"),
        ({"y": np.zeros(29)}, "X holds 30 images and y 29 labels"),
        ({"y": np.linspace(0, 1, 30)}, "continuous"),
        ({"cv": 11}, "cv=11 needs at least 11 images of each class, but class 1 has 10"),
        ({"groups": np.zeros(29)}, "inconsistent numbers of samples"),
        ({"groups": np.arange(30) % 2, "cv": 3}, "2 different groups, fewer than cv=3"),
        ({"strategies": {}}, "names none"),
        ({"strategies": []}, "expected 'all'"),
        ({"augment": "photo"}, "augment: estimators in a dict"),
        ({"scoring": "nonsense"}, "no scoring='nonsense'"),
        ({"scoring": "acc"}, "Did you mean 'accuracy'"),
        ({"scoring": ["accuracy", "f1"]}, "the name of one score"),
    ],
)
def test_bad_input(recorder, change, match):
    X, y = numbered()
    arguments = {"X": X, "y": y, "strategies": {"a": recorder()}, **change}
    with pytest.raises(ValueError, match=match):
        compare_strategies(**arguments)


def test_one_progress_bar(recorder, capsys):
    X, y = numbered()
    compare_strategies(X, y, strategies={"a": recorder(0), "b": recorder(1)}, cv=3, verbose=1)
    err = capsys.readouterr().err
    assert err.count("Comparing strategies") == err.count("\r") and "7/7" in err
