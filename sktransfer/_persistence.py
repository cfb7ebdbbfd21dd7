"""Fitted estimators in files, without pickle: `save` and `load`.

A file is two lines of text, then the estimator as skops writes it (a zip archive of JSON and arrays)::

    sktransfer model 1                      what it is, and the version of this format
    5f0c…e2 {"sktransfer": "0.1.0", …}      SHA-256 of all that follows it, and the versions that wrote it
    PK…

The checksum detects damage. It does not detect deliberate changes, so types protect against those: skops builds only
types on a list, which is fixed here.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from ._exceptions import ModelFileError, SktransferError
from ._protocols import StrPath
from ._whole_files import write_whole

FORMAT = 1
_ABANDONED = 3600  # seconds; no writer takes that long
_MAGIC = b"sktransfer model "


def save(estimator: BaseEstimator, path: StrPath) -> None:
    """Save an estimator to a file that needs no pickle and runs no code when it is loaded.

    Parameters
    ----------
    estimator : estimator
        A `FineTunedCNNClassifier`, a `FeatureClassifier`, a `PretrainedCNNFeatures`, or an estimator of scikit-learn
        that may hold them: a pipeline, a grid search.
    path : path
        The file to write, by convention ``.sktransfer``. A temporary file is written first and then renamed, so an
        earlier file stays intact until the new one is complete.

    Raises
    ------
    ModelFileError
        If the estimator holds something that `load` would not trust: a function, a callback, a class. The message
        names the parameter.
    OSError
        If the file cannot be written, for instance on a full disk. An earlier file stays as it was.

    See Also
    --------
    load : Read the estimator again.

    Notes
    -----
    The file holds what predictions need: the trained stages and the head of a fine-tuned network, and frozen stages
    whose weights are random or came from a local file. Frozen stages with published weights are left out; they are
    loaded by name at the first prediction, and their checksum is compared. The device, the folder of activations and
    the number of threads are left out too, because they belong to the machine that trained the model.

    Examples
    --------
    >>> import sktransfer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> model = make_pipeline(sktransfer.PretrainedCNNFeatures(), SVC())
    >>> model = model.fit(photos, labels)  # doctest: +SKIP
    >>> sktransfer.save(model, "palaces.sktransfer")  # doctest: +SKIP
    >>> sktransfer.load("palaces.sktransfer").predict(photos)  # doctest: +SKIP
    array(['palace', 'flower'], dtype='<U6')
    """
    if not isinstance(estimator, BaseEstimator) or isinstance(estimator, type):
        raise ModelFileError(f"Expected an estimator to save; got {estimator!r}, a {type(estimator).__name__}.")
    path = Path(path).expanduser()
    _sweep(path.parent)
    write_whole(path, _framed(_packed(estimator)), sync=True)


def load(
    path: StrPath,
    *,
    device: str | None = None,
    memory: StrPath | None = None,
    weights: StrPath | None = None,
    n_jobs: int | None = None,
) -> Any:
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    path : path
        The file.
    device : str, default=None
        The device that runs the model: ``"cpu"``, ``"cuda"``, ``"mps"``. None uses a GPU if one exists.
    memory : path, default=None
        A folder that stores activations. None keeps them in the memory of the process.
    weights : path, default=None
        A local file with the published weights of the frozen stages, for a machine that cannot download them. They
        are used if the model was fitted with the same weights. None loads weights by the backbone's name.
    n_jobs : int, default=None
        Number of threads that decode images. None uses as many as torch; -1 uses all cores.

    Returns
    -------
    estimator : estimator
        The saved estimator, with the same predictions. The four parameters apply to every sktransfer estimator in it.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ModelFileError
        If the file is not a saved model, has another version of the format, is truncated or damaged even in a single
        byte, or holds a type that is not trusted.
    ValueError
        If this machine has no such `device`.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    Loading runs no code from the file. It builds only these types: scikit-learn's estimators, splitters and scorers,
    sktransfer's estimators, arrays and plain values. The file cannot choose the device or any folder.

    The first prediction raises `WeightsMismatchError` if the published weights on this machine are not those that the
    model was fitted with, and `WeightsNotFoundError` if they are not on this machine and cannot be fetched.

    Examples
    --------
    >>> import sktransfer
    >>> model = sktransfer.load("palaces.sktransfer", device="cpu")  # doctest: +SKIP
    >>> model.predict(["photo.jpg"])  # doctest: +SKIP
    array(['palace'], dtype='<U6')
    """
    from ._frozen._engines import resolve_device
    from ._portable import placed

    if device is not None:
        resolve_device(device)
    path = Path(path).expanduser()
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no model file {str(path)!r}. Relative paths start at {os.getcwd()!r}."
        ) from error
    except IsADirectoryError as error:
        raise ModelFileError(f"{str(path)!r} is a folder. Pass the model file that sktransfer.save wrote.") from error
    place = {"device": device or "auto", "memory": memory, "n_jobs": n_jobs}
    with placed(**place, **({} if weights is None else {"weights": os.fspath(weights)})):
        return _unpacked(_unframed(content, str(path)), str(path))


# The frame


def _framed(content: bytes) -> bytes:
    packages = ("sktransfer", "numpy", "scikit-learn", "skops", "torch", "timm")
    writers = json.dumps({name: version(name) for name in packages})
    rest = f" {writers}\n".encode() + content
    return _MAGIC + f"{FORMAT}\n".encode() + hashlib.sha256(rest).hexdigest().encode() + rest


