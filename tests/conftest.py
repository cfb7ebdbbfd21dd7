import os

import pytest

# Read by OpenMP when torch is imported. Two runs of the tests side by side, each with a thread per core, would wait
# for each other most of the time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read by scipy when it is imported; without it scikit-learn skips its array API checks.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Read by matplotlib when it is imported: draw without a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402 - imports what reads them

from sktransfer._frozen import _store  # noqa: E402 - as above


@pytest.fixture(autouse=True)
def empty_store():
    """No test is fed by what another one stored."""
    _store.set_cache_limits(memory_mb=512, disk_mb=10_000)
    _store._memory.clear()  # clear_cache would drop the engines too, which take seconds to build


# These tests, and those marked openvino, run with OpenVINO, as users have it. The others run as where it is not
# installed. Most of their time would be spent on compiling small networks, half a second to four seconds each.
WITH_OPENVINO = {
    "test_agreement",
    "test_benchmarks",
    "test_concurrency",
    "test_engines",
    "test_extraction",
    "test_features",
    "test_keys",
    "test_kills",
    "test_persistence",
    "test_race",
    "test_show_versions",
}


@pytest.fixture(autouse=True)
def default_engine(request, monkeypatch):
    """In this process, "auto" means torch, but not in the tests named above, nor in doctests."""
    module = getattr(request.node, "module", None)
    if module is None or module.__name__ in WITH_OPENVINO or request.node.get_closest_marker("openvino"):
        return
    from sktransfer._frozen import _engines, _extraction

    def resolved(engine, device):
        return _engines.resolve_engine("torch" if engine == "auto" else engine, device)

    monkeypatch.setattr(_extraction, "resolve_engine", resolved)


@pytest.fixture
def no_store():
    """Compute everything anew."""
    from sktransfer import set_cache_limits

    set_cache_limits(memory_mb=0)


@pytest.fixture
def computed(monkeypatch):
    """Record how many images pass through a backbone, and from which stage on."""
    from sktransfer._frozen._engines import OpenVINOEngine, TorchEngine

    counts = []
    for engine in (OpenVINOEngine, TorchEngine):
        original = engine.__call__

        def counting(self, inputs, original=original):
            counts.append((self.network.start, len(inputs)))
            return original(self, inputs)

        monkeypatch.setattr(engine, "__call__", counting)
    return counts


@pytest.fixture(scope="session")
def distinct():
    """60 digits, 20 each of three classes, no two of them alike, and their labels."""
    from sktransfer import find_duplicates
    from tiny import FLAT, digits

    X, y = digits()
    groups = find_duplicates(X, **FLAT)  # at eight pixels some digits are
    alone = np.bincount(groups)[groups] == 1
    X, y = X[alone], y[alone]
    rows = np.concatenate([np.flatnonzero(y == label)[:20] for label in range(3)])
    return X[rows], y[rows]


@pytest.fixture
def recorder():
    """The class of strategies that note what they are fitted to, without any notes."""
    from racers import Recorder

    Recorder.fits.clear()
    Recorder.tests.clear()
    return Recorder
