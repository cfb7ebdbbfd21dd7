"""What a comparison says: means, spreads, and whether a difference may be chance; it says when it cannot tell."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.model_selection import ShuffleSplit

from racers import numbered
from sktransfer import (
    StrategyComparison,
    compare_strategies,
)


def compared(scores, n_test=10, scoring="accuracy"):
    n_folds = len(next(iter(scores.values())))
    comparison = StrategyComparison(scoring, n_train=[n_test * (n_folds - 1)] * n_folds, n_test=[n_test] * n_folds)
    comparison.scores_ = {name: np.array(values, dtype=float) for name, values in scores.items()}
    comparison.seconds_ = dict.fromkeys(scores, 1.0)
    return comparison


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


def test_plot_shows_every_strategy(recorder):
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    X, y = numbered()
    comparison = compare_strategies(X, y, strategies={"ones": recorder(1), "zeros": recorder(0)}, cv=3, refit=False)
    _, ax = plt.subplots()
    display = comparison.plot(ax=ax)
    assert display.ax_ is ax and [label.get_text() for label in ax.get_yticklabels()] == ["ones", "zeros"]
    plt.close("all")


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
