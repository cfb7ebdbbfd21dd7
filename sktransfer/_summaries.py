"""Summaries of scores and durations for tables, figures and messages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

TIE = 0.0005  # mean scores that differ by at most this look equal at three digits


def spread(scores: np.ndarray) -> float:
    """Return the standard deviation over folds; nan for a single fold."""
    return float(scores.std(ddof=1)) if len(scores) > 1 else np.nan


def best_of(scores: Mapping[str, np.ndarray]) -> str:
    """Return the name with the highest mean; the first one if several look equal at three digits."""
    means = {name: np.mean(values) for name, values in scores.items()}
    return next(name for name, mean in means.items() if mean >= max(means.values()) - TIE)


def duration(seconds: float) -> str:
    """Return a duration as text with two digits: ``3.4 s``, ``25 s``, ``4.2 min``, ``2.5 h``."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"
