"""Engines: they agree, they are built once, and they know their place."""

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from pictures import noise
from sktransfer import PretrainedCNNFeatures, clear_cache
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._cut_network import CutNetwork, Outputs, folded
from sktransfer._frozen._engines import OpenVINOEngine, TorchEngine, make_engine, resolve_engine

CPU = torch.device("cpu")
CANVASES = noise(11, 64, 64, 3)


def engine(
    name,
    cuts=(8,),
    pooling="avg",
    start=0,
    precision="float32",
    backbone="efficientnet_lite0",
    weights="default",
    size=64,
):
    backbone = load_backbone(backbone, weights).with_image_size(size)
    return make_engine(backbone, Outputs(tuple(cuts), pooling), start, engine=name, device=CPU, precision=precision)


def reference(cuts=(8,), pooling="avg", backbone="efficientnet_lite0", weights="default"):
    network = CutNetwork(load_backbone(backbone, weights).with_image_size(64), Outputs(tuple(cuts), pooling)).eval()
    with torch.inference_mode():
        return network(torch.from_numpy(CANVASES)).numpy()


def cosine(a, b):
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize(("cuts", "pooling"), [((8,), "avg"), ((5,), None), ((3, 5, 8), "avgmax")])
def test_engines_agree(name, cuts, pooling):
    got = engine(name, cuts, pooling)(CANVASES).numpy()
    expected = reference(cuts, pooling)
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    assert cosine(got, expected).min() >= 0.9999


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_engines_go_on_from_a_map(name):
    maps = np.ascontiguousarray(reference((5,), None))
    assert cosine(engine(name, start=5)(maps).numpy(), reference()).min() >= 0.9999


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", pytest.param("densenet121", marks=pytest.mark.slow), "convnext_tiny", "googlenet", "shallow_cnn"],
)
@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_engines_agree_on_other_families(name, backbone):
    cuts = (len(load_backbone(backbone, None).stages),)
    got = engine(name, cuts, backbone=backbone, weights=None)(CANVASES).numpy()
    assert cosine(got, reference(cuts, backbone=backbone, weights=None)).min() >= 0.9999


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bfloat16_is_float32_outside(name):
    got = engine(name, precision="bfloat16")(CANVASES)
    assert got.dtype == torch.float32
    assert cosine(got.numpy(), reference()).min() >= 0.98


def test_an_engine_is_built_once():
    assert engine("torch") is engine("torch")
    assert engine("torch") is not engine("torch", cuts=(7,))
    assert isinstance(engine("torch"), TorchEngine)
    assert isinstance(engine("openvino"), OpenVINOEngine)


def test_openvino_compiles_once(monkeypatch):
    compiled = []
    monkeypatch.setattr(OpenVINOEngine, "_compile", counting(OpenVINOEngine._compile, compiled))
    runner = engine("openvino", cuts=(6,))
    for n in (4, 4, 3, 1, 11, 2):
        runner(CANVASES[:n])
    assert len(compiled) == 1


def counting(function, calls):
    def counted(*args):
        calls.append(args)
        return function(*args)

    return counted


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize("size", [64, 160])
def test_features_do_not_depend_on_the_other_images_of_a_batch(name, size, threads):
    images = noise(33, size, size, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        runner = engine(name, cuts=range(1, 9), pooling="avgstd", size=size)
        together = runner(images).numpy()
        for n in (1, 2, 3, 7, 16, 32):
            np.testing.assert_array_equal(runner(images[33 - n :]).numpy(), together[33 - n :])
    finally:
        torch.set_num_threads(before)


def test_backbone_is_not_folded_itself():
    before = load_backbone().checksum
    engine("torch", cuts=(4,))(CANVASES)
    clear_cache()
    assert load_backbone().checksum == before


def test_batchnorm_is_folded_away():
    network = engine("torch").network
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_folding_that_would_change_the_result_is_refused():
    class Crossed(nn.Module):
        """Registered convolution, then BatchNorm; run the other way round."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_mean += 1
            self.norm.running_var *= 4

        def forward(self, x):
            return self.conv(self.norm(x))

    network, sample = Crossed().eval(), torch.rand(1, 3, 4, 4)
    kept = folded(network, sample)
    assert isinstance(kept.norm, nn.BatchNorm2d)
    assert torch.equal(kept(sample), network(sample))


def test_resolve_engine(monkeypatch):
    assert resolve_engine("torch", CPU) == "torch"
    assert resolve_engine("auto", CPU) == "openvino"
    assert resolve_engine("auto", torch.device("cuda")) == "torch"
    with pytest.raises(ValueError, match="runs on the CPU"):
        resolve_engine("openvino", torch.device("cuda"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve_engine("auto", CPU) == "torch"
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sktransfer\[openvino\]'"):
        resolve_engine("openvino", CPU)


def threads_used(seed):
    import torch as torch_there

    images = noise(2, 32, 32, 3, seed=seed)
    PretrainedCNNFeatures("timm/test_efficientnet", weights=None, image_size=32).fit_transform(images)
    return torch_there.get_num_threads()


def test_workers_share_the_cores():
    import os

    used = Parallel(n_jobs=2)(delayed(threads_used)(seed) for seed in range(4))
    assert all(threads <= max(1, os.cpu_count() // 2) for threads in used), used


def test_features_choose_their_engine():
    photos = CANVASES[:3]
    common = {"backbone": "timm/test_efficientnet", "weights": None, "image_size": 32}
    one, two = (PretrainedCNNFeatures(**common, engine=name).fit_transform(photos) for name in ("torch", "openvino"))
    np.testing.assert_allclose(one, two, atol=1e-4 * abs(one).max())
    with pytest.raises(ValueError, match="'engine' parameter"):
        PretrainedCNNFeatures(**common, engine="tensorrt").fit(photos)


def test_dead_networks_are_compared_without_dividing_by_zero():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()).eval()
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    assert folded(network, torch.rand(1, 3, 4, 4))(torch.rand(1, 3, 4, 4)).abs().max() == 0
