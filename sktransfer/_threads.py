"""How many threads decode images: one default and one meaning of ``n_jobs`` for all that decode."""

from __future__ import annotations

import os
import sys

import joblib


def decoding_threads(n_jobs: int | None) -> int:
    """Return how many threads ``n_jobs`` asks for; None takes as many as torch uses, without importing it.

    In a worker of joblib that is the worker's share of the cores, which joblib writes into ``OMP_NUM_THREADS``. A
    negative number counts from the number of cores, as in scikit-learn: -1 takes them all.
    """
    if n_jobs is not None:
        return int(joblib.effective_n_jobs(n_jobs))
    count = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if count is not None:
        return int(count())
    share = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(share) if share.isdigit() and int(share) > 0 else joblib.cpu_count(only_physical_cores=True)
