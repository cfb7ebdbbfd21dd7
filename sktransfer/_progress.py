"""Compute ahead in threads, and show the progress."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], workers: int, depth: int) -> Iterator[R]:
    """Yield ``function(item)`` in order, computed by threads at most `depth` items ahead of the consumer."""
    remaining = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(function, item) for item in itertools.islice(remaining, depth))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(function, item) for item in itertools.islice(remaining, 1))
                yield result
        finally:  # if the consumer stops early or an image cannot be read, the other images are not decoded
            pool.shutdown(wait=True, cancel_futures=True)


def progress_bar(total: int, description: str, verbose: int) -> tqdm:
    """Return a bar that counts images. It is a widget in a notebook, and hidden if `verbose` is 0."""
    return tqdm(total=total, desc=description, unit="img", disable=not verbose)
