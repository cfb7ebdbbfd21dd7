"""Which backbone, and which of its stages, suits these images? A linear probe on stored features tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import StrOptions, validate_params

from ._backbones import DEFAULT_BACKBONE
from ._costs import pilot_rows, sample_rows, seconds_of_features
from ._extraction import progress_bar
from ._features import PretrainedCNNFeatures
from ._inputs import check_folds, check_labels
from ._linear import OneThreadLogisticRegression

PROBE_C = 100.0  # for features of norm 1; 1,000 was worse on ELPV, clothing, wallpaper groups and Fashion-MNIST


class RankedBackbone(NamedTuple):
    """One line of `rank_backbones`.

    Attributes
    ----------
    backbone : str
    layer : str
        ``"stage5"``, ``"penultimate"`` or ``"all"``.
    score : float
        Mean cross-validated accuracy of the probe, or LogME.
    spread : float
        Standard deviation over folds; nan for LogME.
    milliseconds : float
        To compute the features of one image on this machine.
    """

    backbone: str
    layer: str
    score: float
    spread: float
    milliseconds: float


RankedBackbone.__module__ = "sktransfer"


@validate_params(
    {"method": [StrOptions({"linear_probe", "logme"})]},
    prefer_skip_nested_validation=True,
)
def rank_backbones(
    X: Any,
    y: Any,
    backbones: Sequence[str] = (DEFAULT_BACKBONE,),
    layers: Sequence[str] = ("penultimate", "all"),
    *,
    method: str = "linear_probe",
    cv: int = 5,
    max_images: int | None = 500,
    random_state: int = 0,
    verbose: int = 0,
    **params: Any,
) -> list[RankedBackbone]:
    """Rank backbones and layers by how well a linear model tells the classes apart on their features.

    Parameters
    ----------
    X : images
        Anything that `PretrainedCNNFeatures` accepts.
    y : array-like of shape (n_images,)
        Labels.
    backbones : sequence of str, default=("efficientnet_lite0",)
        Names, as in `list_backbones`.
    layers : sequence of str, default=("penultimate", "all")
        Stages of each; see `PretrainedCNNFeatures`.
    method : {"linear_probe", "logme"}, default="linear_probe"
        The cross-validated accuracy of a logistic regression, the most reliable cheap score; or LogME [1]_, the
        evidence of a linear model, without a fit for each fold.
    cv : int, default=5
        Folds of the linear probe.
    max_images : int or None, default=500
        Look at a sample of so many images, stratified; None looks at all.
    random_state : int, default=0
        Of the sample and of the folds.
    verbose : int, default=0
        1 shows a progress bar.
    **params
        Further parameters of `PretrainedCNNFeatures`, such as `memory` or `image_shape`.

    Returns
    -------
    ranking : list of RankedBackbone
        The best first. ``pandas.DataFrame(ranking)`` makes a table of it.

    Notes
    -----
    Scores that lie within two spreads of each other are ties: on 900 photos this put all pairs in order that a full
    cross-validation tells apart, in a tenth of its time, and the others by chance (``benchmarks/ranking.py``).

    References
    ----------
    .. [1] K. You, Y. Liu, J. Wang, M. Long, "LogME: practical assessment of pre-trained models for transfer
       learning", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import rank_backbones
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> ranking = rank_backbones(
    ...     X[:90], y[:90], layers=["stage2", "penultimate"], image_shape=(8, 8), value_range=(0, 16), image_size=64
    ... )
    >>> sorted(row.layer for row in ranking)
    ['penultimate', 'stage2']
    """
    y = check_labels(X, y)
    rows = sample_rows(y, len(y) if max_images is None else max_images, random_state)
    images, labels = _safe_indexing(X, rows), y[rows]
    if method == "linear_probe":
        check_folds(labels, cv)
    pilot = _safe_indexing(X, pilot_rows(y))
    backbones = [backbones] if isinstance(backbones, str) else backbones
    layers = [layers] if isinstance(layers, str) else layers
    ranking = []
    with progress_bar(len(backbones) * len(layers), "Ranking backbones", verbose) as bar:
        bar.unit = "layer"
        for backbone in backbones:
            every = PretrainedCNNFeatures(**{**params, "backbone": backbone, "layer": "all", "normalize": True})
            milliseconds = 1000 * seconds_of_features(every, pilot, anew=True)
            every.fit_transform(images)  # the features of every stage are stored; those of some are found in there
            for layer in layers:
                features = clone(every).set_params(layer=layer).fit_transform(images)
                if method == "logme":
                    score, spread = logme(features, labels), np.nan
                else:
                    folds = StratifiedKFold(cv, shuffle=True, random_state=random_state)
                    scores = cross_val_score(
                        OneThreadLogisticRegression(C=PROBE_C, max_iter=1000),
                        features,
                        labels,
                        cv=folds,
                        error_score="raise",
                    )
                    score, spread = scores.mean(), scores.std(ddof=1)
                ranking.append(RankedBackbone(backbone, layer, float(score), float(spread), milliseconds))
                bar.update()
    return sorted(ranking, key=lambda row: -row.score)


def logme(features: np.ndarray, labels: np.ndarray, n_iterations: int = 100) -> float:
    """Return the log marginal evidence of a linear model, per image and class.

    For each class a Bayesian ridge regression of "is this class" on the features; its two precisions are found by
    MacKay's fixed point (You et al. 2021, algorithm 1), after one singular value decomposition for all classes.
    """
    features = np.asarray(features, dtype=np.float64)
    n, d = features.shape
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    sigma = s**2
    evidences = []
    for label in np.unique(labels):
        target = (labels == label).astype(np.float64)
        projected = u.T @ target
        outside = max(0.0, target @ target - projected @ projected)
        alpha = beta = 1.0  # precisions of the weights and of the noise
        for _ in range(n_iterations):
            shrunk = alpha + beta * sigma
            gamma = (beta * sigma / shrunk).sum()
            weights = (beta * s * projected / shrunk) ** 2
            residual = ((alpha * projected / shrunk) ** 2).sum() + outside
            alpha, beta = gamma / max(weights.sum(), 1e-12), (n - gamma) / max(residual, 1e-12)
        shrunk = alpha + beta * sigma
        weights = ((beta * s * projected / shrunk) ** 2).sum()
        residual = ((alpha * projected / shrunk) ** 2).sum() + outside
        log_determinant = np.log(shrunk).sum() + (d - len(sigma)) * np.log(alpha)
        evidence = d * np.log(alpha) + n * np.log(beta) - n * np.log(2 * np.pi)
        evidences.append((evidence - beta * residual - alpha * weights - log_determinant) / (2 * n))
    return float(np.mean(evidences))
