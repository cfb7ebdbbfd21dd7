"""`export`: the file predicts as the model does, says how to prepare images, and a mismatch is an error."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

import sktransfer
from pictures import CHINA, FLOWER
from sktransfer import (
    ExportError,
    FeatureClassifier,
    FineTunedCNNClassifier,
    ImageError,
    PretrainedCNNFeatures,
    export,
    make_feature_classifier,
)
from sktransfer._export import _onnx, _writers
from sktransfer._export._graph import shared_views
from sktransfer._export._verify import Reference, compare
from sktransfer._finetuning._training_data import make_views
from sktransfer._fitted_parts import parts_of
from sktransfer._frozen._augmentation import augment_canvas, drawn_change, resolve_augmentation
from sktransfer._images._collection import as_images
from tiny import FLAT, SCRATCH, TINY, digits

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def crops(n, seed):
    """Crops of two real photos, of several sizes, and which photo each is of."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(n):
        side = 48 + 8 * (i % 5)
        top, left = rng.integers(0, 427 - side), rng.integers(0, 640 - side - 20)
        images.append((CHINA, FLOWER)[i % 2][top : top + side, left : left + side + 20])
    return images, np.array(["china", "flower"])[np.arange(n) % 2]


PHOTOS, NAMES = crops(40, 0)
NEW, _ = crops(32, 1)
THREE = np.array(["china", "flower", "dark </script> é"])[np.where(np.arange(40) % 5 == 0, 2, np.arange(40) % 2)]
TUNED = {**TINY, "max_epochs": 2, "lr": 0.01, "random_state": 0}


def features(**params):
    return PretrainedCNNFeatures(**{**TINY, "layer": "all", "pooling": "avgstd", "normalize": True, **params})


HOW = dict.fromkeys(["precision", "memory", "device", "value_range", "image_shape"])  # no part of the graph


@pytest.fixture(autouse=True, scope="module")
def exported_once():
    """Keep the graphs of networks that only compute features: torch's exporter takes seconds for each."""
    made, original = {}, _onnx._network_to_onnx

    def kept(parts, names, output):
        if output != "features":
            return original(parts, names, output)
        key = str([(reader.estimator.get_params() | HOW, reader.factor) for reader in parts.readers])
        if key not in made:
            made[key] = original(parts, names, output).SerializeToString()
        return onnx.load_from_string(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_onnx, "_network_to_onnx", kept)
        yield


def union():
    other = features(backbone="timm/test_resnet", image_size=(40, 48), crop=False, pooling="max")
    return FeatureUnion([("one", features()), ("other", other)], transformer_weights={"other": 0.5})


MODELS = {
    "fine-tuned, nothing frozen": lambda: FineTunedCNNClassifier(**TUNED, freeze=0),
    "fine-tuned, freeze=2": lambda: FineTunedCNNClassifier(**TUNED, freeze=2),
    "fine-tuned, all frozen, hidden layer": lambda: FineTunedCNNClassifier(**TUNED, freeze="all", head_hidden=(9,)),
    "fine-tuned in a search": lambda: GridSearchCV(FineTunedCNNClassifier(**TUNED), {"freeze": [2, "all"]}, cv=2),
    "shallow": lambda: FineTunedCNNClassifier(**SCRATCH, max_epochs=1),
    "feature classifier": lambda: make_feature_classifier(**TINY, cv=2),
    "feature classifier, two networks": lambda: FeatureClassifier(union(), cv=2),
    "logistic": lambda: make_pipeline(features(), StandardScaler(), PCA(5), LogisticRegression()),
    "two networks, logistic": lambda: make_pipeline(union(), LogisticRegression()),
    "SVM": lambda: make_pipeline(features(), StandardScaler(), SVC()),
    "linear SVM": lambda: make_pipeline(features(), LinearSVC()),
    "ridge": lambda: make_pipeline(features(), "passthrough", RidgeClassifier()),
    "calibrated SVM": lambda: make_pipeline(features(), CalibratedClassifierCV(SVC(), cv=2)),
    "search over C": lambda: GridSearchCV(make_pipeline(features(), SVC()), {"svc__C": [1, 10]}, cv=2),
}


def run(path, *canvases):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    values, labels = session.run(None, dict(zip(names, canvases, strict=True)))
    return values, labels


def canvases_of(model, images):
    return [
        np.stack([reader.backbone.preprocessing.canvas(image) for image in images])
        for reader in parts_of(model).readers
    ]


def metadata(path):
    (entry,) = onnx.load(path).metadata_props
    assert entry.key == "sktransfer"
    return json.loads(entry.value)


