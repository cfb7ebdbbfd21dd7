"""Write each format, once the file is known to predict as the model does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._exceptions import ExportError
from .._fitted_parts import Parts
from .._frozen._openvino_files import OpenVINOFile, OpenVINORun
from .._protocols import StrPath
from .._whole_files import write_whole
from ._onnx import DESCRIPTION, to_onnx
from ._page import page
from ._runtime import load_runtime
from ._verify import Answers, Reference, compare


def write_onnx(parts: Parts, expected: Reference, path: Path) -> float:
    """Write an ONNX file."""
    file = _checked_onnx(parts, expected)
    write_whole(path, file.content, sync=True)
    return file.difference


def write_openvino(parts: Parts, expected: Reference, path: Path) -> float:
    """Write an OpenVINO model: an .xml file, and its weights in a .bin file."""
    onnx = _checked_onnx(parts, expected)
    with tempfile.TemporaryDirectory(prefix=".sktransfer-", dir=path.absolute().parent) as folder:
        aside = Path(folder) / "model.xml"
        try:
            file = OpenVINOFile(onnx.content)
        except RuntimeError as error:
            raise ExportError(
                "OpenVINO cannot run this model. It lacks operators that skl2onnx uses for scikit-learn's steps. "
                f"Export to ONNX instead. OpenVINO says: {error}"
            ) from error
        file.note(DESCRIPTION, onnx.description)
        file.write(aside)
        difference = compare(_OpenVINOAnswers(aside), expected, "The OpenVINO model")
        aside.with_suffix(".bin").replace(path.with_suffix(".bin"))
        aside.replace(path)
    return difference


def write_html(parts: Parts, expected: Reference, path: Path, runtime: StrPath | None = None) -> float:
    """Write a page that classifies photos in the browser."""
    files = load_runtime(runtime)
    file = _checked_onnx(parts, expected)
    write_whole(path, page(file.content, file.description, path.stem, files).encode(), sync=True)
    return file.difference


class OnnxFile:
    """Runs an ONNX file with onnxruntime on the CPU."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, canvases: Sequence[np.ndarray]) -> Answers:
        """Return probabilities or scores, and labels."""
        names = [each.name for each in self.session.get_inputs()]
        return _pair(self.session.run(None, dict(zip(names, canvases, strict=True))))


class _OpenVINOAnswers(OpenVINORun):
    """Runs an OpenVINO model on the CPU."""

    def __call__(self, canvases: Sequence[np.ndarray]) -> Answers:
        """Return probabilities or scores, and labels."""
        return _pair(self.outputs(canvases))


class _Checked(NamedTuple):
    """An ONNX file that predicts as the model does."""

    content: bytes
    description: str  # the JSON in its metadata
    difference: float  # the largest one of a probability or score


def _checked_onnx(parts: Parts, expected: Reference) -> _Checked:
    model = to_onnx(parts)
    (entry,) = model.metadata_props
    content: bytes = model.SerializeToString()
    return _Checked(content, entry.value, compare(OnnxFile(content), expected, "The ONNX file"))


def _pair(outputs: Sequence[np.ndarray]) -> Answers:
    values, labels = outputs
    return values, labels
