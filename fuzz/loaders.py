"""Fuzz the loaders: whatever the file, an estimator, tensors, or one of our own errors.

    python fuzz/loaders.py CORPUS -runs=200000

The first byte chooses what the others are: a saved model; the content of its frame, with the right checksum, as
somebody would write it who wants to get past it; the JSON within that content; or a file of weights.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["skops.io", "sktransfer._persistence", "sktransfer._weights"]):
    from sktransfer._persistence import _framed, load
    from sktransfer._weights import read_weights

from seeds import fitted_models, packed_with
from sklearn.base import BaseEstimator

from sktransfer import SktransferError

KINDS = ("file", "content", "schema of a classifier", "schema of a pipeline", "safetensors", "pth")
MODELS = fitted_models()
FOLDER = Path(tempfile.mkdtemp(prefix="sktransfer-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def one_file(data: bytes) -> None:
    """Load what the first byte says."""
    kind, data = KINDS[data[0] % len(KINDS) if data else 0], data[1:]
    try:
        if kind in ("safetensors", "pth"):
            path = FOLDER / f"weights.{kind}"
            path.write_bytes(data)
            read_weights(path)
            return
        if kind.startswith("schema"):
            data = packed_with(MODELS[kind.split()[-1]], data)
        path = FOLDER / "model"
        path.write_bytes(data if kind == "file" else _framed(data))
        assert isinstance(load(path), BaseEstimator)
    except SktransferError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_file)
    atheris.Fuzz()
