"""Processes killed at any moment, by SIGKILL or Ctrl-C: nothing is damaged, and the next run is as if nothing was."""

import os
import signal
import threading
import time

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from PIL import Image

import sktransfer
from pictures import noise, written
from processes import fresh, server
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, cache_info, clear_cache
from sktransfer._frozen._store import DiskLevel
from tiny import FLAT, SCRATCH, TINY, digits

N_KILLS = [3, pytest.param(50, marks=pytest.mark.slow)]
FEATURES = {**TINY, "engine": "torch", "batch_size": 4}
TRAINED = {**SCRATCH, "max_epochs": 2}
X, Y = digits(40, n_classes=2)


@pytest.fixture(autouse=True)
def threads():
    """Leave torch's number of threads as it was."""
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return list(map(str, written(noise(60, 40, 40, 3), tmp_path_factory.mktemp("images"))))


def kill_at_random(n_kills, work, *arguments):
    """Start a process again and again, and kill it somewhere within its work; yield after each kill."""
    rng, took = np.random.default_rng(0), []
    for k in range(n_kills + 2):
        began = server.Event()
        process = server.Process(target=started, args=(began, work, *arguments))
        process.start()
        assert began.wait(60)
        if k < 2:  # the first two show how long it takes
            start = time.perf_counter()
            process.join()
            took.append(time.perf_counter() - start)
            assert process.exitcode == 0
            yield
            continue
        time.sleep(rng.uniform(0, took[-1]))
        process.kill()
        process.join()
        yield process.exitcode == -signal.SIGKILL


def started(began, work, *arguments):
    torch.set_num_threads(1)
    began.set()
    work(*arguments)


def rows_are_whole(folder):
    level = DiskLevel(folder / "sktransfer-activations")
    files = [path for path, _ in level._files() if path.suffix != ".tmp"]
    return all(level.get(bytes.fromhex(path.name)) is not None for path in files)


def extract(paths, folder):
    PretrainedCNNFeatures(**FEATURES, memory=folder).fit_transform(paths)


@pytest.mark.parametrize("n_kills", N_KILLS)
def test_killed_extraction(n_kills, paths, tmp_path):
    expected = PretrainedCNNFeatures(**FEATURES).fit_transform(paths)
    model = PretrainedCNNFeatures(**FEATURES, memory=tmp_path)
    n_killed = 0
    for killed in kill_at_random(n_kills, extract, paths, tmp_path):
        n_killed += bool(killed)
        assert rows_are_whole(tmp_path)
        clear_cache()
        np.testing.assert_allclose(model.fit_transform(paths), expected, atol=1e-6)
        clear_cache(tmp_path)
    assert n_killed > n_kills // 2 - 1  # the others had just come to their end


def fit_and_save(folder):
    model = FineTunedCNNClassifier(**TRAINED, **FLAT, freeze=1, memory=folder / "cache").fit(X, Y)
    sktransfer.save(model, folder / "model")


@pytest.mark.parametrize("n_kills", N_KILLS)
def test_killed_fit_and_save(n_kills, tmp_path):
    def fitted():
        clear_cache()
        return FineTunedCNNClassifier(**TRAINED, **FLAT, freeze=1, memory=tmp_path / "cache").fit(X, Y)

    torch.set_num_threads(1)  # as the processes do
    expected = fitted().predict_proba(X)
    n_killed = 0
    for killed in kill_at_random(n_kills, fit_and_save, tmp_path):
        n_killed += bool(killed)
        assert rows_are_whole(tmp_path / "cache")
        np.testing.assert_allclose(sktransfer.load(tmp_path / "model").predict_proba(X), expected, atol=1e-6)
        np.testing.assert_allclose(fitted().predict_proba(X), expected, atol=1e-6)
        clear_cache(tmp_path / "cache")
    assert n_killed > n_kills // 2 - 1


def save_in_turns(folder, n):
    models = [sktransfer.load(folder / name) for name in "ab"]
    for i in range(n):
        sktransfer.save(models[i % 2], folder / "model")


