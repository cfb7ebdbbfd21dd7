"""`StrategyComparison`: what comparing strategies found out, as a table, in words and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator

from .._optional import require
from .._summaries import TIE, best_of, spread

if TYPE_CHECKING:
    from .._displays import StrategyComparisonDisplay

SIGNIFICANT = 0.05  # the usual level
LEAST_FOLDS = 3  # two differences say next to nothing of how much such differences vary


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
        The strategies that were not run, or failed, and why.
    scoring : str
        Name of the score; more is better.
    n_train, n_test : sequence of int
        Training and test images of each fold, for the test of differences.
    best_estimator_ : estimator
        The best strategy, fitted to all images; not there with ``refit=False``, or if that fit failed.
    """

    __module__ = "sktransfer"

    scoring: str
    n_train: Sequence[int]
    n_test: Sequence[int]
    estimators: dict[str, BaseEstimator] = field(default_factory=dict)
    scores_: dict[str, np.ndarray] = field(default_factory=dict)
    seconds_: dict[str, float] = field(default_factory=dict)
    left_out_: dict[str, str] = field(default_factory=dict)
    best_estimator_: BaseEstimator = field(init=False, repr=False)

    @property
    def best_strategy_(self) -> str:
        """The strategy with the highest mean score; of those that look equal at three digits the first."""
        return best_of(self.scores_)

    @property
    def cheapest_strategy_(self) -> str:
        """The strategy that was run first."""
        return next(iter(self.scores_))

    def p_value(self, better: str, other: str) -> float:
        """Return how likely so large a difference is if `better` is no better: a paired, one-sided t-test over folds.

        Folds share training images, so their differences vary less than those of new images would; the variance is
        corrected for that [1]_. It has a floor, since folds may agree by chance. Two classifiers of equal accuracy
        disagree on at least as many images as their scores differ by, and each of these falls to either side, as in
        McNemar's test [2]_. Other scores tell nothing of the images behind them: p is then at least that of the sign
        test, ``0.5 ** n_folds``. That one of several was picked is not corrected for here, but in `verdict`.

        Parameters
        ----------
        better, other : str
            Names of strategies that were run.

        Returns
        -------
        p : float
            nan where the folds cannot tell: with fewer than three of them, or if all differ by the same amount in a
            score other than accuracy.

        References
        ----------
        .. [1] C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
        .. [2] Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
           percentages", Psychometrika 12, 1947.
        """
        differences = self.scores_[better] - self.scores_[other]
        n_folds = len(differences)
        if n_folds < LEAST_FOLDS:
            return np.nan
        if np.allclose(differences, 0, rtol=0, atol=1e-12):
            return 0.5
        n_train, n_test = np.asarray(self.n_train), np.asarray(self.n_test)
        counts_images = self.scoring == "accuracy"
        variance = differences.var(ddof=1)
        if counts_images:
            variance = max(variance, np.abs(differences).mean() * np.mean(1 / n_test))
        elif np.ptp(differences) < 1e-12:
            return np.nan
        error = np.sqrt(variance * (1 / n_folds + np.mean(n_test / n_train)))
        p = float(stats.t.sf(differences.mean() / error, df=n_folds - 1))
        return p if counts_images else max(p, 0.5**n_folds)

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame: one row per strategy, with its mean score, spread, seconds, and each fold."""
        require("to_frame", "cli", "pandas")
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
        if len(self.scores_) > 1:
            lines += ["", "Seconds: the first strategy that needs some frozen features pays for them."]
        return "\n".join([*lines, "", self.verdict()])

    def verdict(self) -> str:
        """Return in a sentence whether the best is really better than the cheapest.

        The best was picked among all, so its p-value is multiplied by the number of those it was picked from
        (Bonferroni's correction).
        """
        best, cheapest = self.best_strategy_, self.cheapest_strategy_
        if len(self.scores_) == 1:
            return f"{best!r} is the only strategy that was run to its end, so there is nothing to compare it with."
        means = {name: scores.mean() for name, scores in self.scores_.items()}
        if best == cheapest:
            ties = [repr(name) for name, mean in means.items() if name != best and mean >= means[best] - TIE]
            if ties:
                return f"No strategy is ahead of {best!r}, which is the cheapest; as good: {', '.join(ties)}."
            return f"{best!r} is the best, and the cheapest too."
        n_others = len(self.scores_) - 1
        p = float(np.minimum(1.0, self.p_value(best, cheapest) * n_others))  # nan stays nan
        found = f"{best!r} is ahead of {cheapest!r} by {means[best] - means[cheapest]:.3f}"
        if np.isnan(p):
            few = len(self.scores_[best]) < LEAST_FOLDS
            reason = f"Fewer than {LEAST_FOLDS} folds" if few else "Folds that all differ by the same amount"
            return f"{found}. {reason} cannot tell whether that is chance. {cheapest!r} is cheaper."
        found += f" (p = {p:.2g}, corrected paired t-test over the folds"
        found += f", for the best of {n_others} others)" if n_others > 1 else ")"
        if p < SIGNIFICANT:
            return f"{found}: it is better."
        return f"{found}: that may be chance. {cheapest!r} is cheaper; more images or folds would tell."

    def plot(self, ax: Any = None) -> StrategyComparisonDisplay:
        """Draw the scores of all folds; see `StrategyComparisonDisplay`."""
        from .._displays import StrategyComparisonDisplay

        return StrategyComparisonDisplay.from_comparison(self, ax=ax)
