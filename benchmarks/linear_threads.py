"""A logistic regression on features with one and with all threads of BLAS, alone and beside a busy process.

    python benchmarks/linear_threads.py

Random features of the shape that EfficientNet-Lite0's stages have, ten classes, C=100. Prints seconds and ratios, which
STRAT-11 in docs/design/strategies.md quotes.
"""

from __future__ import annotations

import multiprocessing
import os
import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

N_FEATURES, N_CLASSES = 2064, 10
SIZES = (200, 500, 1_000, 5_000, 10_000)


def seconds(n: int, threads: int) -> float:
    """Fit once to random features, the same each time."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = rng.integers(N_CLASSES, size=n)
    with threadpool_limits(threads, user_api="blas"):
        start = time.perf_counter()
        LogisticRegression(C=100, max_iter=1000).fit(X, y)
        return time.perf_counter() - start


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def main() -> None:
    """Print a table."""
    cores = os.cpu_count() or 1
    print(f"{cores} cores\n\n| images | | 1 thread, s | {cores} threads, s | ratio |\n|---|---|---|---|---|")
    seconds(SIZES[0], 1)
    for beside in ("alone", "beside a busy process"):
        other = multiprocessing.Process(target=spin, daemon=True)
        if beside != "alone":
            other.start()
        for n in SIZES if beside == "alone" else SIZES[:3]:
            one, all_of_them = seconds(n, 1), seconds(n, cores)
            print(f"| {n} | {beside} | {one:.2f} | {all_of_them:.2f} | {all_of_them / one:.1f} |", flush=True)
        if other.is_alive():
            other.terminate()


if __name__ == "__main__":
    main()
