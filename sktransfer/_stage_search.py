"""Choose by cross-validation how many stages a linear model uses, and its C, at the price of linear algebra.

Each stage gives one part of features or several, such as means and deviations. A part is centred on the training
images, and each image's part is divided by its norm (SimpleShot). So each part weighs as much as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from ._linear import one_blas_thread

Stages = list[list[slice]]  # of each stage, in order of depth, the columns of each of its parts
Folds = list[tuple[np.ndarray, np.ndarray]]  # rows to train on, and rows held out

_PRIVATE = 1e-7  # squared length of the feature that each training image has for itself; parts have length 1
_ROUGH = 1e-4  # tolerance of the fits that only choose; a finer one chooses the same


class Choice(NamedTuple):
    """How many of the last stages to use, the C, the factor of the logits, and the log losses behind them."""

    n_stages: int
    C: float
    sharpness: float
    log_losses: dict[int, list[float]]  # by number of stages; one for each C up to the first that is worse


def balanced(features: np.ndarray, centre: np.ndarray, stages: Stages) -> np.ndarray:
    """Return a copy with each part centred and divided by its norm."""
    out: np.ndarray = features - centre
    for stage in stages:
        for columns in stage:
            part = out[:, columns]  # a view, changed in place
            norms = np.linalg.norm(part, axis=1, keepdims=True)
            part /= np.where(norms == 0, 1, norms)
    return out


def choose(
    features: np.ndarray,
    stages: Stages,
    codes: np.ndarray,
    weights: np.ndarray,
    *,
    n_stages: Sequence[int],
    Cs: Sequence[float],
    folds: Folds,
) -> Choice:
    """Choose by the log loss of held-out rows. Without folds, the middle of both lists is taken."""
    numbers = sorted({min(number, len(stages)) for number in n_stages})
    losses: dict[int, list[float]] = {}
    factors: dict[int, list[float]] = {}
    gram, done = np.zeros((len(features), len(features))), 0
    for number in numbers if folds else []:
        for columns in (columns for stage in stages[len(stages) - number : len(stages) - done] for columns in stage):
            part = features[:, columns]
            gram += _products(balanced(part, np.average(part, axis=0, weights=weights), [[slice(None)]]))
        done = number
        coordinates = _coordinates(gram).astype(np.float32)
        losses[number], factors[number] = _log_losses(coordinates, codes, weights, Cs, folds)
    if not losses or not np.isfinite(min(map(min, losses.values()))):
        return Choice(numbers[len(numbers) // 2], float(Cs[len(Cs) // 2]), 1.0, {})
    best = min(numbers, key=lambda number: min(losses[number]))
    i = int(np.argmin(losses[best]))
    return Choice(best, float(Cs[i]), factors[best][i], losses)


def suffix(stages: Stages, number: int) -> tuple[np.ndarray, Stages]:
    """Return the columns of the last stages, and where their parts are among these columns."""
    columns: list[np.ndarray] = []
    parts: Stages = []
    width = 0
    for stage in stages[-number:]:
        parts.append([])
        for part in stage:
            columns.append(np.arange(part.start, part.stop))
            parts[-1].append(slice(width, width + part.stop - part.start))
            width = parts[-1][-1].stop
    return np.concatenate(columns), parts


def fit_logistic(features: np.ndarray, codes: np.ndarray, weights: np.ndarray, C: float) -> LogisticRegression:
    """Return scikit-learn's logistic regression, fitted in the space that the images span if they are few.

    The penalty does not change with a rotation, so the solution is the same. It has one dimension per image.
    """
    model = LogisticRegression(C=C, max_iter=1000)
    n, n_features = features.shape
    if n >= n_features:
        with one_blas_thread():
            return model.fit(features, codes, sample_weight=weights)
    axes = _coordinates(_products(features))
    with one_blas_thread():
        model.fit(axes, codes, sample_weight=weights)
    of_images = solve_triangular(axes, model.coef_.T, lower=True, trans="T").T
    model.coef_ = of_images.astype(features.dtype) @ features
    model.n_features_in_ = n_features
    return model


def _products(features: np.ndarray) -> np.ndarray:
    """Return the products of all pairs of rows."""
    exact = features.astype(np.float64)
    products: np.ndarray = exact @ exact.T
    return products


def _coordinates(products: np.ndarray) -> np.ndarray:
    """Return lower triangular coordinates of rows with these products.

    Each row has a tiny feature for itself, so that equal images have no equal coordinates.
    """
    products = products + np.diag(np.full(len(products), _PRIVATE))
    lower: np.ndarray = cholesky(products, lower=True, overwrite_a=True, check_finite=False)
    return lower


def _log_losses(
    X: np.ndarray, codes: np.ndarray, weights: np.ndarray, Cs: Sequence[float], folds: Folds
) -> tuple[list[float], list[float]]:
    """Return the mean log loss of held-out rows for each C, up to the first that is worse than the one before.

    The second list has the factor of the logits with which it is that small (temperature scaling). Rows whose class
    does not occur among the training rows are left out.
    """
    runs = [run for fold in folds if (run := _Run.of(X, codes, weights, *fold)) is not None]
    if not runs:
        return [np.inf], [1.0]
    losses: list[float] = []
    factors: list[float] = []
    total = sum(run.test_weights.sum() for run in runs)
    with one_blas_thread():
        for C in Cs:
            logits = [run.logits(C) for run in runs]
            factors.append(_sharpness(runs, logits))
            losses.append(_loss(runs, logits, factors[-1]) / total)
            if len(losses) > 1 and losses[-1] > losses[-2]:
                break
    return losses, factors


def _sharpness(runs: list[_Run], logits: list[np.ndarray]) -> float:
    """Return the factor of the logits with the least log loss of the held-out rows, and of one row of unknown class.

    Without that row, the factor would be infinite if all held-out rows are classified correctly (Platt 1999).
    """
    n = sum(map(len, logits))

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        unknown = sum(float((logsumexp(factor * own, axis=1) - factor * own.mean(axis=1)).sum()) for own in logits)
        return _loss(runs, logits, factor) + unknown / n

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 6), method="bounded", options={"xatol": 0.01}).x))


def _loss(runs: list[_Run], logits: list[np.ndarray], factor: float) -> float:
    return sum(run.loss(factor * own) for run, own in zip(runs, logits, strict=True))


class _Run(NamedTuple):
    """One fold, whose fits go on from that with the C before."""

    model: LogisticRegression
    train: tuple[np.ndarray, np.ndarray, np.ndarray]  # coordinates, codes, weights
    test: np.ndarray
    truth: tuple[np.ndarray, np.ndarray]  # of each held-out row, its number and the column of its class
    test_weights: np.ndarray

    @classmethod
    def of(
        cls, X: np.ndarray, codes: np.ndarray, weights: np.ndarray, train: np.ndarray, test: np.ndarray
    ) -> _Run | None:
        """Return the run, or None if there is nothing to tell apart or to test."""
        known = np.unique(codes[train])
        test = test[np.isin(codes[test], known)]
        if len(known) < 2 or not weights[test].any():
            return None
        model = LogisticRegression(tol=_ROUGH, max_iter=1000, warm_start=True)
        truth = np.arange(len(test)), np.searchsorted(known, codes[test])
        return cls(model, (X[train], codes[train], weights[train]), X[test], truth, weights[test])

    def logits(self, C: float) -> np.ndarray:
        """Return the logits of the held-out rows, one column for each class."""
        X, codes, weights = self.train
        self.model.set_params(C=C).fit(X, codes, sample_weight=weights)
        logits: np.ndarray = self.model.decision_function(self.test).astype(np.float64)
        return logits if logits.ndim == 2 else np.stack([np.zeros_like(logits), logits], axis=1)

    def loss(self, logits: np.ndarray) -> float:
        """Return the sum of the log losses of the held-out rows with these logits."""
        return float(self.test_weights @ (logsumexp(logits, axis=1) - logits[self.truth]))
