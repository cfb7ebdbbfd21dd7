"""The linear model on features, which runs on one thread, and the search for its parameters."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from ._validation import check_folds, check_labels

_counting = threading.Lock()
_limited = 0  # number of blocks that are running
_limits: threadpool_limits | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this block. The last block that ends, in any thread, lifts the limit.

    The limit applies to the whole process. If each block restored the number of threads that it found, two overlapping
    blocks could leave the process with one thread permanently.
    """
    global _limited, _limits
    with _counting:
        if _limited == 0:
            _limits = threadpool_limits(1, user_api="blas")
        _limited += 1
    try:
        yield
    finally:
        with _counting:
            _limited -= 1
            if _limited == 0 and _limits is not None:
                _limits.restore_original_limits()


class OneThreadLogisticRegression(LogisticRegression):  # type: ignore[misc]  # scikit-learn is untyped
    """scikit-learn's logistic regression, whose matrix products run on one thread.

    With some hundred images the products are so small that the threads of BLAS mostly wait for each other. A fit takes
    several times as long on two threads as on one, and forty times if another process uses one of the two cores
    (``benchmarks/linear_threads.py``).
    """

    __module__ = "sktransfer"  # saved models contain this name

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit as scikit-learn does."""
        with one_blas_thread():
            super().fit(X, y, sample_weight=sample_weight)
        return self


class CheckedGridSearchCV(GridSearchCV):  # type: ignore[misc]  # scikit-learn is untyped
    """scikit-learn's grid search, with error messages about y that name the user's labels."""

    __module__ = "sktransfer"  # saved models contain this name

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit as scikit-learn does."""
        y = check_labels(y, len(X))
        if isinstance(self.cv, Integral) and np.unique(y, return_counts=True)[1].max() < self.cv:
            check_folds(y, int(self.cv))  # scikit-learn only warns if at least one class has enough images
        super().fit(X, y, **params)
        return self
