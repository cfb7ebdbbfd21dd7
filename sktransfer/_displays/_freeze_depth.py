"""`FreezeDepthDisplay`: the score over the number of frozen stages, from a grid search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from .._frozen._backbones import load_backbone
from .._parameters import resolve_freeze
from .._protocols import Searched
from ._panels import Keywords, axes_or_new


@dataclass(kw_only=True, eq=False, repr=False)
class FreezeDepthDisplay:
    """Cross-validated score over the number of frozen stages.

    The line joins the best candidates at each depth; those that differ in other parameters are faint points.

    Use `from_search` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    depths : array-like of shape (n_candidates,)
        How many stages each candidate freezes.
    mean_scores, std_scores : array-like of shape (n_candidates,)
        Mean and standard deviation of the score over the folds.
    n_stages : int or None, default=None
        Number of stages of the backbone. None if it differs between candidates.
    groups : sequence of str or None, default=None
        Each group of candidates gets a line of its own. None draws one line for all.
    score_name : str, default="score"
        Label of the axis of scores.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The best at each depth, one line per group.
    fill_between_ : list of matplotlib collections
        One standard deviation over the folds around each line.
    candidates_ : matplotlib PathCollection or None
        All candidates, if some of them do not lie on a line.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sktransfer import FineTunedCNNClassifier, FreezeDepthDisplay
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> clf = FineTunedCNNClassifier(
    ...     "shallow_cnn", weights=None, image_shape=(8, 8), value_range=(0, 16), image_size=16, max_epochs=1
    ... )
    >>> search = GridSearchCV(clf, {"freeze": [0, "stage2", "all"]}, cv=2, refit=False).fit(X[:40], y[:40])
    >>> FreezeDepthDisplay.from_search(search).depths
    array([0, 2, 4])
    """

    __module__ = "sktransfer"

    depths: Any
    mean_scores: Any
    std_scores: Any
    n_stages: int | None = None
    groups: Sequence[str] | None = None
    score_name: str = "score"

    @classmethod
    def from_search(
        cls,
        search: Searched,
        *,
        param_name: str | None = None,
        by: str | None = None,
        metric: str | None = None,
        score_name: str | None = None,
        ax: Any = None,
    ) -> FreezeDepthDisplay:
        """Draw a fitted search over `freeze`.

        Parameters
        ----------
        search : GridSearchCV or RandomizedSearchCV
            A fitted search over ``freeze`` of a `FineTunedCNNClassifier`, which may be part of a pipeline. ``"auto"``,
            ``"all"`` and names of stages are drawn at the depths that they stand for.
        param_name : str, default=None
            Name of the parameter, such as ``"classifier__freeze"``. Needed only if the search goes over ``freeze`` of
            several estimators.
        by : str, default=None
            Another parameter of the search. Each of its values gets a line, the best over all other parameters.
        metric : str, default=None
            The score to draw, if the search has several. None takes the score of ``refit``.
        score_name : str, default=None
            Label of the axis. None takes the name of the search's score.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        display : FreezeDepthDisplay
            It holds what was drawn.

        Raises
        ------
        ValueError
            If the search did not go over ``freeze``.
        """
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        params = results["params"]
        tested = sorted({key for candidate in params for key in candidate})
        name = _freeze_parameter(tested) if param_name is None else param_name
        for given in (name, by):
            if given is not None and given not in tested:
                raise ValueError(f"The search did not go over {given!r}, but over {', '.join(tested)}.")
        score, default_name = _score(search, metric)
        resolved = [_depth(search.estimator, candidate, name) for candidate in params]
        kept = [row for row, depth in enumerate(resolved) if depth is not None]
        if not kept:
            raise ValueError(f"{name!r} is no parameter of a FineTunedCNNClassifier.")
        depths, sizes = np.array([resolved[row] for row in kept]).T
        n_stages = {int(size) for size in sizes}
        display = cls(
            depths=depths,
            mean_scores=results[f"mean_test_{score}"][kept],
            std_scores=results[f"std_test_{score}"][kept],
            n_stages=n_stages.pop() if len(n_stages) == 1 else None,
            groups=None if by is None else [f"{by}={params[row].get(by)}" for row in kept],
            score_name=default_name if score_name is None else score_name,
        )
        return display.plot(ax=ax)

    def plot(
        self, ax: Any = None, *, line_kw: Keywords | None = None, fill_between_kw: Keywords | None = None
    ) -> FreezeDepthDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        line_kw : dict, default=None
            Keywords of the lines.
        fill_between_kw : dict, default=None
            Keywords of the areas of one standard deviation.

        Returns
        -------
        display : FreezeDepthDisplay
            It holds what was drawn.
        """
        ax = axes_or_new(ax, "FreezeDepthDisplay", (5.2, 3.6))
        depths, means, stds = (np.asarray(values) for values in (self.depths, self.mean_scores, self.std_scores))
        groups = np.array(self.groups if self.groups is not None else [""] * len(depths))
        self.lines_, self.fill_between_ = [], []
        n_drawn = 0
        for group in dict.fromkeys(groups.tolist()):
            rows = _best_at_each_depth(depths, means, groups == group)
            n_drawn += len(rows)
            line_style = {"marker": "o", "label": group or "best at this depth", **(line_kw or {})}
            (line,) = ax.plot(depths[rows], means[rows], **line_style)
            area_style = {"alpha": 0.15, "color": line.get_color(), "linewidth": 0, **(fill_between_kw or {})}
            low, high = means[rows] - stds[rows], means[rows] + stds[rows]
            self.lines_.append(line)
            self.fill_between_.append(ax.fill_between(depths[rows], low, high, **area_style))
        self.candidates_ = None
        if n_drawn < np.isfinite(means).sum():
            self.candidates_ = ax.scatter(depths, means, s=14, color="grey", alpha=0.6, label="candidates", zorder=1.5)
        if self.groups is not None or self.candidates_ is not None:
            ax.legend(fontsize="small")
        ax.set_xticks(np.unique(depths), labels=[self._tick(depth) for depth in np.unique(depths)])
        ax.set_xlabel("Frozen stages" if self.n_stages is None else f"Frozen stages, of {self.n_stages}")
        ax.set_ylabel(self.score_name)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _tick(self, depth: int) -> str:
        word = {0: "none", self.n_stages: "all"}.get(int(depth))
        return f"{depth}\n{word}" if word else str(depth)