def _unframed(content: bytes, source: str) -> bytes:
    """Return the content of the frame, if the whole file is as it was written."""
    first, _, rest = content.partition(b"\n")
    if not first.startswith(_MAGIC):
        raise ModelFileError(f"{source!r} is no model that sktransfer.save wrote.")
    if first != _MAGIC + str(FORMAT).encode():
        raise ModelFileError(
            f"{source!r} has the format {first[len(_MAGIC) :][:20].decode('ascii', 'replace')!r}; this version of "
            f"sktransfer ({version('sktransfer')}) reads {str(FORMAT)!r}. Load it with the version that wrote it, or "
            "save it anew."
        )
    digest, signed = rest[:64], rest[64:]
    if hashlib.sha256(signed).hexdigest().encode() != digest:
        raise ModelFileError(
            f"{source!r} is truncated or damaged: its content ({len(content)} bytes) does not have the checksum it "
            "was written with. Copy it again from where it was whole."
        )
    return signed.partition(b"\n")[2]


# The content


def _packed(estimator: BaseEstimator) -> bytes:
    from skops import io as skops_io

    from ._portable import placed

    try:
        with placed(device="auto", memory=None, n_jobs=None):
            content: bytes = skops_io.dumps(estimator)
        unknown = _untrusted_types(content)
    except Exception as error:  # objects may raise anything when their state is read
        raise ModelFileError(_cannot_save(estimator, f"{type(error).__name__}: {error}")) from error
    if unknown:
        raise ModelFileError(_cannot_save(estimator, f"it holds {', '.join(unknown)}"))
    return content


def _unpacked(content: bytes, source: str) -> Any:
    from skops import io as skops_io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # save() does not compress, so a valid file never unpacks to more than its own size.
            bomb = sum(entry.file_size for entry in archive.infolist()) > len(content)
        if bomb:
            raise ModelFileError(
                f"{source!r} unpacks to more than its own size; sktransfer.save does not write such files."
            )
        estimator = skops_io.loads(content, trusted=_trusted_types())
    except SktransferError:
        raise
    except UntrustedTypesFoundException as error:
        raise ModelFileError(
            f"{source!r} holds types that are not trusted, and was not loaded. {error} sktransfer.save does not write "
            "them: do not use the file unless you know where it comes from."
        ) from error
    except Exception as error:  # whatever a crafted or outdated file makes the readers raise
        raise ModelFileError(
            f"Cannot build the model in {source!r}: {type(error).__name__}: {error}\nIt was written by other versions "
            "of the packages named in its second line, or changed."
        ) from error
    if not isinstance(estimator, BaseEstimator):
        raise ModelFileError(f"{source!r} holds a {type(estimator).__name__}, not an estimator.")
    return estimator


@functools.cache
def _trusted_types() -> list[str]:
    """Name the types that `load` builds beyond skops' own list (scikit-learn's estimators, arrays and plain values)."""
    from sklearn import metrics, model_selection
    from sklearn.metrics import _scorer
    from sklearn.utils._metadata_requests import MetadataRequest, MethodMetadataRequest

    from ._classifier import FineTunedCNNClassifier
    from ._feature_classifier import FeatureClassifier
    from ._features import PretrainedCNNFeatures
    from ._linear import CheckedGridSearchCV, OneThreadLogisticRegression

    splitters = [kind for kind in vars(model_selection).values() if inspect.isclass(kind) and hasattr(kind, "split")]
    scorers = [kind for kind in vars(_scorer).values() if inspect.isclass(kind) and kind.__module__ == _scorer.__name__]
    functions = [metrics.get_scorer(name)._score_func for name in metrics.get_scorer_names()]
    ours = [FineTunedCNNClassifier, PretrainedCNNFeatures, FeatureClassifier]
    ours += [OneThreadLogisticRegression, CheckedGridSearchCV]
    # These say in plain values which metadata an estimator routes; scikit-learn 1.6 and 1.7 store them in searches.
    routing = [MetadataRequest, MethodMetadataRequest]
    trusted = [*ours, *splitters, *scorers, *functions, *routing]
    return sorted({f"{kind.__module__}.{kind.__qualname__}" for kind in trusted})


def _untrusted_types(content: bytes) -> list[str]:
    from skops import io as skops_io

    return sorted(set(skops_io.get_untrusted_types(data=content)) - set(_trusted_types()))


def _cannot_save(estimator: BaseEstimator, reason: str) -> str:
    culprits = ", ".join(_culprits(estimator))
    blame = f"its parameters {culprits} hold" if culprits else "it holds"
    return (
        f"Cannot save this {type(estimator).__name__}: {blame} more than plain values, arrays and estimators of "
        f"scikit-learn ({reason}). Functions, classes and objects would be code to load. Use names and plain values, "
        "or joblib.dump for a file that you alone will load."
    )


def _culprits(estimator: BaseEstimator) -> Iterator[str]:
    """Name the parameters of the estimator, and of estimators within it, that cannot be saved."""
    from skops import io as skops_io

    for name, value in sorted(estimator.get_params(deep=True).items()):
        if _holds_estimators(value):
            continue  # their own parameters are in the list too
        try:
            fine = not _untrusted_types(skops_io.dumps(value))
        except Exception:  # a value that cannot be written is a culprit, whatever it raises
            fine = False
        if not fine:
            yield name


def _holds_estimators(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_estimators(part) for part in value)
    return isinstance(value, BaseEstimator)


# The disk


def _sweep(folder: Path) -> None:
    """Delete temporary files that killed writers left in a folder."""
    for abandoned in folder.glob(".sktransfer-*.tmp"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - abandoned.stat().st_mtime > _ABANDONED:
                abandoned.unlink()
