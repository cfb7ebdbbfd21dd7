"""The linear model on features, why it keeps to one thread, and the search for its parameters."""

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
_limited = 0  # blocks that run now
_limits: threadpool_limits | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread in this block; the last block of all threads gives the others back.

    The limit is one of the whole process. If each block put back what it found, two that overlap could leave the
    process with one thread for good.
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

    With some hundred images the products are so small that the threads of BLAS mostly wait for each other: a fit takes
    some times as long on two threads as on one, and forty times where another process has one of the two cores
    (``benchmarks/linear_threads.py``).
    """

    __module__ = "sktransfer"  # saved models name it

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit as scikit-learn does."""
        with one_blas_thread():
            super().fit(X, y, sample_weight=sample_weight)
        return self


class CheckedGridSearchCV(GridSearchCV):  # type: ignore[misc]  # scikit-learn is untyped
    """scikit-learn's search, which says what is wrong with y in the user's own labels."""

    __module__ = "sktransfer"  # saved models name it

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit as scikit-learn does."""
        y = check_labels(y, len(X))
        if isinstance(self.cv, Integral) and np.unique(y, return_counts=True)[1].max() < self.cv:
            check_folds(y, int(self.cv))  # with images enough in some class, scikit-learn only warns of the others
        super().fit(X, y, **params)
        return self