def _freeze_parameter(tested: list[str]) -> str:
    found = [name for name in tested if name.rpartition("__")[2] == "freeze"]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"The search goes over {', '.join(found)}. Pass one of them as param_name.")
    raise ValueError(
        f"The search went over {', '.join(tested) or 'nothing'}, not over freeze. Search {{'freeze': [0, 4, 'all']}}, "
        "or 'classifier__freeze' in a pipeline whose step is called classifier."
    )


def _depth(estimator: BaseEstimator, candidate: dict[str, Any], name: str) -> tuple[int, int] | None:
    """Return the number of stages that a candidate freezes and the number of all; None without such a parameter."""
    values = {key: clone(value, safe=False) for key, value in candidate.items()}
    owner: Any = clone(estimator).set_params(**values)
    prefix = name.rpartition("__")[0]
    if prefix:
        owner = owner.get_params().get(prefix)
    if not (hasattr(owner, "freeze") and hasattr(owner, "backbone")):  # not a classifier of ours
        return None
    # Only the number of stages is needed, so a search can be drawn on a machine without its weights.
    backbone = replace(load_backbone(owner.backbone, None), pretrained=owner.weights is not None)
    return resolve_freeze(owner.freeze, backbone), len(backbone.stages)


def _score(search: Searched, metric: str | None) -> tuple[str, str]:
    """Return the suffix of the score's columns in `cv_results_`, and the name of the score."""
    names = sorted(key.removeprefix("mean_test_") for key in search.cv_results_ if key.startswith("mean_test_"))
    if metric is None:
        metric = "score" if "score" in names else search.refit
    if metric not in names:
        raise ValueError(f"metric={metric!r}: the search has {', '.join(names)}.")
    scoring = search.scoring
    if metric != "score" or isinstance(scoring, str):
        return metric, (scoring if metric == "score" else metric).replace("_", " ")
    return metric, "accuracy" if scoring is None else getattr(scoring, "__name__", "score").replace("_", " ")


def _best_at_each_depth(depths: np.ndarray, means: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the rows of the best among the chosen candidates, in the order of their depths."""
    rows = np.flatnonzero(chosen & np.isfinite(means))
    rows = rows[np.lexsort((-means[rows], depths[rows]))]
    return rows[np.unique(depths[rows], return_index=True)[1]]
