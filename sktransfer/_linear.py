"""The linear model on features, why it keeps to one thread, and the search for its parameters."""

from numbers import Integral

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from ._validation import check_folds, check_labels


class OneThreadLogisticRegression(LogisticRegression):
    """scikit-learn's logistic regression, whose matrix products run on one thread.

    With some hundred images the products are so small that the threads of BLAS mostly wait for each other: a fit takes
    some times as long on two threads as on one, and forty times where another process has one of the two cores
    (``benchmarks/linear_threads.py``).
    """

    def fit(self, X, y, sample_weight=None):
        """Fit as scikit-learn does."""
        with threadpool_limits(1, user_api="blas"):
            return super().fit(X, y, sample_weight=sample_weight)


class CheckedGridSearchCV(GridSearchCV):
    """scikit-learn's search, which says what is wrong with y in the user's own labels."""

    def fit(self, X, y=None, **params):
        """Fit as scikit-learn does."""
        y = check_labels(y, len(X))
        if isinstance(self.cv, Integral) and np.unique(y, return_counts=True)[1].max() < self.cv:
            check_folds(y, self.cv)  # with images enough in some class, scikit-learn only warns of the others
        return super().fit(X, y, **params)
