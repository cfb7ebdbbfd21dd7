"""`StrategyComparison`: what comparing strategies found out, as a table, in words and as a figure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator

SIGNIFICANT = 0.05  # the usual level


@dataclass(eq=False)
class StrategyComparison:
    """What `compare_strategies` found out.

    Attributes
    ----------
    estimators : dict of str to estimator
        The strategies that were run, unfitted, in the order in which they were.
    scores_ : dict of str to ndarray of shape (n_folds,)
        Score of each strategy on each fold.
    seconds_ : dict of str to float
        Fitting and testing on all folds. The first strategy that needs some frozen features pays for them.
    left_out_ : dict of str to str
        The strategies that were not run, and why.
    scoring : str
        Name of the score; more is better.
    test_share : float
        Test images per training image in a fold, for the test of differences.
    best_estimator_ : estimator
        The best strategy, fitted to all images; not there with ``refit=False``.
    """

    __module__ = "sktransfer"

    scoring: str
    test_share: float
    estimators: dict[str, BaseEstimator] = field(default_factory=dict)
    scores_: dict[str, np.ndarray] = field(default_factory=dict)
    seconds_: dict[str, float] = field(default_factory=dict)
    left_out_: dict[str, str] = field(default_factory=dict)
    best_estimator_: BaseEstimator = field(init=False, repr=False)

    @property
    def best_strategy_(self) -> str:
        """The strategy with the highest mean score; of equal ones the first."""
        return max(self.scores_, key=lambda name: self.scores_[name].mean())

    @property
    def cheapest_strategy_(self) -> str:
        """The strategy that was run first."""
        return next(iter(self.scores_))

    def p_value(self, better: str, other: str) -> float:
        """Return how likely so large a difference is if `better` is no better: a paired, one-sided t-test over folds.

        Folds share training images, so their differences vary less than those of new images would; the variance is
        corrected for that [1]_. That the best of several was picked is not corrected for: of two equal strategies the
        lucky one looks better.

        Parameters
        ----------
        better, other : str
            Names of strategies that were run.

        Returns
        -------
        p : float
            nan with a single fold.

        References
        ----------
        .. [1] C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
        """
        differences = self.scores_[better] - self.scores_[other]
        if len(differences) < 2:
            return np.nan
        variance = differences.var(ddof=1) * (1 / len(differences) + self.test_share)
        if variance == 0:
            return 0.0 if differences.mean() > 0 else 1.0
        return float(stats.t.sf(differences.mean() / np.sqrt(variance), df=len(differences) - 1))

    def to_frame(self):
        """Return a pandas.DataFrame: one row per strategy, with its mean score, spread, seconds, and each fold."""
        import pandas as pd

        rows = {
            name: {
                "mean": scores.mean(),
                "std": spread(scores),
                "seconds": self.seconds_[name],
                **{f"fold{k}": score for k, score in enumerate(scores)},
            }
            for name, scores in self.scores_.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")

    def summary(self) -> str:
        """Return the table and what follows from it, in words."""
        width = max(map(len, [*self.scores_, *self.left_out_]))
        lines = [f"{'':{width}} {self.scoring:>16} {'spread':>8} {'seconds':>8}"]
        for name, scores in self.scores_.items():
            mark = "  ← best" if name == self.best_strategy_ else ""
            lines.append(f"{name:{width}} {scores.mean():16.3f} {spread(scores):8.3f} {self.seconds_[name]:8.1f}{mark}")
        lines += [f"{name:{width}} left out: {reason}" for name, reason in self.left_out_.items()]
        return "\n".join([*lines, "", self.verdict()])

    def verdict(self) -> str:
        """Return in a sentence whether the best is really better than the cheapest."""
        best, cheapest = self.best_strategy_, self.cheapest_strategy_
        if best == cheapest:
            return f"{best!r} is the best, and the cheapest too."
        gain = self.scores_[best].mean() - self.scores_[cheapest].mean()
        p = self.p_value(best, cheapest)
        found = f"{best!r} is ahead of {cheapest!r} by {gain:.3f} (p = {p:.2g}, corrected paired t-test over the folds)"
        if p < SIGNIFICANT:
            return f"{found}: it is better."
        return f"{found}: that may be chance. {cheapest!r} is cheaper; more images or folds would tell."

    def plot(self, ax=None):
        """Draw the scores of all folds; see `StrategyComparisonDisplay`."""
        from ._displays import StrategyComparisonDisplay

        return StrategyComparisonDisplay.from_comparison(self, ax=ax)


def spread(scores: np.ndarray) -> float:
    """Return the standard deviation over folds; nan with a single one."""
    return float(scores.std(ddof=1)) if len(scores) > 1 else np.nan
