"""`StrategyComparisonDisplay`: the scores of several strategies on the same folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._summaries import best_of, duration
from ._panels import Keywords, axes_or_new


@dataclass(kw_only=True, eq=False, repr=False)
class StrategyComparisonDisplay:
    """Score of each strategy on each fold, the means, and the seconds they took.

    Use `from_comparison` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    scores : dict of str to ndarray of shape (n_folds,)
        Scores of each strategy. The strategies are drawn in this order from top to bottom.
    seconds : dict of str to float
        Seconds of each strategy, for all folds together.
    score_name : str, default="score"
        Name of the score, for the label of its axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    folds_ : list of matplotlib Line2D
        The scores of each strategy's folds.
    means_ : list of matplotlib Line2D
        The mean of each strategy.
    seconds_ax_ : matplotlib Axes
        The axis of seconds on the right.

    Examples
    --------
    >>> from sktransfer import StrategyComparisonDisplay
    >>> display = StrategyComparisonDisplay(
    ...     scores={"features": [0.8, 0.9, 0.85], "fine-tuned": [0.9, 0.92, 0.88]},
    ...     seconds={"features": 3.4, "fine-tuned": 130.0},
    ...     score_name="accuracy",
    ... )
    >>> display.plot().ax_.get_xlabel()
    'accuracy (◆ mean of 3 folds)'
    """

    __module__ = "sktransfer"

    scores: Mapping[str, Any]
    seconds: Mapping[str, float]
    score_name: str = "score"

    @classmethod
    def from_comparison(
        cls, comparison: Any, *, ax: Any = None, score_name: str | None = None
    ) -> StrategyComparisonDisplay:
        """Draw the result of `compare_strategies`.

        Parameters
        ----------
        comparison : StrategyComparison
            Strategies that were left out are not drawn.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        score_name : str, default=None
            Name of the score. None takes the name in the comparison.

        Returns
        -------
        display : StrategyComparisonDisplay
            It holds what was drawn.
        """
        name = str(comparison.scoring).replace("_", " ") if score_name is None else score_name
        display = cls(scores=dict(comparison.scores_), seconds=dict(comparison.seconds_), score_name=name)
        return display.plot(ax=ax)

    def plot(
        self, ax: Any = None, *, fold_kw: Keywords | None = None, mean_kw: Keywords | None = None
    ) -> StrategyComparisonDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        fold_kw : dict, default=None
            Keywords of the folds' points.
        mean_kw : dict, default=None
            Keywords of the means.

        Returns
        -------
        display : StrategyComparisonDisplay
            It holds what was drawn.
        """
        ax = axes_or_new(ax, "StrategyComparisonDisplay", (7.2, 1.2 + 0.42 * max(2, len(self.scores))))
        rows = [np.asarray(scores, dtype=float) for scores in self.scores.values()]
        means = [row.mean() for row in rows]
        best = list(self.scores).index(best_of(self.scores))
        self.folds_, self.means_ = [], []
        for height, (row, mean) in enumerate(zip(rows, means, strict=True)):
            colour = "C1" if height == best else "C0"
            fold_style = {"color": colour, "alpha": 0.4, "markersize": 5, **(fold_kw or {})}
            mean_style = {"color": colour, "markersize": 8, **(mean_kw or {})}
            self.folds_ += ax.plot(row, [height] * len(row), "o", **fold_style)
            self.means_ += ax.plot(mean, height, "D", **mean_style)

        heights = range(len(rows))
        ax.set_yticks(heights, labels=list(self.scores), parse_math=False)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
        ax.set_xlabel(f"{self.score_name} (◆ mean of {len(rows[0])} folds)")
        self.seconds_ax_ = ax.secondary_yaxis("right")
        self.seconds_ax_.set_yticks(heights, labels=[duration(self.seconds[name]) for name in self.scores])
        self.seconds_ax_.tick_params(length=0)
        self.ax_, self.figure_ = ax, ax.figure
        return self
