"""`StrategyComparison`: the result of comparing strategies, as a table, in words and as a figure."""

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
LEAST_FOLDS = 3  # two differences say almost nothing about their variance


@dataclass(eq=False)
class StrategyComparison:
    """The result of `compare_strategies`.

    Attributes
    ----------
    estimators : dict of str to estimator
        The strategies that were run, unfitted, in the order in which they ran.
    scores_ : dict of str to ndarray of shape (n_folds,)
        Score of each strategy on each fold.
    seconds_ : dict of str to float
        Time to fit and test on all folds. Shared frozen features count for the first strategy that needs them.
    left_out_ : dict of str to str
        The strategies that were not run, or failed, and why.
    fractions_ : dict of str to float
        The strategies that were trained on a part of the training images of each fold, because the time budget allowed
        no more, and which part. With all of them, their scores would probably be higher.
    references_ : dict of str to ndarray of shape (n_folds,)
        For these strategies, the scores of the cheapest one with the same training images, where the time allowed it.
    scoring : str
        Name of the score; higher is better.
    n_train, n_test : sequence of int
        Number of training and test images of each fold, for the test of differences.
    best_estimator_ : estimator
        The best strategy, fitted to all images. It is missing with ``refit=False``, or if that fit failed.

    See Also
    --------
    compare_strategies : Makes one.
    StrategyComparisonDisplay : Draws it.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import StrategyComparison
    >>> comparison = StrategyComparison("accuracy", n_train=[200] * 3, n_test=[100] * 3)
    >>> comparison.scores_ = {"linear": np.array([0.80, 0.82, 0.81]), "tuned": np.array([0.90, 0.91, 0.93])}
    >>> comparison.best_strategy_
    'tuned'
    >>> round(comparison.p_value("tuned", "linear"), 3)
    0.036
    """

    __module__ = "sktransfer"

    scoring: str
    n_train: Sequence[int]
    n_test: Sequence[int]
    estimators: dict[str, BaseEstimator] = field(default_factory=dict)
    scores_: dict[str, np.ndarray] = field(default_factory=dict)
    seconds_: dict[str, float] = field(default_factory=dict)
    left_out_: dict[str, str] = field(default_factory=dict)
    fractions_: dict[str, float] = field(default_factory=dict)
    references_: dict[str, np.ndarray] = field(default_factory=dict)
    best_estimator_: BaseEstimator = field(init=False, repr=False)

    @property
    def best_strategy_(self) -> str:
        """The strategy with the highest mean score; the first one if several are equal to three digits."""
        return best_of(self.scores_)

    @property
    def cheapest_strategy_(self) -> str:
        """The strategy that was run first."""
        return next(iter(self.scores_))

    def p_value(self, better: str, other: str) -> float:
        """Test if `better` scores higher than `other`; return the p-value of a paired, one-sided t-test over folds.

        Folds share training images, so their differences vary less than differences on new images would. The variance
        is corrected for that [1]_. It also has a lower bound, because folds may agree by chance. For accuracy, the
        bound is that of McNemar's test [2]_: two classifiers disagree on at least as many images as their scores
        differ by. For other scores, p is at least that of the sign test, ``0.5 ** n_folds``. `verdict` corrects for
        picking the best of several strategies; this method does not.

        Parameters
        ----------
        better, other : str
            Names of strategies that were run.

        Returns
        -------
        p : float
            The p-value. It is nan if there are fewer than three folds, or if all folds differ by the same amount in a
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
        fraction = min(self.fractions_.get(name, 1.0) for name in (better, other))
        n_train, n_test = fraction * np.asarray(self.n_train), np.asarray(self.n_test)
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
        """Return the scores as a data frame.

        Returns
        -------
        frame : pandas.DataFrame
            One row per strategy, with the mean score, the spread, the seconds, and the score of each fold.
        """
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
        """Return the scores as a table, followed by the verdict in words.

        Returns
        -------
        summary : str
            Several lines, to be printed.
        """
        width = max(map(len, [*self.scores_, *self.left_out_]))
        lines = [f"{'':{width}} {self.scoring:>16} {'spread':>8} {'seconds':>8}"]
        for name, scores in self.scores_.items():
            mark = "  ← best" if name == self.best_strategy_ else ""
            lines.append(f"{name:{width}} {scores.mean():16.3f} {spread(scores):8.3f} {self.seconds_[name]:8.1f}{mark}")
        lines += [f"{name:{width}} left out: {reason}" for name, reason in self.left_out_.items()]
        if len(self.scores_) > 1:
            lines += ["", "Seconds: the first strategy that needs some frozen features pays for them."]
        return "\n".join([*lines, "", self.verdict(), *self.notes()])

    def notes(self) -> list[str]:
        """Return a sentence or more for each strategy that was trained on a part of the training images.

        Returns
        -------
        notes : list of str
            Empty if all strategies were trained on all training images.
        """
        notes = []
        for name, fraction in self.fractions_.items():
            note = f"{name!r} was trained on 1/{1 / fraction:.0f} of the training images and scored "
            note += f"{(score := self.scores_[name].mean()):.3f}. "
            if name in self.references_:
                reference = self.references_[name].mean()
                note += f"{self.cheapest_strategy_!r} scored {reference:.3f} with as many. "
                if name != self.best_strategy_ and score > reference + TIE:
                    note += "With all of them it may be the best. "
            notes.append(f"{note}A larger time budget allows more images.")
        return notes

    def verdict(self) -> str:
        """Return a sentence that says whether the best strategy is really better than the cheapest.

        The best was picked from several strategies, so its p-value is multiplied by the number of the others
        (Bonferroni's correction).

        Returns
        -------
        verdict : str
            One or two sentences, with the p-value.
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
        """Draw the scores of all folds.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        display : StrategyComparisonDisplay
            It holds what was drawn.
        """
        from .._displays import StrategyComparisonDisplay

        return StrategyComparisonDisplay.from_comparison(self, ax=ax)
