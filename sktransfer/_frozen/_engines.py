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

CACHED_IMAGES = 8  # number of images run at a time on a CPU, so that their maps stay in its cache


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


class TorchEngine:
    """Runs a copy of a `CutNetwork` with torch: no gradients, channels last, BatchNorm folded into convolutions.

    On a CPU a batch is run a few images at a time, so that their maps stay in the processor's cache. A batch that does
    not fit the device's memory is halved once. bfloat16 applies to convolutions and matrix products only; the result is
    always float32. The folding is tested on `sample`.
    """

    def __init__(self, network: CutNetwork, sample: torch.Tensor, device: torch.device, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.parts = Halving(CACHED_IMAGES if device.type == "cpu" else None)
        self.network = folded(network, sample).to(device).to(memory_format=torch.channels_last)

    def __call__(self, inputs: np.ndarray) -> torch.Tensor:
        """Return the float32 activations of a batch of canvases or maps, on the engine's device."""
        low = self.precision == "bfloat16"
        batch = torch.from_numpy(inputs)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            batch = batch.pin_memory() if self.device.type == "cuda" else batch

            def run(rows: slice) -> torch.Tensor:
                activations: torch.Tensor = self.network(batch[rows].to(self.device, non_blocking=True))
                return activations.float()

            return torch.cat(self.parts(run, len(batch)))


class OpenVINOEngine:
    """Runs a `CutNetwork` with OpenVINO on the CPU.

    The module is converted in memory at the first batch. Full batches run a model compiled for their exact size; other
    batches run one compiled for any size. Each is compiled once. On a processor without bfloat16, OpenVINO computes in
    float32 instead.
    """

    def __init__(self, network: CutNetwork, batch_size: int, precision: str) -> None:
        self.device = torch.device("cpu")
        self.network = network.eval()
        self.batch_size = batch_size
        self.precision = precision
        self._model: Any = None
        self._requests: dict[int, Any] = {}
        self._lock = threading.Lock()  # only one thread at a time may use a request

    def __call__(self, inputs: np.ndarray) -> torch.Tensor:
        """Return the float32 activations of a batch of canvases or maps."""
        n = self.batch_size if len(inputs) == self.batch_size else -1
        with self._lock:
            if n not in self._requests:
                self._requests[n] = self._compile(n, inputs)
            (result,) = self._requests[n].infer([np.ascontiguousarray(inputs)]).values()
            return torch.from_numpy(np.array(result, dtype=np.float32))  # a copy: the request owns its output

    def _compile(self, n: int, inputs: np.ndarray) -> Any:
        openvino = _openvino()
        if self._model is None:
            self._model = _converted(openvino, self.network, torch.from_numpy(inputs[:1].copy()))
        model = self._model.clone()
        model.reshape(openvino.PartialShape([n, *inputs.shape[1:]]))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # in a joblib worker: its share of the cores
            "PERFORMANCE_HINT": "LATENCY",
        }
        if is_forked():
            # OpenVINO would wait for ever for threads of the parent. Without streams it uses this one (PROC-05).
            options["NUM_STREAMS"] = 0
        return _core(os.getpid()).compile_model(model, "CPU", options).create_infer_request()


_converting = threading.RLock()


def _openvino() -> Any:
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
    batch_size: int,
) -> Engine:
    """Return the engine for these outputs. Each engine is built once per process, and the last few are kept."""
    start_clean_after_fork()
    identity = engine_identity(engine, device, precision)
    threads = torch.get_num_threads()
    key = (*backbone.identity, backbone.preprocessing, outputs, start, identity, device, batch_size, threads)

    def build() -> Engine:
        network = CutNetwork(backbone, outputs, start)
        if engine == "openvino":
            return OpenVINOEngine(network, batch_size, precision)
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
def _core(pid: int) -> Any:
    """Return OpenVINO's core of this process. It is kept, so that its plugin is not unloaded while threads use it."""
    return _openvino().Core()


@functools.cache
def _openvino_has_bfloat16() -> bool:
    return "BF16" in _core(os.getpid()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _sample(backbone: Backbone, start: int) -> torch.Tensor:
    """Return a random canvas if `start` is 0, otherwise its map at that cut."""
    shape = (1, *backbone.preprocessing.size, 3)
    canvas = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if start == 0:
        return canvas
    with torch.inference_mode():
        maps: torch.Tensor = CutNetwork(backbone, Outputs((start,), None)).eval()(canvas)
    return maps
