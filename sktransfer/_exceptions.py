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
    ├── ExportError            a model cannot be exported, or the file does not predict as the model does
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

    See Also
    --------
    find_bad_images : Returns a list of them.

    Examples
    --------
    >>> from sktransfer import find_bad_images
    >>> (bad,) = find_bad_images(["missing.jpg"])
    >>> bad.index, bad.path
    (0, 'missing.jpg')
    """

    index: int
    path: str | None
    reason: str


class SktransferError(Exception):
    """Base class of all error classes of this package.

    Examples
    --------
    >>> from sktransfer import SktransferError, find_duplicates
    >>> try:
    ...     find_duplicates(["missing.jpg"])
    ... except SktransferError as error:
    ...     print(type(error).__name__)
    ImageError
    """


class ImageError(SktransferError, ValueError):
    """An input is not an image that can be read. The message names the image and the reason.

    Parameters
    ----------
    message : str
        The message.
    bad_images : sequence of BadImage, default=()
        The images that cannot be read.

    Attributes
    ----------
    bad_images : tuple of BadImage
        The images that cannot be read; empty if the error lies in X as a whole, or in a parameter.

    See Also
    --------
    find_bad_images : Finds such images beforehand.

    Examples
    --------
    >>> from sktransfer import ImageError, find_duplicates
    >>> try:
    ...     find_duplicates(["missing.jpg"])
    ... except ImageError as error:
    ...     print([bad.path for bad in error.bad_images])
    ['missing.jpg']
    """

    def __init__(self, message: str, bad_images: Sequence[BadImage] = ()) -> None:
        super().__init__(message)
        self.bad_images = tuple(bad_images)


class LabelError(SktransferError, ValueError):
    """The labels cannot be used. The message names the rows or the classes, and says what to do.

    Examples
    --------
    >>> from sktransfer import FineTunedCNNClassifier, LabelError
    >>> try:
    ...     FineTunedCNNClassifier().fit(["1.jpg", "2.jpg"], ["cat", None])
    ... except LabelError as error:
    ...     print(error)
    y is missing (None or NaN) at row 1. Leave these images out, or give them a label.
    """


class BackboneError(SktransferError, ValueError):
    """A backbone cannot be provided.

    Examples
    --------
    >>> from sktransfer import BackboneError, PretrainedCNNFeatures
    >>> try:
    ...     PretrainedCNNFeatures("resnet17").fit(["1.jpg"])
    ... except BackboneError as error:
    ...     print(type(error).__name__)
    UnknownBackboneError
    """


class UnknownBackboneError(BackboneError):
    """No backbone has that name. The message suggests the most similar names.

    See Also
    --------
    list_backbones : All names.

    Examples
    --------
    >>> from sktransfer import PretrainedCNNFeatures, UnknownBackboneError
    >>> try:
    ...     PretrainedCNNFeatures("resnet17").fit(["1.jpg"])
    ... except UnknownBackboneError as error:
    ...     print("resnet18" in str(error))
    True
    """


class WeightsNotFoundError(BackboneError):
    """The weights are not on this machine and cannot be downloaded.

    Examples
    --------
    >>> from sktransfer import PretrainedCNNFeatures
    >>> PretrainedCNNFeatures("resnet50").fit(["1.jpg"])  # without a network  # doctest: +SKIP
    Traceback (most recent call last):
    sktransfer.WeightsNotFoundError: ...
    """


class WeightsMismatchError(BackboneError):
    """The weights do not fit the network, or differ from those with which the estimator was fitted.

    Examples
    --------
    >>> from sktransfer import PretrainedCNNFeatures
    >>> PretrainedCNNFeatures("resnet18", weights="resnet50.pth").fit(["1.jpg"])  # doctest: +SKIP
    Traceback (most recent call last):
    sktransfer.WeightsMismatchError: ...
    """


class DeviceMemoryError(SktransferError, RuntimeError):
    """Not even half a batch fits the memory of the device.

    Examples
    --------
    >>> from sktransfer import PretrainedCNNFeatures
    >>> features = PretrainedCNNFeatures(device="cuda", batch_size=4096, image_size=2048)
    >>> features.fit_transform(photos)  # doctest: +SKIP
    Traceback (most recent call last):
    sktransfer.DeviceMemoryError: ...
    """


class ModelFileError(SktransferError, ValueError):
    """A saved model is damaged, has another format, or holds untrusted types; or an estimator cannot be saved.

    Examples
    --------
    >>> import sktransfer
    >>> try:
    ...     sktransfer.save("no estimator", "model.sktransfer")
    ... except sktransfer.ModelFileError as error:
    ...     print(error)
    Expected an estimator to save; got 'no estimator', a str.
    """


class ExportError(SktransferError, ValueError):
    """A model cannot be exported, or the exported file does not predict as the model does.

    See Also
    --------
    export : Writes the file.

    Examples
    --------
    >>> import sktransfer
    >>> try:
    ...     sktransfer.export(sktransfer.FineTunedCNNClassifier(), "model", format="exe")
    ... except sktransfer.ExportError as error:
    ...     print(error)
    format='exe' is unknown. Expected 'onnx', 'openvino' or 'html'.
    """


class TrainingError(SktransferError, RuntimeError):
    """Training diverged (the loss is no longer finite), or no strategy of a comparison could be run.

    Examples
    --------
    >>> from sktransfer import FineTunedCNNClassifier
    >>> FineTunedCNNClassifier(lr=1e6).fit(photos, labels)  # doctest: +SKIP
    Traceback (most recent call last):
    sktransfer.TrainingError: ...
    """


for _class in list(globals().values()):
    if isinstance(_class, type) and _class.__module__ == __name__:
        _class.__module__ = "sktransfer"  # where users find it; pickles name it
