"""Run frozen stages over a batch of images."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from .._optional import require
from .._registry import built_once, is_forked, start_clean_after_fork
from .._warnings import warnings_ignored
from ._backbones import Backbone
from ._cut_network import CutNetwork, Outputs, folded
from ._device_memory import Halving

CACHED_IMAGES = 8  # number of images trained at a time on a CPU, so that their maps stay in its cache


def resolve_device(device: str) -> torch.device:
    """Return the requested device, which must exist; "auto" takes a GPU if one exists."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        there = _is_there(found)
    except RuntimeError:  # torch knows no such kind of device
        there = False
    if not there:
        raise ValueError(
            f"device={device!r} does not exist on this machine. Expected 'auto', 'cpu', 'cuda' or 'mps'; 'auto' takes "
            "a GPU if one exists."
        )
    return found


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu" or device.type == str(torch.accelerator.current_accelerator())


def part_size(inputs: np.ndarray) -> int:
    """Return how many canvases or maps of this shape are run at a time on a CPU.

    The number depends on the shape alone, because rounding depends on how many are run at a time (ENG-02). Large ones
    are few, so that their maps stay in the processor's cache. Small ones are more, so that there is enough to do.
    """
    return 4 if inputs[0].size >= 128 * 128 * 3 else 16


def _whole_parts(inputs: np.ndarray, size: int) -> np.ndarray:
    """Return the inputs with copies of the last one behind them, so that they can be divided into parts of `size`."""
    missing = -len(inputs) % size
    return np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)]) if missing else inputs


class TorchEngine:
    """Runs a copy of a `CutNetwork` with torch: no gradients, channels last, BatchNorm folded into convolutions.

    On a CPU a batch is run in parts of one size (see `part_size`). A batch that does not fit the device's memory is
    halved once. bfloat16 applies to convolutions and matrix products only; the result is always float32. The folding is
    tested on `sample`.
    """

    def __init__(self, network: CutNetwork, sample: torch.Tensor, device: torch.device, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.parts = Halving(part_size(sample.numpy()) if device.type == "cpu" else None)
        self.network = folded(network, sample).to(device).to(memory_format=torch.channels_last)

    def __call__(self, inputs: np.ndarray) -> torch.Tensor:
        """Return the float32 activations of a batch of canvases or maps, on the engine's device."""
        low = self.precision == "bfloat16"
        size = self.parts.size if self.device.type == "cpu" else None
        batch = torch.from_numpy(_whole_parts(inputs, size) if size else inputs)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            batch = batch.pin_memory() if self.device.type == "cuda" else batch

            def run(rows: slice) -> torch.Tensor:
                activations: torch.Tensor = self.network(batch[rows].to(self.device, non_blocking=True))
                return activations.float()

            return torch.cat(self.parts(run, len(batch)))[: len(inputs)]


class OpenVINOEngine:
    """Runs a `CutNetwork` with OpenVINO on the CPU.

    The module is converted and compiled in memory at the first batch, for parts of one size (see `part_size`). On a
    processor without bfloat16, OpenVINO computes in float32 instead.
    """

    def __init__(self, network: CutNetwork, precision: str) -> None:
        self.device = torch.device("cpu")
        self.network = network.eval()
        self.precision = precision
        self._request: Any = None
        self._lock = threading.Lock()  # only one thread at a time may use the request

    def __call__(self, inputs: np.ndarray) -> torch.Tensor:
        """Return the float32 activations of a batch of canvases or maps."""
        size = part_size(inputs)
        whole = np.ascontiguousarray(_whole_parts(inputs, size))
        with self._lock:
            if self._request is None:
                self._request = self._compile(whole[:size])
            # A copy of each result is kept, because the request owns its output.
            parts = [self._run(whole[first : first + size]).copy() for first in range(0, len(whole), size)]
        return torch.from_numpy(np.concatenate(parts)[: len(inputs)])

    def _run(self, part: np.ndarray) -> np.ndarray:
        (result,) = self._request.infer([part]).values()
        return np.asarray(result, dtype=np.float32)

    def _compile(self, part: np.ndarray) -> Any:
        openvino = import_openvino()
        model = _converted(openvino, self.network, torch.from_numpy(part[:1].copy()))
        model.reshape(openvino.PartialShape(part.shape))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # in a joblib worker: its share of the cores
            "PERFORMANCE_HINT": "LATENCY",
        }
        if is_forked():
            # OpenVINO would wait for ever for threads of the parent. Without streams it uses this one (PROC-05).
            options["NUM_STREAMS"] = 0
        return openvino_core(os.getpid()).compile_model(model, "CPU", options).create_infer_request()


