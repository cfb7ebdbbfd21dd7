"""`find_duplicates`: which images are copies of each other, as groups for cross-validation.

Each image becomes a grey thumbnail. Its nearest neighbours are candidates; a candidate is a copy if, after the best
change of brightness and contrast, what still differs is small against the image's own contrast and against how much
other images of the same kind differ.
"""

from __future__ import annotations

from numbers import Integral, Real

import joblib
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._decoding import resize
from ._extraction import _map_ahead, progress_bar
from ._images import Images, as_images

SIDE = 48  # pixels of a thumbnail
COARSE = 3  # pixels of a thumbnail in one of the coarse thumbnail, per side
SMALL = 48  # shorter side in pixels of images that are compared by their coarse thumbnails
FLAT = 1.0  # grey levels; with less contrast an image has no content to compare
BRIGHT = 240  # grey levels from which a change of brightness may have cut off what was there
N_NEIGHBORS = 16
SCALE_RANK = 10  # the neighbour that shows how much images of this kind differ
LEAST_SCALE = 0.1  # an image with more than SCALE_RANK copies has copies only for neighbours
MOST_SCALE = 4.0  # images that have nothing in common
_CHUNK = 16  # images that one thread decodes at a time
_PAIRS = 4096  # pairs compared at a time


@validate_params(
    {
        "tolerance": [Interval(Real, 0, 1, closed="both")],
        "image_shape": ["array-like", None],
        "value_range": [StrOptions({"auto"}), "array-like"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def find_duplicates(X, *, tolerance=0.1, image_shape=None, value_range="auto", n_jobs=None, verbose=0):
    """Group images that are copies of each other, such as re-encoded, resized or brightened ones.

    Copies that lie on both sides of a split make a score too good. The groups go to the splitters that keep groups
    together, such as `sklearn.model_selection.GroupKFold`.

    Parameters
    ----------
    X : images
        A list, Series or array of file paths, file contents (bytes), PIL images, arrays or tensors, of any sizes; or
        one array (n, H, W), (n, H, W, C) or (n, C, H, W); or flat rows with `image_shape`.
    tolerance : float, default=0.1
        How much copies may differ: the deviation between two images after the best change of brightness and contrast,
        in units of their contrast, where other images of the same kind differ by 1. Where these differ by a
        fraction s only, copies may differ by the square root of s times as much. 0 finds identical thumbnails only.
    image_shape : tuple of int, default=None
        Shape of one image when `X` holds flat rows, as `numpy.reshape` takes it.
    value_range : "auto" or (float, float), default="auto"
        The values that mean black and white. ``"auto"``: 0 to 255 for uint8, 0 to 65535 for uint16, and
        floats must lie between 0 and 1.
    n_jobs : int, default=None
        Threads that decode images. None takes one; -1 takes all cores.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    groups : ndarray of shape (n_images,), int
        Equal for copies, and different for all other images. Numbered from 0 in the order of first appearance.

    Raises
    ------
    ImageError
        If an image cannot be read. The message names it.

    Notes
    -----
    Images are compared as grey pictures of one aspect ratio: colours do not count. Mirrored, turned and cropped images
    are no copies. Images without any contrast are copies only if they are equal. Decoding takes nearly all of the time,
    in proportion to the number of images; the search for neighbours compares 256 numbers of each pair of them.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sktransfer import find_duplicates
    >>> china, flower = load_sample_images().images
    >>> find_duplicates([china, flower, china[::2, ::2], (0.8 * flower).astype("uint8")])
    array([0, 1, 0, 1])
    """
    images = as_images(X, image_shape=image_shape, value_range=value_range)
    thumbnails, sides = _thumbnails(images, n_jobs, verbose)
    # Equal thumbnails are one node of the graph: a crowd of them would fill each other's neighbourhoods.
    thumbnails, first, node = np.unique(thumbnails, axis=0, return_index=True, return_inverse=True)
    node = node.ravel()
    pairs = _copies(thumbnails, sides[first], tolerance)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(thumbnails), len(thumbnails)))
    component = connected_components(graph, directed=False)[1][node]
    _, start, label = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[label]


def _thumbnails(images: Images, n_jobs: int | None, verbose: int) -> tuple[np.ndarray, np.ndarray]:
    """Return grey thumbnails, uint8 (n, SIDE²), and the shorter side of each image in pixels."""

    def prepare(chunk: range) -> list[tuple[np.ndarray, int]]:
        return [_thumbnail(images.decode(i, 2 * SIDE)) for i in chunk]

    chunks = [range(start, min(start + _CHUNK, len(images))) for start in range(0, len(images), _CHUNK)]
    workers = joblib.effective_n_jobs(n_jobs)
    rows: list[tuple[np.ndarray, int]] = []
    with progress_bar(len(images), "Looking for duplicates", verbose) as bar:
        for chunk in _map_ahead(prepare, chunks, workers, 2 * workers):
            rows += chunk
            bar.update(len(chunk))
    thumbnails, sides = zip(*rows, strict=True)
    return np.stack(thumbnails), np.array(sides)


def _thumbnail(image: np.ndarray) -> tuple[np.ndarray, int]:
    grey = resize(image, (SIDE, SIDE), "bicubic") @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.rint(grey).astype(np.uint8).ravel(), min(image.shape[:2])


def _copies(thumbnails: np.ndarray, sides: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the pairs of rows (m, 2) that are copies of each other."""
    rows = np.flatnonzero(thumbnails.std(axis=1) >= FLAT)
    if len(rows) < 2:
        return np.empty((0, 2), dtype=int)
    fine = thumbnails[rows].astype(np.float32)
    n_coarse = SIDE // COARSE
    coarse = fine.reshape(-1, n_coarse, COARSE, n_coarse, COARSE).mean(axis=(2, 4)).reshape(len(rows), -1)
    neighbors = _neighbors(coarse)
    left = np.repeat(np.arange(len(rows)), neighbors.shape[1])
    right = neighbors.ravel()
    small = np.minimum(sides[rows][left], sides[rows][right]) < SMALL
    residual = np.empty(len(left))
    for size, chosen in ((fine, ~small), (coarse, small)):
        which = np.flatnonzero(chosen)
        for part in np.array_split(which, len(which) // _PAIRS + 1):
            residual[part] = _residual(size[left[part]], size[right[part]])

    scale = np.ones(len(rows))
    if neighbors.shape[1] >= SCALE_RANK:
        of_each = np.partition(residual.reshape(neighbors.shape), SCALE_RANK - 1, axis=1)
        scale = of_each[:, SCALE_RANK - 1].clip(LEAST_SCALE, MOST_SCALE)
    same = residual <= tolerance * np.sqrt(np.maximum(scale[left], scale[right]))
    return np.column_stack([rows[left[same]], rows[right[same]]])


def _neighbors(thumbnails: np.ndarray) -> np.ndarray:
    """Return the nearest neighbours (n, k) of each thumbnail, whatever its brightness and contrast."""
    vectors = np.stack([_without_highlights(row) for row in thumbnails])
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    k = min(N_NEIGHBORS, len(vectors) - 1)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(vectors)
    return search.kneighbors(return_distance=False)


def _without_highlights(row: np.ndarray) -> np.ndarray:
    """Cut off at the median of what is not black, so that a brighter copy that was cut off itself looks the same."""
    lit = row[row > row.min() + 12]
    return np.minimum(row, np.median(lit)) if len(lit) else row


def _residual(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far each row of `y` is from the best ``clip(a x + b, 0, 255)``, a > 0, in units of their contrast."""
    cut = (x > BRIGHT).sum(axis=1, keepdims=True) > (y > BRIGHT).sum(axis=1, keepdims=True)
    x, y = np.where(cut, y, x), np.where(cut, x, y)  # the one with more highlights follows from the other
    weight = ((x < BRIGHT) & (y < BRIGHT)).astype(np.float32)
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    x, y_mean = x - (weight * x).sum(axis=1, keepdims=True) / total, (weight * y).sum(axis=1, keepdims=True) / total
    covariance = (weight * x * (y - y_mean)).sum(axis=1, keepdims=True)
    gain = covariance / np.maximum((weight * x**2).sum(axis=1, keepdims=True), 1e-3)
    expected = np.clip(gain * x + y_mean, 0, 255)
    contrast = np.minimum(expected.std(axis=1), y.std(axis=1)).clip(0.5)
    residual = np.sqrt(((expected - y) ** 2).mean(axis=1)) / contrast
    return np.where(gain[:, 0] > 0, residual, np.inf)
