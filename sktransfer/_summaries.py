"""How scores and durations are summed up, in tables, figures and messages alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

TIE = 0.0005  # of the mean score; what is nearer looks equal at three digits


def spread(scores: np.ndarray) -> float:
    """Return the standard deviation over folds; nan with a single one."""
    return float(scores.std(ddof=1)) if len(scores) > 1 else np.nan


def best_of(scores: Mapping[str, np.ndarray]) -> str:
    """Return the name of the highest mean; of those that look equal at three digits the first."""
    means = {name: np.mean(values) for name, values in scores.items()}
    return next(name for name, mean in means.items() if mean >= max(means.values()) - TIE)


def duration(seconds: float) -> str:
    """Say how long that is, to two digits: ``3.4 s``, ``25 s``, ``4.2 min``, ``2.5 h``."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"
