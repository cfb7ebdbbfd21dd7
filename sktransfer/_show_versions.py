"""`show_versions`: what a bug report should say about the machine and the installed packages."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib
from threadpoolctl import threadpool_info

from . import __version__

REQUIRED = (
    *("click", "joblib", "numpy", "pillow", "safetensors", "scikit-learn", "scipy", "skops", "skorch", "threadpoolctl"),
    *("timm", "torch", "torchvision", "tqdm", "xxhash"),
)
OPTIONAL = (
    *("captum", "elpv-dataset", "matplotlib", "onnx", "onnxruntime", "onnxscript", "openvino", "pandas", "pyarrow"),
    "skl2onnx",
)
# Variables that decide where downloaded weights and temporary files lie, and how many threads run.
ENVIRONMENT = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "TMPDIR", "TORCH_HOME")

Section = dict[str, str]


def show_versions() -> None:
    """Print the versions and settings that a bug report should contain.

    The report names sktransfer, Python, the operating system, the processor and its threads, every dependency, the
    devices that torch finds, the engine that ``engine="auto"`` takes, the libraries that run threads, and the settings
    of the caches. Nothing is sent anywhere.

    See Also
    --------
    cache_info : What the cache of activations holds.

    Notes
    -----
    Versions are read from the metadata of the installed packages, so a package that cannot be imported is reported too.
    torch is imported to ask for its devices. If that fails, the report contains the error.

    The report contains paths of folders. Remove from it what you do not want to publish.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.show_versions()  # doctest: +ELLIPSIS
    System
      sktransfer ...
      python ...
    """
    sections = {
        "System": _system(),
        "Dependencies": {name: _version(name) for name in REQUIRED},
        "Optional dependencies": {name: _version(name) for name in OPTIONAL},
        "Computing": _computing(),
        "Thread pools": _thread_pools(),  # after the import of torch, which brings pools of its own
        "Caches": _caches(),
    }
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(title)
        for name, value in section.items():
            print(f"  {name:{width}}  {value}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _system() -> Section:
    return {
        "sktransfer": __version__,
        "python": " ".join(sys.version.split()),
        "executable": sys.executable,
        "operating system": platform.platform(),
        "processor": _processor(),
        "threads": f"{os.cpu_count()}, of which this process may use {joblib.cpu_count()}",
    }


def _processor() -> str:
    """Return the name of the processor; `platform` does not know it on Linux, where a file does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _computing() -> Section:
    """Return the devices that torch finds, and what ``"auto"`` takes.

    `resolve_device` and `resolve_engine` decide the latter. Their module imports much more than torch, so the two rules
    are repeated here, and a test compares them.
    """
    try:
        import torch
    except Exception as error:  # a broken installation is what the report is for
        return {"import of torch": f"{type(error).__name__}: {error}"}
    gpus = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    has_mps = torch.backends.mps.is_available()
    device = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    engine = "openvino" if device == "cpu" and importlib.util.find_spec("openvino") is not None else "torch"
    return {
        "devices of torch": ", ".join(["cpu", *(f"{gpu} ({name})" for gpu, name in gpus.items()), *["mps"] * has_mps]),
        "CUDA of torch": torch.version.cuda or "none",
        "threads of torch": str(torch.get_num_threads()),
        'device="auto"': device,
        'engine="auto"': engine,
    }


def _thread_pools() -> Section:
    return {
        f"{pool['user_api']} {number}": f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
        for number, pool in enumerate(threadpool_info(), start=1)
    }


def _caches() -> Section:
    from ._frozen._store import _limits, cache_info

    settings = {name: os.environ.get(name, "not set") for name in ENVIRONMENT}
    return {
        "activations in memory": f"at most {cache_info().limit_megabytes:g} MB",
        "activations in a folder": f"at most {_limits['disk'] / 1e6:g} MB in each folder that memory= names",
        "temporary files": tempfile.gettempdir(),
        **settings,
    }
