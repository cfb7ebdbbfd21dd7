import re
import time
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, ShuffleSplit
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedCNNClassifier,
    PretrainedCNNFeatures,
    StrategyComparison,
    UnknownBackboneError,
    _strategies,
    compare_strategies,
    find_duplicates,
    make_strategies,
)
from sktransfer._costs import Cost

DIGITS = {"image_shape": (8, 8), "value_range": (0, 16), "image_size": 64}
FROZEN = ["features + linear", "features + SVM", "dense head"]


@pytest.fixture(scope="module")
def digits():
    """60 digits, 20 each of three classes, no two of them alike."""
    X, y = load_digits(n_class=3, return_X_y=True)
    groups = find_duplicates(X, image_shape=(8, 8), value_range=(0, 16))  # at eight pixels some digits are
    alone = np.bincount(groups)[groups] == 1
    X, y = X[alone], y[alone]
    rows = np.concatenate([np.flatnonzero(y == label)[:20] for label in range(3)])
    return X[rows], y[rows]


@pytest.fixture
def quick(monkeypatch):
    """No estimator is tried out, and no image looked at: each costs as many seconds as its ``cost`` says."""
    monkeypatch.setattr(_strategies, "measure_cost", lambda estimator, X, y: Cost(estimator.cost / len(y), 0.0, 0.0))


class Recorder(ClassifierMixin, BaseEstimator):
    """Always answers `answer`; remembers the images it was fitted and asked on, and takes its time."""

    fits: list = []
    tests: list = []

    def __init__(self, answer=0, seconds=0.0, cost=0.0):
        self.answer = answer
        self.seconds = seconds
        self.cost = cost

    def fit(self, X, y):
        time.sleep(self.seconds)
        self.fits.append((self.answer, np.asarray(X)[:, 0].tolist()))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        self.tests.append((self.answer, np.asarray(X)[:, 0].tolist()))
        return np.full(len(X), self.answer)


@pytest.fixture
def recorder():
    Recorder.fits.clear()
    Recorder.tests.clear()
    return Recorder


def features_and_linear():
    return make_pipeline(PretrainedCNNFeatures(**DIGITS), LogisticRegression())


def numbered(n=30):
    """Rows that say which they are, and labels 0, 0, 1."""
    return np.arange(n)[:, None], np.array([0, 0, 1] * (n // 3))


def test_frozen_strategies_compute_each_image_once(digits, computed):
    comparison = compare_strategies(*digits, strategies=FROZEN, cv=3, refit=False, **DIGITS)
    assert sum(n for _, n in computed) == len(digits[0])
    assert list(comparison.scores_) == FROZEN
    assert all(scores.shape == (3,) and scores.mean() > 0.8 for scores in comparison.scores_.values())


def test_frozen_stages_are_computed_once_even_if_the_store_in_memory_is_off(digits, computed, no_store):
    compare_strategies(*digits, strategies={"a": features_and_linear(), "b": features_and_linear()}, cv=3)
    assert sum(n for _, n in computed) == len(digits[0])


def test_stored_views_are_computed_once(digits, computed):
    X, y = digits
    tuned = FineTunedCNNClassifier(freeze=7, augment="text", n_views=2, max_epochs=1, tta=2, random_state=0, **DIGITS)
    compare_strategies(X, y, strategies={"tuned": tuned}, cv=3, refit=False)
    cold = [n for start, n in computed if start == 0]
    assert sum(cold) <= 4 * len(X)  # two views, the image at the cut, and its features for the first head


def test_all_strategies_see_the_same_folds(recorder):
    X, y = numbered()
    compare_strategies(X, y, strategies={"a": recorder(0), "b": recorder(1)}, cv=3, refit=False)
    for calls in (recorder.fits, recorder.tests):
        a, b = ([rows for answer, rows in calls if answer == wanted] for wanted in (0, 1))
        assert a == b and len(a) == 3
    tested = [row for answer, rows in recorder.tests if answer == 0 for row in rows]
    assert sorted(tested) == list(range(30))
    assert all(not set(train) & set(test) for (_, train), (_, test) in zip(recorder.fits, recorder.tests, strict=True))


def test_folds_are_stratified_and_follow_the_random_state(recorder):
    X, y = numbered()
    for seed in (0, 0, 1):
        compare_strategies(X, y, strategies={"a": recorder()}, cv=5, refit=False, random_state=seed)
    folds = [rows for _, rows in recorder.tests]
    assert folds[:5] == folds[5:10] != folds[10:]
    assert all(y[rows].mean() == pytest.approx(1 / 3, abs=0.1) for rows in folds)


def test_best_is_fitted_to_all_images(recorder):
    X, y = numbered()
    comparison = compare_strategies(X, y, strategies={"ones": recorder(1), "zeros": recorder(0)}, cv=3)
    assert comparison.best_strategy_ == "zeros" and comparison.cheapest_strategy_ == "ones"
    assert recorder.fits[-1] == (0, list(range(30)))
    assert (comparison.best_estimator_.predict(X) == 0).all()
    without = compare_strategies(X, y, strategies={"zeros": recorder(0)}, cv=3, refit=False)
    assert not hasattr(without, "best_estimator_")


def test_best_estimator_predicts_images_and_keeps_its_parameters(digits):
    X, y = digits
    mine = features_and_linear()
    comparison = compare_strategies(X, y, strategies={"chance": DummyClassifier(), "mine": mine}, cv=3)
    assert comparison.best_strategy_ == "mine"
    assert comparison.best_estimator_.score(X, y) > 0.95
    assert comparison.best_estimator_[0].memory is None and mine[0].memory is None
    assert not hasattr(mine[-1], "coef_")


def test_a_search_within_keeps_no_trace_of_the_temporary_folder(digits):
    X, y = digits
    search = GridSearchCV(features_and_linear(), {"logisticregression__C": [1, 10]}, cv=2)
    best = compare_strategies(X, y, strategies={"search": search}, cv=2).best_estimator_
    assert best.best_estimator_[0].memory is best.estimator[0].memory is None


def test_memory_of_ones_own_is_used(digits, tmp_path, computed):
    compare_strategies(*digits, strategies="features + linear", cv=2, refit=False, memory=tmp_path, **DIGITS)
    assert list(tmp_path.rglob("*"))
    features = PretrainedCNNFeatures(layer="all", memory=tmp_path, **DIGITS)
    features.fit_transform(digits[0])
    assert sum(n for _, n in computed) == len(digits[0])


def test_processes_find_the_same_scores(digits):
    strategies = {"mine": features_and_linear()}
    one, two = (compare_strategies(*digits, strategies=strategies, cv=2, n_jobs=n, refit=False) for n in (None, 2))
    np.testing.assert_array_equal(one.scores_["mine"], two.scores_["mine"])


@pytest.mark.parametrize("cv", [3, GroupKFold(3)])
def test_groups_stay_together(recorder, cv):
    X, y = numbered()
    groups = np.repeat(np.arange(10), 3)  # one image of the smaller class in each
    compare_strategies(X, y, strategies={"a": recorder()}, cv=cv, groups=groups, refit=False)
    for (_, train), (_, test) in zip(recorder.fits, recorder.tests, strict=True):
        assert not set(groups[train]) & set(groups[test])
        assert len(test) > 0


def test_copies_on_both_sides_of_a_fold_are_a_warning(digits):
    X, y = digits
    doubled, labels = np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]])
    with pytest.warns(UserWarning, match=r"4 of 62 images .* groups=find_duplicates"):
        compare_strategies(doubled, labels, strategies={"mine": features_and_linear()}, cv=15, refit=False)


