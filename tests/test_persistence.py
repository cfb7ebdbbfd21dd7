"""`save` and `load`: the same predictions in another process, nothing damaged accepted, nothing run."""

import importlib.metadata
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
import timm
import torch
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from skorch.callbacks import EpochScoring

import sktransfer
from processes import fresh
from sktransfer import (
    FineTunedCNNClassifier,
    ModelFileError,
    PretrainedCNNFeatures,
    WeightsMismatchError,
    WeightsNotFoundError,
    clear_cache,
)
from sktransfer._frozen import _backbones
from sktransfer._persistence import FORMAT, _framed, _packed, _trusted_types, _unframed
from tiny import FLAT, SCRATCH, TINY, named_digits

DIGITS, TARGET = named_digits(60)
FLAT_TINY = {**TINY, **FLAT}
FLAT_SCRATCH = {**SCRATCH, **FLAT, "max_epochs": 1}
PREDICT = """
import sys, joblib, numpy as np, skops.io, sktransfer
how, path, X, out = sys.argv[1:]
if how == "skops":
    model = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
else:
    model = {"sktransfer": sktransfer.load, "joblib": joblib.load}[how](path)
np.save(out, getattr(model, "predict_proba", model.predict)(np.load(X)))
"""


@pytest.fixture(scope="module")
def scratch():
    return FineTunedCNNClassifier(**FLAT_SCRATCH).fit(DIGITS, TARGET)


@pytest.fixture(scope="module")
def lite0():
    clf = FineTunedCNNClassifier(freeze=5, image_size=64, max_epochs=1, random_state=0, **FLAT)
    return clf.fit(DIGITS[:20], TARGET[:20])


@pytest.fixture(scope="module")
def content(scratch):
    """A whole file."""
    return _framed(_packed(scratch))


def estimators():
    features = PretrainedCNNFeatures(**FLAT_TINY)
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    return {
        "pipeline": make_pipeline(features, StandardScaler(), SVC()),
        "grid search over a pipeline": GridSearchCV(
            make_pipeline(features, SVC()), {"svc__C": [1, 10.0]}, cv=folds, scoring="f1_macro"
        ),
        "grid search over freeze": GridSearchCV(
            FineTunedCNNClassifier(**FLAT_SCRATCH), {"freeze": [3, "all"], "lr_factor": [0.1, 0.03]}, cv=2
        ),
        "feature classifier": sktransfer.make_feature_classifier(cv=2, **FLAT_TINY),
        "column transformer": make_pipeline(make_column_transformer((features, list(range(64)))), SVC()),
        "from scratch": FineTunedCNNClassifier(**FLAT_SCRATCH, augment="photo", n_views=2, head_hidden=(5,)),
        "odd parameters": FineTunedCNNClassifier(
            **{**FLAT_SCRATCH, "random_state": np.random.RandomState(0), "image_shape": np.array([8, 8])},
            class_weight={"zero": 1, "one": 2.0, "two": np.float64(1)},
            memory=Path("no/such/../folder"),
            early_stopping=True,
            net_params={"optimizer__eps": 1e-7},
        ),
    }


# --- round trips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", estimators())
def test_round_trip(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = estimators()[name].fit(DIGITS, TARGET)
    sktransfer.save(model, "model.sktransfer")
    back = sktransfer.load("model.sktransfer")
    assert type(back) is type(model)
    np.testing.assert_array_equal(back.predict(DIGITS), model.predict(DIGITS))
    if hasattr(model, "predict_proba"):
        np.testing.assert_array_equal(back.predict_proba(DIGITS), model.predict_proba(DIGITS))
    assert back.score(DIGITS, TARGET) == model.score(DIGITS, TARGET)
    again = sktransfer.load("model.sktransfer").fit(DIGITS, TARGET)  # it can be fitted, as the original could
    assert set(again.predict(DIGITS)) <= set(TARGET)


def test_unfitted_is_saved_too(tmp_path):
    sktransfer.save(FineTunedCNNClassifier(lr=0.5), tmp_path / "m")
    assert sktransfer.load(tmp_path / "m").get_params() == FineTunedCNNClassifier(lr=0.5).get_params()


@pytest.mark.parametrize("how", ["sktransfer", "joblib", "skops"])
def test_predicts_the_same_in_a_new_process(lite0, how, tmp_path):
    save = {"sktransfer": sktransfer.save, "joblib": joblib.dump, "skops": skops.io.dump}[how]
    save(lite0, tmp_path / "model")
    np.save(tmp_path / "X.npy", DIGITS)
    fresh(PREDICT, how, *(tmp_path / name for name in ("model", "X.npy", "p.npy")))
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), lite0.predict_proba(DIGITS))


