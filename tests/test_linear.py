"""`OneThreadLogisticRegression` is scikit-learn's, on one thread."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from sktransfer._linear import OneThreadLogisticRegression


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_fits_as_scikit_learn_does_on_one_thread(monkeypatch):
    rng = np.random.default_rng(0)
    X, y, weights = rng.normal(size=(60, 5)), rng.integers(3, size=60), rng.random(60)
    expected = LogisticRegression(C=10).fit(X, y, sample_weight=weights)
    fit, seen = LogisticRegression.fit, []

    def watched(self, *args, **kwargs):
        seen.append(blas_threads())
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(2, user_api="blas"):
        actual = OneThreadLogisticRegression(C=10).fit(X, y, sample_weight=weights)
        assert blas_threads() == {2}
    assert seen == [{1}]
    np.testing.assert_allclose(actual.coef_, expected.coef_)
    assert (actual.predict(X) == expected.predict(X)).all()
