"""Rank backbones and their stages for given images, by a linear probe on stored features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_score

from .._features import PretrainedCNNFeatures
from .._frozen._backbones import DEFAULT_BACKBONE
from .._linear import OneThreadLogisticRegression
from .._progress import progress_bar
from .._sklearn_compat import num_samples, safe_indexing
from .._validated import validated
from .._validation import check_folds, check_labels
from ._failures import in_a_line, raise_all, raise_if_images_are_bad
from ._fit_times import seconds_of_features
from ._sampling import pilot_rows, sample_rows

PROBE_C = 100.0  # for features of norm 1; 1,000 was worse on ELPV, clothing, wallpaper groups and Fashion-MNIST


class RankedBackbone(NamedTuple):
    """One line of `rank_backbones`.

    Attributes
    ----------
    backbone : str
        A name in `list_backbones`.
    layer : str
        ``"stage5"``, ``"penultimate"`` or ``"all"``.
    score : float
        Mean cross-validated accuracy of the probe, or LogME.
    spread : float
        Standard deviation over folds; nan for LogME.
    milliseconds : float
        Time to compute the features of one image on this machine.

    See Also
    --------
    rank_backbones : Makes a list of them.

    Examples
    --------
    >>> from sktransfer import RankedBackbone
    >>> row = RankedBackbone("efficientnet_lite0", "all", 0.86, 0.02, 14.3)
    >>> row.layer, row.score
    ('all', 0.86)
    """

    backbone: str
    layer: str
    score: float
    spread: float
    milliseconds: float


RankedBackbone.__module__ = "sktransfer"


@validated(
    lambda sk: {
        "backbones": [str, "array-like"],
        "layers": [str, "array-like"],
        "method": [sk.StrOptions({"linear_probe", "logme"})],
        "max_images": [sk.Interval(Integral, 1, None, closed="left"), None],
        "random_state": [Integral],
        "verbose": ["verbose"],
    }
)
def rank_backbones(
    X: Any,
    y: Any,
    backbones: str | Sequence[str] = (DEFAULT_BACKBONE,),
    layers: str | Sequence[str] = ("penultimate", "all"),
    *,
    method: str = "linear_probe",
    cv: int = 5,
    max_images: int | None = 500,
    random_state: int = 0,
    verbose: int = 0,
    **params: Any,
) -> list[RankedBackbone]:
    """Rank backbones and layers by how well a linear model on their features separates the classes.

    Parameters
    ----------
    X : images
        Anything that `PretrainedCNNFeatures` accepts.
    y : array-like of shape (n_images,)
        Labels.
    backbones : str or sequence of str, default=("efficientnet_lite0",)
        Names, as in `list_backbones`.
    layers : str or sequence of str, default=("penultimate", "all")
        Layers of each backbone, as in `PretrainedCNNFeatures`.
    method : {"linear_probe", "logme"}, default="linear_probe"
        ``"linear_probe"`` is the cross-validated accuracy of a logistic regression, the most reliable cheap score.
        ``"logme"`` is LogME [1]_, the evidence of a linear model, which needs no fit for each fold.
    cv : int, default=5
        Number of folds of the linear probe.
    max_images : int or None, default=500
        Size of the stratified sample that is used. It holds at least `cv` images of each class. None uses all images.
    random_state : int, default=0
        Seed of the sample and of the folds.
    verbose : int, default=0
        1 shows a progress bar.
    **params
        Further parameters of `PretrainedCNNFeatures`, such as `memory` or `image_shape`.

    Returns
    -------
    ranking : list of RankedBackbone
        The rows, the best first. ``pandas.DataFrame(ranking)`` makes a table of them.

    Raises
    ------
    LabelError
        If a label is missing, if there is only one class, or if a class has fewer images than there are folds.
    ImageError
        If images cannot be read. The message lists them.
    TrainingError
        If every backbone fails. The message gives all reasons. If all fail for the same reason, that error is raised.

    Warns
    -----
    UserWarning
        If a backbone or a layer fails. The message names it and the reason; the others are ranked.

    Notes
    -----
    Scores within two spreads of each other are ties. On 900 photos, the ranking put all pairs in the right order that
    a full cross-validation can separate, in a tenth of its time. The other pairs were in random order
    (``benchmarks/ranking.py``).

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
    y = check_labels(y, num_samples(X))
    if method == "linear_probe":
        check_folds(y, cv)
    rows = sample_rows(y, len(y) if max_images is None else max_images, random_state, least=cv)
    images, labels = safe_indexing(X, rows), y[rows]
    pilot = safe_indexing(images, pilot_rows(labels))
    backbones = [backbones] if isinstance(backbones, str) else backbones
    layers = [layers] if isinstance(layers, str) else layers
    features = PretrainedCNNFeatures(**{**params, "layer": "all", "normalize": True})
    folds = StratifiedKFold(cv, shuffle=True, random_state=random_state)
    ranking: list[RankedBackbone] = []
    errors: dict[str, Exception] = {}
    with progress_bar(len(backbones) * len(layers), "Ranking backbones", verbose) as bar:
        bar.unit = "layer"
        for backbone in backbones:
            every = clone(features).set_params(backbone=backbone)
            try:
                milliseconds = 1000 * seconds_of_features(every, pilot, anew=True)
                every.fit_transform(images)  # this stores the features of every stage, so any layer finds its own
            except Exception as error:
                raise_if_images_are_bad(error)
                errors[repr(backbone)] = error
                bar.update(len(layers))
                continue
            for layer in layers:
                try:
                    score, spread = _score(clone(every).set_params(layer=layer), images, labels, method, folds)
                    ranking.append(RankedBackbone(backbone, layer, score, spread, milliseconds))
                except Exception as error:
                    raise_if_images_are_bad(error)
                    errors[f"{backbone!r}, {layer!r}"] = error
                bar.update()
    if not ranking and errors:
        raise_all("No backbone could be ranked", errors)
    if errors:
        lines = "\n".join(f"{name}: {in_a_line(error)}" for name, error in errors.items())
        warnings.warn(f"These could not be ranked:\n{lines}", stacklevel=3)
    return sorted(ranking, key=lambda row: -row.score)


def _score(
    features: PretrainedCNNFeatures, images: Any, labels: np.ndarray, method: str, folds: StratifiedKFold
) -> tuple[float, float]:
    """Return the score of one layer, and its spread over the folds."""
    values = features.fit_transform(images)
    if method == "logme":
        return logme(values, labels), np.nan
    probe = OneThreadLogisticRegression(C=PROBE_C, max_iter=1000)
    scores = cross_val_score(probe, values, labels, cv=folds, error_score="raise")
    return float(scores.mean()), float(scores.std(ddof=1))


def logme(features: np.ndarray, labels: np.ndarray, n_iterations: int = 100) -> float:
    """Return the log marginal evidence of a linear model, per image and class.

    For each class, a Bayesian ridge regression predicts "is this class" from the features. MacKay's fixed point finds
    its two precisions (You et al. 2021, algorithm 1), after one singular value decomposition for all classes.
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
