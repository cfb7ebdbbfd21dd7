"""A batch that does not fit the device's memory is halved once, with a warning; then it fails clearly."""

import numpy as np
import pytest
import timm
import torch

from sktransfer import DeviceMemoryError, FineTunedCNNClassifier, PretrainedCNNFeatures
from sktransfer._finetuning._network import TunedNetwork
from sktransfer._frozen._device_memory import Halving, is_out_of_memory
from sktransfer._frozen._engines import CutNetwork
from sktransfer._registry import forget_built
from tiny import FLAT, TINY, digits

X, Y = digits(48)
FLAT_TINY = {**TINY, **FLAT}
MESSAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    MemoryError(),
]


@pytest.fixture
def little_memory(monkeypatch):
    """A device with room for so many images; records how many it is given at a time."""

    def limit(kind, room, error=MESSAGES[0]):
        sizes, forward = [], kind.forward

        def limited(self, inputs):
            sizes.append(len(inputs))
            if len(inputs) > room:
                raise error
            return forward(self, inputs)

        monkeypatch.setattr(kind, "forward", limited)
        return sizes

    forget_built()  # engines remember
    yield limit
    forget_built()


@pytest.mark.parametrize("error", MESSAGES)
def test_errors_of_full_memory_are_known(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_halves_once_and_starts_again():
    calls, halving = [], Halving()

    def run(rows):
        calls.append((rows.start, rows.stop))
        if rows.stop - rows.start > 5:
            raise MESSAGES[0]
        return rows.start

    with pytest.warns(RuntimeWarning, match="9 images at a time do not fit .* going on with 5. Pass batch_size=5"):
        assert halving(run, 9) == [0, 5]
    assert calls == [(0, 9), (0, 5), (5, 9)]
    assert halving(run, 9) == [0, 5]  # without another try, or another warning


def test_the_second_try_finds_the_memory_that_torch_had_kept(monkeypatch):
    """cuDNN and cuBLAS take theirs from the device, not from what torch keeps for its own tensors."""
    steps = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: steps.append("empty"))

    def run(rows):
        steps.append(rows.stop)
        if "empty" not in steps:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    with pytest.warns(RuntimeWarning, match="going on with 2"):
        Halving()(run, 4)
    assert steps == [4, "empty", 2, 4]


def test_other_errors_pass():
    def run(rows):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot"):
        Halving()(run, 4)


@pytest.mark.parametrize("error", MESSAGES)
def test_extraction_goes_on_with_half_the_batch(little_memory, no_store, error):
    model = PretrainedCNNFeatures(**FLAT_TINY, engine="torch")
    expected = model.fit_transform(X)
    forget_built()
    sizes = little_memory(CutNetwork, 8, error)
    with pytest.warns(RuntimeWarning, match="16 images at a time do not fit the memory of the device; going on with 8"):
        got = model.fit_transform(X)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert sizes.count(16) == 1


def test_extraction_fails_clearly(little_memory, no_store):
    little_memory(CutNetwork, 6)
    model = PretrainedCNNFeatures(**FLAT_TINY, engine="torch")
    with (
        pytest.warns(RuntimeWarning, match="going on with 8"),
        pytest.raises(DeviceMemoryError, match=r"8 image\(s\) at a time do not fit [\s\S]*smaller batch_size"),
    ):
        model.fit_transform(X)


def test_training_goes_on_and_learns_the_same(little_memory, tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    params = {**FLAT_TINY, "weights": tmp_path / "w.pth", "freeze": 2, "dropout": 0, "random_state": 0}
    params |= {"max_epochs": 2, "batch_size": 16}
    plain = FineTunedCNNClassifier(**params).fit(X, Y)
    sizes = little_memory(TunedNetwork, 8)
    with pytest.warns(RuntimeWarning, match="16 images at a time do not fit"):
        halved = FineTunedCNNClassifier(**params).fit(X, Y)
    assert sizes.count(16) == 1 and set(sizes) == {16, 8}
    for name, value in plain.net_.module_.state_dict().items():
        torch.testing.assert_close(halved.net_.module_.state_dict()[name], value, atol=1e-4, rtol=0.01)


def test_training_fails_clearly_and_leaves_nothing_half_fitted(little_memory):
    little_memory(TunedNetwork, 3)
    clf = FineTunedCNNClassifier(**FLAT_TINY, max_epochs=1, batch_size=16)
    with (
        pytest.warns(RuntimeWarning, match="16 images at a time do not fit"),
        pytest.raises(DeviceMemoryError, match=r"8 image\(s\) at a time do not fit"),
    ):
        clf.fit(X, Y)
    assert not hasattr(clf, "net_")


def test_prediction_goes_on(little_memory):
    clf = FineTunedCNNClassifier(**FLAT_TINY, freeze="all", max_epochs=1, random_state=0).fit(X, Y)
    expected = clf.predict_proba(X)
    little_memory(TunedNetwork, 16)
    with pytest.warns(RuntimeWarning, match="32 images at a time do not fit .* with 16"):
        np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6)
