"""Images of the 17 wallpaper groups, made from noise. Every image has exactly the symmetries of its group.

All coordinates are fractional. A pattern is an n × n array over one cell. An operation is (W, t), x → W x + t, with an
integer matrix W and a shift t in units of 1/n of the cell.
"""

from __future__ import annotations

import functools
from numbers import Integral

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.stats import rankdata
from sklearn.utils import Bunch, check_random_state

from .._validated import validated

GRID = 64  # number of points along each side of the cell; even, because shifts by half a cell occur
_ROUGHNESS = 2.5  # number of cycles per cell at which the amplitude of the noise has fallen to 0.6

_Matrix = tuple[tuple[int, ...], ...]
_Shift = tuple[int, ...]

_TURN_2 = ((-1, 0), (0, -1))
_TURN_4 = ((0, -1), (1, 0))
_TURN_3 = ((0, -1), (1, -1))
_TURN_6 = ((1, -1), (1, 0))
_MIRROR = ((-1, 0), (0, 1))
_DIAGONAL = ((0, 1), (1, 0))
_ANTIDIAGONAL = ((0, -1), (-1, 0))
_SAME = ((1, 0), (0, 1))

# Generators, with shifts in halves of the cell.
_GENERATORS: dict[str, list[tuple[_Matrix, _Shift]]] = {
    "p1": [],
    "p2": [(_TURN_2, (0, 0))],
    "pm": [(_MIRROR, (0, 0))],
    "pg": [(_MIRROR, (0, 1))],
    "cm": [(_MIRROR, (0, 0)), (_SAME, (1, 1))],
    "pmm": [(_TURN_2, (0, 0)), (_MIRROR, (0, 0))],
    "pmg": [(_TURN_2, (0, 0)), (_MIRROR, (1, 0))],
    "pgg": [(_TURN_2, (0, 0)), (_MIRROR, (1, 1))],
    "cmm": [(_TURN_2, (0, 0)), (_MIRROR, (0, 0)), (_SAME, (1, 1))],
    "p4": [(_TURN_4, (0, 0))],
    "p4m": [(_TURN_4, (0, 0)), (_MIRROR, (0, 0))],
    "p4g": [(_TURN_4, (0, 0)), (_MIRROR, (1, 1))],
    "p3": [(_TURN_3, (0, 0))],
    "p3m1": [(_TURN_3, (0, 0)), (_ANTIDIAGONAL, (0, 0))],
    "p31m": [(_TURN_3, (0, 0)), (_DIAGONAL, (0, 0))],
    "p6": [(_TURN_6, (0, 0))],
    "p6m": [(_TURN_6, (0, 0)), (_ANTIDIAGONAL, (0, 0))],
}
WALLPAPER_GROUPS = tuple(_GENERATORS)

_HEXAGONAL = frozenset({"p3", "p3m1", "p31m", "p6", "p6m"})
_SQUARE = frozenset({"p4", "p4m", "p4g"})
_CENTRED = frozenset({"cm", "cmm"})


