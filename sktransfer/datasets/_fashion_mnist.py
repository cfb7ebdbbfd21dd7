"""Fashion-MNIST, read from files that are already on this machine."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from .._validated import validated

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PREFIX = {"train": "train", "test": "t10k"}
_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@validated(lambda sk: {"path": [str, os.PathLike, None], "subset": [sk.StrOptions({"train", "test"})]})
def load_fashion_mnist(path: str | os.PathLike[str] | None = None, *, subset: str = "train") -> Bunch:
    """Load Fashion-MNIST: grey photos of clothes, 28 × 28 pixels, in ten classes.

    Parameters
    ----------
    path : path or None, default=None
        A folder that holds the four IDX files at any depth, compressed (``.gz``) or not, such as the folder given to
        torchvision's ``FashionMNIST``. None takes the files of Debian's package ``dataset-fashion-mnist``.
    subset : {"train", "test"}, default="train"
        The 60,000 training images or the 10,000 test images.

    Returns
    -------
    bunch : Bunch
        ``data``, ndarray of uint8 (n, 28, 28); ``target``, ndarray of int (n,), positions in ``target_names``;
        ``target_names``, the ten names.

    Raises
    ------
    FileNotFoundError
        If the folder lacks the files.
    ValueError
        If a file is not in IDX format or is incomplete.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017. MIT licence.

    Examples
    --------
    >>> from sktransfer.datasets import load_fashion_mnist
    >>> clothes = load_fashion_mnist(subset="test")  # doctest: +SKIP
    >>> clothes.data.shape, clothes.target_names[0]  # doctest: +SKIP
    ((10000, 28, 28), 'T-shirt/top')
    """
    folder = DEBIAN_FOLDER if path is None else Path(path)
    data, target = (_read_idx(_find(folder, f"{_PREFIX[subset]}-{kind}")) for kind in ("images-idx3", "labels-idx1"))
    return Bunch(data=data, target=target.astype(int), target_names=list(_CLASSES))


def _find(folder: Path, name: str) -> Path:
    found = sorted(folder.rglob(f"{name}-ubyte*")) or sorted(folder.rglob(f"{name.replace('-idx', '.idx')}-ubyte*"))
    if not found:
        raise FileNotFoundError(
            f"No file {name}-ubyte or {name}-ubyte.gz in {str(folder)!r}. Install Debian's package "
            "dataset-fashion-mnist, or pass the folder with the four IDX files as path."
        )
    return found[0]


def _read_idx(path: Path) -> np.ndarray:
    """Read an array of bytes from an IDX file: two zeros, the type, the number of axes, their lengths, the values."""
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        n_axes = content[3]
        header = 4 + 4 * n_axes
        shape = np.frombuffer(content[4:header], dtype=">u4").astype(int)
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("it does not start as IDX files of bytes do")
        return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an IDX file: {error}. Download it again.") from error
