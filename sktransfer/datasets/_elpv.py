"""Electroluminescence photos of solar cells, from the PyPI package ``elpv-dataset``."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from .._optional import require


def load_elpv() -> Bunch:
    """Load the ELPV data set: 2,624 photos of solar cells, functional or defective.

    Each grey photo of 300 × 300 pixels shows one cell. The cells come from 44 modules. Experts gave each cell a
    probability of being defective: 0, ⅓, ⅔ or 1. Here a cell counts as defective if it is at least ½ (821 cells).

    Returns
    -------
    bunch : Bunch
        ``data``, paths of the photos, ndarray of str (2624,); ``target``, 0 or 1, ndarray of int (2624,);
        ``target_names``; ``probability``, ndarray of float (2624,); ``module_type``, ``"mono"`` or ``"poly"``
        (crystalline), ndarray of str (2624,).

    Raises
    ------
    ModuleNotFoundError
        If the package ``elpv-dataset`` is not installed.

    References
    ----------
    S. Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence
    images", Solar Energy 185 (2019), 455-468. Licence of the photos: CC BY-NC-SA 4.0.

    Examples
    --------
    >>> from sktransfer.datasets import load_elpv
    >>> cells = load_elpv()
    >>> cells.data.shape, cells.target.sum()
    ((2624,), np.int64(821))
    """
    require("load_elpv", "demo", "elpv_dataset")
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.reader((line.strip() for line in file), delimiter=" ", skipinitialspace=True))
    paths, probabilities, types = zip(*rows, strict=True)
    probability = np.array(probabilities, dtype=float)
    return Bunch(
        data=np.array([str(folder / path) for path in paths]),
        target=(probability >= 0.5).astype(int),
        target_names=["functional", "defective"],
        probability=probability,
        module_type=np.array(types),
    )