@functools.cache
def operations(group: str) -> tuple[tuple[_Matrix, _Shift], ...]:
    """Return every operation (W, t) of a group, except for shifts by whole cells. The unit of t is 1/GRID."""
    generators = [(np.array(W), np.array(t) * (GRID // 2)) for W, t in _GENERATORS[group]]
    closed: set[tuple[_Matrix, _Shift]] = {(_SAME, (0, 0))}
    new = closed
    while new:
        products = set()
        for W, t in new:
            for V, s in generators:
                linear, shift = V @ np.array(W), (V @ np.array(t) + s) % GRID
                products.add((tuple(map(tuple, linear.tolist())), tuple(shift.tolist())))
        new = products - closed
        closed = closed | new
    return tuple(sorted(closed))


def draw_cell(group: str, basis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a random pattern over one cell with the symmetries of a group; `basis` holds the lattice vectors as columns.

    The values (GRID, GRID) are uniformly distributed between 0 and 1, and indexed by the two fractional coordinates.
    The noise is equally rough in all directions of the plane (not of the cell).
    """
    noise = _smooth_noise(basis, rng)
    points = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij")).reshape(2, -1)
    images = [(np.array(W) @ points + np.array(t)[:, None]) % GRID for W, t in operations(group)]
    # After sorting, all points of an orbit add the same numbers in the same order, so their means are exactly equal.
    average = np.sort([noise[x, y] for x, y in images], axis=0).mean(axis=0)
    # Averaging divides the contrast by the square root of the group's order, which would reveal the group.
    ranks: np.ndarray = rankdata(average, method="average") - 0.5
    return (ranks / ranks.size).reshape(GRID, GRID)


def _smooth_noise(basis: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cycles = np.fft.fftfreq(GRID, 1 / GRID)
    k = np.stack(np.meshgrid(cycles, cycles, indexing="ij")).reshape(2, -1)
    frequency = np.linalg.norm(np.linalg.inv(basis).T @ k, axis=0) * np.sqrt(abs(np.linalg.det(basis)))
    envelope = np.exp(-0.5 * (frequency / _ROUGHNESS) ** 2).reshape(GRID, GRID)
    return np.fft.ifft2(np.fft.fft2(rng.standard_normal((GRID, GRID))) * envelope).real


def draw_basis(group: str, lattice: str, rng: np.random.Generator) -> np.ndarray:
    """Draw lattice vectors, as columns, of a cell of area 1.

    ``"natural"`` gives each group its own kind of lattice. ``"matched"`` uses only square and hexagonal lattices, and
    each of them is shared by groups with and without rotations.
    """
    ratio, degrees = 1.0, 90.0
    if group in _HEXAGONAL:
        degrees = 120.0
    elif lattice == "matched":
        if rng.random() < 0.5:
            if group in {"p1", "p2"}:
                degrees = 120.0
            elif group in _CENTRED:  # a rectangle of this shape, with its centre, is a hexagonal lattice
                ratio = np.sqrt(3.0)
    elif group in {"p1", "p2"}:
        ratio, degrees = np.exp(rng.uniform(0.15, 0.45)), rng.uniform(65, 80)
    elif group not in _SQUARE:
        ratio = np.exp(rng.choice([-1, 1]) * rng.uniform(0.2, 0.5))
    angle = np.deg2rad(degrees)
    basis = np.array([[1.0, ratio * np.cos(angle)], [0.0, ratio * np.sin(angle)]])
    return basis / float(np.sqrt(np.linalg.det(basis)))


def _render(cell: np.ndarray, basis: np.ndarray, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the plane from a random origin, at a random angle, with 3 to 5 cells along the side of the image."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    longest = np.linalg.norm(basis, axis=0).max()
    pixel = longest * rng.uniform(3, 5) / image_size
    axis = np.arange(image_size) * pixel
    plane = np.stack(np.meshgrid(axis, axis, indexing="ij")).reshape(2, -1)
    fractional = np.linalg.inv(basis) @ turn @ plane + rng.uniform(size=(2, 1))
    values: np.ndarray = map_coordinates(cell, (fractional % 1) * GRID, order=1, mode="grid-wrap")
    return values.reshape(image_size, image_size)


def _paint(values: np.ndarray, color: bool, rng: np.random.Generator) -> np.ndarray:
    if not color:
        return np.round(255 * values).astype(np.uint8)
    stops = np.linspace(0, 1, 5)
    channels = [np.interp(values, stops, rng.uniform(0, 255, size=5)) for _ in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


@validated(
    lambda sk: {
        "n_per_group": [sk.Interval(Integral, 1, None, closed="left")],
        "lattice": [sk.StrOptions({"natural", "matched"})],
        "image_size": [sk.Interval(Integral, 8, None, closed="left")],
        "color": ["boolean"],
        "random_state": ["random_state"],
    }
)
def make_wallpaper_groups(
    n_per_group: int = 60,
    *,
    lattice: str = "natural",
    image_size: int = 128,
    color: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Generate images of the 17 wallpaper groups, the ways in which a flat pattern can repeat.

    Each image is random smooth noise that was given the symmetries of its group, and no others. It is drawn from a
    random origin, at a random angle and scale, with at least three cells along a side. The classes differ only in their
    symmetry, which a network does not learn from photos.

    Parameters
    ----------
    n_per_group : int, default=60
        Number of images of each group.
    lattice : {"natural", "matched"}, default="natural"
        ``"natural"`` draws each group on its own kind of lattice: oblique (p1, p2), rectangular (pm to cmm),
        square (p4, p4m, p4g) or hexagonal (p3 to p6m), so the shape of the cell reveals something about the class.
        ``"matched"`` uses only square and hexagonal lattices, which several groups share: p1, p2, cm and cmm are drawn
        on both, and the other rectangular groups on the square lattice.
    image_size : int, default=128
        Height and width of the images in pixels.
    color : bool, default=False
        True draws each image in colours of a random colour scale, False in grey.
    random_state : int, RandomState or None, default=None
        Seed of the patterns. Another seed gives other patterns, for instance for a test set.

    Returns
    -------
    bunch : Bunch
        ``data``, ndarray of uint8 (17 `n_per_group`, `image_size`, `image_size`), or (…, 3) with `color`, in random
        order; ``target``, ndarray of int, positions in ``target_names``; ``target_names``, the 17 names.

    References
    ----------
    T. Hahn (ed.), "International Tables for Crystallography", volume A: the plane groups and their names.

    Examples
    --------
    >>> from sktransfer.datasets import make_wallpaper_groups
    >>> patterns = make_wallpaper_groups(2, random_state=0)
    >>> patterns.data.shape
    (34, 128, 128)
    """
    random = check_random_state(random_state)
    seed = random.randint(2**31)
    images = []
    for number, group in enumerate(WALLPAPER_GROUPS):
        for i in range(n_per_group):
            rng = np.random.default_rng([seed, number, i])
            basis = draw_basis(group, lattice, rng)
            values = _render(draw_cell(group, basis, rng), basis, image_size, rng)
            images.append(_paint(values, color, rng))
    order = random.permutation(len(images))
    target = np.repeat(np.arange(len(WALLPAPER_GROUPS)), n_per_group)
    return Bunch(data=np.stack(images)[order], target=target[order], target_names=list(WALLPAPER_GROUPS))
