"""`find_duplicates` groups images that are copies of each other, for cross-validation.

Each image becomes thumbnails of three sizes. Two images are copies if they differ no more than an image differs from
its own low-quality JPEG. That difference is measured for each image. Brightening is undone before the comparison,
except where it has clipped pixels to white.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .._exceptions import ImageError
from .._progress import map_ahead, progress_bar
from .._threads import decoding_threads
from .._validated import validated
from ._bad_images import with_all_others
from ._collection import Images, as_images

SIDES = (8, 16, 48)  # sides of the thumbnails; a pair is compared at the largest that the smaller image allows
PIXELS = 1.75  # least number of image pixels per thumbnail pixel and axis, so that JPEG errors average out
QUALITY = 50  # quality of the JPEG that shows how much copies differ
LEAST_NOISE = 0.035  # relative to the contrast; resizing and brightening may change an image more than JPEG does
MOST = 0.5  # relative to the contrast; images that differ by more are never copies, whatever JPEG does to them
LEAST_SEEN = 0.02  # least share of a thumbnail's pixels that are not partly clipped; fewer are too few to compare
MOST_GAIN = 2  # largest gain of contrast; a larger one would turn any image white
CUT_OFF = 250  # grey levels from here on count as clipped to white, because JPEG changes white by a few levels
A_LITTLE = 0.15  # share of a thumbnail pixel; if no more than this is clipped, little light is lost
WHITE = 255  # marks a thumbnail pixel that is clipped, except for a share of at most `A_LITTLE`

GAINS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)  # each image is brightened by these gains when its copies are searched
COARSE = 3  # the search averages squares of 3 × 3 pixels of the largest thumbnail
COMPONENTS = 16  # principal components in the search tree; more would slow it down
RADIUS = 0.4  # of the search; the largest distance is 2, and JPEG, resizing and brightening made at most 0.33
N_NEIGHBORS = 8
_IMAGES = 16  # number of images that one thread decodes at a time
_PAIRS = 256  # number of pairs compared at a time, so that they stay in the processor's cache


@validated(
    lambda sk: {
        "tolerance": [sk.Interval(Real, 0, None, closed="left")],
        "image_shape": ["array-like", None],
        "value_range": [sk.StrOptions({"auto"}), "array-like"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }
)
def find_duplicates(
    X: Any,
    *,
    tolerance: float = 2.0,
    image_shape: Sequence[int] | None = None,
    value_range: str | Sequence[float] = "auto",
    n_jobs: int | None = None,
    verbose: int = 0,
) -> NDArray[np.intp]:
    """Group images that are copies of each other, such as re-encoded, resized or brightened ones.

    A score is too high if copies of a test image are in the training set. Pass the groups to a splitter that keeps
    groups together, such as `sklearn.model_selection.GroupKFold`.

    Parameters
    ----------
    X : images
        A list, Series or array of file paths, file contents (bytes), PIL images, arrays or tensors, of any sizes; or
        one array (n, H, W), (n, H, W, C) or (n, C, H, W); or flat rows with `image_shape`.
    tolerance : float, default=2.0
        How much copies may differ after brightness and contrast have been matched. The unit is the change that one of
        the two images shows when it is written as a JPEG of quality 50. 0 finds identical thumbnails only.
    image_shape : tuple of int, default=None
        Shape of one image when `X` holds flat rows, as `numpy.reshape` takes it.
    value_range : "auto" or (float, float), default="auto"
        The values that mean black and white. ``"auto"``: 0 to 255 for uint8, 0 to 65535 for uint16, and
        floats must lie between 0 and 1.
    n_jobs : int, default=None
        Number of threads that decode images. None takes as many as torch uses; -1 takes all cores.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    groups : ndarray of shape (n_images,), int
        The group of each image. Copies have the same group. Groups are numbered from 0 in the order of appearance.

    Raises
    ------
    ImageError
        If images cannot be read. The message lists them.

    Notes
    -----
    Images are compared as squares of at most 48 × 48 pixels, whatever their aspect ratio. Mirrored, rotated or cropped
    images do not count as copies, nor do grey versions of colour images. Images without any contrast, and images with
    a side of fewer than 14 pixels, are copies only if they are equal. Decoding takes most of the time; the thumbnails
    take 16 KB of memory per image.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sktransfer import find_duplicates
    >>> china, flower = load_sample_images().images
    >>> find_duplicates([china, flower, china[::2, ::2], (0.8 * flower).astype("uint8")])
    array([0, 1, 0, 1])
    """
    images = as_images(X, image_shape=image_shape, value_range=value_range)
    thumbnails, levels, noise = _looks(images, n_jobs, verbose)
    # Equal thumbnails are one node of the graph. Otherwise they would be each other's only nearest neighbours.
    nodes: dict[bytes, int] = {}
    node = np.array([nodes.setdefault(look.tobytes(), len(nodes)) for look in thumbnails[-1][:, 0]])
    first = np.unique(node, return_index=True)[1]
    pairs = first[_candidates(thumbnails[-1][first, 0])]
    pairs = pairs[_are_copies(pairs, thumbnails, levels, noise, tolerance)]
    left, right = node[pairs].T
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs)), (left, right)), shape=(len(first), len(first)))
    component = connected_components(graph, directed=False)[1][node]
    _, start, label = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[label]


# What is kept of an image


def _looks(images: Images, n_jobs: int | None, verbose: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the thumbnails of each image, the largest size to compare it at, and how much JPEG changes each thumbnail.

    There is one array of thumbnails (n, 2, side² · 3), uint8, for each of `SIDES`. The largest size of each image is a
    position in `SIDES`, or -1 where the image is too small for any. The change by JPEG (n_sides, n) is in units of the
    thumbnail's contrast.
    """
    least_side = 4 * SIDES[-1]

    def look(i: int) -> tuple[list[np.ndarray], list[np.ndarray], int]:
        image = Image.fromarray(images.decode(i, least_side))
        side = min(image.size)
        level = sum(side >= PIXELS * s for s in SIDES) - 1
        if side > least_side:
            shrink = least_side / side
            image = image.resize((round(shrink * image.width), round(shrink * image.height)), Image.Resampling.BILINEAR)
        return _thumbnails(image), _thumbnails(_as_jpeg(image)), level

    def look_at_all(chunk: range) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        originals, jpegs, levels = zip(*map(look, chunk), strict=True)
        originals, jpegs = ([np.stack(size) for size in zip(*x, strict=True)] for x in (originals, jpegs))
        noise = np.stack([_residual(x, y) for x, y in zip(originals, jpegs, strict=True)])
        noise[np.isinf(noise)] = 0  # such an image cannot be compared, not even with itself
        return originals, np.array(levels), noise

    chunks = [range(start, min(start + _IMAGES, len(images))) for start in range(0, len(images), _IMAGES)]
    workers = decoding_threads(n_jobs)
    rows = []
    with progress_bar(len(images), "Looking for duplicates", verbose) as bar:
        try:
            for looks in map_ahead(look_at_all, chunks, workers, 2 * workers):
                rows.append(looks)
                bar.update(len(looks[1]))
        except ImageError as error:
            raise with_all_others(error, images, least_side, workers) from error
    thumbnails, levels, noise = zip(*rows, strict=True)
    stacks = [np.concatenate(size) for size in zip(*thumbnails, strict=True)]
    return stacks, np.concatenate(levels), np.concatenate(noise, axis=1)


