"""Fuzz the loaders: whatever the file, an estimator, tensors, or one of our own errors.

    python fuzz/loaders.py CORPUS -runs=200000

The first byte chooses what the others are: a saved model; the content of its frame, with the right checksum, as
somebody would write it who wants to get past it; the JSON within that content; or a file of weights.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["skops.io", "sktransfer._persistence", "sktransfer._frozen._weights"]):
    import skops.io  # noqa: F401 - imported to be instrumented

    from sktransfer._frozen._weights import read_weights
    from sktransfer._persistence import _framed, load

from seeds import fitted_models, packed_with
from sklearn.base import BaseEstimator

from sktransfer import SktransferError

KINDS = ("file", "content", "schema of a classifier", "schema of a pipeline", "safetensors", "pth")
MODELS = fitted_models()
ODD_VALUES = [None, True, -1, 2**31, 1e308, "", "os", "system", "builtins", "eval", "ObjectNode", [], {}]
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


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Change JSON as a tree more often than as bytes: hardly any of its bytes can change and leave it JSON."""
    rng = random.Random(seed)
    if data and KINDS[data[0] % len(KINDS)].startswith("schema") and rng.random() < 0.8:
        try:
            tree = json.loads(data[1:])
        except ValueError:
            return atheris.Mutate(data, max_size)
        for _ in range(rng.randint(1, 3)):
            places = list(places_in(tree))
            if places:
                container, key = rng.choice(places)
                other, other_key = rng.choice(places)
                container[key] = rng.choice([*ODD_VALUES, copy.deepcopy(other[other_key])])
        content = json.dumps(tree, separators=(",", ":")).encode()
        return data[:1] + content[: max_size - 1]
    return atheris.Mutate(data, max_size)


def places_in(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a tree of JSON with each of its keys."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield node, key
        yield from places_in(value)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_file, custom_mutator=mutated)
    atheris.Fuzz()
