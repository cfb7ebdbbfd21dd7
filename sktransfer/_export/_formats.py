"""`export`: the formats, and what each needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._exceptions import ExportError
from .._fitted_parts import parts_of
from .._optional import require
from .._protocols import StrPath
from ._verify import on_this_cpu, reference
from ._writers import write_html, write_onnx, write_openvino

SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".html": "html"}
MODULES = {
    "onnx": ("onnx", "onnxscript", "onnxruntime", "skl2onnx"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "skl2onnx", "openvino"),
    "html": ("onnx", "onnxscript", "onnxruntime", "skl2onnx"),
}


def export(
    model: Any, path: StrPath, *, format: str | None = None, images: Any = None, runtime: StrPath | None = None
) -> float:
    """Write a fitted model as one file for programs without Python: ONNX, OpenVINO, or a page for the browser.

    The file holds the normalisation, the network, and everything behind it. It is compared with the model before it
    is written.

    Parameters
    ----------
    model : estimator
        A fitted `FineTunedCNNClassifier` or `FeatureClassifier`, a pipeline of `PretrainedCNNFeatures` or a
        ``FeatureUnion`` of several, any steps of scikit-learn that skl2onnx can convert, and a classifier, or a fitted
        search over one of these.
    path : path
        The file to write. An earlier file stays as it is until the new one is complete. OpenVINO's two files are then
        replaced one after the other.
    format : {"onnx", "openvino", "html"}, default=None
        None takes the format from the suffix of `path`: ``.onnx``, ``.xml`` (OpenVINO; its weights go into a file
        ``.bin`` beside it), or ``.html``, a page that classifies photos in the browser and needs no network.
    images : images, default=None
        The file and the model are compared on these images, which may be anything that the model accepts. A few dozen
        of your own are best. None generates eight.
    runtime : path, default=None
        For ``"html"``: the package onnxruntime-web, as the ``.tgz`` of the npm registry or as the folder that this
        file unpacks to. None downloads it at the first export, checks its SHA-512 and keeps it in
        ``~/.cache/sktransfer``.

    Returns
    -------
    difference : float
        The largest difference between a probability of the file and one of the model. For a model without
        probabilities: between two scores, divided by the largest score if that is above 1.

    Raises
    ------
    ExportError
        If the format is unknown, if `runtime` is passed for another format than ``"html"``, if a step cannot be
        converted, or if the file does not predict as the model does: a probability differs by more than 1e-4, or a
        label differs although its probability is clearly the largest.
    NotFittedError
        If the model is not fitted.
    ModuleNotFoundError
        If a package is missing. ``pip install 'sktransfer[export]'`` installs all of them.
    ImageError
        If one of `images` cannot be read.

    See Also
    --------
    save : Write a model that `load` reads again in Python.
    card : Describe a model.

    Notes
    -----
    The input of a file is ``images``, uint8 of shape (batch, H, W, 3): images that are resized and cropped already.
    A model of several networks has one input for each, ``images_1``, ``images_2``, …. The outputs are
    ``probabilities``, float32 of shape (batch, n_classes), and ``label``: text, or int64 if the classes are whole
    numbers. A model without probabilities has ``scores`` instead. Two classes have the scores -d and d, where d is the
    decision function.

    The entry ``"sktransfer"`` of the metadata holds JSON: how to prepare an image, the classes, the versions, and
    where the weights come from. In OpenVINO's file, ``model.get_rt_info("sktransfer")`` returns it.

    OpenVINO runs `FineTunedCNNClassifier` and `FeatureClassifier`. It lacks the operators that skl2onnx uses for other
    steps, such as an SVM.

    The file computes in float32, also if the model has ``precision="bfloat16"``. It is compared in float32.

    With `tta`, the model draws other views for each image, and the file has the same views for all images. So the
    probabilities of the file differ from those of ``predict_proba``, though they are as good. The comparison uses the
    views of the file.

    Examples
    --------
    >>> import sktransfer
    >>> clf = sktransfer.FineTunedCNNClassifier().fit(photos, labels)  # doctest: +SKIP
    >>> sktransfer.export(clf, "palaces.onnx", images=photos[:20])  # doctest: +SKIP
    2.4e-07
    """
    path = Path(path).expanduser()
    format = _resolved(format, path)
    if runtime is not None and format != "html":
        raise ExportError(f"runtime={str(runtime)!r} is for a page, and the format is {format!r}. Leave runtime out.")
    require("export", "export", *MODULES[format])
    writers: dict[str, Callable[..., float]] = {"onnx": write_onnx, "openvino": write_openvino, "html": write_html}
    parts_of(model)  # says what is wrong before the copy
    model = on_this_cpu(model)
    parts = parts_of(model)
    options = {"runtime": runtime} if format == "html" else {}
    return writers[format](parts, reference(model, parts, images), path, **options)


def _resolved(format: str | None, path: Path) -> str:
    if format is None:
        format = SUFFIXES.get(path.suffix.lower())
        if format is None:
            raise ExportError(
                f"{path.name!r} does not say the format. Pass format='onnx', 'openvino' or 'html', or let the name end "
                "in .onnx, .xml or .html."
            )
    if format not in MODULES:
        raise ExportError(f"format={format!r} is unknown. Expected 'onnx', 'openvino' or 'html'.")
    if format == "openvino" and path.suffix != ".xml":
        raise ExportError(f"OpenVINO reads a model from a file that ends in .xml; got {path.name!r}.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.absolute().parent)!r}.")
    return format
