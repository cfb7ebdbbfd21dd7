"""Threads and forked processes: first use from all at once, the same model from each, nothing of the user's changed."""

import gc
import multiprocessing
import os
import threading
import weakref

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_predict
from threadpoolctl import threadpool_info
from torch import nn

import sktransfer
from processes import fresh
from sktransfer import FineTunedCNNClassifier, clear_cache
from sktransfer._frozen._backbones import load_backbone
from sktransfer._linear import OneThreadLogisticRegression, one_blas_thread
from sktransfer._random import OwnDropout, global_generator, with_own_dropout
from sktransfer._registry import LIMIT, built_once
from tiny import FLAT, TINY, digits

X, Y = digits(36)
QUICK = {**TINY, **FLAT, "max_epochs": 2}


def in_threads(n, work):
    """Run ``work(i)`` in n threads that start together, and return what they return."""
    barrier, results, errors = threading.Barrier(n), [None] * n, []

    def run(i):
        try:
            barrier.wait()
            results[i] = work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return results


# --- first use ----------------------------------------------------------------------------------------------

FIRST_USE = """
import sys, threading, numpy as np, sktransfer
folder, n_threads = sys.argv[1], int(sys.argv[2])
X = np.load(folder + "/X.npy")
models = [sktransfer.load(f"{folder}/{i}.sktransfer") for i in range(4)]
barrier, errors, wrong = threading.Barrier(n_threads), [], []
def predict(i):
    try:
        barrier.wait()
        if abs(models[i % 4].predict_proba(X) - np.load(f"{folder}/{i % 4}.npy")).max() > 1e-4:
            wrong.append(i)
    except BaseException as error:
        errors.append(repr(error))
threads = [threading.Thread(target=predict, args=(i,)) for i in range(n_threads)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(errors, wrong)
"""


@pytest.fixture(scope="module")
def four_models(tmp_path_factory):
    """Saved models that are cut at different depths, and what they predict when they are asked one after the other."""
    folder = tmp_path_factory.mktemp("models")
    np.save(folder / "X.npy", X)
    for i, freeze in enumerate((2, 4, 6, "all")):
        model = FineTunedCNNClassifier(freeze=freeze, image_size=64, max_epochs=1, random_state=0, **FLAT).fit(X, Y)
        sktransfer.save(model, folder / f"{i}.sktransfer")
        np.save(folder / f"{i}.npy", model.predict_proba(X))
    return folder


@pytest.mark.parametrize("n_processes", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_first_predictions_of_several_models_in_several_threads(four_models, n_processes):
    for _ in range(n_processes):
        assert fresh(FIRST_USE, four_models, 8).stdout == "[] []\n"


@pytest.mark.filterwarnings("default")  # scikit-learn's threads swap the filters, and torch's tracer warns
def test_grid_search_in_threads_scores_every_fit():
    clear_cache()
    grid = GridSearchCV(FineTunedCNNClassifier(**QUICK, random_state=0), {"freeze": [1, 3, 5, "all"]}, cv=2)
    with joblib.parallel_config(backend="threading", n_jobs=4):
        scores = grid.fit(X, Y).cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()


# --- the same model -----------------------------------------------------------------------------------------


def probabilities(backend, n_jobs=4, **params):
    clear_cache()
    model = FineTunedCNNClassifier(**{**QUICK, **params}, random_state=0)
    # As many threads in each worker as here.
    options = {"inner_max_num_threads": torch.get_num_threads()} if backend == "loky" else {}
    with joblib.parallel_config(backend=backend, n_jobs=n_jobs, **options):
        return cross_val_predict(model, X, Y, cv=3, method="predict_proba")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("params", "backend", "tolerance"),
    [
        ({"freeze": 0, "backbone": "shallow_cnn", "image_size": 16}, "threading", 0),
        ({"freeze": 2, "augment": "photo"}, "threading", 0),
        ({"freeze": 3, "augment": "any_orientation", "n_views": 2, "tta": 3, "early_stopping": True}, "threading", 0),
        ({"freeze": 3, "head_hidden": (8,)}, "threading", 0),
        ({"freeze": 3, "head_hidden": (8,)}, "loky", 1e-3),
        pytest.param({"freeze": 3, "head_hidden": (8,)}, "loky", 0, marks=pytest.mark.slow),
        pytest.param({"backbone": "efficientnet_lite0", "freeze": 6}, "loky", 0, marks=pytest.mark.slow),
    ],
)
def test_random_state_gives_the_same_model_in_threads_and_processes(params, backend, tolerance):
    alone = probabilities("sequential", 1, **params)
    np.testing.assert_allclose(alone, probabilities(backend, **params), rtol=0, atol=tolerance)


@pytest.mark.filterwarnings("default")
def test_user_function_for_augmentation_draws_the_same_in_threads():
    params = {"augment": lambda image: image.flip(-1) if torch.rand(()) < 0.5 else image, "freeze": 2}
    np.testing.assert_array_equal(probabilities("sequential", 1, **params), probabilities("threading", **params))


def test_trained_from_scratch_in_threads_loads_again(tmp_path):
    def fit_and_save(i):
        model = FineTunedCNNClassifier(**QUICK, freeze=2, random_state=i).fit(X, Y)
        sktransfer.save(model, tmp_path / f"{i}.sktransfer")
        return model.predict_proba(X)

    for i, expected in enumerate(in_threads(4, fit_and_save)):
        np.testing.assert_allclose(sktransfer.load(tmp_path / f"{i}.sktransfer").predict_proba(X), expected, atol=1e-6)


