"""The errors that sktransfer raises of its own.

::

    SktransferError
    ├── ImageError             an input is not an image that can be read
    ├── BackboneError          a backbone cannot be had as asked for
    │   ├── UnknownBackboneError    no backbone of that name
    │   ├── WeightsNotFoundError    the weights are not on this machine and cannot be fetched
    │   └── WeightsMismatchError    the weights do not fit the network, or are not those used before
    └── TrainingError          training went astray

Those that blame an argument are ``ValueError`` too, as scikit-learn's conventions want it.
"""

from __future__ import annotations


class SktransferError(Exception):
    """Base class: catch it to catch every error of this package."""


class ImageError(SktransferError, ValueError):
    """An input is not an image that can be read; the message names which one and why."""


class BackboneError(SktransferError, ValueError):
    """A backbone cannot be had as asked for."""


class UnknownBackboneError(BackboneError):
    """There is no backbone of that name; the message offers the nearest names."""


class WeightsNotFoundError(BackboneError):
    """The weights are not on this machine and could not be fetched."""


class WeightsMismatchError(BackboneError):
    """The weights do not fit the network, or differ from those the estimator was fitted with."""


class TrainingError(SktransferError, RuntimeError):
    """Training went astray: the loss is no longer a number."""
