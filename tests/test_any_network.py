"""Networks without a rule of their own are cut by following their computation; transformers are among them."""

import copy
import pickle
import threading

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision import models

from sktransfer import BackboneError, FineTunedCNNClassifier, GradCAMDisplay, PretrainedCNNFeatures, load, save
from sktransfer._displays._grad_cam import _deepest_map
from sktransfer._finetuning._network import whole_network
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._cut_network import CutNetwork, Outputs
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


def test_torchvisions_transformers_are_cut_too():
    for name in ("vit_b_16", "swin_t", "swin_v2_t"):
        torch.manual_seed(0)
        network = models.get_model(name, weights=None).eval()
        size = 224 if name == "vit_b_16" else 64
        images = torch.randn(2, 3, size, size)
        head = network.heads if name == "vit_b_16" else network.head
        seen = []
        head.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            network(images)
        stages = split_into_stages(network, (size, size))
        assert torch.allclose(pooled(stages, images), seen[0].flatten(1), atol=1e-5)
        assert len(stages) >= 4


class Branching(nn.Module):
    """Two values are needed at the end of each block, so it can be cut nowhere."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)])
        self.last = nn.Linear(3, 10)

    def forward(self, x):
        one = two = x
        for block in self.blocks:
            one, two = two, block(one)
        return self.last((one * two).mean(dim=(2, 3)))


def test_network_without_a_place_to_cut_says_so():
    with pytest.raises(BackboneError, match="Cannot cut a Branching for images of 32 × 32 pixels"):
        split_into_stages(Branching(), (32, 32))


class Wandering(nn.Module):
    """A network of one's own: it takes no input as constant but its height and width, and has no interface of timm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
        )
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        n, _, height, width = x.shape
        x = self.body(self.stem(x))
        x = x.reshape(n, 16, height // 4 * (width // 4)).mean(dim=2)
        return self.fc(x)


def test_own_network_is_cut_before_its_last_layer():
    torch.manual_seed(0)
    network, images = Wandering().eval(), torch.randn(5, 3, 32, 48)
    with torch.no_grad():
        expected = nn.functional.linear(pooled(split_into_stages(network, (32, 48)), images), network.fc.weight)
        assert torch.allclose(expected + network.fc.bias, network(images), atol=1e-6)


def test_pooling_leaves_tokens_that_are_no_part_of_the_image_out():
    maps = torch.arange(2 * 3 * 6, dtype=torch.float32).reshape(2, 3, 6, 1)
    tokens = Tokens(2, True, (2, 2))
    patches = maps[:, :, 2:]
    assert torch.equal(pool(maps, "avg", tokens), patches.mean(dim=(2, 3)))
    assert torch.equal(pool(maps, "max", tokens), patches.amax(dim=(2, 3)))
    assert torch.equal(pool(maps, "token", tokens), maps[:, :, 0, 0])
    assert torch.equal(pool(maps, "avg+token", tokens), torch.cat([patches.mean(dim=(2, 3)), maps[:, :, 0, 0]], dim=1))
    assert torch.equal(pool(maps, "flatten", tokens), maps.flatten(1))
    with pytest.raises(BackboneError, match="takes the class token, and this stage has none: its map is 6 × 1"):
        pool(maps, "token")


@pytest.mark.parametrize(
    ("shape", "channels", "size", "n_prefix", "expected"),
    [
        ((2, 17, 8), 8, (64, 64), 1, (2, 8, 17, 1)),  # class token and 4 × 4 patches
        ((2, 16, 8), 8, (64, 64), 0, (2, 8, 4, 4)),
        ((2, 8, 8), 8, (32, 64), 0, (2, 8, 2, 4)),
        ((2, 7, 5, 8), 8, (70, 50), 0, (2, 8, 7, 5)),  # channels last
        ((2, 8, 7, 5), 8, (70, 50), 0, (2, 8, 7, 5)),
        ((2, 7, 7, 7), 7, (70, 70), 0, (2, 7, 7, 7)),
        ((2, 7, 5, 8), None, (70, 50), 0, (2, 8, 7, 5)),
        ((2, 8), None, (70, 50), 0, (2, 8, 1, 1)),
    ],
)
def test_layouts_are_told_apart_and_can_be_undone(shape, channels, size, n_prefix, expected):
    layout = layout_of(shape, channels, size, n_prefix, n_prefix > 0)
    own = torch.randn(shape)
    maps = run_steps(own, layout.to_map)
    assert maps.shape == expected
    assert torch.equal(run_steps(maps, layout.to_own), own)


ENGINES = ("torch", "openvino")
TINY = {"backbone": "timm/test_vit", "weights": None, "image_size": 64}


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (24, 80, 80, 3), dtype=np.uint8)
    y = np.arange(24) % 2
    X[y == 1, :40] //= 4
    return X, y


def test_transformer_gives_the_features_of_its_own_pooling(photos):
    X, _ = photos
    features = PretrainedCNNFeatures(**TINY).fit_transform(X[:5])
    torch.manual_seed(0)
    network = timm.create_model("test_vit").eval()
    network.set_input_size(img_size=(64, 64))
    backbone = load_backbone("timm/test_vit", None).with_image_size(64)
    canvases = np.stack([backbone.preprocessing.canvas(image) for image in X[:5]])
    body = CutNetwork(backbone, Outputs((1,), "avg"))
    images = torch.from_numpy(canvases).permute(0, 3, 1, 2) * body.scale + body.shift
    np.testing.assert_allclose(features, own_features(network, images).numpy(), atol=1e-4)


