"""The usual ways to use a pretrained network for other images. Each is an estimator with a name."""

from __future__ import annotations

from typing import Any, NamedTuple

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from .._classifier import FineTunedCNNClassifier
from .._feature_classifier import make_feature_classifier
from .._features import PretrainedCNNFeatures
from .._frozen._backbones import DEFAULT_BACKBONE, load_backbone
from .._linear import CheckedGridSearchCV

LINEAR, SVM, DENSE = "features + linear", "features + SVM", "dense head"
SHALLOW, SCRATCH = "shallow from scratch", "from scratch"
N_VIEWS = 8  # stored views of each image; see STRAT-04 in docs/design/strategies.md


class Strategy(NamedTuple):
    """A way to apply a pretrained network: an unfitted estimator with a name."""

    name: str
    estimator: BaseEstimator
    depth: int | None = None  # number of frozen stages of a fine-tuned network; None for other strategies


def make_strategies(
    backbone: str = DEFAULT_BACKBONE, *, augment: Any = None, random_state: int = 0, **params: Any
) -> dict[str, BaseEstimator]:
    """Return the usual ways to use a pretrained network for other images, in the order in which to try them.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        The network; `list_backbones` names them all.
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        Augmentation for the strategies that train stages, as in `FineTunedCNNClassifier`. Eight views of each image
        are stored, so that frozen stages run once for all folds.
    random_state : int, default=0
        Seed of the training.
    **params
        Parameters that `PretrainedCNNFeatures` and `FineTunedCNNClassifier` share, such as `image_size`, `image_shape`,
        `value_range`, `memory`, `weights`, or `n_jobs`, the number of threads that decode images.

    Returns
    -------
    strategies : dict of str to estimator
        ``"features + linear"`` is `make_feature_classifier`. ``"features + SVM"`` has the same features and a kernel,
        but no probabilities. ``"dense head"`` has 256 units on the frozen network. ``"fine-tuned, freeze=k"`` trains
        the last half of the stages, the last quarter, or all. ``"shallow from scratch"`` is a CNN of four layers.
        ``"from scratch"`` is the backbone without its weights. You may add or delete strategies before you pass the
        dict to `compare_strategies`.

    Raises
    ------
    ValueError
        If one of `params` is not a parameter of both estimators.
    UnknownBackboneError
        If the backbone does not exist.

    Examples
    --------
    >>> from sktransfer import make_strategies
    >>> list(make_strategies(augment="photo"))[:4]
    ['features + linear', 'features + SVM', 'dense head', 'fine-tuned, freeze=4']
    """
    return {
        strategy.name: strategy.estimator
        for strategy in candidates(backbone, augment=augment, random_state=random_state, **params)
    }


def candidates(backbone: str, *, augment: Any, random_state: int, **params: Any) -> list[Strategy]:
    """Return the strategies of `make_strategies`, with the freeze depth of those that are fine-tuned."""
    common = PretrainedCNNFeatures().get_params().keys() & FineTunedCNNClassifier().get_params().keys()
    unknown = sorted(params.keys() - common)
    if unknown:
        raise ValueError(
            f"There is no parameter {unknown[0]!r} that all strategies share. They share {sorted(common)}."
        )
    shared = {"backbone": backbone, **params}
    tuned = {"augment": augment, "n_views": None if augment is None else N_VIEWS, "random_state": random_state}
    n_stages = len(load_backbone(backbone, None).stages)
    depths = dict.fromkeys([n_stages // 2, n_stages * 3 // 4, 0])  # the first is advised most often
    fine_tuned = [
        Strategy(f"fine-tuned, freeze={depth}", FineTunedCNNClassifier(**shared, **tuned, freeze=depth), depth)
        for depth in depths
    ]
    features = PretrainedCNNFeatures(**{**shared, "layer": "all", "pooling": "avgstd", "normalize": True})
    svm = CheckedGridSearchCV(SVC(), {"C": [1, 10, 100]}, cv=3)
    # It crops as the linear model does, so that the features are computed once for both.
    dense = {"crop": True, **shared, "freeze": "all", "head_hidden": (256,), "random_state": random_state}
    scratch = {**shared, **tuned, "weights": None, "n_views": None}
    return [
        Strategy(LINEAR, make_feature_classifier(**shared, cv=3)),
        Strategy(SVM, Pipeline([("features", features), ("classifier", svm)])),
        Strategy(DENSE, FineTunedCNNClassifier(**dense)),
        *fine_tuned[:-1],
        Strategy(SHALLOW, FineTunedCNNClassifier(**{**scratch, "backbone": "shallow_cnn"})),
        fine_tuned[-1],
        Strategy(SCRATCH, FineTunedCNNClassifier(**scratch)),
    ]
