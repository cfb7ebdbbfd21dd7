"""A strategy that fails costs itself alone: the race goes on, and the reason is named."""

import joblib
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from pictures import noise, written
from racers import Recorder, numbered
from sktransfer import (
    ImageError,
    TrainingError,
    compare_strategies,
)
from sktransfer._strategies import _race
from sktransfer._strategies._fit_times import Cost
from tiny import FLAT_64


class Broken(DummyClassifier):
    """Fails where it is told to."""

    def __init__(self, error=RuntimeError, message="broken", least=0):
        super().__init__()
        self.error = error
        self.message = message
        self.least = least

    def fit(self, X, y):
        if len(X) >= self.least:
            raise self.error(self.message)
        return super().fit(X, y)


class Quitter(Recorder):
    """Fits, and is told to stop when it predicts."""

    def predict(self, X):
        raise KeyboardInterrupt


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_an_exception_costs_the_one_strategy_it_came_from(recorder, n_jobs):
    X, y = numbered()
    strategies = {
        "first": Broken(),
        "zeros": recorder(0),
        "second": Broken(MemoryError, "no room"),
        "ones": recorder(1),
    }
    with joblib.parallel_config(backend="threading"):
        comparison = compare_strategies(X, y, strategies=strategies, cv=3, n_jobs=n_jobs)
    assert list(comparison.scores_) == ["zeros", "ones"] and comparison.best_strategy_ == "zeros"
    assert comparison.left_out_ == {"first": "failed: RuntimeError: broken", "second": "failed: MemoryError: no room"}
    assert (comparison.best_estimator_.predict(X) == 0).all()
    assert "first" in comparison.summary() and "broken" in comparison.summary()


def test_all_reasons_are_named_if_every_strategy_fails():
    X, y = numbered()
    strategies = {"a": Broken(message="no disk"), "b": Broken(ValueError, "no luck")}
    with pytest.raises(TrainingError, match=r"(?s)a: RuntimeError: no disk.*b: ValueError: no luck"):
        compare_strategies(X, y, strategies=strategies, cv=3)
    with pytest.raises(ValueError, match="^no luck$"):
        compare_strategies(X, y, strategies={"a": strategies["b"], "b": strategies["b"]}, cv=3)


def test_an_exception_in_a_trial_costs_one_strategy(recorder, monkeypatch):
    def trial(estimator, X, y):
        if estimator.answer == 1:
            raise RuntimeError("trial broken")
        return Cost(0.0, 0.0, 0.0)

    monkeypatch.setattr(_race, "measure_cost", trial)
    X, y = numbered()
    strategies = {f"s{i}": recorder(i) for i in range(3)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=60)
    assert list(comparison.scores_) == ["s0", "s2"] and "trial broken" in comparison.left_out_["s1"]


def test_a_last_fit_that_fails_does_not_lose_the_comparison():
    X, y = numbered()
    with pytest.warns(UserWarning, match="'a' could not be fitted to all images.*broken"):
        comparison = compare_strategies(X, y, strategies={"a": Broken(least=30)}, cv=3)
    assert len(comparison.scores_["a"]) == 3 and not hasattr(comparison, "best_estimator_")


def test_ctrl_c_stops_the_whole_race(recorder):
    X, y = numbered()
    with pytest.raises(KeyboardInterrupt):
        compare_strategies(X, y, strategies={"zeros": recorder(0), "quitter": Quitter()}, cv=3)


def test_a_strategy_without_probabilities_is_left_out_where_the_score_needs_them(distinct):
    names = ["features + linear", "features + SVM"]
    for scoring in ("roc_auc_ovr", "neg_log_loss"):
        found = compare_strategies(*distinct, strategies=names, cv=3, scoring=scoring, refit=False, **FLAT_64)
        assert list(found.scores_) == names[:1]
        assert found.left_out_ == {names[1]: f"gives no probabilities, which scoring={scoring!r} needs"}


def test_the_first_strategy_may_lack_what_the_score_needs():
    X, y = numbered()
    strategies = {"no score": Recorder(), "chance": DummyClassifier()}
    assert list(compare_strategies(X, y, strategies=strategies, cv=3, scoring="roc_auc").scores_) == ["chance"]


def test_a_score_that_is_no_number_costs_its_strategy(recorder):
    X, y = numbered()
    found = compare_strategies(
        X, y, strategies={"a": recorder(0), "b": recorder(1)}, cv=3, scoring=lambda m, X, y: [0.5, np.nan][m.answer]
    )
    assert list(found.scores_) == ["a"] and "the score of fold 1 is nan" in found.left_out_["b"]


@pytest.mark.parametrize(
    ("scoring", "match"), [("roc_auc", "For several classes there are roc_auc_ovo, "), ("f1", "f1_macro")]
)
def test_a_score_for_two_classes_is_refused_at_once_for_three(recorder, scoring, match):
    X, _ = numbered()
    with pytest.raises(ValueError, match=f"scoring='{scoring}' cannot be computed for these labels: .*{match}"):
        compare_strategies(X, np.arange(30) % 3, strategies={"a": recorder()}, cv=3, scoring=scoring)
    assert not recorder.fits


def test_all_unreadable_images_are_named(tmp_path):
    paths = written(noise(12, 32, 32, 3), tmp_path)
    for i in (2, 5, 11):
        paths[i].write_bytes(b"no picture")
    with pytest.raises(ImageError) as caught:
        compare_strategies(paths, ["a", "b"] * 6, strategies="features + linear", cv=3)
    assert [bad.index for bad in caught.value.bad_images] == [2, 5, 11]


def test_error_of_a_strategy_is_not_swallowed(distinct):
    with pytest.raises(RuntimeError, match="broken"):
        compare_strategies(*distinct, strategies={"broken": Broken()}, cv=3)
