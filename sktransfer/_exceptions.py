"""The errors that sktransfer raises of its own.

::

    SktransferError
    ├── ImageError             an input is not an image that can be read
    ├── LabelError             y does not say the class of each image
    ├── BackboneError          a backbone cannot be had as asked for
    │   ├── UnknownBackboneError    no backbone of that name
    │   ├── WeightsNotFoundError    the weights are not on this machine and cannot be fetched
    │   └── WeightsMismatchError    the weights do not fit the network, or are not those used before
    ├── DeviceMemoryError      not even half a batch fits the memory of the device
    ├── ModelFileError         a saved model cannot be read, or an estimator not be saved
    └── TrainingError          training went astray, or nothing that was to be compared could be run

Those that blame an argument are ``ValueError`` too, as scikit-learn's conventions want it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read.

    Attributes
    ----------
    index : int
        Its position in X.
    path : str or None
        Its file, or None if it did not come from one.
    reason : str
        Why it cannot be read.
    """

    __module__ = "sktransfer"

    index: int
    path: str | None
    reason: str


class SktransferError(Exception):
    """Base class: catch it to catch every error of this package."""

    __module__ = "sktransfer"


class ImageError(SktransferError, ValueError):
    """An input is not an image that can be read; the message names which one and why.

    Attributes
    ----------
    bad_images : tuple of BadImage
        The images to blame; empty where X as a whole, or a parameter, is.
    """

    __module__ = "sktransfer"

    def __init__(self, message: str, bad_images: Sequence[BadImage] = ()) -> None:
        super().__init__(message)
        self.bad_images = tuple(bad_images)


class LabelError(SktransferError, ValueError):
    """The labels cannot be used; the message names the rows or the classes, and says what to do."""

    __module__ = "sktransfer"


class BackboneError(SktransferError, ValueError):
    """A backbone cannot be had as asked for."""

    __module__ = "sktransfer"


class UnknownBackboneError(BackboneError):
    """There is no backbone of that name; the message offers the nearest names."""

    __module__ = "sktransfer"


class WeightsNotFoundError(BackboneError):
    """The weights are not on this machine and could not be fetched."""

    __module__ = "sktransfer"


class WeightsMismatchError(BackboneError):
    """The weights do not fit the network, or differ from those the estimator was fitted with."""

    __module__ = "sktransfer"


class DeviceMemoryError(SktransferError, RuntimeError):
    """Not even half a batch fits the memory of the device."""

    __module__ = "sktransfer"


class ModelFileError(SktransferError, ValueError):
    """A saved model is damaged, of another format, or holds what is not trusted; or an estimator cannot be saved."""

    __module__ = "sktransfer"


class TrainingError(SktransferError, RuntimeError):
    """Training went astray: the loss is no longer a number, or nothing that was to be compared could be run."""

    __module__ = "sktransfer"
