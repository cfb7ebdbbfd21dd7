"""Which way to use a pretrained network, for these images? Try them on the same folds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.parallel import Parallel, delayed

from ._backbones import DEFAULT_BACKBONE, load_backbone
from ._classifier import FineTunedCNNClassifier
from ._costs import expected_seconds
from ._duplicates import find_duplicates
from ._extraction import progress_bar
from ._features import PretrainedCNNFeatures, make_feature_classifier

LINEAR, SVM, DENSE = "features + linear", "features + SVM", "dense head"
SHALLOW, SCRATCH = "shallow from scratch", "from scratch"
N_VIEWS = 8

Split = tuple[np.ndarray, np.ndarray]


def make_strategies(
    backbone: str = DEFAULT_BACKBONE, *, augment: Any = None, random_state: int = 0, **params: Any
) -> dict[str, BaseEstimator]:
    """Return the usual ways to apply a pretrained network to other images, the cheapest first.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        The network; `list_backbones` names them all.
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        For those that train stages, as in `FineTunedCNNClassifier`. Eight views of each image are stored, so that
        frozen stages run once for all folds.
    random_state : int, default=0
    **params
        Parameters that `PretrainedCNNFeatures` and `FineTunedCNNClassifier` share, such as `weights`, `image_size`,
        `image_shape` or `memory`.

    Returns
    -------
    strategies : dict of str to estimator
        ``"features + linear"``, `make_feature_classifier`; ``"features + SVM"``, the same features with a kernel;
        ``"dense head"`` of 256 units on the frozen network; ``"fine-tuned, freeze=k"`` for the last quarter of the
        stages, the last half, and all; ``"shallow from scratch"``, a CNN of four layers; ``"from scratch"``, the
        backbone without its weights. Add your own, or delete some, before you pass it to `compare_strategies`.

    Examples
    --------
    >>> from sktransfer import make_strategies
    >>> list(make_strategies(augment="photo"))[:4]
    ['features + linear', 'features + SVM', 'dense head', 'fine-tuned, freeze=6']
    """
    shared = {"backbone": backbone, **params}
    tuned = {"augment": augment, "n_views": None if augment is None else N_VIEWS, "random_state": random_state}
    n_stages = len(load_backbone(backbone, None).stages)
    depths = dict.fromkeys([n_stages * 3 // 4, n_stages // 2, 0])
    features = PretrainedCNNFeatures(**{**shared, "layer": "all", "normalize": True})
    svm = GridSearchCV(SVC(), {"C": [1, 10, 100]}, cv=3)
    scratch = {**shared, **tuned, "weights": None, "n_views": None}
    return {
        LINEAR: make_feature_classifier(**shared),
        SVM: Pipeline([("features", features), ("classifier", svm)]),
        DENSE: FineTunedCNNClassifier(**shared, freeze="all", head_hidden=(256,), random_state=random_state),
        **{f"fine-tuned, freeze={depth}": FineTunedCNNClassifier(**shared, **tuned, freeze=depth) for depth in depths},
        SHALLOW: FineTunedCNNClassifier(**{**scratch, "backbone": "shallow_cnn"}),
        SCRATCH: FineTunedCNNClassifier(**scratch),
    }


@dataclass
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
        corrected for that [1]_.

        References
        ----------
        .. [1] C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
        """
        differences = self.scores_[better] - self.scores_[other]
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
                "std": scores.std(ddof=1),
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
            spread, seconds = scores.std(ddof=1), self.seconds_[name]
            lines.append(f"{name:{width}} {scores.mean():16.3f} {spread:8.3f} {seconds:8.1f}{mark}")
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
        if p < 0.05:
            return f"{found}: it is better."
        return f"{found}: that may be chance. {cheapest!r} is cheaper; more images or folds would tell."

    def plot(self, ax=None):
        """Draw the scores of all folds; see `StrategyComparisonDisplay`."""
        from ._displays import StrategyComparisonDisplay

        return StrategyComparisonDisplay.from_comparison(self).plot(ax=ax)