@pytest.mark.parametrize("n_kills", N_KILLS)
def test_killed_save(n_kills, tmp_path):
    """The file is one of the two models, whole; what killed writers left is swept up by a later save."""
    models = [FineTunedCNNClassifier(**{**TRAINED, "random_state": i}, **FLAT).fit(X, Y) for i in range(2)]
    for model, name in zip(models, "ab", strict=True):
        sktransfer.save(model, tmp_path / name)
    expected = [model.predict_proba(X) for model in models]
    n_killed = 0
    for killed in kill_at_random(n_kills, save_in_turns, tmp_path, 20):
        n_killed += bool(killed)
        model = sktransfer.load(tmp_path / "model")
        np.testing.assert_allclose(model.predict_proba(X), expected[model.random_state], atol=1e-6)
    assert n_killed > n_kills // 2 - 1
    for aside in tmp_path.glob(".sktransfer-*.tmp"):
        os.utime(aside, (1e9, 1e9))
    (tmp_path / ".model-other.txt").touch()
    sktransfer.save(models[0], tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model-other.txt", "a", "b", "model"]


class Deadly:
    """An image that kills the process that reads it, as long as a file is there."""

    def __init__(self, trap):
        self.trap = trap

    def __array__(self, dtype=None, copy=None):
        if self.trap.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros((40, 40, 3), dtype=np.uint8)


def extract_all(images, folder):
    return PretrainedCNNFeatures(**FEATURES, memory=folder).fit_transform(images)


@pytest.mark.slow
def test_killed_worker_of_joblib(paths, tmp_path):
    """joblib says so; what the workers stored stays, and the next run is as an undisturbed one."""
    trap = tmp_path / "trap"
    trap.touch()
    arrays = [np.asarray(Image.open(path)) for path in paths]
    parts = [arrays[:30], [*arrays[30:], Deadly(trap)]]
    folder = tmp_path / "cache"
    with pytest.raises(TerminatedWorkerError):
        joblib.Parallel(n_jobs=2)(joblib.delayed(extract_all)(part, folder) for part in parts)
    assert rows_are_whole(folder)
    trap.unlink()
    got = joblib.Parallel(n_jobs=2)(joblib.delayed(extract_all)(part, folder) for part in parts)
    expected = [PretrainedCNNFeatures(**FEATURES).fit_transform(part) for part in parts]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class CtrlC:
    """An image that takes a while, and during which the user presses Ctrl-C."""

    def __init__(self):
        self.armed = True

    def __array__(self, dtype=None, copy=None):
        if self.armed:
            self.armed = False
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return np.zeros((40, 40, 3), dtype=np.uint8)


@pytest.fixture
def interruptible():
    """Python ignores Ctrl-C where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_transform(paths, interruptible):
    """The threads end, what was computed is kept and right, and the estimator works as before."""
    arrays = [np.asarray(Image.open(path)) for path in paths]
    images = [*arrays[:50], CtrlC(), *arrays[50:]]
    model = PretrainedCNNFeatures(**FEATURES).fit(images)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        model.transform(images)
    assert threading.active_count() <= threads
    kept = cache_info().entries
    assert kept < len(images)
    got = model.transform(images)
    clear_cache()
    np.testing.assert_allclose(got, model.transform(images), atol=1e-6)


def test_ctrl_c_before_training(interruptible):
    """While the frozen stages are computed, too, a fit that is stopped leaves no fitted estimator."""
    images = [*X.reshape(-1, 8, 8).astype(np.uint8), CtrlC()]
    clf = FineTunedCNNClassifier(**TRAINED, freeze=1)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(images, [*Y, 0])
    assert not hasattr(clf, "net_") and not hasattr(clf, "classes_")
    clf.fit(images, [*Y, 0]).predict(images)


FIRST_USE_INTERRUPTED = """
import numpy as np, os, signal, sktransfer, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
X = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
model = sktransfer.PretrainedCNNFeatures("timm/test_efficientnet", weights=None, image_size=32).fit(X)
start = time.perf_counter()
model.transform(X)
first_use = time.perf_counter() - start
rng, n_interrupted = np.random.default_rng(0), 0
for _ in range(12):
    sktransfer.clear_cache()
    timer = threading.Timer(rng.uniform(0.1, 0.7) * first_use, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        timer.start()
        model.transform(X)
        timer.join()
    except KeyboardInterrupt:
        n_interrupted += 1
assert np.isfinite(model.transform(X)).all()
print(n_interrupted)
"""


def test_ctrl_c_while_the_network_is_prepared():
    """It ended the process, or passed for a failed conversion."""
    assert int(fresh(FIRST_USE_INTERRUPTED).stdout) >= 3
