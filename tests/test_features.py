"""`PretrainedCNNFeatures`: right features, inside scikit-learn's own tools."""

from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from torchvision import models

from pictures import CHINA, FLOWER, written
from processes import fresh
from sktransfer import ImageError, PretrainedCNNFeatures, clear_cache, make_feature_classifier
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._engines import _openvino_has_bfloat16
from sktransfer._frozen._weights import embedded_lite_weights, read_weights
from tiny import TINY

PHOTOS = [CHINA, FLOWER]


def timm_route(network, photos, **changes):
    """timm's own transform and own forward."""
    transform = timm.data.create_transform(**{**timm.data.resolve_data_config(model=network), **changes})
    with torch.no_grad():
        batch = torch.stack([transform(Image.fromarray(photo)) for photo in photos])
        return network.eval().forward_head(network.forward_features(batch), pre_logits=True).numpy()


def torchvision_route(name, network, photos):
    transform = models.get_model_weights(name).DEFAULT.transforms()
    head = getattr(network, "classifier", None) or network.fc
    seen = {}
    head.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        network.eval()(torch.stack([transform(Image.fromarray(photo)) for photo in photos]))
    return seen["x"].numpy()


def published_lite0():
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict({**network.state_dict(), **read_weights(embedded_lite_weights(0))})
    return network


def assert_close_relative(got, expected):
    np.testing.assert_allclose(got / expected.std(), expected / expected.std(), atol=1e-4)


def test_embedded_default_equals_timm():
    np.testing.assert_allclose(
        PretrainedCNNFeatures().fit_transform(PHOTOS), timm_route(published_lite0(), PHOTOS), atol=1e-4
    )


