"""Run frozen stages over a batch of images."""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .._optional import require
from .._registry import built_once, is_forked, start_clean_after_fork
from .._warnings import warnings_ignored
from ._backbones import Backbone
from ._device_memory import Halving

CACHED_IMAGES = 8  # number of images run at a time on a CPU, so that their maps stay in its cache
POOLINGS = ("avg", "max", "avgmax", "flatten")


def resolve_device(device: str) -> torch.device:
    """Return the requested device; "auto" takes a GPU if one exists.

    Raises
    ------
    ValueError
        If this machine does not have the device.
    """
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


def pool(maps: torch.Tensor, pooling: str) -> torch.Tensor:
    """Turn feature maps (n, C, h, w) into vectors: (n, C), or (n, 2 C) for "avgmax", or (n, C h w) for "flatten"."""
    if pooling == "avg":
        return maps.mean(dim=(2, 3))
    if pooling == "max":
        return maps.amax(dim=(2, 3))
    if pooling == "avgmax":
        return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
    return maps.flatten(start_dim=1)


class CutNetwork(nn.Module):
    """Computes the activations at one or several cuts of a backbone, from canvases or from the map at a cut.

    Inputs and outputs have their channels last, the layout in which convolutions are fastest.

    Parameters
    ----------
    backbone : Backbone
        Its stages are run as far as the last cut.
    cuts : sequence of int
        How many stages lie before each cut, in ascending order; 0 is the normalised image itself.
    pooling : str or None
        None returns the feature map at the only cut; otherwise the pooled cuts are concatenated.
    start : int
        The cut whose map is the input; 0 for canvases.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, backbone: Backbone, cuts: Sequence[int], pooling: str | None, start: int = 0) -> None:
        super().__init__()
        self.cuts = tuple(cuts)
        self.pooling = pooling
        self.start = start
        self.stages = backbone.stages[start : self.cuts[-1]]
        preprocessing = backbone.preprocessing
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map uint8 (n, H, W, 3) or float (n, h, w, C) to float (n, n_features), or without pooling (n, h, w, C)."""
        x = inputs.permute(0, 3, 1, 2)
        if self.start == 0:
            x = x * self.scale + self.shift
        if self.pooling is None:
            maps: torch.Tensor = self.stages(x)
            return maps.permute(0, 2, 3, 1)
        pooled = [pool(x, self.pooling)] if self.start in self.cuts else []
        for depth, stage in enumerate(self.stages, start=self.start + 1):
            x = stage(x)
            if depth in self.cuts:
                pooled.append(pool(x, self.pooling))
        return torch.cat(pooled, dim=1)


class TorchEngine:
    """Runs a `CutNetwork` with torch: no gradients, channels last, BatchNorm folded into convolutions.

    On a CPU a batch is run a few images at a time, so that their maps stay in the processor's cache. A batch that does
    not fit the device's memory is halved once.

    Parameters
    ----------
    network : CutNetwork
        The network; it is copied and not changed.
    sample : torch.Tensor
        An input on which the folding is tested.
    device : torch.device
    precision : {"float32", "bfloat16"}
        bfloat16 applies to convolutions and matrix products only; the result is always float32.
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
    batches run one compiled for any size. Each is compiled once.

    Parameters
    ----------
    network : CutNetwork
    batch_size : int
        The size of full batches.
    precision : {"float32", "bfloat16"}
        bfloat16 needs a processor that supports it; on others, OpenVINO computes in float32.
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
    cuts: Sequence[int],
    pooling: str | None,
    start: int,
    *,
    engine: str,
    device: torch.device,
    precision: str,
    batch_size: int,
) -> Engine:
    """Return the engine for a cut. Each engine is built once per process, and the last few are kept."""
    start_clean_after_fork()
    identity = engine_identity(engine, device, precision)
    threads = torch.get_num_threads()
    key = (*backbone.identity, backbone.preprocessing, *cuts, pooling, start, identity, device, batch_size, threads)

    def build() -> Engine:
        network = CutNetwork(backbone, cuts, pooling, start)
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


def folded(network: CutNetwork, sample: torch.Tensor) -> CutNetwork:
    """Return a copy whose BatchNorm layers are folded into the convolutions before them.

    The order of the layers suggests which convolution feeds which BatchNorm. This guess is tested on `sample`: if the
    folded copy computes other values, an unfolded copy is returned.
    """
    plain = copy.deepcopy(network).eval()
    candidate = copy.deepcopy(plain)
    _fold_children(candidate)
    with torch.inference_mode():
        try:
            expected, got = plain(sample), candidate(sample)
        except (RuntimeError, TypeError):
            return plain
    same = (expected - got).abs().max() <= 1e-4 * expected.abs().max()
    return candidate if same.item() else plain


def _fold_children(module: nn.Module) -> None:
    for (name, first), (next_name, second) in itertools.pairwise(list(module.named_children())):
        if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)):
            continue
        if first.out_channels == second.num_features:
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, next_name, getattr(second, "act", nn.Identity()))  # of timm's BatchNormAct2d
    for child in module.children():
        _fold_children(child)


def _sample(backbone: Backbone, start: int) -> torch.Tensor:
    """Return a random canvas if `start` is 0, otherwise its map at that cut."""
    shape = (1, *backbone.preprocessing.size, 3)
    canvas = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if start == 0:
        return canvas
    with torch.inference_mode():
        maps: torch.Tensor = CutNetwork(backbone, [start], None).eval()(canvas)
    return maps


def feature_counts(backbone: Backbone, cuts: Sequence[int], pooling: str) -> list[int]:
    """Return the number of pooled features at each cut."""
    counts = _all_feature_counts(backbone, pooling)
    return [counts[cut - 1] for cut in cuts]


_counts: dict[tuple[object, ...], list[int]] = {}  # a few numbers per network; they do not keep the network in memory


def _all_feature_counts(backbone: Backbone, pooling: str) -> list[int]:
    """Return the number of pooled features after each stage, found by running one black image."""
    size = backbone.preprocessing.size
    if pooling != "flatten":  # with the other poolings, the number does not depend on the size
        size = (min(size[0], 256), min(size[1], 256))
    key = (*backbone.identity, pooling, size)
    if key not in _counts:
        start_clean_after_fork()
        counts = []
        with torch.inference_mode():
            x = torch.zeros(1, 3, *size)
            for stage in backbone.stages:
                x = stage(x)
                counts.append(pool(x, pooling).shape[1])
        _counts[key] = counts
    return _counts[key]
