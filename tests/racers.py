"""Strategies whose answers and costs are known, for tests of how strategies are compared."""

import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedCNNFeatures
from tiny import FLAT_64

FROZEN = ["features + linear", "features + SVM", "dense head"]


class Recorder(ClassifierMixin, BaseEstimator):
    """Always answers `answer`; remembers the images it was fitted and asked on, and takes its time."""

    fits: list = []
    tests: list = []

    def __init__(self, answer=0, seconds=0.0, cost=0.0):
        self.answer = answer
        self.seconds = seconds
        self.cost = cost

    def fit(self, X, y):
        time.sleep(self.seconds)
        self.fits.append((self.answer, np.asarray(X)[:, 0].tolist()))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        self.tests.append((self.answer, np.asarray(X)[:, 0].tolist()))
        return np.full(len(X), self.answer)


def features_and_linear():
    return make_pipeline(PretrainedCNNFeatures(**FLAT_64, engine="torch"), LogisticRegression())


def numbered(n=30):
    """Rows that say which they are, and labels 0, 0, 1."""
    return np.arange(n)[:, None], np.array([0, 0, 1] * (n // 3))