def compare_strategies(
    X: Any,
    y: Any,
    *,
    strategies: str | Sequence[str] | Mapping[str, BaseEstimator] = "all",
    cv: Any = 5,
    groups: Any = None,
    scoring: Any = "accuracy",
    augment: Any = None,
    time_budget: float | None = None,
    memory: Any = None,
    n_jobs: int | None = None,
    refit: bool = True,
    random_state: int = 0,
    verbose: int = 0,
) -> StrategyComparison:
    """Cross-validate several ways to use a pretrained network on the same folds.

    Whatever is frozen is computed once for all strategies and folds.

    Parameters
    ----------
    X : images
        Anything that `PretrainedCNNFeatures` accepts.
    y : array-like of shape (n_images,)
        Labels.
    strategies : "all", list of str, or dict of str to estimator, default="all"
        ``"all"`` takes `make_strategies`, a list some of them. A dict may hold any estimators, such as
        ``{**make_strategies("timm/convnext_tiny"), "mine": my_pipeline}``; the cheapest should come first.
    cv : int, splitter or iterable, default=5
        As in `sklearn.model_selection.cross_validate`. A number shuffles, within classes, or whole groups if
        `groups` are given.
    groups : array-like of shape (n_images,), default=None
        Images of one group (a patient, an object, copies of an image) never stand in both training and test images.
        `find_duplicates` finds copies.
    scoring : str or callable, default="accuracy"
        As in scikit-learn; more is better.
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        Random changes of the training images; see `FineTunedCNNClassifier`. Not used with a dict of strategies.
    time_budget : float, default=None
        Seconds. Strategies that are not expected to finish in the time that is left, by a short trial, are left out and
        named in the result; the first one is always run.
    memory : None, path or joblib.Memory, default=None
        A folder to keep activations in. Not used with a dict of strategies.
    n_jobs : int, default=None
        Folds to run at a time, in processes. Give a `memory` then: processes share features through it alone.
    refit : bool, default=True
        Fit the best strategy to all images, as `best_estimator_`.
    random_state : int, default=0
        For the folds and the training.
    verbose : int, default=0
        1 shows a progress bar over all fits.

    Returns
    -------
    StrategyComparison

    Warns
    -----
    UserWarning
        If near-identical images stand in training and test images of a fold.

    Examples
    --------
    >>> from sktransfer import compare_strategies
    >>> comparison = compare_strategies(X, y, augment="photo", time_budget=600)  # doctest: +SKIP
    >>> print(comparison.summary())  # doctest: +SKIP
    """
    start = time.perf_counter()
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    check_classification_targets(y)
    chosen = _chosen(strategies, {"augment": augment, "memory": memory, "random_state": random_state})
    splits = list(_splitter(cv, y, groups, random_state).split(X, y, groups))
    if groups is None:
        _warn_of_leaks(X, splits)

    n_train, n_test = len(splits[0][0]), len(splits[0][1])
    scorer = check_scoring(next(iter(chosen.values())), scoring)
    comparison = StrategyComparison(_score_name(scoring), n_test / n_train)
    bar = progress_bar(len(chosen) * len(splits) + refit, "Comparing strategies", verbose)
    bar.unit = "fit"
    for name, estimator in chosen.items():
        bar.set_postfix_str(name)
        if time_budget is not None and comparison.scores_:
            needed = (len(splits) + refit) * expected_seconds(estimator, X, y, n_train, n_test)
            left = time_budget - (time.perf_counter() - start)
            if needed > left:
                comparison.left_out_[name] = f"needs about {_minutes(needed)}, and {_minutes(max(left, 0))} are left"
                bar.update(len(splits))
                continue
        began = time.perf_counter()
        scores = []
        for score in _fold_scores(estimator, X, y, splits, scorer, n_jobs):
            scores.append(score)
            bar.update()
        comparison.estimators[name] = estimator
        comparison.scores_[name] = np.array(scores)
        comparison.seconds_[name] = time.perf_counter() - began
    if refit:
        bar.set_postfix_str(f"fitting {comparison.best_strategy_} to all images")
        comparison.best_estimator_ = clone(comparison.estimators[comparison.best_strategy_]).fit(X, y)
        bar.update()
    bar.close()
    return comparison


def _chosen(strategies: Any, params: dict[str, Any]) -> dict[str, BaseEstimator]:
    if isinstance(strategies, Mapping):
        if not strategies:
            raise ValueError("strategies={} names none. Pass at least one, or strategies='all'.")
        return dict(strategies)
    known = make_strategies(**params)
    if isinstance(strategies, str):
        strategies = list(known) if strategies == "all" else [strategies]
    unknown = [name for name in strategies if name not in known]
    if unknown or not strategies:
        raise ValueError(f"strategies={list(strategies)!r}: expected 'all', a dict, or some of {list(known)}.")
    return {name: known[name] for name in known if name in strategies}


def _splitter(cv: Any, y: np.ndarray, groups: Any, random_state: int) -> Any:
    if not isinstance(cv, Integral):
        return check_cv(cv, y, classifier=True)
    smallest = np.unique(y, return_counts=True)[1].min()
    if smallest < cv:
        raise ValueError(
            f"The smallest class has {smallest} image(s), fewer than cv={cv} folds. Pass a smaller cv, add images, or "
            "leave that class out."
        )
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    return splitter(int(cv), shuffle=True, random_state=random_state)


def _warn_of_leaks(X: Any, splits: list[Split]) -> None:
    copies = find_duplicates(X)
    leaked = {image for train, test in splits for image in test[np.isin(copies[test], copies[train])]}
    if leaked:
        warnings.warn(
            f"{len(leaked)} of {len(copies)} images have a near-identical one on the other side of a fold, so the scores "
            "are too good. Keep copies together: groups=find_duplicates(X).",
            stacklevel=3,
        )


def _fold_scores(
    estimator: BaseEstimator, X: Any, y: np.ndarray, splits: list[Split], scorer: Any, n_jobs: int | None
) -> Iterator[float]:
    """Yield the score of each fold, in order, as soon as it is there."""
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    return parallel(delayed(_fold_score)(estimator, X, y, train, test, scorer) for train, test in splits)


def _fold_score(
    estimator: BaseEstimator, X: Any, y: np.ndarray, train: np.ndarray, test: np.ndarray, scorer: Any
) -> float:
    fitted = clone(estimator).fit(_safe_indexing(X, train), y[train])
    return float(scorer(fitted, _safe_indexing(X, test), y[test]))


def _score_name(scoring: Any) -> str:
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", type(scoring).__name__)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
