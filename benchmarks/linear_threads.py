"""A logistic regression on features with one and with all threads of BLAS, alone and beside a busy process.

Random features of the shape that EfficientNet-Lite0's stages have, ten classes, C=100.
"""

import os
import subprocess
import sys
from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from _cells import Benchmark, Cell, in_turn, median_ratio, seconds, table

N_FEATURES, N_CLASSES = 2064, 10


def plan(tiny: bool) -> list[Cell]:
    """Return more sizes alone than beside a busy process, where the largest take too long."""
    sizes = [20] if tiny else [200, 500, 1_000, 5_000, 10_000]
    return [{"images": n, "busy": False} for n in sizes] + [{"images": n, "busy": True} for n in sizes[:3]]


def fit_seconds(n: int, threads: int) -> float:
    """Fit once to random features, the same each time."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = rng.integers(N_CLASSES, size=n)
    with threadpool_limits(threads, user_api="blas"):
        return seconds(lambda: LogisticRegression(C=100, max_iter=1000).fit(X, y))


def measure(images: int, busy: bool) -> Cell:
    """Fit with all threads and with one thread in turn, three times."""
    cores = os.cpu_count() or 1
    work = partial(fit_seconds, images, cores), partial(fit_seconds, images, 1)
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        pairs = in_turn(*work, repeats=3)
    finally:
        if other is not None:
            other.kill()
            other.wait()
    every, one = np.median(pairs, axis=0)
    return {"cores": cores, "1 thread": one, "all threads": every, "ratio": median_ratio(pairs)}


def report(cells: list[Cell]) -> list[str]:
    columns = {"images": "", "busy": "", "cores": "", "1 thread": ".2f", "all threads": ".2f", "ratio": ".1f"}
    rows = [["yes" if key == "busy" and cell[key] else cell[key] for key in columns] for cell in cells]
    return table(columns, rows)


NOTE = "Seconds of a fit, alone and beside a busy process; the ratio is all threads over one."
BENCHMARK = Benchmark(__file__, __doc__, "Logistic regressions and threads", plan, measure, report, NOTE)

if __name__ == "__main__":
    BENCHMARK.main()
