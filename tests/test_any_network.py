"""Networks without a rule of their own are cut by following their computation; transformers are among them."""

import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from sktransfer import BackboneError
from sktransfer._frozen._layout import Tokens, layout_of, own_pooling, pool, run_steps, tokens_of
from sktransfer._frozen._stages import depends_on_size, split_into_stages

# One of each family, made small: name, image size, arguments.
FAMILIES = {
    "vit_tiny_patch16_224": (64, {"depth": 4, "img_size": 64}),
    "vit_small_patch14_dinov2": (56, {"depth": 4, "img_size": 56, "embed_dim": 48}),
    "vit_small_patch14_reg4_dinov2": (56, {"depth": 4, "img_size": 56, "embed_dim": 48}),
    "vit_small_patch16_dinov3": (64, {"depth": 4, "img_size": 64, "embed_dim": 96}),
    "eva02_tiny_patch14_224": (56, {"depth": 4, "img_size": 56}),
    "vit_base_patch16_siglip_224": (64, {"depth": 4, "img_size": 64, "embed_dim": 96}),
    "vit_base_patch16_clip_224": (64, {"depth": 4, "img_size": 64, "embed_dim": 96}),
    "swin_tiny_patch4_window7_224": (64, {"depths": (1, 1, 2, 1), "img_size": 64, "window_size": 2, "embed_dim": 24}),
    "swinv2_tiny_window8_256": (64, {"depths": (1, 1, 2, 1), "img_size": 64, "window_size": 2, "embed_dim": 24}),
    "maxvit_rmlp_pico_rw_256": (128, {"img_size": 128}),
    "coatnet_pico_rw_224": (64, {"img_size": 64}),
    "convnextv2_atto": (64, {}),
    "efficientvit_b0": (64, {}),
    "efficientformerv2_s0": (224, {}),
    "repvit_m0_9": (64, {}),
    "fastvit_t8": (64, {}),
    "nfnet_l0": (64, {}),
    "hgnetv2_b0": (64, {}),
    "mobileone_s0": (64, {}),
    "mobilevit_xxs": (64, {}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "pvt_v2_b0": (64, {}),
    "poolformer_s12": (64, {}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 4}),
    "beit_base_patch16_224": (64, {"img_size": 64, "depth": 4, "embed_dim": 96}),
    "levit_128s": (224, {}),
    "edgenext_xx_small": (64, {}),
    "ghostnet_050": (64, {}),
    "resnetv2_50x1_bit": (64, {}),
    "starnet_s1": (64, {}),
}


def network_and_images(name, size=None, **arguments):
    torch.manual_seed(0)
    network = timm.create_model(name, **arguments).eval()
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and (value.ndim <= 1 or not value.any()):  # these would hide a difference
                value.copy_(torch.rand_like(value) * 0.2 + (0.9 if value.ndim <= 1 else 0))
    return network, torch.randn(3, 3, size, size)


def own_features(network, images):
    with torch.no_grad():
        return network.forward_head(network.forward_features(images), pre_logits=True).flatten(1)


def pooled(stages, images):
    with torch.no_grad():
        return pool(stages(images), own_pooling(stages), tokens_of(stages[-1]))


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_equal_the_whole(name):
    size, arguments = FAMILIES[name]
    network, images = network_and_images(name, size, **arguments)
    expected = own_features(network, images)
    stages = split_into_stages(network, (size, size)).requires_grad_(False)
    assert depends_on_size(network) == (not name.startswith("convnext"))
    assert 3 <= len(stages) <= 12
    got = pooled(stages, images)
    assert got.std() > 0
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    x = images
    with torch.no_grad():
        for stage in stages:  # each takes and gives a map, and leaves its input as it is
            before = x.clone()
            following = stage(x)
            assert torch.equal(x, before)
            x = following
            assert x.ndim == 4
            assert len(x) == 3
    for depth in {1, len(stages) - 1}:
        assert_only_the_rest_learns(stages, images, depth)


def assert_only_the_rest_learns(stages, images, depth):
    frozen, tuned = stages[:depth], copy.deepcopy(stages[depth:]).requires_grad_(True)
    before = copy.deepcopy(frozen.state_dict())
    old = copy.deepcopy(tuned.state_dict())
    tuned(frozen(images)).square().mean().backward()
    torch.optim.SGD(tuned.parameters(), lr=0.1).step()
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert any(not torch.equal(old[name], value) for name, value in tuned.state_dict().items())