def test_dropout_drops_other_features_in_each_call_of_partial_fit(monkeypatch):
    masks = []
    forward = OwnDropout.forward

    def noting(self, x):
        dropped = forward(self, torch.ones_like(x))
        if self.training:
            masks.append(dropped)
        return forward(self, x)

    monkeypatch.setattr(OwnDropout, "forward", noting)
    model = FineTunedCNNClassifier(**QUICK, dropout=0.5, random_state=0)
    for _ in range(2):
        model.partial_fit(X[:16], Y[:16], classes=[0, 1, 2])
    first, second = masks[0], masks[-1]
    assert 0.4 < (first == second).float().mean() < 0.6


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_own_dropout_is_dropout(p):
    ours, theirs, x = OwnDropout(p, seed=0), nn.Dropout(p), torch.ones(400, 500)
    assert abs(ours(x).mean() - theirs(x).mean()) < 0.01
    assert set(ours(x).unique().tolist()) == set(theirs(x).unique().tolist())
    assert torch.equal(ours.eval()(x), x)
    assert not torch.equal(ours.train()(x), ours(x)) or p in (0.0, 1.0)


def test_stochastic_depth_of_the_backbone_draws_from_no_shared_generator():
    network = nn.Sequential(*load_backbone("convnext_tiny", None).stages)
    with_own_dropout(network, seed=0)
    before = torch.get_rng_state()
    network.train()(torch.zeros(2, 3, 32, 32))
    assert torch.equal(torch.get_rng_state(), before)


# --- what belongs to the user -------------------------------------------------------------------------------

GENERATOR = """
import numpy as np, torch, sktransfer
X, y = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), [0, 1] * 4
torch.manual_seed(0)
expected = torch.rand(3)
torch.manual_seed(0)
sktransfer.FineTunedCNNClassifier(image_size=32, max_epochs=1, augment="photo", random_state=0).fit(X, y).predict(X)
sktransfer.PretrainedCNNFeatures("timm/test_efficientnet", weights=None, image_size=32).fit_transform(X)
print(torch.equal(torch.rand(3), expected))
"""


def test_first_fit_leaves_the_users_generator_as_it_was():
    assert fresh(GENERATOR).stdout == "True\n"


def test_global_generator_is_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), global_generator(0):
        torch.rand(3)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_overlapping_fits_give_back_the_threads_of_blas():
    before = blas_threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before
    in_threads(4, lambda i: [OneThreadLogisticRegression().fit(X, Y) for _ in range(3)])
    assert blas_threads() == before


# --- memory -------------------------------------------------------------------------------------------------


def test_networks_are_not_kept_alive_without_end():
    alive = weakref.WeakSet()
    image = np.zeros((1, 32, 32, 3), np.uint8)
    for i in range(20):
        backbone = load_backbone("shallow_cnn", None, seed=i)
        alive.add(backbone.stages)
        FineTunedCNNClassifier("shallow_cnn", weights=None, image_size=16, max_epochs=0, random_state=i).fit(
            np.concatenate([image, image]), [0, 1]
        )
    del backbone
    gc.collect()
    assert len(alive) <= LIMIT
    clear_cache()
    gc.collect()
    assert len(alive) == 0


def test_the_least_recently_used_is_dropped():
    clear_cache()
    made = []
    for key in [*range(LIMIT), 0, LIMIT, 0, 1]:
        built_once(key, lambda key=key: made.append(key))
    assert made == [*range(LIMIT), LIMIT, 1]
    clear_cache()


# --- forked processes ---------------------------------------------------------------------------------------

FORKED = """
import os, signal, sys, numpy as np, torch, sktransfer
torch.set_num_threads(int(sys.argv[1]))
X, y = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), [0, 1] * 3
network = dict(backbone="timm/test_efficientnet", weights=None, image_size=32)
common = dict(**network, max_epochs=1, random_state=0)
predict = sktransfer.FineTunedCNNClassifier(**common).fit(X, y).predict_proba
train = sktransfer.FineTunedCNNClassifier(**common, freeze=0)
with_torch = sktransfer.PretrainedCNNFeatures(**network, engine="torch").fit(X).transform
with_openvino = sktransfer.PretrainedCNNFeatures(**network, engine="openvino").fit(X).transform
sktransfer.set_cache_limits(memory_mb=0)
for work in (predict, lambda X: train.fit(X, y).predict_proba(X), with_torch, with_openvino):
    expected = work(X)
    sktransfer.clear_cache()  # OpenVINO keeps the threads of what is gone, for the next that needs as many
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if np.allclose(work(X), expected, atol=1e-4) else 3)
    print(os.waitpid(child, 0)[1], end=" ")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("n_threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_forked_process_computes(n_threads):
    """Servers load a model, use it once, then fork."""
    assert fresh(FORKED, n_threads).stdout == "0 0 0 0 "


def predict_in_pool(model):
    return model.predict_proba(X)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_pool_of_forked_processes_computes():
    model = FineTunedCNNClassifier(**QUICK, freeze=2, random_state=0).fit(X, Y)
    expected = model.predict_proba(X)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for got in pool.map_async(predict_in_pool, [model] * 3).get(timeout=60):
            np.testing.assert_allclose(got, expected, atol=1e-4)
