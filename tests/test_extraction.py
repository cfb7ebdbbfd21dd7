"""Decoding ahead: order, bounds, early stops."""

import threading
import time

import numpy as np
import pytest
import torch

from sktransfer import ImageError
from sktransfer._extraction import extract, iter_canvases, stacked_canvases
from sktransfer._images import as_images
from sktransfer._preprocessing import Preprocessing

PREPROCESSING = Preprocessing((8, 8), 1.0)


class Numbered:
    """n grey images whose level is their number; counts what was decoded."""

    def __init__(self, n, delay=lambda index: 0):
        self.n, self.delay, self.decoded, self.lock = n, delay, [], threading.Lock()

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        time.sleep(self.delay(index))
        with self.lock:
            self.decoded.append(index)
        return np.full((8, 8, 3), index, dtype=np.uint8)


@pytest.mark.parametrize(("n", "batch_size", "n_jobs"), [(10, 4, 1), (10, 4, 3), (3, 8, 2), (8, 4, None)])
def test_order_is_kept_whatever_decodes_first(n, batch_size, n_jobs):
    images = Numbered(n, delay=lambda index: 0.01 * (index % 3 == 0))
    batches = list(iter_canvases(images, PREPROCESSING, batch_size=batch_size, n_jobs=n_jobs))
    assert [len(batch) for batch in batches] == [batch_size] * (n // batch_size) + (
        [n % batch_size] if n % batch_size else []
    )
    assert np.concatenate(batches)[:, 0, 0, 0].tolist() == list(range(n))


def test_looks_ahead_but_not_far():
    images = Numbered(1000)
    batches = iter_canvases(images, PREPROCESSING, batch_size=10, n_jobs=2)
    next(batches)
    time.sleep(0.2)
    assert 20 <= len(images.decoded) <= 30
    batches.close()
    time.sleep(0.1)
    assert len(images.decoded) <= 30


def test_error_stops_the_decoding():
    images = as_images([np.zeros((8, 8))] * 5 + ["missing.png"] + [np.zeros((8, 8))] * 500)
    with pytest.raises(ImageError, match="image 5 "):
        stacked_canvases(images, PREPROCESSING, batch_size=4, n_jobs=2)
    assert threading.active_count() < 10


def test_extract_fills_one_array_in_order():
    def engine(canvases):
        return torch.from_numpy(canvases[:, 0, 0, :2].astype(np.float32))

    out = extract(Numbered(7), PREPROCESSING, engine, batch_size=3)
    assert out.dtype == np.float32
    assert out.tolist() == [[i, i] for i in range(7)]
