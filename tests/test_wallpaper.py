"""Each image has the symmetries of its group, and no others."""

import itertools

import numpy as np
import pytest

from sktransfer.datasets import make_wallpaper_groups
from sktransfer.datasets._wallpaper import GRID, WALLPAPER_GROUPS, draw_basis, draw_cell, operations

ORDERS = (
    {"p1": 1, "p2": 2, "pm": 2, "pg": 2, "cm": 4, "pmm": 4, "pmg": 4, "pgg": 4, "cmm": 8}
    | {"p4": 4, "p4m": 8, "p4g": 8}
    | {"p3": 3, "p3m1": 6, "p31m": 6, "p6": 6, "p6m": 12}
)
SQUARE_HOLOHEDRY = [
    np.array(W)
    for W in itertools.product(*[[(1, 0), (-1, 0), (0, 1), (0, -1)]] * 2)
    if round(abs(np.linalg.det(W))) == 1
]
_TURN_6 = np.array([[1, -1], [1, 0]])
HEXAGONAL_HOLOHEDRY = [
    np.linalg.matrix_power(_TURN_6, k) @ flip for k in range(6) for flip in (np.eye(2, dtype=int), [[0, 1], [1, 0]])
]
HEXAGONAL_GROUPS = ("p3", "p3m1", "p31m", "p6", "p6m")


def correlations(cell, W):
    """Return how well the cell agrees with itself under x → W x + t, for every shift t."""
    values = (cell - cell.mean()) / cell.std()
    points = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij")).reshape(2, -1)
    x, y = np.linalg.inv(W).round().astype(int) @ points % GRID
    moved = values[x, y].reshape(GRID, GRID)  # moved at W x equals the values at x
    # c(t) = mean over x of values(x + t) moved(x): equal patterns where values(W x + t) = values(x)
    return np.fft.ifft2(np.fft.fft2(values) * np.conj(np.fft.fft2(moved))).real / GRID**2


def far_from(shifts, radius=7):
    """Return a mask of the shifts that lie more than `radius` points from all of those given."""
    axis = np.arange(GRID)
    mask = np.ones((GRID, GRID), dtype=bool)
    for s, t in shifts:
        d = [np.minimum((axis - c) % GRID, (c - axis) % GRID) for c in (s, t)]
        mask &= np.add.outer(d[0] ** 2, d[1] ** 2) > radius**2
    return mask


@pytest.mark.parametrize("group", WALLPAPER_GROUPS)
def test_exactly_the_symmetries_of_the_group(group):
    expected = {}
    for W, t in operations(group):
        expected.setdefault(W, set()).add(t)
    holohedry = HEXAGONAL_HOLOHEDRY if group in HEXAGONAL_GROUPS else SQUARE_HOLOHEDRY
    assert len({W.tobytes() for W in map(np.ascontiguousarray, holohedry)}) == (12 if group in HEXAGONAL_GROUPS else 8)
    for seed, lattice in itertools.product(range(20), ("natural", "matched")):
        rng = np.random.default_rng(seed)
        cell = draw_cell(group, draw_basis(group, lattice, rng), rng)
        for W in holohedry:
            score = correlations(cell, W)
            found = set(map(tuple, np.argwhere(score > 1 - 1e-9).tolist()))
            assert found == expected.get(tuple(map(tuple, W.tolist())), set()), (seed, lattice, W)
            rest = score[far_from(found)]
            assert rest.max() < 0.95, (seed, lattice, W, rest.max())


def test_orders():
    assert {group: len(operations(group)) for group in WALLPAPER_GROUPS} == ORDERS


@pytest.mark.parametrize(("group", "on_a_mirror"), [("p3m1", True), ("p31m", False)])
def test_the_third_point_lies_on_a_mirror_only_in_p3m1(group, on_a_mirror):
    point = np.array([1, 2]) / 3
    mirrors = [
        W
        for W, t in operations(group)
        if round(np.linalg.det(W)) == -1
        and np.allclose((np.array(W) @ point + np.array(t) / GRID - point + 0.5) % 1, 0.5)
    ]
    assert bool(mirrors) is on_a_mirror


@pytest.mark.parametrize("lattice", ["natural", "matched"])
def test_lattice_vectors_are_isometries_of_the_group(lattice):
    for seed, group in itertools.product(range(10), WALLPAPER_GROUPS):
        basis = draw_basis(group, lattice, np.random.default_rng(seed))
        assert np.isclose(np.linalg.det(basis), 1)
        for W, _ in operations(group):
            moved = basis @ np.array(W) @ np.linalg.inv(basis)
            assert np.allclose(moved @ moved.T, np.eye(2)), (group, W)


def test_matched_lattices_are_shared():
    def lattices(group):
        kinds = set()
        for seed in range(30):
            a, b = draw_basis(group, "matched", np.random.default_rng(seed)).T
            kinds.add((round(np.linalg.norm(b) / np.linalg.norm(a), 3), round(float(a @ b) / (a @ a), 3)))
        return kinds

    square, hexagonal, centred = (1.0, 0.0), (1.0, -0.5), (round(3**0.5, 3), 0.0)
    assert lattices("p1") == lattices("p2") == {square, hexagonal}
    assert lattices("cm") == lattices("cmm") == {square, centred}
    assert lattices("pgg") == lattices("p4m") == {square}
    assert lattices("p6") == {hexagonal}


def test_images():
    patterns = make_wallpaper_groups(2, image_size=64, random_state=0)
    assert patterns.data.shape == (34, 64, 64) and patterns.data.dtype == np.uint8
    assert np.bincount(patterns.target).tolist() == [2] * 17
    assert patterns.target_names == list(ORDERS)
    again = make_wallpaper_groups(2, image_size=64, random_state=0)
    assert np.array_equal(again.data, patterns.data)
    other = make_wallpaper_groups(2, image_size=64, random_state=1)
    assert not np.array_equal(other.data, patterns.data)


def test_colour():
    patterns = make_wallpaper_groups(1, image_size=64, color=True, random_state=0)
    assert patterns.data.shape == (17, 64, 64, 3)
    assert (patterns.data.std(axis=(1, 2)) > 5).any(axis=1).all()


def test_grey_values_do_not_tell_the_group():
    """Each image uses all grey values equally often, whatever the order of its group."""
    patterns = make_wallpaper_groups(3, random_state=0)
    means, spreads = patterns.data.mean(axis=(1, 2)), patterns.data.std(axis=(1, 2))
    assert np.ptp(means) < 25 and np.ptp(spreads) < 12


@pytest.mark.parametrize("bad", [{"lattice": "round"}, {"n_per_group": 0}, {"image_size": 2}])
def test_bad_parameters(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        make_wallpaper_groups(**bad)