def test_groups_of_copies_do_not_warn(digits):
    X, y = digits
    groups = np.append(np.arange(60), [0, 1])
    doubled, labels = np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_strategies(
            doubled, labels, strategies={"mine": features_and_linear()}, cv=3, groups=groups, refit=False
        )


def test_time_budget_leaves_out_what_is_dear_and_names_it(recorder, quick):
    X, y = numbered()
    strategies = {"dear": recorder(0, cost=1e6), "dearer": recorder(0, cost=1e7), "cheap": recorder(1, cost=0.1)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=30)
    assert list(comparison.scores_) == ["dear", "cheap"]  # the first one is always run
    assert list(comparison.left_out_) == ["dearer"]
    assert "166666.7 min" in comparison.left_out_["dearer"] and "30 s were left" in comparison.left_out_["dearer"]
    assert "dearer" in comparison.summary() and "dearer" not in comparison.to_frame().index


def test_time_budget_stops_what_takes_longer_than_expected(recorder, quick):
    X, y = numbered()
    strategies = {"first": recorder(0), "slow": recorder(1, seconds=0.7), "third": recorder(2)}
    start = time.perf_counter()
    comparison = compare_strategies(X, y, strategies=strategies, cv=10, time_budget=1)
    assert time.perf_counter() - start < 4
    assert list(comparison.scores_) == ["first"] and comparison.best_strategy_ == "first"
    assert re.fullmatch("stopped after [12] of 10 folds, when the time was up", comparison.left_out_["slow"])
    assert comparison.left_out_["third"] == "the time was up"


def test_time_is_kept_for_the_last_fit(recorder, quick):
    X, y = numbered()
    strategies = {"first": recorder(0, seconds=0.5), "second": recorder(1, cost=0.3)}
    budget = 0.5 * 3 + 0.5 * 1.5 + 0.25  # three folds, the last fit, and too little for the second
    assert list(compare_strategies(X, y, strategies=strategies, cv=3, time_budget=budget).left_out_) == ["second"]
    relaxed = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=budget, refit=False)
    assert not relaxed.left_out_


