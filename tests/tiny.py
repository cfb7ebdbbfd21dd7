"""The smallest networks and data, on which most tests run in a moment."""

import numpy as np
from sklearn.datasets import load_digits

TINY = {"backbone": "timm/test_efficientnet", "weights": None, "image_size": 32}  # random weights
SCRATCH = {"backbone": "shallow_cnn", "weights": None, "image_size": 16, "random_state": 0}
FLAT = {"image_shape": (8, 8), "value_range": (0, 16)}  # how the rows of the digits are to be read
FLAT_64 = {**FLAT, "image_size": 64}  # and enlarged, for networks that need it


def digits(n=None, n_classes=3):
    """Return the first n of scikit-learn's digits that are of so many classes, as flat rows, and their labels."""
    X, y = load_digits(n_class=n_classes, return_X_y=True)
    return X[:n], y[:n]


def named_digits(n):
    """Return the first n of three classes, and their labels as words."""
    X, y = digits(n)
    return X, np.array(["zero", "one", "two"])[y]


DIGITS, TARGET = named_digits(90)
