"""Which way to use a pretrained network, for these images? The rules of thumb, with measured reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.utils import _safe_indexing, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ._backbones import DEFAULT_BACKBONE
from ._costs import expected_seconds, sample_rows
from ._features import PretrainedCNNFeatures
from ._images import as_images
from ._ranking import PROBE_C
from ._strategies import LINEAR, make_strategies

N_PROBED = 600  # images whose features are looked at
FEW = 500  # below, fine-tuning does not pay; docs/benchmarks/accuracy.md has the learning curves
FAR = 0.06  # skill that early stages add to the last one
SOLVED = 0.97  # skill of the linear probe that leaves nothing to gain


@dataclass(frozen=True)
class Recommendation:
    """What `recommend_strategy` advises, and why.

    Attributes
    ----------
    strategy : str
        A name in `make_strategies`.
    estimator : estimator
        Ready to fit.
    reasons : list of str
        In words, one for each fact that counted.
    n_images, n_classes : int
    smallest_class, largest_class : int
        Images in them.
    image_sizes : tuple of (int, int)
        Smallest and largest shorter side in pixels, of a sample.
    skill : float
        Of a linear model on the network's features, cross-validated: 0 is guessing the largest class, 1 is perfect.
    domain_gap : float
        How much skill early stages add to the last one. On images like those the network was trained on, the last
        stage knows best; the farther the images, the more is lost on the way to it.
    minutes : dict of str to float
        Expected time to fit each strategy once on this machine, by a short trial.
    """

    strategy: str
    estimator: BaseEstimator
    reasons: list[str]
    n_images: int
    n_classes: int
    smallest_class: int
    largest_class: int
    image_sizes: tuple[int, int]
    skill: float
    domain_gap: float
    minutes: dict[str, float]

    def summary(self) -> str:
        """Return the advice, the reasons and the times in words."""
        lines = [f"Recommended: {self.strategy}", "", *(f"- {reason}" for reason in self.reasons), ""]
        lines += ["Expected minutes for one fit on this machine:"]
        lines += [f"  {minutes:6.1f}  {name}" for name, minutes in self.minutes.items()]
        return "\n".join([*lines, "", "compare_strategies tries them on the same folds."])


def recommend_strategy(
    X: Any,
    y: Any,
    *,
    backbone: str = DEFAULT_BACKBONE,
    augment: Any = None,
    random_state: int = 0,
    **params: Any,
) -> Recommendation:
    """Advise how to use a pretrained network for these images.

    A linear model is cross-validated on the features of up to 600 of the images, once on those of the last stage and once
    on those of every stage. From its skill, from what early stages add to it (the gap between these images and those
    that the network was trained on), and from the number of images follows what is likely to pay. The features are
    stored, so a fit that follows does not compute them again.

    Parameters
    ----------
    X : images
        Anything that `PretrainedCNNFeatures` accepts.
    y : array-like of shape (n_images,)
        Labels.
    backbone : str, default="efficientnet_lite0"
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        The random changes that suit the images, for the estimators that train stages.
    random_state : int, default=0
    **params
        Parameters that `PretrainedCNNFeatures` and `FineTunedCNNClassifier` share, such as `memory` or `image_size`.

    Returns
    -------
    Recommendation

    Examples
    --------
    >>> from sktransfer import recommend_strategy
    >>> advice = recommend_strategy(X, y, augment="photo")  # doctest: +SKIP
    >>> print(advice.summary())  # doctest: +SKIP
    >>> advice.estimator.fit(X, y)  # doctest: +SKIP
    """
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    check_classification_targets(y)
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(
            f"There are {len(counts)} class(es), the smallest with {counts.min()} image(s). "
            "A recommendation needs two classes of at least two images each."
        )
    rows = sample_rows(y, N_PROBED, random_state)
    sample, labels = _safe_indexing(X, rows), y[rows]
    skill, gap = _probe(sample, labels, {"backbone": backbone, **params}, random_state)

    strategies = make_strategies(backbone, augment=augment, random_state=random_state, **params)
    minutes = {name: expected_seconds(strategies[name], X, y, len(y)) / 60 for name in strategies}
    strategy, reasons = _advice(list(strategies), len(y), counts, skill, gap, augment)
    return Recommendation(
        strategy=strategy,
        estimator=strategies[strategy],
        reasons=reasons,
        n_images=len(y),
        n_classes=len(counts),
        smallest_class=int(counts.min()),
        largest_class=int(counts.max()),
        image_sizes=_shorter_sides(sample, params),
        skill=skill,
        domain_gap=gap,
        minutes=minutes,
    )


def _probe(X: Any, y: np.ndarray, params: dict[str, Any], random_state: int) -> tuple[float, float]:
    """Return the skill of a linear model on every stage's features, and how much it is ahead of the last stage's."""
    counts = np.unique(y, return_counts=True)[1]
    folds = StratifiedKFold(min(5, max(2, int(counts.min()))), shuffle=True, random_state=random_state)
    chance = counts.max() / len(y)
    skills = []
    for layer in ("all", "penultimate"):
        features = PretrainedCNNFeatures(**{**params, "layer": layer, "normalize": True}).fit_transform(X)
        accuracy = cross_val_score(LogisticRegression(C=PROBE_C, max_iter=1000), features, y, cv=folds).mean()
        skills.append((accuracy - chance) / (1 - chance))
    return float(skills[0]), float(skills[0] - skills[1])


def _advice(
    strategies: list[str], n: int, counts: np.ndarray, skill: float, gap: float, augment: Any
) -> tuple[str, list[str]]:
    """Return the name of a strategy and the reasons."""
    deep, middle, _ = (name for name in strategies if name.startswith("fine-tuned"))
    reasons = [f"{n} images in {len(counts)} classes of {counts.min()} to {counts.max()}."]
    distance = "far from" if gap > FAR else "near"
    reasons.append(
        f"A linear model on the network's features gets {skill:.0%} of the way from guessing to perfect; stages before the "
        f"last add {gap:+.0%} of that: the images are {distance} those the network was trained on."
    )
    if skill > SOLVED:
        strategy = LINEAR
        reasons.append("That leaves nothing that training the network could gain.")
    elif n < FEW and gap <= FAR:
        strategy = LINEAR
        reasons.append(f"Under {FEW} images of a near domain, training the network itself seldom gains anything.")
    else:
        strategy = middle
        reasons.append(
            "So many images can teach the later stages"
            + (", and far from the network's own domain they have to learn most." if gap > FAR else ".")
        )
        if augment is None:
            reasons.append("augment=None: name the changes that your images may undergo, such as augment='photo'.")
    if counts.max() > 5 * counts.min():
        reasons.append("The classes are uneven: look at balanced accuracy, and consider class_weight='balanced'.")
    return strategy, reasons


def _shorter_sides(X: Any, params: dict[str, Any], n: int = 50) -> tuple[int, int]:
    images = as_images(
        X, image_shape=params.get("image_shape"), value_range=params.get("value_range", "auto")
    )
    sides = [min(images[i].shape[:2]) for i in np.unique(np.linspace(0, len(images) - 1, n).astype(int))]
    return min(sides), max(sides)
