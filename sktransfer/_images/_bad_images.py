"""Which images cannot be read, all of them at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

from .._exceptions import BadImage, ImageError
from .._threads import decoding_threads
from .._validated import validated
from ._collection import Images, as_images
from ._items import shortened

LISTED = 20  # at most, in one message
LOOK_SECONDS = 60  # for the other bad images, once the first one has ended a computation
_LEAST_SIDE = 512  # large JPEGs are decoded at a fraction, as for the default backbone
_BLOCK = 256


@validated(
    lambda sk: {
        "image_shape": ["array-like", None],
        "value_range": [sk.StrOptions({"auto"}), "array-like"],
        "n_jobs": [Integral, None],
    }
)
def find_bad_images(
    X: Any,
    *,
    image_shape: Sequence[int] | None = None,
    value_range: str | Sequence[float] = "auto",
    n_jobs: int | None = None,
) -> list[BadImage]:
    """Find the images that cannot be read, without computing anything.

    Parameters
    ----------
    X : images
        As in `PretrainedCNNFeatures.transform`. Each is decoded, and forgotten.
    image_shape : tuple of int, default=None
        Shape of one image when `X` holds flat rows.
    value_range : "auto" or (float, float), default="auto"
        The values that mean black and white.
    n_jobs : int, default=None
        Threads that decode images. None takes as many as torch uses; -1 takes all cores.

    Returns
    -------
    bad_images : list of BadImage
        Each with its ``index`` in X, its ``path`` if it is a file, and the ``reason``.

    Examples
    --------
    >>> from sktransfer import find_bad_images
    >>> for bad in find_bad_images(["missing.jpg", b"no picture"]):
    ...     print(bad.index, bad.path, bad.reason)
    0 missing.jpg there is no such file...
    1 None it is in no format that is read here...
    """
    images = as_images(X, image_shape=image_shape, value_range=value_range)
    return _look(images, _LEAST_SIDE, decoding_threads(n_jobs))[0]


def with_all_others(first: ImageError, images: Images, least_side: int, workers: int) -> ImageError:
    """Return an error that names every bad image beside the one that was met first.

    The others are decoded, not computed, and for a minute at most.
    """
    if not first.bad_images:
        return first
    found, n_seen = _look(images, least_side, workers, LOOK_SECONDS)
    bad = sorted({one.index: one for one in (*first.bad_images, *found)}.values(), key=lambda one: one.index)
    if len(bad) == 1:
        return first
    some = "" if n_seen == len(images) else f" among the first {n_seen}, and more may follow"
    return ImageError(
        f"Cannot read {len(bad)} of {len(images)} images{some}:\n{listed(bad)}\nTake them out "
        "(sktransfer.find_bad_images returns their positions), or let PretrainedCNNFeatures(on_error='nan') go on.",
        bad,
    )


def listed(bad_images: Sequence[BadImage]) -> str:
    """Return one line for each, up to a number that can still be read."""
    lines = [
        f"image {bad.index} ({shortened(bad.path or 'no file')}): {bad.reason[:300]}" for bad in bad_images[:LISTED]
    ]
    if len(bad_images) > LISTED:
        lines.append(f"… and {len(bad_images) - LISTED} more.")
    return "\n".join(lines)


def _look(images: Images, least_side: int, workers: int, seconds: float = float("inf")) -> tuple[list[BadImage], int]:
    """Return the bad images found within that time, and how many images were looked at."""

    def fault(i: int) -> tuple[BadImage, ...]:
        try:
            images.decode(i, least_side)
        except ImageError as error:
            return error.bad_images
        return ()

    found: list[BadImage] = []
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(images), _BLOCK):
            if time.monotonic() > end:
                return found, first
            for bad in pool.map(fault, range(first, min(first + _BLOCK, len(images)))):
                found.extend(bad)
    return found, len(images)
