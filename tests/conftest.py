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

from sktransfer._frozen import _store  # noqa: E402 - imports what reads them


@pytest.fixture(autouse=True)
def empty_store():
    """No test is fed by what another one stored."""
    _store.set_cache_limits(memory_mb=512, disk_mb=10_000)
    _store._memory.clear()  # clear_cache would drop the engines too, which take seconds to build


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
