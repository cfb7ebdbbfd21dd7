"""One meaning of ``n_jobs`` for everything that decodes images."""

import inspect
import os
import subprocess
import sys

import joblib
import pytest
import torch

from sktransfer import (
    FineTunedCNNClassifier,
    PretrainedCNNFeatures,
    find_bad_images,
    find_duplicates,
    make_feature_classifier,
    make_strategies,
)


def threads_without_torch(n_jobs, **environment):
    code = (
        "import sys; from sktransfer._threads import decoding_threads; "
        f"print(decoding_threads({n_jobs}), 'torch' in sys.modules)"
    )
    environment = {**{k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


def test_none_takes_the_share_of_a_worker_and_does_not_import_torch():
    assert threads_without_torch(None, OMP_NUM_THREADS="3") == ["3", "False"]
    assert threads_without_torch(None, OMP_NUM_THREADS="nonsense")[1] == "False"
    assert threads_without_torch(5, OMP_NUM_THREADS="3") == ["5", "False"]
    assert threads_without_torch(-1) == [str(joblib.cpu_count()), "False"]


def test_none_takes_as_many_as_torch_uses():
    from sktransfer._threads import decoding_threads

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 3)
        assert decoding_threads(None) == before + 3
    finally:
        torch.set_num_threads(before)


def test_all_that_decode_have_the_same_default():
    for callable_ in (find_bad_images, find_duplicates, PretrainedCNNFeatures, FineTunedCNNClassifier):
        assert inspect.signature(callable_).parameters["n_jobs"].default is None


def test_no_jobs_at_all_is_refused(tmp_path):
    for look in (find_bad_images, find_duplicates):
        with pytest.raises(ValueError, match="n_jobs == 0"):
            look([b"no picture"], n_jobs=0)


def test_n_jobs_of_strategies_are_threads_that_decode_in_all_of_them():
    for name, estimator in make_strategies(n_jobs=7).items():
        found = {key: value for key, value in estimator.get_params().items() if key.split("__")[-1] == "n_jobs"}
        decoding = "features__n_jobs" if "features" in name else "n_jobs"
        assert found.pop(decoding) == 7, name
        assert set(found.values()) <= {None}, name
    assert make_feature_classifier(n_jobs=7).features.n_jobs == 7