def _thumbnails(image: Image.Image) -> list[np.ndarray]:
    """Return thumbnails, uint8 (2, side² · 3): the values, `WHITE` where clipped; and 1 where partly clipped."""
    cut_off = None
    if np.asarray(image).max() >= CUT_OFF:
        cut_off = image.point(([0] * CUT_OFF + [255] * (256 - CUT_OFF)) * 3)
    thumbnails = []
    for side in reversed(SIDES):
        small, small_cut_off = image.resize((side, side), Image.Resampling.BICUBIC), None
        seen = np.zeros((2, side, side, 3), dtype=np.uint8)
        seen[0] = np.asarray(small).clip(max=WHITE - 1)
        if cut_off is not None:
            small_cut_off = cut_off.resize((side, side), Image.Resampling.BILINEAR)
            share = np.asarray(small_cut_off)
            seen[0, share > 255 * (1 - A_LITTLE)] = WHITE
            seen[1] = (share > 255 * A_LITTLE) & (share <= 255 * (1 - A_LITTLE))
        thumbnails.append(seen.reshape(2, -1))
        if side <= min(image.size):  # the next thumbnail is made from this one, which is faster
            image, cut_off = small, small_cut_off
    return thumbnails[::-1]


def _as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return Image.open(file).convert("RGB")


# Which images look alike


