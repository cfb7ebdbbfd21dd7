"""Advice on how to use a pretrained network for given images: rules of thumb, with the measurements behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import normalize

from .._features import PretrainedCNNFeatures
from .._frozen._backbones import DEFAULT_BACKBONE, load_backbone
from .._images._collection import as_images
from .._linear import OneThreadLogisticRegression
from .._sklearn_compat import num_samples, safe_indexing
from .._validated import validated
from .._validation import check_class_sizes, check_labels
from ._candidates import LINEAR, SCRATCH, Strategy, candidates
from ._failures import in_a_line, raise_if_images_are_bad
from ._fit_times import measure_cost
from ._ranking import PROBE_C
from ._sampling import sample_rows

N_PROBED = 600  # images whose features are used
MOST_FOLDS = 5
LEAST_SKILL = 0.02  # below this skill the distance means nothing, however many images there are

# docs/design/strategies.md explains FEW, SOME and MANY in STRAT-09, and FAR and SOLVED in STRAT-08. FEW and FAR rest on
# measurements, the others on the literature alone.
FEW = 100  # images; with fewer, training the network itself is not worth its time
SOME = 5_000  # images of a far domain that can teach all stages
MANY = 50_000  # images of a far domain that can teach a network everything
FAR = 0.7  # skill of the first half divided by skill of the last stage; clothes 0.57, wallpaper 0.79, solar cells 0.93
SOLVED = 0.97  # skill that leaves nothing to gain
UNEVEN = 5  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class Recommendation:
    """What `recommend_strategy` advises, and why.

    Attributes
    ----------
    strategy : str
        A name in `make_strategies`.
    estimator : estimator
        The strategy as an estimator, ready to fit.
    reasons : list of str
        One sentence or more for each fact behind the advice.
    n_images, n_classes : int
        Number of images and of classes.
    smallest_class, largest_class : int
        Number of images in these classes.
    image_sizes : tuple of (int, int)
        Smallest and largest shorter side in pixels, of a sample.
    skill : float
        Cross-validated skill of a linear model on the network's last features: 0 is guessing the largest class, 1 is
        perfect.
    distance : float
        How unlike ImageNet the images are, from 0 to about 1: skill of the features of the first half of the stages
        divided by `skill`. The first half detects edges and textures, which all images have. The second half detects
        parts of objects in photos, so it adds most to images that resemble photos. The distance is nan if the features
        are no better than guessing, which means that `skill` is at most twice its standard error, or at most 0.02.
    minutes : dict of str to float
        Expected time to fit each strategy once on this machine with an empty store, from a short trial. The time that
        a linear model or an SVM takes after the features is not included.
    left_out : dict of str to str
        The strategies whose trial failed, and why.

    See Also
    --------
    recommend_strategy : Makes one.

    Examples
    --------
    >>> from sktransfer import recommend_strategy
    >>> advice = recommend_strategy(X, y)  # doctest: +SKIP
    >>> advice.strategy, advice.n_images  # doctest: +SKIP
    ('fine-tuned, freeze=4', 300)
    """

    __module__ = "sktransfer"

    strategy: str
    estimator: BaseEstimator
    reasons: list[str]
    n_images: int
    n_classes: int
    smallest_class: int
    largest_class: int
    image_sizes: tuple[int, int]
    skill: float
    distance: float
    minutes: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Return the advice, the reasons and the times in words.

        Returns
        -------
        summary : str
            Several lines, to be printed.
        """
        lines = [f"Recommended: {self.strategy}", "", *(f"- {reason}" for reason in self.reasons), ""]
        lines += ["Expected minutes for one fit on this machine:"]
        lines += [f"  {minutes:6.1f}  {name}" for name, minutes in self.minutes.items()]
        lines += [f"  {'–':>6}  {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join([*lines, "", "compare_strategies tries them on the same folds."])


@validated(lambda sk: {"backbone": [str], "random_state": [Integral]})
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

    The advice depends on the number of images, on how well a linear model on the network's features separates the
    classes, and on how unlike ImageNet the images are. To measure this on up to 600 images, a linear model is
    cross-validated on the features of the last stage, and on those of the first half of the stages. The features are
    stored, so a later fit does not compute them again.

    Parameters
    ----------
    X : images
        Anything that `PretrainedCNNFeatures` accepts.
    y : array-like of shape (n_images,)
        Labels.
    backbone : str, default="efficientnet_lite0"
        The network; `list_backbones` names them all.
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        Random changes that suit the images, for the estimators that train stages.
    random_state : int, default=0
        Seed of the sample, the folds and the training.
    **params
        Further parameters of `make_strategies`, such as `memory`, `image_size` or `image_shape`.

    Returns
    -------
    Recommendation
        It holds the ``estimator`` and the ``reasons``, and has the method ``summary``.

    Raises
    ------
    LabelError
        If a label is missing, if there is only one class, or if a class has only one image.
    ImageError
        If images of the sample cannot be read. The message lists them.

    See Also
    --------
    compare_strategies : Measures instead of advising.

    Notes
    -----
    The rules are simple and rest on few measurements (STRAT-08 to STRAT-10 in ``docs/design/strategies.md``).
    `compare_strategies` measures which strategy is best for your images.

    Examples
    --------
    >>> from sktransfer import recommend_strategy
    >>> advice = recommend_strategy(X, y, augment="photo")  # doctest: +SKIP
    >>> print(advice.summary())  # doctest: +SKIP
    >>> advice.estimator.fit(X, y)  # doctest: +SKIP
    """
    y = check_labels(y, num_samples(X))
    check_class_sizes(y, 2, "A recommendation", "Add images, or leave that class out.")
    counts = np.unique(y, return_counts=True)[1]
    strategies = candidates(backbone, augment=augment, random_state=random_state, **params)
    rows = sample_rows(y, N_PROBED, random_state, least=MOST_FOLDS)
    sample = safe_indexing(X, rows)
    skill, distance = _probe(sample, y[rows], {"backbone": backbone, **params}, random_state)
    sizes = _shorter_sides(sample, params)
    minutes, left_out = _trials(strategies, X, y)
    strategy, reasons = _advice(strategies, counts, skill, distance)
    if strategy.name in left_out:
        reasons.append(f"{strategy.name!r} would be advised, but its trial {left_out[strategy.name]}")
        strategy = next((other for other in strategies if other.name in minutes), strategies[0])
    if strategy.depth is not None and augment is None:
        reasons.append("Set augment to random changes that keep the class, such as augment='photo': it learns more.")
    if counts.max() > UNEVEN * counts.min():
        reasons.append("The classes are uneven: look at balanced accuracy, and consider class_weight='balanced'.")
    seen = min(load_backbone(backbone, None).with_image_size(params.get("image_size")).preprocessing.size)
    if sizes[1] < seen / 2:
        reasons.append(
            f"Shorter sides are at most {sizes[1]} pixels and are enlarged to {seen}: a smaller image_size is faster."
        )
    return Recommendation(
        strategy=strategy.name,
        estimator=strategy.estimator,
        reasons=reasons,
        n_images=len(y),
        n_classes=len(counts),
        smallest_class=int(counts.min()),
        largest_class=int(counts.max()),
        image_sizes=sizes,
        skill=skill,
        distance=distance,
        minutes=minutes,
        left_out=left_out,
    )


def _trials(strategies: list[Strategy], X: Any, y: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    """Return the minutes that each strategy is expected to take, and the reasons of those that failed."""
    minutes, left_out = {}, {}
    for name, estimator, _ in strategies:
        try:
            cost = measure_cost(estimator, X, y, anew=True)
            minutes[name] = cost.seconds(estimator, len(y), [len(y)], []) / 60
        except Exception as error:
            raise_if_images_are_bad(error)
            left_out[name] = f"failed: {in_a_line(error)}"
    return minutes, left_out


def _probe(X: Any, y: np.ndarray, params: dict[str, Any], random_state: int) -> tuple[float, float]:
    """Return the skill of a linear model on the last stage's features, and the distance."""
    counts = np.unique(y, return_counts=True)[1]
    folds = StratifiedKFold(min(MOST_FOLDS, int(counts.min())), shuffle=True, random_state=random_state)
    # All stages run at once, so that the features that "features + linear" needs are stored. Means are used here.
    transformer = PretrainedCNNFeatures(**{**params, "layer": "all", "pooling": "avgstd"})
    features = transformer.fit_transform(X)
    means = [normalize(features[:, stage[0]]) for stage in transformer.stage_columns_]
    first_half, last = np.hstack(means[: len(means) // 2]), means[-1]
    probe = OneThreadLogisticRegression(C=PROBE_C, max_iter=1000)
    accuracies = [
        float(cross_val_score(probe, part, y, cv=folds, error_score="raise").mean()) for part in (last, first_half)
    ]
    return _skill_and_distance(*accuracies, chance=counts.max() / len(y), n=len(y))


def _skill_and_distance(accuracy: float, of_first_half: float, *, chance: float, n: int) -> tuple[float, float]:
    """Return both, from cross-validated accuracies of n images; the distance is nan where there is no skill.

    Without skill, the distance would be noise divided by noise.
    """
    skill, first = ((value - chance) / (1 - chance) for value in (accuracy, of_first_half))
    error = np.sqrt(accuracy * (1 - accuracy) / n) / (1 - chance)
    return skill, max(0.0, first) / skill if skill > max(2 * error, LEAST_SKILL) else np.nan


def _advice(
    strategies: list[Strategy], counts: np.ndarray, skill: float, distance: float
) -> tuple[Strategy, list[str]]:
    """Return a strategy and the reasons for it."""
    n = int(counts.sum())
    named = {strategy.name: strategy for strategy in strategies}
    linear, scratch = named[LINEAR], named[SCRATCH]
    by_depth = {strategy.depth: strategy for strategy in strategies if strategy.depth is not None}
    whole, half = (by_depth[depth] for depth in sorted(by_depth)[:2])
    reasons = [f"{n} images in {len(counts)} classes of {counts.min()} to {counts.max()}."]
    if np.isnan(distance):
        return linear, [
            *reasons,
            "The features separate these classes no better than guessing: are the labels right? The distance of the "
            "images from those that the network was trained on cannot be measured.",
            "Check the labels before you train anything that takes longer.",
        ]
    far = distance > FAR
    reasons.append(
        f"A linear model on the network's features gets {skill:.0%} of the way from guessing to perfect. The first "
        f"half of the network gets {distance:.0%} of that alone: the images are {'far from' if far else 'near'} those "
        "it was trained on."
    )
    if skill > SOLVED:
        return linear, [*reasons, "Training the network could hardly improve on that."]
    if n < FEW:
        return linear, [*reasons, f"Under {FEW} images, training the network itself is seldom worth its time."]
    if not far or n < SOME:
        reasons.append(
            "You have enough images to fine-tune the second half of the network; keep the first half frozen."
        )
        return half, reasons
    if n < MANY:
        reasons.append("You have enough images to fine-tune every stage, at a tenth of the learning rate of the head.")
        return whole, reasons
    return scratch, [*reasons, "You have enough images to train a network from scratch."]


def _shorter_sides(X: Any, params: dict[str, Any], n: int = 50) -> tuple[int, int]:
    images = as_images(X, image_shape=params.get("image_shape"), value_range=params.get("value_range", "auto"))
    sides = [min(images[i].shape[:2]) for i in np.unique(np.linspace(0, len(images) - 1, n).astype(int))]
    return min(sides), max(sides)
