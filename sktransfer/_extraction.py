"""From images to activations, a batch at a time: decoding runs in threads beside the computing."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import torch
from tqdm.auto import tqdm

from ._images import Images
from ._preprocessing import Preprocessing

Engine = Callable[[np.ndarray], torch.Tensor]


def iter_canvases(
    images: Images, preprocessing: Preprocessing, *, batch_size: int, n_jobs: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the canvases of `images` in order, as uint8 batches (≤ batch_size, H, W, 3).

    `n_jobs` threads decode ahead of the consumer, by at most two batches, so memory stays bounded.
    """

    def prepare(index: int) -> np.ndarray:
        return preprocessing.canvas(images[index])

    # By default as many threads as torch may use: in a joblib worker that is the worker's share of the cores.
    workers = torch.get_num_threads() if n_jobs is None else joblib.effective_n_jobs(n_jobs)
    indices = iter(range(len(images)))
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(prepare, index) for index in itertools.islice(indices, 2 * batch_size))
        try:
            while ahead:
                batch = [ahead.popleft().result() for _ in range(min(batch_size, len(ahead)))]
                ahead.extend(pool.submit(prepare, index) for index in itertools.islice(indices, len(batch)))
                yield np.stack(batch)
        finally:  # the consumer may stop early, or an image may be unreadable: do not decode the rest
            pool.shutdown(wait=True, cancel_futures=True)


def iter_activations(
    images: Images,
    preprocessing: Preprocessing,
    engine: Engine,
    *,
    batch_size: int,
    n_jobs: int | None = None,
    verbose: int = 0,
    description: str = "Extracting features",
) -> Iterator[torch.Tensor]:
    """Yield the activations of `images` in order, a batch at a time, on the engine's device."""
    batches = iter_canvases(images, preprocessing, batch_size=batch_size, n_jobs=n_jobs)
    with progress_bar(len(images), description, verbose) as bar:
        for canvases in batches:
            yield engine(canvases)
            bar.update(len(canvases))


def extract(images: Images, preprocessing: Preprocessing, engine: Engine, **options) -> np.ndarray:
    """Return the activations of all images as one float32 array; takes the options of `iter_activations`."""
    out: np.ndarray | None = None
    start = 0
    for batch in iter_activations(images, preprocessing, engine, **options):
        if out is None:
            out = np.empty((len(images), *batch.shape[1:]), dtype=np.float32)
        out[start : start + len(batch)] = batch.cpu().numpy()
        start += len(batch)
    assert out is not None  # `as_images` refuses empty input
    return out


def progress_bar(total: int, description: str, verbose: int) -> tqdm:
    """Return a bar that counts images, silent without `verbose`; in a notebook a widget."""
    return tqdm(total=total, desc=description, unit="img", disable=not verbose, leave=True)


def stacked_canvases(images: Images, preprocessing: Preprocessing, **options) -> np.ndarray:
    """Return all canvases as one uint8 array (n, H, W, 3)."""
    return np.concatenate(list(iter_canvases(images, preprocessing, **options)))