def _candidates(thumbnails: np.ndarray) -> np.ndarray:
    """Return pairs of rows (m, 2) that look alike at low resolution if one is brightened by one of `GAINS`."""
    if len(thumbnails) < 2:
        return np.empty((0, 2), dtype=int)
    plain = _coarse(thumbnails, 1.0)
    axes = np.linalg.eigh(plain.T @ plain)[1][:, -COMPONENTS:]
    from scipy.spatial import KDTree

    tree = KDTree(plain @ axes)
    pairs = []
    for gain in GAINS:
        brighter = _coarse(thumbnails, gain)
        # Projecting on the components can only shorten distances, so the tree misses no pair within the radius.
        _, found = tree.query(brighter @ axes, N_NEIGHBORS, distance_upper_bound=RADIUS)
        left, rank = np.nonzero(found < len(thumbnails))
        right = found[left, rank]
        near = np.linalg.norm(brighter[left] - plain[right], axis=1) <= RADIUS
        pairs.append(np.sort(np.column_stack([left, right])[near & (left != right)], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _coarse(thumbnails: np.ndarray, gain: float) -> np.ndarray:
    """Return small versions of brightened thumbnails as vectors with mean 0 and length 1."""
    n = SIDES[-1] // COARSE
    rows = np.empty((len(thumbnails), n * n * 3), dtype=np.float32)
    for start in range(0, len(rows), _PAIRS):
        brighter = np.minimum(np.float32(gain) * thumbnails[start : start + _PAIRS], 255)
        brighter = brighter.reshape(-1, n, COARSE, n * COARSE * 3).sum(axis=2)
        rows[start : start + _PAIRS] = brighter.reshape(-1, n, n, COARSE, 3).sum(axis=3).reshape(-1, n * n * 3)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def _are_copies(
    pairs: np.ndarray, thumbnails: list[np.ndarray], levels: np.ndarray, noise: np.ndarray, tolerance: float
) -> np.ndarray:
    """Tell which pairs (m, 2) of images are copies of each other."""
    copies = np.zeros(len(pairs), dtype=bool)
    level = levels[pairs].min(axis=1)
    for i, size in enumerate(thumbnails):
        allowed = np.minimum(tolerance * np.maximum(noise[i], LEAST_NOISE), MOST)
        chosen = np.flatnonzero(level == i)
        for start in range(0, len(chosen), _PAIRS):
            part = chosen[start : start + _PAIRS]
            left, right = pairs[part].T
            copies[part] = _residual(size[left], size[right]) <= np.maximum(allowed[left], allowed[right])
    return copies


def _residual(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far each row of `y` is from the best ``clip(a x + b, 0, 255)``, a > 0, in units of their contrast.

    Partly clipped pixels are ignored, because the amount of light that they have lost is unknown.
    """
    partly = (x[:, 1] | y[:, 1]).astype(bool)
    whole = ~partly.reshape(len(x), -1, 3).any(axis=2)
    cut_off = [(image[:, 1] == 1) | (image[:, 0] == WHITE) for image in (x, y)]
    free = (~(cut_off[0] | cut_off[1])).astype(np.float32)
    swap = cut_off[0].sum(axis=1) > cut_off[1].sum(axis=1)
    x, y = (np.where(swap[:, None], a[:, 0], b[:, 0]) for a, b in ((y, x), (x, y)))  # y follows from x
    x, y = x.astype(np.float32), y.astype(np.float32)
    total = np.maximum(free.sum(axis=1, keepdims=True), 1)
    x -= (free * x).sum(axis=1, keepdims=True) / total
    mean = (free * y).sum(axis=1, keepdims=True) / total
    gain = (free * x * (y - mean)).sum(axis=1, keepdims=True) / np.maximum((free * x**2).sum(axis=1, keepdims=True), 1)
    # The comparison is in grey, which JPEG keeps better than colour. Clipping, however, acts on each colour channel.
    expected, seen = (_grey(values) for values in (np.clip(gain * x + mean, 0, 255), y))
    contrast = np.minimum(_deviation(expected, whole), _deviation(seen, whole)).clip(0.5)
    # Clipped pixels agree whatever they were before, so the difference is averaged over the other pixels only.
    spread_over = np.maximum(whole.sum(axis=1) * free.mean(axis=1), 1)
    difference = np.sqrt((whole * (expected - seen) ** 2).sum(axis=1) / spread_over)
    comparable = (gain[:, 0] > 0) & (gain[:, 0] <= MOST_GAIN) & (whole.mean(axis=1) >= LEAST_SEEN)
    return np.where(comparable, difference / contrast, np.inf)


def _grey(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1, 3) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _deviation(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    total = np.maximum(where.sum(axis=1), 1)
    mean = (where * rows).sum(axis=1) / total
    deviations: np.ndarray = np.sqrt((where * (rows - mean[:, None]) ** 2).sum(axis=1) / total)
    return deviations
