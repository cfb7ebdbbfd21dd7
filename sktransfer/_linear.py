"""The linear model on features, and why it keeps to one thread."""

from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits


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