def test_without_the_crop_equals_timm():
    whole = timm_route(published_lite0(), PHOTOS, input_size=(3, 256, 256), crop_pct=1.0)
    np.testing.assert_allclose(PretrainedCNNFeatures(crop=False).fit_transform(PHOTOS), whole, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv4_conv_small", "convnext_atto"])
def test_equals_timm(name, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model(name)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    features = PretrainedCNNFeatures(f"timm/{name}", weights=tmp_path / "w.pth").fit_transform(PHOTOS)
    assert_close_relative(features, timm_route(network, PHOTOS))


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_equals_torchvision(name, tmp_path):
    torch.manual_seed(0)
    network = models.get_model(name, weights=None)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    features = PretrainedCNNFeatures(name, weights=tmp_path / "w.pth").fit_transform(PHOTOS)
    assert_close_relative(features, torchvision_route(name, network, PHOTOS))


def test_sample_photos_are_recognised():
    """The features with the original head on top: a Chinese palace and a dahlia."""
    head = load_file(Path(__file__).with_name("lite0_classifier.safetensors"))
    features = PretrainedCNNFeatures().fit_transform(PHOTOS)
    logits = features @ head["weight"].T + head["bias"]
    palace, daisy = 698, 985  # of ImageNet's 1,000 classes; the file holds the ten likeliest of either photo
    assert head["classes"][logits.argmax(axis=1)].tolist() == [palace, daisy]


@pytest.fixture(scope="module")
def photos():
    """Twelve small photos of two kinds, as arrays."""
    crops = [photo[r : r + 100, c : c + 120] for photo in PHOTOS for r in (0, 150, 300) for c in (0, 300)]
    return crops, np.repeat(["palace", "flower"], 6)


@pytest.fixture(scope="module")
def files(photos, tmp_path_factory):
    return list(map(str, written(photos[0], tmp_path_factory.mktemp("photos"))))


@pytest.mark.parametrize("container", ["paths", "array", "column"])
def test_the_promise_runs_as_written(photos, files, container):
    X = {"paths": files, "array": np.stack(photos[0]), "column": pd.DataFrame({"image": files})["image"]}[container]
    y = photos[1]
    pipe = Pipeline([("feat", PretrainedCNNFeatures()), ("svm", SVC())])
    features = PretrainedCNNFeatures().fit_transform(files)
    np.testing.assert_allclose(cross_val_score(pipe, X, y, cv=2), cross_val_score(SVC(), features, y, cv=2))
    pipe.set_params(feat__image_size=64)
    search = GridSearchCV(pipe, {"feat__layer": ["stage5", ["stage5", "penultimate"]], "svm__C": [0.1, 1]}, cv=2)
    search.fit(X, y)
    assert search.best_score_ > 0.7
    assert search.score(X, y) > 0.9


def test_column_transformer_and_pandas_output(files):
    frame = pd.DataFrame({"image": files, "age": range(12)})
    transformer = make_column_transformer((PretrainedCNNFeatures(**TINY), ["image"]), remainder="passthrough")
    out = transformer.set_output(transform="pandas").fit_transform(frame)
    assert out.shape[0] == 12
    assert out.columns[0].startswith("pretrainedcnnfeatures__stage")
    assert out.columns[-1] == "remainder__age"


def test_containers_give_the_same_features(photos, files, no_store):
    X = np.stack(photos[0])
    tensor = torch.from_numpy(X).permute(0, 3, 1, 2)
    model = PretrainedCNNFeatures(**TINY).fit(X)
    expected = model.transform(X)
    contents = [Path(path).read_bytes() for path in files]
    for same in (files, np.array(files), contents, list(X), X / 255, tensor, [Image.fromarray(x) for x in X]):
        np.testing.assert_allclose(model.transform(same), expected, atol=1e-5)


def test_batch_does_not_matter(photos, no_store):
    X = photos[0]
    expected = PretrainedCNNFeatures(image_size=96).fit_transform(X)
    assert expected.dtype == np.float32
    for batch_size in (1, 5):
        features = PretrainedCNNFeatures(image_size=96, batch_size=batch_size).fit_transform(X)
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        PretrainedCNNFeatures(image_size=96).fit(X).transform(X[3:4]), expected[3:4], rtol=1e-5, atol=1e-5
    )


def test_layers_and_poolings(no_store):
    X = PHOTOS

    def features(**params):
        return PretrainedCNNFeatures(image_size=64, engine="torch", **params).fit_transform(X)

    deep, shallow = features(), features(layer="stage5")
    assert (deep.shape, shallow.shape) == ((2, 1280), (2, 112))
    np.testing.assert_array_equal(features(layer="stage8"), deep)
    every = features(layer="all")
    assert every.shape == (2, 16 + 24 + 40 + 80 + 112 + 192 + 320 + 1280)
    np.testing.assert_allclose(every[:, -1280:], deep, atol=1e-5)
    np.testing.assert_allclose(features(layer=["penultimate", "stage5"]), np.hstack([shallow, deep]), atol=1e-6)
    flat = features(layer="stage5", pooling="flatten").reshape(2, 112, 4, 4)
    np.testing.assert_allclose(flat.mean(axis=(2, 3)), shallow, atol=1e-5)
    np.testing.assert_allclose(flat.max(axis=(2, 3)), features(layer="stage5", pooling="max"), atol=1e-5)
    both = features(layer="stage5", pooling="avgmax")
    np.testing.assert_allclose(both, np.hstack([flat.mean(axis=(2, 3)), flat.max(axis=(2, 3))]), atol=1e-5)
    spread = features(layer="stage5", pooling="avgstd")
    np.testing.assert_allclose(spread, np.hstack([flat.mean(axis=(2, 3)), flat.std(axis=(2, 3))]), atol=1e-5)


def test_normalized_layers_have_norm_one_each(no_store):
    plain = PretrainedCNNFeatures(image_size=64, layer=["stage5", "penultimate"])
    features = clone(plain).set_params(normalize=True).fit_transform(PHOTOS)
    parts = [
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in np.split(plain.fit_transform(PHOTOS), [112], 1)
    ]
    np.testing.assert_allclose(features, np.hstack(parts), atol=1e-6)


def test_normalizing_leaves_what_is_stored_alone():
    plain = PretrainedCNNFeatures(image_size=64)
    before = plain.fit_transform(PHOTOS)
    clone(plain).set_params(normalize=True).fit_transform(PHOTOS)
    np.testing.assert_array_equal(plain.transform(PHOTOS), before)


def test_feature_classifier_searches_on_finished_features(photos, computed):
    X, y = photos
    clf = make_feature_classifier(image_size=64, cv=3).fit(X, y)
    assert sum(n for _, n in computed) == len(X)
    assert clf.score(X, y) > 0.8
    assert clf.predict_proba(X).shape == (12, 2)
    assert clf.C_ in (0.1, 1, 10)
    assert clf.set_params(features__layer="stage5").get_params()["features__layer"] == "stage5"


def test_vgg_features_come_from_before_the_dense_layers():
    model = PretrainedCNNFeatures("vgg11", weights=None, image_size=32).fit(PHOTOS)
    assert model.n_features_out_ == 512


def test_names_of_features():
    model = PretrainedCNNFeatures(**TINY, layer=["stage1", "penultimate"]).fit(PHOTOS)
    names = model.get_feature_names_out()
    assert len(names) == len(set(names)) == model.n_features_out_ == model.transform(PHOTOS).shape[1]
    assert names[0] == "stage1_0"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": "layer4"}, "no stage 'layer4'. Its stages, from input to output: stage1, stage2"),
        ({"layer": ["stage1", "stage99"]}, "no stage 'stage99'"),
        ({"layer": []}, "names no stage"),
        ({"pooling": "mean"}, "'pooling' parameter .* must be a str among"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"precision": "half"}, "'precision' parameter"),
        ({"image_size": -1}, "'image_size' parameter"),
        ({"weights": "no/such/file.pth"}, "no weights file"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        PretrainedCNNFeatures(**{**TINY, **params}).fit(PHOTOS)


def test_bad_image_is_named(files):
    with pytest.raises(ImageError, match=r"image 2 .*missing\.png"):
        PretrainedCNNFeatures(**TINY).fit_transform([*files[:2], "missing.png", *files[2:]])


def test_fit_reads_no_file():
    PretrainedCNNFeatures(**TINY).fit(["missing.png"])


def test_global_state_is_left_alone():
    before = torch.random.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    PretrainedCNNFeatures(**TINY).fit_transform(PHOTOS)
    after = torch.random.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_always_in_eval_mode(no_store):
    """Dropout and BatchNorm in train mode would show as noise and as drifting statistics."""
    model = PretrainedCNNFeatures("efficientnet_lite0", image_size=64).fit(PHOTOS)
    checksum = load_backbone().checksum
    np.testing.assert_array_equal(model.transform(PHOTOS), model.transform(PHOTOS))
    clear_cache()
    assert load_backbone().checksum == checksum


def test_clone_shares_nothing_and_fits_alike(no_store):
    model = PretrainedCNNFeatures(**TINY, layer=["stage2"])
    twin = clone(model)
    np.testing.assert_array_equal(model.fit_transform(PHOTOS), twin.fit_transform(PHOTOS))


def test_pickle_holds_no_weights_and_predicts_in_a_new_process(photos, files, tmp_path):
    pipe = Pipeline([("feat", PretrainedCNNFeatures(image_size=64, engine="torch")), ("svm", SVC())]).fit(
        files, photos[1]
    )
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    joblib.dump(pipe.named_steps["svm"], tmp_path / "svm.joblib")
    overhead = (tmp_path / "pipe.joblib").stat().st_size - (tmp_path / "svm.joblib").stat().st_size
    assert overhead < 10_000
    joblib.dump(files, tmp_path / "files.joblib")
    code = (
        "import sys, joblib; p = joblib.load(sys.argv[1]); print(list(p.decision_function(joblib.load(sys.argv[2]))))"
    )
    out = fresh(code, tmp_path / "pipe.joblib", tmp_path / "files.joblib").stdout
    printed = np.array([float(word.strip("[],\n np.float64()")) for word in out.split(",")])
    np.testing.assert_allclose(printed, pipe.decision_function(files), atol=1e-5)


def test_weights_of_a_file_stay_with_what_was_fitted(tmp_path):
    network = timm.create_model("test_efficientnet")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = PretrainedCNNFeatures(**{**TINY, "weights": tmp_path / "w.pth"}).fit(PHOTOS)
    expected = model.transform(PHOTOS)
    torch.nn.init.ones_(network.conv_stem.weight)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    np.testing.assert_array_equal(model.transform(PHOTOS), expected)  # as long as it is not fitted again
    assert abs(model.fit(PHOTOS).transform(PHOTOS) - expected).max() > 1e-3


def test_bfloat16_is_close():
    exact = PretrainedCNNFeatures(image_size=96).fit_transform(PHOTOS)
    rough = PretrainedCNNFeatures(image_size=96, precision="bfloat16").fit_transform(PHOTOS)
    assert rough.dtype == np.float32
    cosine = (exact * rough).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert (cosine > 0.99).all()
    assert (exact != rough).any() == _openvino_has_bfloat16()  # elsewhere it computes in float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_agrees_with_cpu():
    cpu = PretrainedCNNFeatures(device="cpu").fit_transform(PHOTOS)
    np.testing.assert_allclose(PretrainedCNNFeatures(device="cuda").fit_transform(PHOTOS), cpu, atol=1e-3)


def test_progress_bar(capsys):
    PretrainedCNNFeatures(**TINY, verbose=1).fit_transform(PHOTOS)
    assert "2/2" in capsys.readouterr().err
    PretrainedCNNFeatures(**TINY).fit_transform(PHOTOS)
    assert capsys.readouterr().err == ""
