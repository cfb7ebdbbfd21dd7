import re
import time
import warnings

import joblib
import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import (
    FineTunedCNNClassifier,
    ImageError,
    PretrainedCNNFeatures,
    StrategyComparison,
    TrainingError,
    UnknownBackboneError,
    compare_strategies,
    find_duplicates,
    make_strategies,
)
from sktransfer._strategies import _race
from sktransfer._strategies._fit_times import Cost

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
    monkeypatch.setattr(_race, "measure_cost", lambda estimator, X, y: Cost(estimator.cost / len(y), 0.0, 0.0))


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
    assert "2778 h" in comparison.left_out_["dearer"] and "30 s were left" in comparison.left_out_["dearer"]
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

    monkeypatch.setattr(_race, "measure_cost", slow_trial)
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


def test_error_of_a_strategy_is_not_swallowed(digits):
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


# --- statistics that say when they cannot tell ------------------------------------------------------------


def compared(scores, n_test=10, scoring="accuracy"):
    n_folds = len(next(iter(scores.values())))
    comparison = StrategyComparison(scoring, n_train=[n_test * (n_folds - 1)] * n_folds, n_test=[n_test] * n_folds)
    comparison.scores_ = {name: np.array(values, dtype=float) for name, values in scores.items()}
    comparison.seconds_ = dict.fromkeys(scores, 1.0)
    return comparison


@pytest.mark.parametrize(
    "scores",
    [
        {"a": [0.80, 0.70], "b": [0.85, 0.75]},
        {"a": [0.5, 0.5], "b": [1.0, 1.0]},
        {"a": [0.1, 0.0], "b": [0.9, 1.0]},
    ],
)
def test_two_folds_never_tell_that_one_is_better(scores):
    comparison = compared(scores, n_test=100)
    assert np.isnan(comparison.p_value("b", "a"))
    assert "Fewer than 3 folds cannot tell" in comparison.verdict() and "it is better" not in comparison.summary()


@pytest.mark.parametrize("n_test", [10, 100, 10_000])
def test_one_image_more_in_each_of_three_folds_may_be_chance(n_test):
    a = np.array([0.8, 0.7, 0.75])
    comparison = compared({"a": a, "b": a + 1 / n_test}, n_test)
    assert comparison.p_value("b", "a") > 0.125  # of three fair coins, all on one side
    assert "it is better" not in comparison.verdict()


def test_many_images_more_in_each_of_three_folds_are_evidence():
    a = np.array([0.8, 0.7, 0.75])
    assert compared({"a": a, "b": a + 0.1}, 1000).verdict().endswith("it is better.")


def test_equal_differences_of_a_score_that_counts_no_images_tell_nothing():
    a = np.array([0.8, 0.7, 0.75, 0.7, 0.8])
    comparison = compared({"a": a, "b": a + 0.1}, 1000, scoring="roc_auc")
    assert np.isnan(comparison.p_value("b", "a")) and "cannot tell whether that is chance" in comparison.verdict()
    nearly = compared({"a": a, "b": a + np.array([0.1, 0.1, 0.1, 0.1, 0.1001])}, 1000, scoring="roc_auc")
    assert nearly.p_value("b", "a") == 0.5**5


def test_no_difference_is_even_odds():
    assert compared({"a": [0.5] * 3, "b": [0.5] * 3}).p_value("b", "a") == 0.5