def test_file_holds_what_was_learned_and_no_more(lite0, tmp_path):
    trained = sum(value.numel() * value.element_size() for value in lite0.net_.module_.state_dict().values())
    sktransfer.save(lite0, tmp_path / "model")
    assert trained < (tmp_path / "model").stat().st_size <= trained + 200_000
    joblib.dump(lite0, tmp_path / "joblib")
    assert (tmp_path / "joblib").stat().st_size <= trained + 200_000


def test_model_of_a_gpu_is_stored_as_arrays_of_the_cpu(lite0):
    learned = lite0.__getstate__()["_learned"]
    assert all(type(value) is np.ndarray for value in learned.values())


def test_home_folder_and_permissions(scratch, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    mask = os.umask(0o027)
    try:
        sktransfer.save(scratch, "~/model")
    finally:
        os.umask(mask)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o640
    assert sktransfer.load("~/model").classes_.tolist() == scratch.classes_.tolist()


# --- other machines -----------------------------------------------------------------------------------------


@pytest.fixture
def weights_file(tmp_path):
    """A local file of weights, which is on the training machine alone."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.mark.parametrize("freeze", [0, 3, "all"])
def test_model_predicts_without_the_weights_file_it_was_trained_from(freeze, weights_file, tmp_path):
    params = {**FLAT_TINY, "weights": weights_file, "freeze": freeze, "max_epochs": 1}
    model = FineTunedCNNClassifier(**params).fit(DIGITS, TARGET)
    sktransfer.save(model, tmp_path / "model")
    expected = model.predict_proba(DIGITS)
    weights_file.rename(tmp_path / "elsewhere.pth")
    clear_cache()
    np.testing.assert_allclose(sktransfer.load(tmp_path / "model").predict_proba(DIGITS), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(DIGITS), expected, atol=1e-6)


def test_features_of_a_weights_file_are_saved_with_it(weights_file, tmp_path):
    model = PretrainedCNNFeatures(**{**FLAT_TINY, "weights": weights_file}).fit(DIGITS)
    sktransfer.save(model, tmp_path / "model")
    weights_file.unlink()
    clear_cache()
    np.testing.assert_allclose(
        sktransfer.load(tmp_path / "model").transform(DIGITS), model.transform(DIGITS), atol=1e-6
    )


def test_everything_trained_needs_no_published_weights(tmp_path, monkeypatch):
    model = FineTunedCNNClassifier(freeze=0, image_size=32, max_epochs=1, **FLAT).fit(DIGITS[:9], TARGET[:9])
    sktransfer.save(model, tmp_path / "model")
    expected = model.predict_proba(DIGITS)
    clear_cache()

    def vanished(*_):
        raise WeightsNotFoundError("no weights here")

    monkeypatch.setattr(_backbones, "_with_published_weights", vanished)
    np.testing.assert_allclose(sktransfer.load(tmp_path / "model").predict_proba(DIGITS), expected, atol=1e-5)


def test_weights_can_be_given_where_they_cannot_be_looked_up(lite0, tmp_path, monkeypatch):
    sktransfer.save(lite0, tmp_path / "model")
    network, _ = _backbones._with_published_weights("efficientnet_lite0")
    torch.save(network.state_dict(), tmp_path / "lite0.pth")
    expected = lite0.predict_proba(DIGITS)
    clear_cache()

    def vanished(*_):
        raise WeightsNotFoundError("no weights here")

    monkeypatch.setattr(_backbones, "_with_published_weights", vanished)
    with pytest.raises(WeightsNotFoundError):
        sktransfer.load(tmp_path / "model").predict(DIGITS)
    given = sktransfer.load(tmp_path / "model", weights=tmp_path / "lite0.pth")
    np.testing.assert_allclose(given.predict_proba(DIGITS), expected, atol=1e-6)


OTHER_CPU = """
import sys, numpy as np, sktransfer, torch
folder = sys.argv[1]
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
X = np.load(folder + "/X.npy")
for name in ("scratch", "frozen", "features"):
    model = sktransfer.load(f"{folder}/{name}")
    got = model.transform(X) if name == "features" else model.predict_proba(X)
    expected = np.load(f"{folder}/{name}.npy")
    assert abs(got - expected).max() <= 1e-4 * abs(expected).max(), name
"""


def test_model_trained_from_scratch_loads_on_another_kind_of_cpu(tmp_path):
    """Random weights drawn there are others, so they must be in the file."""
    models = {
        "scratch": FineTunedCNNClassifier(**FLAT_SCRATCH),
        "frozen": FineTunedCNNClassifier(**FLAT_TINY, freeze=3, max_epochs=1),
        "features": PretrainedCNNFeatures(**FLAT_TINY),
    }
    np.save(tmp_path / "X.npy", DIGITS)
    for name, model in models.items():
        sktransfer.save(model.fit(DIGITS, TARGET), tmp_path / name)
        answer = model.transform if name == "features" else model.predict_proba
        np.save(tmp_path / f"{name}.npy", answer(DIGITS))
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    subprocess.run([sys.executable, "-c", OTHER_CPU, str(tmp_path)], check=True, env=environment)


def test_where_a_model_was_trained_is_not_in_its_file(tmp_path):
    model = PretrainedCNNFeatures(**FLAT_TINY, memory=tmp_path / "private-folder", device="cpu", n_jobs=3).fit(DIGITS)
    pipeline = make_pipeline(model, SVC()).fit(DIGITS, TARGET)
    sktransfer.save(pipeline, tmp_path / "model")
    assert b"private-folder" not in (tmp_path / "model").read_bytes()
    there = sktransfer.load(tmp_path / "model")[0]
    assert (there.memory, there.device, there.n_jobs) == (None, "auto", None)
    assert (model.device, model.n_jobs) == ("cpu", 3)


def test_where_a_model_runs_is_given_when_it_is_loaded(tmp_path):
    grid = GridSearchCV(FineTunedCNNClassifier(**FLAT_SCRATCH), {"freeze": ["all"]}, cv=2).fit(DIGITS, TARGET)
    sktransfer.save(grid, tmp_path / "model")
    there = sktransfer.load(tmp_path / "model", device="cpu", memory=tmp_path / "cache", n_jobs=1)
    for part in (there.estimator, there.best_estimator_):
        assert (part.device, part.memory, part.n_jobs) == ("cpu", tmp_path / "cache", 1)
    there.predict(DIGITS)
    assert list((tmp_path / "cache").rglob("*"))
    with pytest.raises(ValueError, match="device='cuda:99' does not exist on this machine"):
        sktransfer.load(tmp_path / "model", device="cuda:99")


def test_pickle_of_a_gpu_is_read_without_one(scratch):
    state = scratch.__getstate__() | {"device": "cuda:99"}
    elsewhere = FineTunedCNNClassifier.__new__(FineTunedCNNClassifier)
    with pytest.warns(RuntimeWarning, match="cuda:99.*Going on with device='auto'"):
        elsewhere.__setstate__(state)
    np.testing.assert_array_equal(elsewhere.predict(DIGITS), scratch.predict(DIGITS))


def test_relative_weights_path_survives_a_change_of_folder(weights_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = PretrainedCNNFeatures(**{**FLAT_TINY, "weights": "w.pth"}).fit(DIGITS)
    monkeypatch.chdir("/")
    assert np.isfinite(model.transform(DIGITS)).all()
    with pytest.raises(WeightsNotFoundError, match="Relative paths start at '/'"):
        model.fit(DIGITS)


def test_file_decides_neither_what_is_read_nor_what_is_written(weights_file, tmp_path):
    """A crafted file could name a stranger's share."""
    model = PretrainedCNNFeatures(**{**FLAT_TINY, "weights": weights_file}).fit(DIGITS)
    packed = _packed(model)
    text = zipfile_schema(packed).replace("_frozen_weights", "_frozen_weight5")
    with pytest.raises(ModelFileError, match=r"weights='.*w\.pth', which should be in the file"):
        load_bytes(_framed(rewritten(packed, text)), tmp_path)


@pytest.mark.parametrize("length", [230, 250])
def test_long_names_of_files(length, scratch, tmp_path):
    sktransfer.save(scratch, tmp_path / ("x" * length))
    assert [len(path.name) for path in tmp_path.iterdir()] == [length]


def test_paths_are_stored_as_text(tmp_path):
    """Their classes differ by system and by version of Python."""
    model = make_pipeline(PretrainedCNNFeatures(weights=Path("some/w.pth"), memory=tmp_path))
    sktransfer.save(model, tmp_path / "model")
    assert b"pathlib" not in (tmp_path / "model").read_bytes()
    assert sktransfer.load(tmp_path / "model")[0].weights == str(Path("some/w.pth"))
    with pytest.raises(ModelFileError, match="parameters memory hold"):
        sktransfer.save(make_pipeline(PretrainedCNNFeatures(), memory=tmp_path), tmp_path / "model")


FILES = Path(__file__).parent / "models_of_0.1.0"
SCIKIT_LEARN = tuple(map(int, importlib.metadata.version("scikit-learn").split(".")[:2]))


@pytest.mark.parametrize("path", sorted(FILES.glob("*.sktransfer")), ids=lambda path: path.stem)
def test_files_of_0_1_0_load_for_ever(path):
    """Never write these files anew. If this fails, `load` has lost what it once could read."""
    if path.stem != "head_on_frozen_lite0" and SCIKIT_LEARN < (1, 9):
        pytest.skip("scikit-learn 1.9 wrote its own estimators into this file, and older ones cannot use them")
    expected = np.load(path.with_suffix(".npy"))
    model = sktransfer.load(path)
    got = getattr(model, "predict_proba", model.predict)(DIGITS[:12])
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, atol=1e-3)
    else:
        np.testing.assert_array_equal(got, expected)


