"""Keys: what makes a row another one, and how often a file is read."""

import dataclasses
import os
import shutil
import threading
import time

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageFile

from pictures import noise
from sktransfer import PretrainedCNNFeatures, cache_info, rank_backbones
from sktransfer._frozen._cut_network import Outputs
from sktransfer._frozen._engines import engine_identity
from sktransfer._frozen._keys import Origin, _known_files, fingerprint, row_key
from sktransfer._frozen._preprocessing import Preprocessing
from sktransfer._images._collection import as_images
from sktransfer._images._decoding import decoder_identity
from tiny import TINY

ORIGIN = Origin("network", Preprocessing((8, 8)), "auto", "decoder", "engine", Outputs((1,), "avg"))
CPU = torch.device("cpu")


def write_image(path, seed, size=(40, 40), suffix="BMP"):
    Image.fromarray(noise(*size, 3, seed=seed)).save(path, suffix)
    return path


@pytest.fixture
def later(monkeypatch):
    """Files written now count as old ones."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**11)


# --- what makes a new key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Origin)])
def test_every_field_of_the_record_makes_a_new_key(field):
    other = {"preprocessing": Preprocessing((8, 9)), "outputs": Outputs((1, 2), "avg")}.get(field, "another")
    assert row_key(ORIGIN, b"x") != row_key(dataclasses.replace(ORIGIN, **{field: other}), b"x")
    assert row_key(ORIGIN, b"x") == row_key(dataclasses.replace(ORIGIN), b"x")


def test_image_and_view_make_a_new_key():
    keys = [row_key(ORIGIN, *image_and_view) for image_and_view in ((b"x",), (b"y",), (b"x", "1"), (b"x", "2"))]
    assert len(set(keys)) == 4


def test_one_change_makes_a_new_key():
    tiny = {**TINY, "engine": "torch"}
    photo = noise(40, 40, 3)
    pixel = photo.copy()
    pixel[3, 3, 0] ^= 1
    PretrainedCNNFeatures(**tiny).fit_transform(photo[None])
    known = cache_info().misses
    changes = [
        (pixel, {}),
        (photo, {"image_size": 64}),
        (photo, {"pooling": "max"}),
        (photo, {"layer": "stage2"}),
        (photo, {"layer": ["stage2", "stage3"]}),
        (photo, {"precision": "bfloat16"}),
        (photo, {"backbone": "timm/test_resnet"}),
        (photo, {"value_range": (0, 255)}),
    ]
    for image, change in changes:
        PretrainedCNNFeatures(**{**tiny, **change}).fit_transform(image[None])
        known += 1
        assert cache_info().misses == known, change
    for image, change in changes:  # and each is found again
        PretrainedCNNFeatures(**{**tiny, **change}).fit_transform(image[None])
    assert cache_info().misses == known


def test_one_weight_makes_a_new_key(tmp_path):
    network = timm.create_model("test_efficientnet")
    photo = noise(1, 40, 40, 3)
    for misses in (1, 2):
        torch.save(network.state_dict(), tmp_path / f"{misses}.pth")
        PretrainedCNNFeatures(**{**TINY, "weights": tmp_path / f"{misses}.pth"}).fit_transform(photo)
        assert cache_info().misses == misses
        with torch.no_grad():
            network.conv_stem.weight[0, 0, 0, 0] += 1e-3


TWINS = [
    ("timm/resnet50", "timm/resnetaa50"),
    ("timm/efficientnet_b0", "timm/tf_efficientnet_b0"),
]


@pytest.mark.parametrize(("one", "other", "engine"), [(*TWINS[0], "torch"), (*TWINS[1], "openvino")])
def test_architectures_that_share_their_weights_do_not_share_their_features(one, other, engine):
    """Parameters of the same names and shapes, and another forward."""
    photo = noise(1, 96, 96, 3)
    common = {"weights": None, "image_size": 64, "layer": "stage3", "engine": engine}
    (a, b) = (PretrainedCNNFeatures(name, **common).fit_transform(photo) for name in (one, other))
    assert a.shape == b.shape and abs(a - b).max() > 1e-3 * abs(a).max()


def test_ranked_twins_get_scores_of_their_own():
    X, y = noise(24, 32, 32, 3), np.arange(24) % 2
    ranking = rank_backbones(
        X, y, TWINS[1], ["penultimate"], method="logme", weights=None, image_size=32, engine="torch"
    )
    assert ranking[0].score != ranking[1].score


def test_weights_under_another_architecture_are_not_those_fitted_with():
    features = PretrainedCNNFeatures("timm/resnet50", weights=None, image_size=32, layer="stage1")
    features.fit(np.zeros((1, 32, 32, 3), np.uint8)).set_params(backbone="timm/resnetaa50")
    with pytest.raises(ValueError, match="fitted with backbone='timm/resnet50'"):
        features.transform(np.zeros((1, 32, 32, 3), np.uint8))


def test_half_a_picture_is_not_served_once_truncated_files_are_refused(tmp_path, monkeypatch):
    path = write_image(tmp_path / "x.jpg", 0, (64, 64), "JPEG")
    path.write_bytes(path.read_bytes()[:-900])
    features = PretrainedCNNFeatures(**TINY).fit([path])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    features.transform([path])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.raises(ValueError, match="truncated"):
        features.transform([path])


@pytest.mark.parametrize("package", ["PIL.__version__", "timm.__version__"])
def test_another_version_of_what_computes_a_row_makes_a_new_row(package, monkeypatch):
    photo = noise(1, 40, 40, 3)
    PretrainedCNNFeatures(**TINY).fit_transform(photo)
    monkeypatch.setattr(package, "999")
    PretrainedCNNFeatures(**TINY).fit_transform(photo)
    assert (cache_info().hits, cache_info().misses) == (0, 2)


def test_switches_of_precision_are_in_the_identity_of_an_engine():
    before = engine_identity("torch", CPU, "float32")
    torch.set_float32_matmul_precision("high")
    try:
        assert engine_identity("torch", CPU, "float32") != before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_processors_with_and_without_bfloat16_do_not_share_rows(monkeypatch):
    identities = set()
    for has in (True, False):
        monkeypatch.setattr("sktransfer._frozen._engines._openvino_has_bfloat16", lambda has=has: has)
        identities.add(engine_identity("openvino", CPU, "bfloat16"))
    assert len(identities) == 2


def test_identities_name_versions():
    assert Image.__version__ in decoder_identity()
    assert torch.__version__.partition("+")[0] in engine_identity("torch", CPU, "float32")


# --- files --------------------------------------------------------------------------------------------------


def test_fingerprint_rereads_a_file_that_changed(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    images = as_images([path])
    first = fingerprint(images, 0)
    assert str(path) not in _known_files  # too young to be trusted
    path.write_bytes(b"two")  # within the same tick of the clock, of the same size
    second = fingerprint(images, 0)
    assert second != first and second[1] == b"two"


def test_known_file_is_not_read_again(tmp_path, later):
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    images = as_images([path])
    first = fingerprint(images, 0)
    assert fingerprint(images, 0) == (first[0], None)
    assert fingerprint(images, 0, anew=True) == first


@pytest.mark.parametrize("how", ["copy", "overwrite and set the time back"])
def test_file_overwritten_by_another_of_equal_size_and_time_is_seen(how, tmp_path, later):
    one, other = (write_image(tmp_path / f"{seed}.bmp", seed) for seed in (0, 1))
    for path in (one, other):
        os.utime(path, (1e9, 1e9))
    path = tmp_path / "photo.bmp"
    shutil.copy2(one, path)
    features = PretrainedCNNFeatures(**TINY).fit([path])
    first = features.transform([path])
    if how == "copy":
        shutil.copy2(other, path)
    else:
        path.write_bytes(other.read_bytes())
        os.utime(path, (1e9, 1e9))
    second = features.transform([path])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, features.transform([other]))


@pytest.fixture
def opened(monkeypatch):
    """Count how often each file is opened by us."""
    counts = {}

    def counting(name, *args, **kwargs):
        counts[str(name)] = counts.get(str(name), 0) + 1
        return open(name, *args, **kwargs)

    monkeypatch.setattr("sktransfer._images._items.open", counting, raising=False)
    return counts


def test_cold_pass_opens_each_file_once_and_warm_pass_none(tmp_path, opened, later):
    paths = [str(write_image(tmp_path / f"{seed}.png", seed, suffix="PNG")) for seed in range(10)]
    for _ in range(2):
        PretrainedCNNFeatures(**TINY).fit_transform(paths)
        assert opened == dict.fromkeys(paths, 1)
    PretrainedCNNFeatures(**TINY, layer="stage1").fit_transform(paths)  # other rows of files that are known
    assert opened == dict.fromkeys(paths, 2)


def test_file_replaced_while_it_is_read_leaves_no_wrong_row(tmp_path):
    """Another program replaces the file every few milliseconds; each row must be that of its key."""
    contents = [write_image(tmp_path / f"{seed}.bmp", seed).read_bytes() for seed in (0, 1)]
    path, stop = tmp_path / "photo.bmp", threading.Event()
    path.write_bytes(contents[0])

    def replace_again_and_again():
        i = 0
        while not stop.wait(0.0005):
            i += 1
            (tmp_path / "aside").write_bytes(contents[i % 2])
            os.replace(tmp_path / "aside", path)

    replacer = threading.Thread(target=replace_again_and_again)
    replacer.start()
    try:
        features = PretrainedCNNFeatures(**TINY).fit([path])
        for _ in range(60):
            features.transform([path])
            features.set_params(image_size=33 if features.image_size == 32 else 32)
    finally:
        stop.set()
        replacer.join()
    for size in (32, 33):
        features.set_params(image_size=size)
        stored = features.transform(contents)  # bytes: the same content, so the same keys
        assert cache_info().misses <= 4
        clear = PretrainedCNNFeatures(**{**TINY, "image_size": size}, batch_size=1).fit(contents)
        from sktransfer._frozen import _store

        _store._memory.clear()
        np.testing.assert_allclose(stored, clear.transform(contents), atol=1e-4)


def test_weights_file_of_equal_size_and_time_is_read_anew(tmp_path):
    photo = noise(1, 40, 40, 3)
    path, seen = tmp_path / "w.pth", []
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_efficientnet").state_dict(), path)
        os.utime(path, (1e9, 1e9))
        seen.append(PretrainedCNNFeatures(**{**TINY, "weights": path}).fit_transform(photo))
    assert abs(seen[0] - seen[1]).max() > 1e-3