def test_poolings_of_tokens(photos):
    X, _ = photos
    of = {
        pooling: PretrainedCNNFeatures(**TINY, layer=["stage1", "stage2"], pooling=pooling).fit(X[:5])
        for pooling in ("token", "avg", "avg+token")
    }
    token, avg, both = (each.transform(X[:5]) for each in of.values())
    width = token.shape[1] // 2
    np.testing.assert_array_equal(both, np.hstack([avg[:, :width], token[:, :width], avg[:, width:], token[:, width:]]))
    assert [len(parts) for parts in of["avg+token"].stage_columns_] == [2, 2]
    assert not np.allclose(token, avg)
    with pytest.raises(BackboneError, match="takes the class token, and this stage has none"):
        PretrainedCNNFeatures(pooling="token").fit(X)


def test_transformer_takes_other_sizes_and_names_those_that_it_does_not(photos):
    X, _ = photos
    wide = PretrainedCNNFeatures("timm/test_vit", weights=None, image_size=(64, 96)).fit_transform(X[:2])
    assert wide.shape == (2, 64)
    with pytest.raises(BackboneError, match="'timm/test_vit' cannot take images of 50 × 50 pixels.*160 × 160"):
        PretrainedCNNFeatures("timm/test_vit", weights=None, image_size=50).fit(X)


@pytest.mark.parametrize("freeze", [0, 2, "all"])
def test_fine_tuned_transformer_survives_files_and_pickles(photos, tmp_path, freeze):
    X, y = photos
    clf = FineTunedCNNClassifier(**TINY, freeze=freeze, max_epochs=2, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(clf)).predict_proba(X), expected, atol=1e-6)
    save(clf, tmp_path / "model.skt")
    np.testing.assert_allclose(load(tmp_path / "model.skt").predict_proba(X), expected, atol=1e-6)
    again = FineTunedCNNClassifier(**TINY, freeze=freeze, max_epochs=2, random_state=0).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), expected)


def test_engines_agree_on_a_transformer(photos):
    X, _ = photos
    pytest.importorskip("openvino")
    one, other = (PretrainedCNNFeatures(**TINY, layer="all", engine=engine).fit_transform(X) for engine in ENGINES)
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.9999


@pytest.mark.parametrize("tune", ["norm", "bias"])
@pytest.mark.parametrize("backbone", ["timm/test_vit", "timm/test_resnet"])
def test_only_the_chosen_parameters_are_trained(photos, backbone, tune):
    X, y = photos
    params = {"backbone": backbone, "weights": None, "image_size": 64, "freeze": 1, "lr_factor": 1, "random_state": 0}
    before, after = (
        FineTunedCNNClassifier(**params, tune=tune, max_epochs=epochs).fit(X, y).net_.module_ for epochs in (0, 2)
    )
    changed = {
        name
        for (name, old), new in zip(before.stages.named_parameters(), after.stages.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    expected = {
        f"{prefix}.{name}"
        for prefix, module in after.stages.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if (isinstance(module, nn.LayerNorm | nn.BatchNorm2d) if tune == "norm" else name.endswith("bias"))
    }
    assert expected
    assert changed <= expected
    assert len(changed) > len(expected) / 2  # some gradients are zero
    assert not torch.equal(before.head[-1].weight, after.head[-1].weight)


def test_heat_maps_of_a_transformer_lie_on_the_grid_of_its_patches(photos):
    pytest.importorskip("captum")
    X, y = photos
    clf = FineTunedCNNClassifier(**TINY, freeze="all", max_epochs=1, random_state=0).fit(X, y)
    display = GradCAMDisplay.from_estimator(clf, X[:2])
    assert display.heatmaps.shape == (2, 64, 64)
    assert (display.heatmaps >= 0).all()
    network = whole_network(clf, clf._fitted_backbone().with_image_size(64))
    depth = _deepest_map(network, np.zeros((1, 64, 64, 3), np.uint8))
    assert depth < len(network.body.stages)  # in the last stage, the logits depend on the class token alone


def test_other_threads_may_run_networks_while_one_is_cut():
    """torch.fx intercepts the calls of all threads."""
    running, faults, n_runs = threading.Event(), [], 0
    running.set()
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()

    def run():
        nonlocal n_runs
        while running.is_set():
            try:
                other(torch.zeros(1, 3, 16, 16))
                n_runs += 1
            except Exception as error:  # kept for the assertion
                faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(5):
        assert len(split_into_stages(timm.create_model("test_vit"), (160, 160))) > 1
    running.clear()
    thread.join()
    assert not faults
    assert n_runs > 0


def test_weights_of_another_image_size_are_interpolated_as_timm_does(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_vit", img_size=96)
    torch.save(network.state_dict(), tmp_path / "small.pth")
    state = load_backbone("timm/test_vit", tmp_path / "small.pth").network.state_dict()
    network.set_input_size(img_size=(160, 160))
    for name, value in network.state_dict().items():
        if not name.startswith("head."):  # the stages do not need it
            torch.testing.assert_close(state[name], value)


def test_weights_with_the_names_of_the_original_authors_are_read(tmp_path):
    """DINOv2's own files have a mask token, another name for the register tokens, and a position of the class token."""
    torch.manual_seed(0)
    theirs = dict(timm.create_model("vit_small_patch14_reg4_dinov2").state_dict())
    registers, patches, position = theirs.pop("reg_token"), theirs["pos_embed"], torch.randn(1, 1, 384)
    theirs |= {"register_tokens": registers, "pos_embed": torch.cat([position, patches], dim=1)}
    theirs["mask_token"] = torch.zeros(1, 384)
    torch.save(theirs, tmp_path / "dinov2.pth")
    state = load_backbone("timm/vit_small_patch14_reg4_dinov2", tmp_path / "dinov2.pth").network.state_dict()
    torch.testing.assert_close(state["reg_token"], registers)
    torch.testing.assert_close(state["pos_embed"], patches)
    torch.testing.assert_close(state["cls_token"], theirs["cls_token"] + position)
