"""Fitted estimators hold what predictions need, and can be moved to other processes, files and machines.

Published weights are loaded again by name and checked by checksum. What cannot be loaded again stays with the
estimator: random weights, weights of a local file, and how images were prepared. The device, the folder of
activations and the number of threads belong to the machine, so `load` sets them.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any

import torch
from sklearn.base import BaseEstimator

from ._exceptions import ModelFileError, WeightsMismatchError
from ._frozen._backbones import Backbone, backbone_with, load_backbone
from ._frozen._engines import resolve_device
from ._frozen._preprocessing import Preprocessing
from ._protocols import StrPath

_place: ContextVar[dict[str, Any] | None] = ContextVar("place", default=None)


@contextmanager
def placed(**params: Any) -> Iterator[None]:
    """Give these parameters to every estimator that is written to a model file, or built from one, in this block."""
    token = _place.set(params)
    try:
        yield
    finally:
        _place.reset(token)


@contextmanager
def whole_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Leave an estimator as it was if fitting fails or is interrupted, so that an earlier fit can still be used."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class Portable(BaseEstimator):
    """Base class of both estimators, which take images, and are ready to be pickled and saved."""

    backbone: str
    weights: StrPath | None
    weights_checksum_: str
    _preprocessing: Preprocessing
    _backbone: Backbone | None  # None if it is loaded by name

    def _keep_backbone(self, backbone: Backbone) -> None:
        """Record what `fit` used; weights that cannot be loaded again by name are kept with the estimator."""
        self.weights_checksum_ = backbone.checksum
        self._preprocessing = backbone.preprocessing
        self._backbone = None if backbone.published else backbone

    def _fitted_backbone(self) -> Backbone:
        """Return the backbone that the estimator was fitted with, and its preprocessing of images."""
        backbone = self._backbone
        if backbone is not None and backbone.name != self.backbone:
            raise WeightsMismatchError(
                f"The estimator was fitted with backbone={backbone.name!r}, which was changed to {self.backbone!r} "
                "since. Fit it again."
            )
        if backbone is None:
            backbone = replace(load_backbone(self.backbone, self.weights), preprocessing=self._preprocessing)
            if backbone.checksum != self.weights_checksum_:
                raise WeightsMismatchError(
                    f"The weights of {self.backbone!r} on this machine are not those the estimator was fitted with "
                    f"(SHA-256 {backbone.checksum[:12]}… instead of {self.weights_checksum_[:12]}…). Install the same "
                    "versions of torch, timm and of the weights, or fit again."
                )
        return backbone

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def _n_kept_stages(self) -> int | None:
        """Return the number of backbone stages to keep for predictions; None means all of them."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        for name, value in state.items():
            if isinstance(value, os.PathLike):  # the classes of paths differ by system and by version of Python
                state[name] = os.fspath(value)
        if "_preprocessing" in state:
            state["_preprocessing"] = asdict(state["_preprocessing"])
        backbone = state.pop("_backbone", None)
        if backbone is not None:
            kept = backbone.stages[: self._n_kept_stages()].state_dict()
            state["_frozen_weights"] = {name: value.cpu().numpy() for name, value in kept.items()}
        return state | {name: value for name, value in (_place.get() or {}).items() if name in state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        place = _place.get() or {}
        parameters = inspect.signature(type(self)).parameters.values()
        # Files of earlier versions lack parameters that came later.
        state = {parameter.name: parameter.default for parameter in parameters} | state
        state = state | {name: value for name, value in place.items() if name in state}
        frozen = state.pop("_frozen_weights", None)
        if "_preprocessing" in state:
            state["_preprocessing"] = Preprocessing.from_dict(state["_preprocessing"])
        super().__setstate__(state)
        try:
            resolve_device(state["device"])
        except ValueError as error:
            if "device" in place:
                raise
            warnings.warn(f"{error} Going on with device='auto'.", RuntimeWarning, stacklevel=2)
            self.device = "auto"
        if "_preprocessing" not in state:  # it was not fitted
            return
        self._backbone = None
        needed = self._n_kept_stages()
        if frozen is not None or needed == 0:
            weights = {name: torch.tensor(value) for name, value in (frozen or {}).items()}
            self._backbone = self._skeleton(needed, weights)
        elif state["weights"] != "default" and "weights" not in place:
            raise ModelFileError(f"The frozen stages have weights={state['weights']!r}, which should be in the file.")

    def _skeleton(self, n_stages: int | None, weights: dict[str, torch.Tensor]) -> Backbone:
        """Return the architecture with these weights in its first stages."""
        return backbone_with(self.backbone, n_stages, weights, self._preprocessing, self.weights is not None)
