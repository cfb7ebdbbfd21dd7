"""The number of threads that decode images: the default and the meaning of ``n_jobs`` are the same everywhere."""

from __future__ import annotations

import os
import sys

import joblib


def decoding_threads(n_jobs: int | None) -> int:
    """Return the number of threads that ``n_jobs`` means. None means as many as torch uses; torch is not imported.

    In a joblib worker that is the worker's share of the cores, which joblib writes into ``OMP_NUM_THREADS``. Negative
    numbers count down from the number of cores, as in scikit-learn: -1 means all cores.
    """
    if n_jobs is not None:
        return int(joblib.effective_n_jobs(n_jobs))
    count = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if count is not None:
        return int(count())
    share = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(share) if share.isdigit() and int(share) > 0 else joblib.cpu_count(only_physical_cores=True)
