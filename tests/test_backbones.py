"""The registry: names, weights from every source, preprocessing."""

import hashlib

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from sktransfer import UnknownBackboneError, WeightsMismatchError, WeightsNotFoundError, list_backbones
from sktransfer._frozen._backbones import _architecture, load_backbone
from sktransfer._frozen._stages import split_into_stages


def test_list_has_all_sources():
    names = list_backbones()
    assert names[:4] == ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "shallow_cnn"]
    assert {"resnet50", "vgg16", "swin_t", "timm/resnet18", "timm/vit_small_patch14_dinov2"} <= set(names)
    assert len(names) == len(set(names))
    assert list_backbones("timm/*lite0") == ["timm/efficientnet_lite0", "timm/tf_efficientnet_lite0"]


@pytest.mark.parametrize(
    "name",
    ["resnet18", "vgg11", "mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet", "timm/convnext_atto", "shallow_cnn"],
)
def test_random_weights_follow_the_seed(name):
    state = torch.random.get_rng_state()
    one, same, other = (load_backbone(name, None, seed) for seed in (1, 1, 2))
    assert one is same  # built once per process
    assert one.checksum != other.checksum
    assert not one.pretrained
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in one.stages.parameters())
    assert not any(module.training for module in one.stages.modules())


def test_embedded_default():
    backbone = load_backbone()
    assert backbone.stage_names == [f"stage{k}" for k in range(1, 9)]
    assert backbone.pretrained
    preprocessing = backbone.preprocessing
    assert (preprocessing.size, preprocessing.crop_fraction, preprocessing.interpolation) == (
        (224, 224),
        0.875,
        "bicubic",
    )
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)


def test_preprocessing_is_the_weights_own():
    assert load_backbone("timm/test_efficientnet", None).preprocessing.size == (160, 160)
    assert load_backbone("shufflenet_v2_x0_5", None).preprocessing.crop_fraction == 224 / 256


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("efficientnet_lite", "'efficientnet_lite0'"),
        ("resnet19", "'resnet18'"),
        ("timm/resnet19", "'timm/resnet18'"),
        ("convnext_attto", "'timm/convnext_atto'"),
    ],
)
@pytest.mark.parametrize("weights", ["default", None])
def test_mistyped_name_gets_the_nearest(name, nearest, weights):
    with pytest.raises(UnknownBackboneError, match=nearest):
        load_backbone(name, weights)


def test_shallow_cnn_has_no_published_weights():
    with pytest.raises(WeightsNotFoundError, match="weights=None"):
        load_backbone("shallow_cnn")


@pytest.fixture
def network():
    torch.manual_seed(3)
    return models.shufflenet_v2_x0_5(weights=None, num_classes=7).eval()


def same_as(network, backbone):
    x = torch.randn(2, 3, 64, 64)
    seen = {}
    handle = network.fc.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        network(x)
        got = backbone.stages(x).mean(dim=(2, 3))
    handle.remove()
    torch.testing.assert_close(got, seen["x"])
    return True


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("with_head", [True, False])
def test_local_weights_with_and_without_head(network, tmp_path, suffix, with_head):
    state = {name: value for name, value in network.state_dict().items() if with_head or not name.startswith("fc")}
    path = tmp_path / f"mine.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    backbone = load_backbone("shufflenet_v2_x0_5", path)
    assert backbone.pretrained
    assert same_as(network, backbone)
    assert load_backbone("shufflenet_v2_x0_5", str(path)) is backbone


def test_local_weights_that_changed_are_read_anew(network, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(network.state_dict(), path)
    before = load_backbone("shufflenet_v2_x0_5", path).checksum
    state = network.state_dict()
    state["conv1.0.weight"][0, 0, 0, 0] += 1
    torch.save(state, path)
    assert load_backbone("shufflenet_v2_x0_5", path).checksum != before


def test_weights_of_another_architecture_are_refused(network, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(network.state_dict(), path)
    with pytest.raises(WeightsMismatchError, match="120 tensors are missing|tensors are missing"):
        load_backbone("resnet18", path)
    with pytest.raises(WeightsMismatchError, match=r"have another shape.*is \(.*\), not \("):
        load_backbone("shufflenet_v2_x1_0", path)


def test_published_torchvision_weights_load_from_the_cache(network, tmp_path, monkeypatch):
    """The real path of a download, with a file in the cache whose name carries its hash."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "plain.pth")
    digest = hashlib.sha256((folder / "plain.pth").read_bytes()).hexdigest()
    (folder / "plain.pth").rename(folder / f"shufflenetv2_x0.5-{digest[:10]}.pth")
    weights = models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    url = f"https://example.invalid/shufflenetv2_x0.5-{digest[:10]}.pth"
    monkeypatch.setattr(type(weights), "url", url, raising=False)
    monkeypatch.setattr(weights, "_value_", type(weights.value)(url, weights.value.transforms, weights.value.meta))
    assert same_as(network, load_backbone("shufflenet_v2_x0_5"))


def offline(*args, **kwargs):
    raise OSError("no network")


def test_offline_errors_name_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(WeightsNotFoundError, match=r"no network.*efficientnet_lite0.*weights="):
        load_backbone("squeezenet1_1")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsNotFoundError, match=r"timm cannot load.*no network.*efficientnet_lite0"):
        load_backbone("timm/test_resnet")


def test_old_weights_without_batchnorm_counters(network, tmp_path):
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pth")
    assert same_as(network, load_backbone("shufflenet_v2_x0_5", tmp_path / "old.pth"))


def test_image_size_changes_the_preprocessing_alone():
    backbone = load_backbone("shallow_cnn", None)
    resized = backbone.with_image_size((32, 48))
    assert resized.preprocessing.size == (32, 48)
    assert resized.checksum == backbone.checksum
    assert resized.stages is backbone.stages
    assert np.prod(backbone.preprocessing.size) == 64 * 64


@pytest.mark.slow
@pytest.mark.parametrize("family", ["torchvision", "timm/"])
def test_every_listed_backbone_can_be_cut(family):
    """Shapes alone, on torch's meta device: no weights, no computing."""
    names = [name for name in list_backbones() if name.startswith("timm/") == (family == "timm/")]
    # torchvision's RegNet cannot be built on the meta device; test_stages.py runs one of them.
    names = [name for name in names if not name.startswith("regnet_")]
    assert len(names) > 40
    failures = []
    for name in names:
        try:
            with torch.device("meta"):
                network, preprocessing = _architecture(name)
                stages = split_into_stages(network.eval(), preprocessing.size)
                maps = stages(torch.empty(2, 3, *preprocessing.size))
            assert maps.ndim == 4
            assert maps.shape[0] == 2
        except Exception as error:  # collected, so that one run shows all
            failures.append(f"{name}: {type(error).__name__}: {error}"[:200])
    assert not failures, "\n".join(failures)


def test_name_of_timm_without_its_prefix_is_led_there():
    with pytest.raises(UnknownBackboneError, match=r"Did you mean 'timm/resnet50\.a1_in1k'"):
        load_backbone("resnet50.a1_in1k")