def test_there_are_files_of_0_1_0():
    assert len(list(FILES.glob("*.sktransfer"))) == 3


# --- what is not accepted ---------------------------------------------------------------------------------


def load_bytes(content, tmp_path):
    (tmp_path / "model").write_bytes(content)
    return sktransfer.load(tmp_path / "model")


def test_every_flipped_byte_is_refused(content):
    rng = np.random.default_rng(0)
    header = content.index(b"\n", 80)
    places = [*range(header + 1), *rng.integers(header, len(content), 1000)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        with pytest.raises(ModelFileError, match=r"truncated or damaged|has the format|is no model"):
            _unframed(bytes(damaged), "model")


def test_every_cut_is_refused(content):
    for length in [*range(200), *np.random.default_rng(0).integers(200, len(content), 200)]:
        with pytest.raises(ModelFileError, match=r"truncated or damaged|has the format|is no model"):
            _unframed(content[:length], "model")
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        _unframed(content + b"\0", "model")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps({}), b"sktransfer"])
def test_other_files_are_refused(content, tmp_path):
    with pytest.raises(ModelFileError, match="'.*model' is no model that sktransfer.save wrote"):
        load_bytes(content, tmp_path)


def test_other_version_of_the_format_is_named(content, tmp_path):
    newer = content.replace(f"model {FORMAT}\n".encode(), b"model 12\n", 1)
    with pytest.raises(ModelFileError, match=r"has the format '12'; this version of sktransfer \(0.* reads '1'"):
        load_bytes(newer, tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.sktransfer"):
        sktransfer.load(tmp_path / "none.sktransfer")


def test_second_line_names_the_writers(content):
    writers = json.loads(content.split(b"\n")[1][64:])
    assert all(writers[name] == importlib.metadata.version(name) for name in ("sktransfer", "torch", "skops"))


def test_other_published_weights_are_refused_when_they_are_needed(lite0, tmp_path, monkeypatch):
    sktransfer.save(lite0, tmp_path / "model")
    model = sktransfer.load(tmp_path / "model")  # which looks nothing up
    clear_cache()
    read = _backbones.read_weights
    monkeypatch.setattr(_backbones, "read_weights", lambda path: {k: v * 1.01 for k, v in read(path).items()})
    with pytest.raises(WeightsMismatchError, match="not those the estimator was fitted with"):
        model.predict(DIGITS)
    clear_cache()


def test_what_does_not_fit_the_network_is_refused(scratch, tmp_path):
    state = json.loads(zipfile_schema(_packed(scratch)))
    changed = rewritten(_packed(scratch), json.dumps(state).replace('"conv', '"c0nv').replace("stages.", "st4ges."))
    with pytest.raises(ModelFileError, match=r"Cannot build the model in .*model"):
        load_bytes(_framed(changed), tmp_path)


def zipfile_schema(packed):
    return zipfile.ZipFile(io.BytesIO(packed)).read("schema.json").decode()


def rewritten(packed, schema, compression=zipfile.ZIP_STORED):
    """The same archive with another schema."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, schema if name == "schema.json" else old.read(name))
    return out.getvalue()


def test_compressed_content_is_refused(scratch, tmp_path):
    bomb = rewritten(_packed(scratch), " " * 10**7 + zipfile_schema(_packed(scratch)), zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match="unpacks to more than its own size"):
        load_bytes(_framed(bomb), tmp_path)


def test_only_estimators_are_loaded(tmp_path):
    with pytest.raises(ModelFileError, match="holds a dict, not an estimator"):
        load_bytes(_framed(skops.io.dumps({"a": 1})), tmp_path)


# --- nothing runs -----------------------------------------------------------------------------------------


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)

    def __setstate__(self, state):
        os.mkdir(state["path"])


def evil_files(canary):
    yield pickle.dumps(Canary(canary))
    yield _framed(pickle.dumps(Canary(canary)))
    yield _framed(skops.io.dumps(Canary(canary)))
    yield _framed(skops.io.dumps(FunctionTransformer(os.mkdir, kw_args={"path": str(canary)})))
    model = _packed(FineTunedCNNClassifier(backbone="evil", lr=0.5))
    schema = json.loads(zipfile_schema(model))
    call = {
        "__class__": "mkdir",
        "__module__": "os",
        "__loader__": "ConstructorFromReduceNode",
        "content": schema["content"],
    }
    for loader in ("ConstructorFromReduceNode", "FunctionNode", "ObjectNode", "TypeNode", "OperatorFuncNode"):
        yield _framed(rewritten(model, json.dumps({**schema, **call, "__loader__": loader})))


def test_malicious_models_do_not_execute(tmp_path):
    canary, n_files = tmp_path / "canary", 0
    for content in evil_files(canary):
        n_files += 1
        with pytest.raises(ModelFileError):
            load_bytes(content, tmp_path)
    assert n_files == 9
    assert not canary.exists()


def test_untrusted_types_are_named(tmp_path):
    evil = _framed(skops.io.dumps(FunctionTransformer(os.mkdir)))
    with pytest.raises(ModelFileError, match=r"not trusted.*mkdir"):
        load_bytes(evil, tmp_path)


def test_list_of_trusted_types_is_short_and_plain():
    trusted = _trusted_types()
    assert all(re.match(r"sklearn\.(metrics|model_selection|utils\._metadata)|sktransfer\.", name) for name in trusted)
    assert sum(name.startswith("sktransfer.") for name in trusted) == 5


# --- what cannot be saved ---------------------------------------------------------------------------------


def shift(image):
    return image


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"augment": shift}, "augment"),
        ({"augment": lambda image: image}, "augment"),
        ({"augment": torch.nn.Identity()}, "augment"),
        ({"net_params": {"optimizer": torch.optim.SGD}}, "net_params"),
        ({"callbacks": [EpochScoring("accuracy", name="a")]}, "callbacks"),
        ({"callbacks": [EpochScoring("accuracy", name="a")], "augment": shift}, "augment, callbacks"),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_parameters_that_cannot_be_saved_are_named(params, names, within, tmp_path):
    model = FineTunedCNNClassifier(**{**FLAT_SCRATCH, **params})
    if within:
        model = GridSearchCV(make_pipeline(model), {})
        names = ", ".join(f"estimator__finetunedcnnclassifier__{name}" for name in names.split(", "))
    with pytest.raises(ModelFileError, match=f"its parameters {names} hold more than plain values.*joblib.dump"):
        sktransfer.save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("thing", [None, {"a": 1}, FineTunedCNNClassifier, "model"])
def test_only_estimators_are_saved(thing, tmp_path):
    with pytest.raises(ModelFileError, match="Expected an estimator to save"):
        sktransfer.save(thing, tmp_path / "model")


# --- disks ------------------------------------------------------------------------------------------------

FULL_DISK = """
import resource, signal, sys, sktransfer
model = sktransfer.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    sktransfer.save(model, sys.argv[1])
except OSError as error:
    print(error)
"""


def test_full_disk_leaves_the_old_file(content, tmp_path):
    """No file may grow beyond 10 kB: to the writer the same as a full disk."""
    pytest.importorskip("resource")
    (tmp_path / "model").write_bytes(content)
    assert "too large" in fresh(FULL_DISK, tmp_path / "model").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == content


def test_interrupted_save_leaves_the_old_file(scratch, content, tmp_path, monkeypatch):
    (tmp_path / "model").write_bytes(content)

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sktransfer.save(scratch, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == content


def test_missing_folder(scratch, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sktransfer.save(scratch, tmp_path / "nowhere" / "model")
