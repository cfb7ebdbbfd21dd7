"""Write a network for OpenVINO, and run it as another program would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._engines import import_openvino, openvino_core


class OpenVINOFile:
    """A network converted from the content of an ONNX file, in float32."""

    def __init__(self, onnx: bytes) -> None:
        self.model: Any = openvino_core(os.getpid()).read_model(onnx)

    def note(self, name: str, value: str) -> None:
        """Keep a text in the file; ``model.get_rt_info(name)`` returns it."""
        self.model.set_rt_info(value, name)

    def write(self, path: Path) -> None:
        """Write the ``.xml`` file, and the weights into a ``.bin`` file beside it. Weights stay in float32."""
        import_openvino().save_model(self.model, str(path), compress_to_fp16=False)


class OpenVINORun:
    """Runs the files that `OpenVINOFile` wrote on the CPU, in float32."""

    def __init__(self, path: Path) -> None:
        core = openvino_core(os.getpid())
        self.compiled: Any = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def outputs(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs in their order."""
        return [np.asarray(value) for value in self.compiled(list(inputs)).values()]