def test_no_trial_is_begun_when_the_time_is_nearly_up(recorder, monkeypatch):
    tried = []

    def slow_trial(estimator, X, y):
        tried.append(estimator.answer)
        time.sleep(0.5)
        return Cost(1e6, 0.0, 0.0)

    monkeypatch.setattr(_strategies, "measure_cost", slow_trial)
    X, y = numbered()
    strategies = {f"number {i}": recorder(i) for i in range(5)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=3, time_budget=2)
    assert tried == [1, 2]
    assert comparison.left_out_["number 3"] == comparison.left_out_["number 4"] == "the time was up"


def test_small_budget_leaves_out_training_for_real(digits):
    names = ["features + linear", "fine-tuned, freeze=0"]
    comparison = compare_strategies(*digits, strategies=names, cv=3, time_budget=8, **DIGITS)
    assert list(comparison.scores_) == names[:1] and list(comparison.left_out_) == names[1:]


def test_corrected_p_value_by_hand():
    comparison = StrategyComparison("accuracy", n_train=[800] * 4, n_test=[200] * 4)
    comparison.scores_ = {"a": np.array([0.7, 0.8, 0.9, 0.8]), "b": np.array([0.8, 0.9, 0.9, 0.9])}
    # Differences 0.1, 0.1, 0, 0.1: mean 0.075, variance 0.0025; corrected 0.0025 (1/4 + 1/4) = 0.00125.
    t = 0.075 / np.sqrt(0.00125)
    assert comparison.p_value("b", "a") == pytest.approx(1 - stats.t.cdf(t, df=3))
    assert comparison.p_value("b", "a") == pytest.approx(0.0620, abs=2e-4)
    assert comparison.p_value("a", "b") == pytest.approx(1 - comparison.p_value("b", "a"))
    assert "that may be chance" in comparison.verdict()


def test_single_fold_has_no_spread(recorder):
    X, y = numbered()
    strategies = {"ones": recorder(1), "zeros": recorder(0)}
    comparison = compare_strategies(X, y, strategies=strategies, cv=ShuffleSplit(1, random_state=0), refit=False)
    assert comparison.to_frame()["std"].isna().all()
    assert np.isnan(comparison.p_value("zeros", "ones")) and "cannot tell" in comparison.summary()


def test_frame_and_summary(recorder):
    X, y = numbered()
    comparison = compare_strategies(X, y, strategies={"ones": recorder(1), "zeros": recorder(0)}, cv=3)
    frame = comparison.to_frame()
    assert isinstance(frame, pd.DataFrame) and frame.index.tolist() == ["ones", "zeros"]
    assert frame.columns.tolist() == ["mean", "std", "seconds", "fold0", "fold1", "fold2"]
    assert frame.loc["zeros", "mean"] == pytest.approx(frame.loc["zeros", "fold0":].mean())
    assert frame.loc["zeros", "std"] == pytest.approx(frame.loc["zeros", "fold0":].std())
    assert "'zeros' is ahead of 'ones'" in comparison.summary()


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
        part = estimator[0] if "features" in name else estimator
        assert part.image_size == 96 and part.memory == "folder", name
    assert "fine-tuned, freeze=2" in make_strategies("resnet18")


def test_some_are_run_in_the_order_of_cost(digits):
    comparison = compare_strategies(*digits, strategies=FROZEN[1::-1], cv=2, refit=False, **DIGITS)
    assert list(comparison.scores_) == FROZEN[:2]


def test_unknown_names_are_refused_with_the_known(digits):
    with pytest.raises(ValueError, match=r"'nonsense'.*'features \+ linear', .*'from scratch'"):
        compare_strategies(*digits, strategies=["nonsense"], **DIGITS)
    with pytest.raises(ValueError, match="no parameter 'max_epochs' that all strategies share"):
        compare_strategies(*digits, max_epochs=1)
    with pytest.raises(UnknownBackboneError):
        make_strategies("no_such_network")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y": np.zeros(30)}, "of one class"),
        ({"y": np.zeros(29)}, "X holds 30 images and y 29 labels"),
        ({"y": np.linspace(0, 1, 30)}, "continuous"),
        ({"cv": 11}, "cv=11 needs at least 11 images of each class, but class 1.0? has 10"),
        ({"groups": np.zeros(29)}, "inconsistent numbers of samples"),
        ({"groups": np.arange(30) % 2, "cv": 3}, "number of groups: 2"),
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


def test_error_of_a_strategy_is_not_swallowed(digits):
    class Broken(DummyClassifier):
        def fit(self, X, y):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        compare_strategies(*digits, strategies={"broken": Broken()}, cv=3)


def test_plot_shows_every_strategy(recorder):
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    X, y = numbered()
    comparison = compare_strategies(X, y, strategies={"ones": recorder(1), "zeros": recorder(0)}, cv=3, refit=False)
    _, ax = plt.subplots()
    display = comparison.plot(ax=ax)
    assert display.ax_ is ax and [label.get_text() for label in ax.get_yticklabels()] == ["ones", "zeros"]
    plt.close("all")
