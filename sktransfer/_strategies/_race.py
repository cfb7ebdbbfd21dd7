"""Run strategies on the same folds within a time budget, and keep the results of those that finish."""

from __future__ import annotations

import difflib
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils import check_consistent_length
from sklearn.utils.parallel import Parallel, delayed
from tqdm import tqdm

from .._feature_classifier import FeatureClassifier
from .._images._duplicates import find_duplicates
from .._progress import progress_bar
from .._sklearn_compat import num_samples, safe_indexing
from .._summaries import duration
from .._validated import validated
from .._validation import check_folds, check_labels, drawn
from ._candidates import make_strategies
from ._failures import in_a_line, raise_all, raise_if_images_are_bad
from ._fit_times import ImageReader, image_readers, measure_cost
from ._result import StrategyComparison

Split = tuple[np.ndarray, np.ndarray]

FRACTIONS = (1.0, 0.5, 0.25, 0.125)  # of the training images of each fold, the largest that the time allows
LEAST_TRAINED = 50  # training images of a fold; with fewer, a score says little about all of them


@validated(
    lambda sk: {
        "strategies": [str, "array-like", Mapping],
        "time_budget": [sk.Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
        "refit": ["boolean"],
        "random_state": [Integral],
        "verbose": ["verbose"],
    }
)
def compare_strategies(
    X: Any,
    y: Any,
    *,
    strategies: str | Sequence[str] | Mapping[str, BaseEstimator] = "all",
    cv: Any = 5,
    groups: Any = None,
    scoring: Any = "accuracy",
    time_budget: float | None = None,
    n_jobs: int | None = None,
    refit: bool = True,
    random_state: int = 0,
    verbose: int = 0,
    **params: Any,
) -> StrategyComparison:
    """Cross-validate several ways to use a pretrained network on the same folds.

    Activations of frozen stages are computed once for all strategies, folds and processes. Until the comparison ends,
    they are stored in a temporary folder, or in `memory`.

    Parameters
    ----------
    X : images
        Anything that `PretrainedCNNFeatures` accepts.
    y : array-like of shape (n_images,)
        Labels.
    strategies : "all", str, list of str, or dict of str to estimator, default="all"
        ``"all"`` runs all of `make_strategies`; a name or a list of names runs some. A dict may hold any estimators:
        ``{**make_strategies("timm/convnext_tiny"), "mine": my_pipeline}``. They run in order: put the cheapest first.
    cv : int, splitter or iterable, default=5
        As in `sklearn.model_selection.cross_validate`. A number gives stratified and shuffled folds, which keep groups
        whole if `groups` are given.
    groups : array-like of shape (n_images,), default=None
        Images of one group (a patient, an object, copies of an image) are never in both the training and the test
        images of a fold. `find_duplicates` finds copies.
    scoring : str or callable, default="accuracy"
        As in scikit-learn; higher is better. A strategy without the probabilities that a score needs is left out.
    time_budget : float, default=None
        Seconds for the comparison; the last fit comes after it. A short trial predicts how long a strategy takes. One
        that is not expected to finish is trained on a half, a quarter or an eighth of the training images of each fold,
        and tested on all of the test images. Its score is then a cautious one, and the result says so. A strategy is
        left out if not even that fits, and stopped between two folds if it takes longer than expected. The first
        strategy always runs.
    n_jobs : int, default=None
        Number of folds that run at the same time, in processes. One fold already uses all cores for the slowest steps.
    refit : bool, default=True
        Fit the best strategy to all images, as `best_estimator_`.
    random_state : int, default=0
        Seed of the folds and of the training.
    verbose : int, default=0
        1 shows one progress bar over all fits.
    **params
        Parameters of `make_strategies`: `augment`, `backbone`, `image_size`, `image_shape`, `memory`, and so on. They
        cannot be passed with a dict, whose estimators have their own parameters.

    Returns
    -------
    StrategyComparison
        It has the methods `summary`, `to_frame` and `plot`. If a strategy fails, ``left_out_`` gives the reason, and
        the others still run.

    Raises
    ------
    ValueError
        If a strategy is unknown (the message lists them), or if the score cannot be computed for these labels.
    LabelError
        If a label is missing, if there is only one class, or if a class has fewer images than there are folds.
    ImageError
        If images cannot be read. The message lists them.
    TrainingError
        If every strategy fails. The message gives all reasons. If all fail for the same reason, that error is raised.

    Warns
    -----
    UserWarning
        If the training and the test images of a fold hold copies of an image, or if the best strategy cannot be fitted
        to all images. In the second case there is no ``best_estimator_``.

    See Also
    --------
    make_strategies : The strategies, to be changed before they are compared.
    recommend_strategy : Advises without training.

    Examples
    --------
    >>> from sktransfer import compare_strategies
    >>> comparison = compare_strategies(X, y, augment="photo", cv=3, time_budget=600)  # doctest: +SKIP
    >>> print(comparison.summary())  # doctest: +SKIP
    """
    deadline = np.inf if time_budget is None else time.perf_counter() + time_budget
    y = check_labels(y, num_samples(X))
    _check_scoring(scoring, y)
    chosen = _chosen(strategies, params, random_state)
    splits = _splits(cv, X, y, groups, random_state)
    _warn_of_leaks(X, splits, chosen.values())

    n_train, n_test = ([len(part) for part in parts] for parts in zip(*splits, strict=True))
    comparison = StrategyComparison(_score_name(scoring), n_train, n_test)
    errors: dict[str, Exception] = {}
    with (
        tempfile.TemporaryDirectory(prefix="sktransfer-", ignore_cleanup_errors=True) as folder,
        progress_bar(len(chosen) * len(splits) + refit, "Comparing strategies", verbose) as bar,
    ):
        bar.unit = "fit"
        race = _Race(X, y, splits, scoring, n_jobs, deadline, bar)
        for name, estimator in chosen.items():
            bar.set_postfix_str(name)
            began, done = time.perf_counter(), bar.n
            try:
                stored = _with_memory(estimator, folder, _memories(estimator))
                outcome = race.run(stored, always=not comparison.scores_)
            except Exception as error:
                raise_if_images_are_bad(error)
                outcome = _Outcome([], _why_it_failed(error, scoring))
                errors[name] = error
            bar.update(done + len(splits) - bar.n)
            if outcome.reason:
                comparison.left_out_[name] = outcome.reason
                continue
            comparison.estimators[name] = estimator
            comparison.scores_[name] = np.array(outcome.scores)
            comparison.seconds_[name] = time.perf_counter() - began
            if outcome.fraction < 1:
                comparison.fractions_[name] = outcome.fraction
                cheapest = comparison.cheapest_strategy_
                if comparison.seconds_[cheapest] <= race.seconds_left():
                    again = _with_memory(chosen[cheapest], folder, _memories(chosen[cheapest]))
                    comparison.references_[name] = np.array(list(race.fold_scores(again, outcome.fraction)))
        if not comparison.scores_:
            raise_all("No strategy could be run", errors)
        if refit:
            best = comparison.best_strategy_
            bar.set_postfix_str(f"fitting {best} to all images")
            try:
                # Not those within a search or a column transformer: these fit clones, which cannot be set back.
                steps = [name for name, _ in getattr(chosen[best], "steps", ())]
                if isinstance(chosen[best], FeatureClassifier):
                    steps = ["features"]
                settable = {"memory", *(f"{name}__memory" for name in steps)}
                memories = {name: memory for name, memory in _memories(chosen[best]).items() if name in settable}
                fitted = _with_memory(chosen[best], folder, memories).fit(X, y)
                comparison.best_estimator_ = fitted.set_params(**memories)
                if isinstance(fitted, FeatureClassifier) and memories:
                    fitted.features_.set_params(memory=memories["features__memory"])
            except Exception as error:
                warnings.warn(
                    f"{best!r} could not be fitted to all images, so there is no best_estimator_: {in_a_line(error)}",
                    stacklevel=3,
                )
            bar.update()
    return comparison


class _Outcome(NamedTuple):
    """What came of one strategy."""

    scores: list[float]  # of the folds
    reason: str = ""  # why it is left out, if it is
    fraction: float = 1.0  # of the training images of each fold


@dataclass
class _Race:
    """Runs strategies one after the other on the same folds within a time budget."""

    X: Any
    y: np.ndarray
    splits: list[Split]
    scoring: Any
    n_jobs: int | None
    deadline: float  # a time of `time.perf_counter`; infinite without a time budget
    bar: tqdm
    longest_trial: float = 0.0  # seconds

    def run(self, estimator: BaseEstimator, *, always: bool) -> _Outcome:
        """Run a strategy on all folds, on as many of their training images as the time allows."""
        if not always and self.seconds_left() <= 2 * self.longest_trial:  # the next trial may take longer than the last
            return _Outcome([], "the time was up")
        fraction = 1.0
        if not always and np.isfinite(self.deadline):
            needed = self.expected_seconds(estimator)
            left = self.seconds_left()  # after the trial, which takes its time too
            fitting = [fraction for fraction, seconds in needed.items() if seconds <= left]
            if not fitting:
                return _Outcome([], f"needs about {duration(needed[1.0])}, and {duration(max(left, 0))} were left")
            fraction = fitting[0]
        scores: list[float] = []
        for score in self.fold_scores(estimator, fraction):
            if not np.isfinite(score):
                raise ValueError(f"the score of fold {len(scores) + 1} is {score}")
            scores.append(score)
            self.bar.update()
            if not always and len(scores) < len(self.splits) and self.seconds_left() < 0:
                reason = f"stopped after {len(scores)} of {len(self.splits)} folds, when the time was up"
                return _Outcome(scores, reason)
        return _Outcome(scores, fraction=fraction)

    def expected_seconds(self, estimator: BaseEstimator) -> dict[float, float]:
        """Return the expected seconds of all folds, for each fraction of the training images."""
        start = time.perf_counter()
        cost = measure_cost(estimator, self.X, self.y)
        self.longest_trial = max(self.longest_trial, time.perf_counter() - start)
        n_train, n_test = ([len(part) for part in parts] for parts in zip(*self.splits, strict=True))
        fractions = [fraction for fraction in FRACTIONS if fraction == 1 or fraction * min(n_train) >= LEAST_TRAINED]
        fitted = {fraction: [round(fraction * n) for n in n_train] for fraction in fractions}
        return {each: cost.seconds(estimator, len(self.y), n_fitted, n_test) for each, n_fitted in fitted.items()}

    def seconds_left(self) -> float:
        """Return what is left of the budget."""
        return self.deadline - time.perf_counter()

    def fold_scores(self, estimator: BaseEstimator, fraction: float = 1.0) -> Iterator[float]:
        """Yield the score of each fold, in order, as soon as it is computed."""
        parallel = Parallel(n_jobs=self.n_jobs, return_as="generator")
        scorer = check_scoring(estimator, scoring=self.scoring)
        scores: Iterator[float] = parallel(
            delayed(_fold_score)(estimator, self.X, self.y, _fewer(train, self.y, fraction), test, scorer)
            for train, test in self.splits
        )
        return scores


def _fewer(rows: np.ndarray, y: np.ndarray, fraction: float) -> np.ndarray:
    """Return a fraction of the rows, of each class at least one."""
    if fraction == 1:
        return rows
    codes = np.unique(y[rows], return_inverse=True)[1]
    kept: np.ndarray = rows[drawn(codes, np.ceil(fraction * np.bincount(codes)), seed=0)]
    return kept


def _fold_score(
    estimator: BaseEstimator, X: Any, y: np.ndarray, train: np.ndarray, test: np.ndarray, scorer: Any
) -> float:
    fitted = clone(estimator).fit(safe_indexing(X, train), y[train])
    return float(scorer(fitted, safe_indexing(X, test), y[test]))


def _chosen(strategies: Any, params: dict[str, Any], random_state: int) -> dict[str, BaseEstimator]:
    if isinstance(strategies, Mapping):
        if not strategies:
            raise ValueError("strategies={} names none. Pass at least one strategy, or strategies='all'.")
        if params:
            raise ValueError(
                f"{', '.join(params)}: estimators in a dict have parameters of their own. Set the parameters there, or "
                "pass them to make_strategies."
            )
        return dict(strategies)
    known = make_strategies(**params, random_state=random_state)
    if isinstance(strategies, str):
        strategies = list(known) if strategies == "all" else [strategies]
    unknown = [name for name in strategies if name not in known]
    if unknown or not strategies:
        raise ValueError(f"strategies={list(strategies)!r}: expected 'all', a dict, or some of {list(known)}.")
    return {name: known[name] for name in known if name in strategies}


def _splits(cv: Any, X: Any, y: np.ndarray, groups: Any, random_state: int) -> list[Split]:
    if groups is not None:
        check_consistent_length(y, groups)
    if not isinstance(cv, Integral):
        return list(check_cv(cv, y, classifier=True).split(X, y, groups))
    check_folds(y, int(cv))
    if groups is not None and len(np.unique(groups)) < int(cv):  # scikit-learn before 1.9 makes empty folds of them
        raise ValueError(
            f"groups holds {len(np.unique(groups))} different groups, fewer than cv={cv} folds. Pass a smaller cv, or "
            "more groups."
        )
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    return list(splitter(int(cv), shuffle=True, random_state=random_state).split(X, y, groups))


def _memories(estimator: BaseEstimator) -> dict[str, Any]:
    """Return where the parts of an estimator that read images store activations, by the name of the parameter."""
    parts = {"": estimator, **{f"{name}__": part for name, part in estimator.get_params().items()}}
    return {f"{prefix}memory": part.memory for prefix, part in parts.items() if isinstance(part, ImageReader)}


def _with_memory(estimator: BaseEstimator, folder: str, memories: Mapping[str, Any]) -> BaseEstimator:
    """Return a clone whose parts store activations in this folder, unless they have a folder of their own."""
    return clone(estimator).set_params(**{name: folder for name, memory in memories.items() if memory is None})


def _warn_of_leaks(X: Any, splits: list[Split], estimators: Iterable[BaseEstimator]) -> None:
    copies = _copies(X, estimators)
    if copies is None:
        return
    leaked = {image for train, test in splits for image in test[np.isin(copies[test], copies[train])]}
    if leaked:
        warnings.warn(
            f"{len(leaked)} of {len(copies)} images have a near-identical one on the other side of a fold, so the "
            "scores may be too good. Keep copies together: groups=find_duplicates(X).",
            stacklevel=4,
        )


def _copies(X: Any, estimators: Iterable[BaseEstimator]) -> np.ndarray | None:
    """Return the groups of near-identical images, or None if none of the estimators reads images from X."""
    for estimator in estimators:
        try:
            for part, images in image_readers(estimator, X):
                return find_duplicates(images, image_shape=part.image_shape, value_range=part.value_range)
        except Exception as error:  # if a part does not fit X, its strategy will fail when it is run
            raise_if_images_are_bad(error)
    return None


def _check_scoring(scoring: Any, y: np.ndarray) -> None:
    """Refuse a score that does not exist, or that no strategy could compute for these labels."""
    if isinstance(scoring, (list, tuple, set, Mapping)):
        raise ValueError(f"scoring={scoring!r}: expected the name of one score, or a callable.")
    if not isinstance(scoring, str):
        return
    known = get_scorer_names()
    if scoring not in known:
        near = [name for name in known if name.startswith(scoring)] or difflib.get_close_matches(scoring, known)
        hint = f" Did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
        raise ValueError(f"There is no scoring={scoring!r}.{hint} sklearn.metrics.get_scorer_names() lists all.")
    rows = np.zeros((len(y), 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about classes that the dummy never predicts
            get_scorer(scoring)(DummyClassifier().fit(rows, y), rows, y)
    except Exception as error:
        others = [name for name in known if name.startswith(f"{scoring}_")]
        hint = f" For several classes there are {', '.join(others)}." if others else ""
        raise ValueError(f"scoring={scoring!r} cannot be computed for these labels: {error}.{hint}") from error


def _why_it_failed(error: Exception, scoring: Any) -> str:
    if isinstance(error, AttributeError) and "predict_proba" in str(error):
        return f"gives no probabilities, which scoring={scoring!r} needs"
    return f"failed: {in_a_line(error)}"


def _score_name(scoring: Any) -> str:
    if scoring is None:
        return "score"
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", type(scoring).__name__)
