"""The classification problems of `accuracy.py`: images, labels, a split into training and test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from sktransfer.datasets import load_elpv, load_fashion_mnist, load_image_folder, make_wallpaper_groups

CLOTHING = Path(__file__).parents[2] / "shared" / "data" / "clothing"
FASHION_TEST = 2_000  # of the 10,000 test images, where a strategy is too slow to look at all of them


@dataclass(frozen=True)
class Problem:
    """Images and labels to train on and to test on, and the augmentation that suits them."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    augment: str


def load(name: str, seed: int) -> Problem:
    """Return the problem of that name: ``elpv``, or with fewer training images ``elpv-500``, and so on.

    Each seed splits, samples or generates anew.
    """
    kind, *rest = name.split("-")
    return {"elpv": _elpv, "clothing": _clothing, "fashion": _fashion, "wallpaper": _wallpaper}[kind](*rest, seed=seed)


def _elpv(n: str = "1968", *, seed: int) -> Problem:
    """75/25, stratified over label × module type (8 strata)."""
    cells = load_elpv()
    strata = np.array([f"{p:.2f} {kind}" for p, kind in zip(cells.probability, cells.module_type, strict=True)])
    train, test = train_test_split(np.arange(len(strata)), test_size=0.25, stratify=strata, random_state=seed)
    return Problem(
        *_parts(cells.data, cells.target, _fewer(train, int(n), cells.target, seed), test), "any_orientation"
    )


def _clothing(*, seed: int) -> Problem:
    """900 of the 1,272 photos, stratified."""
    if not CLOTHING.is_dir():
        raise FileNotFoundError(f"No folder {CLOTHING}. Put the photos there, or leave this problem out (--problem).")
    folders = [load_image_folder(CLOTHING / part) for part in ("train", "test")]
    X, y = (np.concatenate([folder[key] for folder in folders]) for key in ("data", "target"))
    train, test = train_test_split(np.arange(len(y)), train_size=900, stratify=y, random_state=seed)
    return Problem(*_parts(X, y, train, test), "photo")


def _fashion(n: str, part: str = "some", *, seed: int) -> Problem:
    """Take n of the 60,000 training images, stratified; some of the test images, or all of them."""
    train, test = load_fashion_mnist(), load_fashion_mnist(subset="test")
    rows = _fewer(np.arange(len(train.target)), int(n), train.target, seed)
    seen = slice(None if part == "all" else FASHION_TEST)
    return Problem(train.data[rows], train.target[rows], test.data[seen], test.target[seen], "photo")


def _wallpaper(lattice: str, n: str, *, seed: int) -> Problem:
    """Draw so many training images and 60 test images of each group."""
    train = make_wallpaper_groups(int(n), lattice=lattice, random_state=seed)
    test = make_wallpaper_groups(60, lattice=lattice, random_state=10_000 + seed)
    return Problem(train.data, train.target, test.data, test.target, "any_orientation")


def _fewer(rows: np.ndarray, n: int, y: np.ndarray, seed: int) -> np.ndarray:
    if n >= len(rows):
        return rows
    return train_test_split(rows, train_size=n, stratify=y[rows], random_state=seed)[0]


def _parts(X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, ...]:
    return X[train], y[train], X[test], y[test]