# --- the file predicts as the model does ----------------------------------------------------------------------------


BINARY = ("two networks, logistic", "SVM", "linear SVM", "ridge", "calibrated SVM")


SLOW = ("fine-tuned, freeze=2", "fine-tuned, all frozen, hidden layer", "fine-tuned in a search", "shallow")
SLOW += ("feature classifier, two networks",)


@pytest.mark.parametrize(
    "name, labels",
    [
        pytest.param(name, THREE, marks=[pytest.mark.slow] * (name in SLOW), id=f"{name}, three classes")
        for name in MODELS
    ]
    + [pytest.param(name, NAMES, id=f"{name}, two classes") for name in BINARY]
    + [pytest.param("feature classifier", NAMES, marks=pytest.mark.slow, id="feature classifier, two classes")],
)
def test_onnx_predicts_as_python(name, labels, tmp_path):
    model = MODELS[name]().fit(PHOTOS, labels)
    assert export(model, tmp_path / "m.onnx", images=PHOTOS[:4]) < 1e-4
    expected = model.predict_proba(NEW) if hasattr(model, "predict_proba") else model.decision_function(NEW)
    if expected.ndim == 1:
        expected = np.stack([-expected, expected], axis=1)
    canvases = canvases_of(model, NEW)
    for n in (32, 1):
        values, found = run(tmp_path / "m.onnx", *(batch[:n] for batch in canvases))
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[:n], atol=1e-4)
        assert found.tolist() == model.predict(NEW[:n]).tolist()
    assert np.ptp(expected, axis=0).max() > 3e-3  # the model does look at the images


@pytest.mark.parametrize(
    "augment, tta",
    [
        ("any_orientation", "auto"),
        pytest.param("photo", 3, marks=pytest.mark.slow),
        pytest.param("text", 2, marks=pytest.mark.slow),
    ],
)
def test_views_are_averaged_within_the_graph(augment, tta, tmp_path):
    model = FineTunedCNNClassifier(**{**TUNED, "image_size": (32, 40)}, freeze=0, augment=augment, tta=tta)
    model.fit(PHOTOS, NAMES)
    assert export(model, tmp_path / "m.onnx") < 1e-4
    (canvases,) = canvases_of(model, NEW)
    values, _ = run(tmp_path / "m.onnx", canvases)
    plain = model.set_params(tta=1).predict_proba(NEW)
    assert np.abs(values - plain).max() > 1e-3  # the views differ from the images
    # One image, and its views as the classifier would draw them if its content were empty.
    n_views = 8 if tta == "auto" else tta
    seeds = [make_views(model, n_views).seed_of(b"", view) for view in range(n_views - 1)]
    views = [canvases[0], *(augment_canvas(canvases[0], resolve_augmentation(augment), seed) for seed in seeds)]
    expected = FineTunedCNNClassifier.predict_proba(model.set_params(crop=False), views).mean(axis=0)
    np.testing.assert_allclose(values[0], expected, atol=1e-4)