def test_p_values_of_equal_strategies_are_seldom_small():
    """At most one in twenty under 0.05, also where folds are small and agree by chance."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(1000):
        right = rng.random((2, 3, 20)) < 0.8
        small += compared({"a": right[0].mean(axis=1), "b": right[1].mean(axis=1)}, 20).p_value("b", "a") < 0.05
    assert small <= 50


def test_the_choice_among_several_is_corrected_for():
    a = np.array([0.80, 0.78, 0.82, 0.79, 0.81])
    better = a + np.array([0.01, 0.05, 0.07, 0.02, 0.06])
    two = compared({"a": a, "b": better}, 200)
    p = two.p_value("b", "a")
    assert 0.01 < p < 0.05 and two.verdict().endswith("it is better.")
    many = compared({"a": a, "b": better, **{f"c{i}": a - 0.1 for i in range(6)}}, 200)
    assert f"p = {7 * p:.2g}, " in many.verdict() and "for the best of 7 others" in many.verdict()
    assert "that may be chance" in many.verdict()


def test_a_tie_goes_to_the_cheaper_and_is_called_so():
    comparison = compared({"linear": [0.8, 0.9, 0.7], "svm": [0.8, 0.9, 0.7003], "head": [0.5, 0.5, 0.5]}, 1000)
    assert comparison.best_strategy_ == "linear"
    assert comparison.verdict() == "No strategy is ahead of 'linear', which is the cheapest; as good: 'svm'."
    assert "0.000" not in comparison.verdict()


def test_a_single_strategy_is_compared_with_nothing():
    comparison = compared({"linear": [0.8, 0.9, 0.7]})
    assert "nothing to compare it with" in comparison.verdict() and "best" not in comparison.verdict()


# --- a race that always ends ------------------------------------------------------------------------------


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


def test_a_strategy_without_probabilities_is_left_out_where_the_score_needs_them(digits):
    names = ["features + linear", "features + SVM"]
    for scoring in ("roc_auc_ovr", "neg_log_loss"):
        found = compare_strategies(*digits, strategies=names, cv=3, scoring=scoring, refit=False, **DIGITS)
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
    paths = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        if i in (2, 5, 11):
            path.write_bytes(b"no picture")
        paths.append(str(path))
    with pytest.raises(ImageError) as caught:
        compare_strategies(paths, ["a", "b"] * 6, strategies="features + linear", cv=3)
    assert [bad.index for bad in caught.value.bad_images] == [2, 5, 11]


# --- images beside numbers --------------------------------------------------------------------------------


def beside_numbers(folder, images, y, doubled=False):
    """A table of paths and of a number that tells nothing, and a strategy that takes both."""
    paths = []
    for i, row in enumerate(images):
        path = folder / f"{i}.png"
        Image.fromarray((row.reshape(8, 8) * 15).astype(np.uint8)).resize((32, 32)).save(path)
        paths.append(str(path))
    frame = pd.DataFrame({"path": paths, "weight": np.arange(len(paths)) % 7})
    features = PretrainedCNNFeatures(image_size=64)
    columns = ColumnTransformer([("image", features, "path"), ("number", StandardScaler(), ["weight"])])
    return frame, y, make_pipeline(columns, LogisticRegression())


def test_a_column_of_images_beside_numbers(digits, tmp_path, computed):
    frame, y, model = beside_numbers(tmp_path, *digits)
    comparison = compare_strategies(frame, y, strategies={"both": model}, cv=3)
    assert comparison.scores_["both"].mean() > 0.8
    assert comparison.best_estimator_.score(frame, y) > 0.9
    assert comparison.best_estimator_[0].named_transformers_["image"].memory is None
    from sktransfer._strategies._fit_times import measure_cost

    assert measure_cost(model, frame, y, anew=True).frozen > 0


def test_copies_in_a_column_of_a_table_are_a_warning_too(digits, tmp_path):
    X, y = digits
    frame, y, model = beside_numbers(tmp_path, np.concatenate([X, X[:2]]), np.concatenate([y, y[:2]]))
    with pytest.warns(UserWarning, match=r"4 of 62 images"):
        compare_strategies(frame, y, strategies={"both": model}, cv=15, refit=False)


def test_an_image_that_cannot_be_read_in_a_table_is_an_error(digits, tmp_path):
    frame, y, model = beside_numbers(tmp_path, *digits)
    (tmp_path / "7.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="image 7"):
        compare_strategies(frame, y, strategies={"both": model}, cv=3)


def test_a_strategy_that_does_not_fit_the_table_costs_itself_alone(digits, tmp_path):
    frame, y, model = beside_numbers(tmp_path, *digits)
    wrong = clone(model).set_params(columntransformer__transformers=[("image", PretrainedCNNFeatures(), "pth")])
    comparison = compare_strategies(frame, y, strategies={"wrong": wrong, "both": model}, cv=3, refit=False)
    assert list(comparison.scores_) == ["both"] and "pth" in comparison.left_out_["wrong"]