_converting = threading.RLock()


def import_openvino() -> Any:
    """Import OpenVINO, in one thread at a time."""
    with _converting, _telemetry_off():
        import openvino

        return openvino


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """Hide OpenVINO's telemetry package in this block; it would report each import and conversion to Google."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python then treats the module as impossible to import
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


Engine = TorchEngine | OpenVINOEngine


def resolve_engine(engine: str, device: torch.device) -> str:
    """Return the name of the requested engine; "auto" takes OpenVINO on a CPU if it is installed."""
    if engine == "auto":
        return "openvino" if device.type == "cpu" and importlib.util.find_spec("openvino") is not None else "torch"
    if engine == "openvino" and device.type != "cpu":
        raise ValueError(f"engine='openvino' runs on the CPU, but the device is {device.type!r}. Pass engine='torch'.")
    if engine == "openvino":
        require("engine='openvino'", "openvino", "openvino")
    return engine


def make_engine(
    backbone: Backbone,
    outputs: Outputs,
    start: int,
    *,
    engine: str,
    device: torch.device,
    precision: str,
) -> Engine:
    """Return the engine for these outputs. Each engine is built once per process, and the last few are kept."""
    start_clean_after_fork()
    identity = engine_identity(engine, device, precision)
    threads = torch.get_num_threads()
    key = (*backbone.identity, backbone.preprocessing, outputs, start, identity, device, threads)

    def build() -> Engine:
        network = CutNetwork(backbone, outputs, start)
        if engine == "openvino":
            return OpenVINOEngine(network, precision)
        return TorchEngine(network, _sample(backbone, start), device, precision)

    return built_once(key, build)


def engine_identity(engine: str, device: torch.device, precision: str) -> str:
    """Return the engine's name, version, device, and every switch that affects the values it computes."""
    parts = [engine, _version(engine), device.type, precision]
    if engine == "openvino":
        # On a processor without bfloat16, OpenVINO silently computes in float32.
        parts += ["native"] if precision == "bfloat16" and _openvino_has_bfloat16() else []
    else:
        # These switches say whether float32 products may be computed in TensorFloat-32 or bfloat16.
        parts += [switch.fp32_precision for switch in _fp32_switches(device)]
        parts += [f"deterministic={torch.are_deterministic_algorithms_enabled()}"]
    if device.type == "cuda":
        parts += [torch.cuda.get_device_name(device)]
    return " ".join(map(str, parts))


_version = functools.cache(version)  # it is needed for each batch, and `version` searches files


def _fp32_switches(device: torch.device) -> list[Any]:
    backends: Any = torch.backends
    if device.type == "cuda":
        return [backends.cuda.matmul, backends.cudnn.conv]
    return [backends.mkldnn.matmul, backends.mkldnn.conv] if device.type == "cpu" else []


def _converted(openvino: Any, network: nn.Module, sample: torch.Tensor) -> Any:
    """Return a network as an OpenVINO model.

    torch's tracer uses state that all threads share, so only one network is converted at a time. The conversion runs in
    a thread of its own, because Ctrl-C interrupts only the main thread. If it interrupted Python code called by
    OpenVINO, it would end the process or look like a failed conversion.
    """

    def convert() -> Any:
        with torch.inference_mode(), warnings_ignored(""):  # the tracer warns that shapes become constants
            return openvino.convert_model(network, example_input=sample)

    with _converting, ThreadPoolExecutor(1) as thread:
        return thread.submit(convert).result()


@functools.cache
def openvino_core(pid: int) -> Any:
    """Return OpenVINO's core of this process. It is kept, so that its plugin is not unloaded while threads use it."""
    return import_openvino().Core()


@functools.cache
def _openvino_has_bfloat16() -> bool:
    return "BF16" in openvino_core(os.getpid()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _sample(backbone: Backbone, start: int) -> torch.Tensor:
    """Return a random canvas if `start` is 0, otherwise its map at that cut."""
    shape = (1, *backbone.preprocessing.size, 3)
    canvas = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if start == 0:
        return canvas
    with torch.inference_mode():
        maps: torch.Tensor = CutNetwork(backbone, Outputs((start,), None)).eval()(canvas)
    return maps
