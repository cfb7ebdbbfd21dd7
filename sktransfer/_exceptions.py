"""The error classes of sktransfer.

::

    SktransferError
    ├── ImageError             an input is not an image that can be read
    ├── LabelError             y does not say the class of each image
    ├── BackboneError          a backbone cannot be provided
    │   ├── UnknownBackboneError    no backbone has that name
    │   ├── WeightsNotFoundError    the weights are not on this machine and cannot be downloaded
    │   └── WeightsMismatchError    the weights do not fit the network, or are not those used before
    ├── DeviceMemoryError      not even half a batch fits the memory of the device
    ├── ModelFileError         a saved model cannot be read, or an estimator cannot be saved
    └── TrainingError          training diverged, or no strategy of a comparison could be run

Errors caused by an argument are also ``ValueError``, as scikit-learn's conventions require.
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
        The position of the image in X.
    path : str or None
        The path of its file, or None if it was not given as a path.
    reason : str
        The reason why it cannot be read.
    """

    index: int
    path: str | None
    reason: str


class SktransferError(Exception):
    """Base class of all error classes of this package."""


class ImageError(SktransferError, ValueError):
    """An input is not an image that can be read. The message names the image and the reason.

    Attributes
    ----------
    bad_images : tuple of BadImage
        The images that cannot be read; empty if the error lies in X as a whole, or in a parameter.
    """

    def __init__(self, message: str, bad_images: Sequence[BadImage] = ()) -> None:
        super().__init__(message)
        self.bad_images = tuple(bad_images)


class LabelError(SktransferError, ValueError):
    """The labels cannot be used. The message names the rows or the classes, and says what to do."""


class BackboneError(SktransferError, ValueError):
    """A backbone cannot be provided."""


class UnknownBackboneError(BackboneError):
    """No backbone has that name. The message suggests the most similar names."""


class WeightsNotFoundError(BackboneError):
    """The weights are not on this machine and cannot be downloaded."""


class WeightsMismatchError(BackboneError):
    """The weights do not fit the network, or differ from those with which the estimator was fitted."""


class DeviceMemoryError(SktransferError, RuntimeError):
    """Not even half a batch fits the memory of the device."""


class ModelFileError(SktransferError, ValueError):
    """A saved model is damaged, has another format, or holds untrusted types; or an estimator cannot be saved."""


class TrainingError(SktransferError, RuntimeError):
    """Training diverged (the loss is no longer finite), or no strategy of a comparison could be run."""


for _class in list(globals().values()):
    if isinstance(_class, type) and _class.__module__ == __name__:
        _class.__module__ = "sktransfer"  # where users find it; pickles name it