@pytest.mark.parametrize("augment", ["photo", "any_orientation", "text"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_drawn_change_is_what_augment_canvas_makes(augment, size):
    canvases = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    for seed in range(5):
        change = drawn_change(augment, seed, size)
        changed = change(torch.from_numpy(canvases).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        for one, canvas in zip(changed, canvases, strict=True):
            np.testing.assert_array_equal(one, augment_canvas(canvas, resolve_augmentation(augment), seed))


def test_bfloat16_is_exported_in_float32(tmp_path):
    model = make_pipeline(features(precision="bfloat16", memory=tmp_path / "store"), LogisticRegression())
    model.fit(PHOTOS, NAMES)
    assert export(model, tmp_path / "m.onnx") < 1e-4
    assert model[0].precision == "bfloat16"


def test_flat_rows_and_whole_numbers(tmp_path):
    X, y = digits(60)
    model = make_pipeline(features(**FLAT), LogisticRegression()).fit(X, y)
    export(model, tmp_path / "m.onnx", images=X[:5])
    export(model, tmp_path / "m.onnx")  # on generated images, whose values lie in the value_range
    (reader,) = parts_of(model).readers
    canvases = np.stack([reader.backbone.preprocessing.canvas(as_images(X, **FLAT)[i]) for i in range(60)])
    values, labels = run(tmp_path / "m.onnx", canvases)
    np.testing.assert_allclose(values, model.predict_proba(X), atol=1e-4)
    assert labels.dtype == np.int64 and labels.tolist() == model.predict(X).tolist()


@pytest.mark.parametrize(
    "labels", [np.arange(40) % 2 == 0, np.array(["2026-01-01", "2026-01-02"], "M8[D]")[np.arange(40) % 2]]
)
@pytest.mark.parametrize("last", [LogisticRegression(), SVC()])
def test_other_classes_become_text(labels, last, tmp_path):
    model = make_pipeline(features(), last).fit(PHOTOS, labels)
    export(model, tmp_path / "m.onnx")
    _, found = run(tmp_path / "m.onnx", *canvases_of(model, NEW))
    assert found.tolist() == [str(label) for label in model.predict(NEW).tolist()]


# --- what the file says ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logistic():
    return make_pipeline(features(), LogisticRegression()).fit(PHOTOS, THREE)


def test_metadata_say_how_to_prepare_images(logistic, tmp_path):
    export(logistic, tmp_path / "m.onnx")
    facts = metadata(tmp_path / "m.onnx")
    assert facts["classes"] == ["china", "dark </script> é", "flower"]
    (described,) = facts["inputs"]
    assert (described["name"], described["backbone"]) == ("images", "timm/test_efficientnet")
    assert described["weights"] == "random weights"
    assert facts["versions"]["sktransfer"] == sktransfer.__version__ and facts["versions"]["torch"]
    # An image prepared with Pillow alone, as the metadata say, is what the model sees.
    how = described["preprocessing"]
    assert how["resize_mode"] == "shorter side" and how["antialias"] is True
    image = Image.fromarray(CHINA)
    side, (height, width) = how["resize"][0], how["crop"]
    scale = side / min(image.size)
    resized = image.resize(
        (int(image.width * scale), int(image.height * scale)), Image.Resampling[how["interpolation"].upper()]
    )
    top, left = round((resized.height - height) / 2), round((resized.width - width) / 2)
    canvas = np.asarray(resized)[top : top + height, left : left + width]
    values, labels = run(tmp_path / "m.onnx", canvas[None])
    np.testing.assert_allclose(values, logistic.predict_proba([CHINA]), atol=1e-4)
    assert labels.tolist() == logistic.predict([CHINA]).tolist()


def test_file_names_no_folder_of_this_machine(logistic, tmp_path):
    export(logistic, tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(sktransfer.__file__).parent).encode() not in content
    assert str(tmp_path).encode() not in content and b"site-packages" not in content


def test_several_networks_have_an_input_each(tmp_path):
    model = make_pipeline(union(), LogisticRegression()).fit(PHOTOS, NAMES)
    export(model, tmp_path / "m.onnx")
    described = metadata(tmp_path / "m.onnx")["inputs"]
    assert [each["name"] for each in described] == ["images_1", "images_2"]
    assert [each["preprocessing"]["crop"] for each in described] == [[32, 32], [40, 48]]
    assert described[1]["preprocessing"]["resize_mode"] == "cover"


# --- what cannot be exported ----------------------------------------------------------------------------------------


def test_mismatch_is_an_error_and_writes_nothing(logistic, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_text("what was there before")
    original = _writers.to_onnx

    def shifted(*args, **options):
        model = original(*args, **options)
        (scale,) = [each for each in model.graph.initializer if each.name.endswith("networks.0.shift")]
        values = onnx.numpy_helper.to_array(scale) + np.float32(0.1)
        scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
        return model

    monkeypatch.setattr(_writers, "to_onnx", shifted)
    with pytest.raises(ExportError, match=r"largest difference of a probability or score is 0\.\d+"):
        export(logistic, path)
    assert path.read_text() == "what was there before"
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_other_labels_are_an_error(logistic, tmp_path, monkeypatch):
    original = _writers.OnnxFile.__call__
    monkeypatch.setattr(
        _writers.OnnxFile, "__call__", lambda self, canvases: (original(self, canvases)[0], np.array(["nothing"]))
    )
    with pytest.raises(ExportError, match="8 of 1 labels differ|labels differ"):
        export(logistic, tmp_path / "m.onnx")


def test_a_tie_may_be_broken_either_way():
    values = np.array([[0.5, 0.5], [0.9, 0.1]], dtype=np.float32)
    expected = Reference(values, np.array(["a", "a"], object), [np.zeros(2)])
    assert (
        compare(lambda canvases: (values[: len(canvases[0])], np.array(["b", "a"])[: len(canvases[0])]), expected, "It")
        == 0
    )
    with pytest.raises(ExportError, match="1 of 2 labels differ, the first at image 1"):
        compare(lambda canvases: (values[: len(canvases[0])], np.array(["b", "b"])[: len(canvases[0])]), expected, "It")


def test_step_that_cannot_be_converted_is_named(tmp_path):
    model = make_pipeline(features(), FunctionTransformer(np.abs), LogisticRegression()).fit(PHOTOS, NAMES)
    with pytest.raises(ExportError, match="step 'functiontransformer', a FunctionTransformer"):
        export(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "model, words",
    [
        (
            make_pipeline(FunctionTransformer(), LogisticRegression()),
            "'functiontransformer', a FunctionTransformer, reads",
        ),
        (make_pipeline(FeatureUnion([("raw", FunctionTransformer())]), LogisticRegression()), "step 'raw'"),
        (make_pipeline(features(), StandardScaler()), "StandardScaler, is no classifier"),
        (features(), "PretrainedCNNFeatures, is no classifier"),
    ],
    ids=["no images", "union", "no classifier", "features alone"],
)
def test_models_of_other_parts_are_refused(model, words, tmp_path):
    X = PHOTOS if "Pretrained" in repr(model) else np.arange(80.0).reshape(40, 2)
    with pytest.raises(ExportError, match=words):
        export(model.fit(X, NAMES), tmp_path / "m.onnx")


def test_classifier_without_scores_is_refused(tmp_path):
    voting = VotingClassifier([("one", LogisticRegression()), ("other", SVC())])  # by majority
    with pytest.raises(ExportError, match="neither probabilities nor scores"):
        export(make_pipeline(features(), voting).fit(PHOTOS, NAMES), tmp_path / "m.onnx")


def test_views_of_a_function_are_refused(tmp_path):
    model = FineTunedCNNClassifier(**TUNED, freeze=0, augment=torch.clone, tta=2).fit(PHOTOS, NAMES)
    with pytest.raises(ExportError, match="Pass tta=1"):
        export(model, tmp_path / "m.onnx")
    assert shared_views(model.set_params(tta=1), (32, 32)) == []


def test_unfitted_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        export(make_pipeline(features(), LogisticRegression()), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="Expected a fitted classifier"):
        export(FineTunedCNNClassifier, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "path, options, words",
    [
        ("m.model", {}, "'m.model' does not say the format"),
        ("m.onnx", {"format": "tflite"}, "format='tflite' is unknown. Expected 'onnx'"),
        ("m.onnx", {"format": "openvino"}, "ends in .xml"),
        ("m.onnx", {"runtime": "ort.tgz"}, "runtime='ort.tgz' is for a page"),
    ],
)
def test_unknown_formats(logistic, path, options, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        export(logistic, tmp_path / path, **options)


def test_missing_folder_and_unreadable_images(logistic, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        export(logistic, tmp_path / "missing" / "m.onnx")
    with pytest.raises(ImageError, match="no such file"):
        export(logistic, tmp_path / "m.onnx", images=["missing.jpg"])


def test_missing_package_names_the_extra(logistic, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skl2onnx" else real(name))
    with pytest.raises(ModuleNotFoundError, match=r"export needs skl2onnx.*pip install 'sktransfer\[export\]'"):
        export(logistic, tmp_path / "m.onnx")


# --- OpenVINO -------------------------------------------------------------------------------------------------------


def test_openvino_predicts_as_python(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = FineTunedCNNClassifier(**TUNED, freeze=2).fit(PHOTOS, THREE)
    assert export(model, tmp_path / "m.xml", images=PHOTOS[:4]) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    n_bytes = sum(
        value.numel() * value.element_size() for value in parts_of(model).readers[0].backbone.stages.parameters()
    )
    assert (tmp_path / "m.bin").stat().st_size > 0.9 * n_bytes  # weights are not halved
    core = openvino.Core()
    network = core.read_model(tmp_path / "m.xml")
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (canvases,) = canvases_of(model, NEW)
    for n in (32, 1):
        result = compiled({"images": canvases[:n]})
        np.testing.assert_allclose(result["probabilities"], model.predict_proba(NEW[:n]), atol=1e-4)
        assert result["label"].tolist() == model.predict(NEW[:n]).tolist()
    facts = json.loads(network.get_rt_info("sktransfer").astype(str))
    assert facts["classes"] == model.classes_.tolist() and facts["inputs"][0]["preprocessing"]["crop"] == [32, 32]


def test_openvino_cannot_run_an_svm(tmp_path):
    pytest.importorskip("openvino")
    model = make_pipeline(features(), SVC()).fit(PHOTOS, NAMES)
    with pytest.raises(ExportError, match="OpenVINO cannot run this model"):
        export(model, tmp_path / "m.xml")
    assert list(tmp_path.iterdir()) == []
