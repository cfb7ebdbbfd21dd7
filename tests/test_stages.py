"""Every family cut into stages must compute what the uncut network computes."""

import pytest
import timm
import torch
from torchvision import models

from sktransfer._frozen._stages import split_into_stages

TORCHVISION = {
    # name: number of stages
    "resnet18": 4,
    "wide_resnet50_2": 4,
    "alexnet": 3,
    "vgg11": 5,
    "vgg11_bn": 5,
    "densenet121": 4,
    "mobilenet_v2": 5,
    "mobilenet_v3_small": 5,
    "mobilenet_v3_large": 5,
    "efficientnet_b0": 8,
    "efficientnet_v2_s": 7,
    "convnext_tiny": 5,
    "regnet_y_400mf": 4,
    "shufflenet_v2_x0_5": 4,
    "squeezenet1_0": 3,
    "squeezenet1_1": 3,
    "mnasnet0_5": 7,
    "googlenet": 3,
    "inception_v3": 3,
}

TIMM = {
    "tf_efficientnet_lite0": 8,
    "test_efficientnet": None,
    "resnet18": 4,
    "resnet26d": 4,
    "test_resnet": 4,
    "convnext_atto": 5,
    "test_convnext": 5,
    "mobilenetv3_small_050": None,
    "mobilenetv4_conv_small_035": None,
    "regnetx_002": 4,
    "densenet121": 4,
    "vgg11": 5,
}


def captured_input_of(network, module, x):
    """What `module` is fed when the whole network runs."""
    seen = {}
    handle = module.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        network(x)
    handle.remove()
    return seen["x"]


def pooled(maps):
    return maps.mean(dim=(2, 3))


def assert_same(got, expected):
    scale = expected.std()
    assert scale > 0  # a network of random weights must not have died out
    torch.testing.assert_close(got / scale, expected / scale, rtol=1e-4, atol=1e-4)


def shake_statistics(network):
    """Give BatchNorm other statistics than 0 and 1, so that a missing layer shows."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.named_buffers():
        noise = torch.rand(tensor.shape, generator=generator)
        if name.endswith("running_mean"):
            tensor.copy_(0.1 * (noise - 0.5))
        if name.endswith("running_var"):
            tensor.copy_(0.2 + 0.1 * noise)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_stages_equal_the_uncut_network(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = models.get_model(name, weights=None, **options).eval()
    shake_statistics(network)
    if name in ("googlenet", "inception_v3"):
        network.transform_input = True
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    if name == "inception_v3":
        x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    head = getattr(network, "classifier", None) or network.fc
    if name in ("alexnet", "vgg11", "vgg11_bn"):
        with torch.no_grad():
            expected = pooled(network.features(x))
    elif name.startswith("convnext"):
        expected = captured_input_of(network, head[2], x)
    elif name.startswith("squeezenet"):
        expected = pooled(captured_input_of(network, head, x))
    else:
        expected = captured_input_of(network, head, x)
    stages = split_into_stages(network, x.shape[2:])
    with torch.no_grad():
        maps = stages(x)
    assert maps.ndim == 4
    assert_same(pooled(maps), expected.flatten(1))
    assert [n for n, _ in stages.named_children()] == [f"stage{k + 1}" for k in range(TORCHVISION[name])]


@pytest.mark.parametrize("name", TIMM)
def test_timm_stages_equal_pre_logits(name):
    network = timm.create_model(name).eval()
    shake_statistics(network)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = network.forward_features(x)
        expected = pooled(maps) if name == "vgg11" else network.forward_head(maps, pre_logits=True)
        stages = split_into_stages(network, (64, 64))
        got = stages(x)
    assert got.ndim == 4
    assert_same(pooled(got), expected)
    if TIMM[name] is not None:
        assert len(stages) == TIMM[name]


def test_resolution_falls_stage_by_stage():
    """Stages must be worth cutting at: no stage of the default raises the resolution."""
    stages = split_into_stages(timm.create_model("tf_efficientnet_lite0").eval(), (224, 224))
    x = torch.zeros(1, 3, 224, 224)
    shapes = []
    with torch.no_grad():
        for stage in stages:
            x = stage(x)
            shapes.append(tuple(x.shape[1:]))
    assert shapes[3:6] == [(80, 14, 14), (112, 14, 14), (192, 7, 7)]


def test_stages_never_overwrite_their_input():
    """A stored activation is fed to later stages many times; an in-place ReLU would spoil it."""
    for name in ("densenet121", "vgg11", "squeezenet1_1"):
        stages = split_into_stages(models.get_model(name, weights=None).eval(), (64, 64))
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            for stage in stages:
                before = x.clone()
                following = stage(x)
                assert torch.equal(before, x)
                x = following
