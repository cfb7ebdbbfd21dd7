"""What helpers may read of an estimator, and no more.

scikit-learn's ``BaseEstimator`` says nothing of an estimator's parameters. These protocols name them, so that a type
checker finds a helper that reads something else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol


class ReadsImages(Protocol):
    """An estimator that turns what users call images into activations of a backbone."""

    backbone: str
    weights: str | os.PathLike[str] | None
    image_size: int | Sequence[int] | None
    crop: bool | str
    image_shape: Sequence[int] | None
    value_range: str | Sequence[float]
    batch_size: int
    precision: str
    device: str
    memory: Any
    n_jobs: int | None
    verbose: int


class FineTunes(ReadsImages, Protocol):
    """An estimator that trains the stages after a cut, and a new head."""

    freeze: int | str
    lr: float | str
    lr_factor: float
    max_epochs: int | str
    augment: Any
    n_views: int | None
    tta: int | str
    head_hidden: Sequence[int]
    dropout: float
    weight_decay: float
    class_weight: Any
    early_stopping: bool | int
    validation_fraction: float
    callbacks: list[Any] | None
    net_params: dict[str, Any] | None
    random_state: Any
