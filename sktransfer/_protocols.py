"""What helpers may read of an estimator, and no more.

scikit-learn's ``BaseEstimator`` says nothing of an estimator's parameters. These protocols name them, so that a type
checker finds a helper that reads something else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from ._finetuning._training import TunedNet
    from ._frozen._augmentation import Augmentation
    from ._frozen._backbones import Backbone

Auto: TypeAlias = Literal["auto"]
History: TypeAlias = list[dict[str, float]]
StrPath: TypeAlias = str | os.PathLike[str]


class TakesImages(Protocol):
    """An estimator that says how to understand what users call images."""

    image_shape: Sequence[int] | None
    value_range: str | Sequence[float]


class ReadsImages(TakesImages, Protocol):
    """An estimator that turns what users call images into activations of a backbone."""

    backbone: str
    weights: StrPath | None
    image_size: int | Sequence[int] | None
    crop: bool | Auto
    resize: str
    batch_size: int
    precision: str
    device: str
    memory: Any
    n_jobs: int | None
    verbose: int


class FineTunes(ReadsImages, Protocol):
    """An estimator that trains the stages after a cut, and a new head."""

    lr: float | Auto
    lr_factor: float
    max_epochs: int | Auto
    augment: str | Augmentation | None
    n_views: int | None
    tta: int | Auto
    tune: str
    head_hidden: Sequence[int]
    dropout: float
    weight_decay: float
    early_stopping: bool | int
    validation_fraction: float
    callbacks: list[Any] | None
    net_params: dict[str, Any] | None
    random_state: int | np.random.RandomState | None


class Tuned(FineTunes, Protocol):
    """The same, fitted."""

    classes_: np.ndarray
    net_: TunedNet
    history_: History
    n_frozen_stages_: int

    def _fitted_backbone(self) -> Backbone: ...


class Classifies(Protocol):
    """Any fitted classifier that gives probabilities."""

    classes_: np.ndarray

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, in their order."""


class Searched(Protocol):
    """A fitted search of scikit-learn for parameters."""

    cv_results_: dict[str, Any]
    estimator: Any
    refit: Any
    scoring: Any
