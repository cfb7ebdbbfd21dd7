"""Samples of the images, for work that would take too long on all of them."""

from __future__ import annotations

import numpy as np

from .._validation import drawn

PILOT = 32  # images; more would be more exact, but slow for networks that are trained as a whole


def sample_rows(y: np.ndarray, n: int, random_state: int = 0, least: int = 1) -> np.ndarray:
    """Return the positions of a stratified sample of `n` images; all of them if there are no more than `n`.

    At least `least` images of each class are kept, however rare; a class with fewer is kept whole. The sample is larger
    than `n` if these add up to more.
    """
    if n >= len(y):
        return np.arange(len(y))
    codes, counts = np.unique(y, return_inverse=True, return_counts=True)[1:]
    exact = n * counts / len(y)
    kept = np.maximum(np.floor(exact).astype(int), np.minimum(counts, least))
    missing = n - kept.sum()
    kept[np.argsort(kept - exact, kind="stable")[: max(missing, 0)]] += 1  # those that rounding cut most
    for _ in range(-missing):
        if kept.max() > least:
            kept[kept.argmax()] -= 1
    return np.flatnonzero(drawn(codes, kept, random_state))


def pilot_rows(y: np.ndarray, n: int = PILOT) -> np.ndarray:
    """Return positions of about `n` images, with two of each of the most frequent classes, where they have two."""
    classes, counts = np.unique(y, return_counts=True)
    frequent = classes[np.argsort(-counts, kind="stable")][: n // 2]
    each = max(2, n // len(frequent))
    return np.sort(np.concatenate([np.flatnonzero(y == label)[:each] for label in frequent]))
