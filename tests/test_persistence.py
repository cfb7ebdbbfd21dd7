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
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from skorch.callbacks import EpochScoring

import sktransfer
from sktransfer import FineTunedCNNClassifier, ModelFileError, PretrainedCNNFeatures, WeightsMismatchError
from sktransfer._persistence import FORMAT, _framed, _packed, _trusted_types, _unframed

DIGITS, TARGET = load_digits(n_class=3, return_X_y=True)
DIGITS, TARGET = DIGITS[:60], np.array(["zero", "one", "two"])[TARGET[:60]]
FLAT = {"image_shape": (8, 8), "value_range": (0, 16)}
TINY = {"backbone": "timm/test_efficientnet", "weights": None, "image_size": 32, **FLAT}
SCRATCH = {"backbone": "shallow_cnn", "weights": None, "image_size": 16, "max_epochs": 1, "random_state": 0, **FLAT}
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
    return FineTunedCNNClassifier(**SCRATCH).fit(DIGITS, TARGET)


@pytest.fixture(scope="module")
def lite0():
    clf = FineTunedCNNClassifier(freeze=5, image_size=64, max_epochs=1, random_state=0, **FLAT)
    return clf.fit(DIGITS[:20], TARGET[:20])


@pytest.fixture(scope="module")
def content(scratch):
    """A whole file."""
    return _framed(_packed(scratch))


def estimators():
    features = PretrainedCNNFeatures(**TINY)
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    return {
        "pipeline": make_pipeline(features, StandardScaler(), SVC()),
        "grid search over a pipeline": GridSearchCV(
            make_pipeline(features, SVC()), {"svc__C": [1, 10.0]}, cv=folds, scoring="f1_macro"
        ),
        "grid search over freeze": GridSearchCV(
            FineTunedCNNClassifier(**SCRATCH), {"freeze": [3, "all"], "lr_factor": [0.1, 0.03]}, cv=2
        ),
        "feature classifier": sktransfer.make_feature_classifier(cv=2, **TINY),
        "column transformer": make_pipeline(make_column_transformer((features, list(range(64)))), SVC()),
        "from scratch": FineTunedCNNClassifier(**SCRATCH, augment="photo", n_views=2, head_hidden=(5,)),
        "odd parameters": FineTunedCNNClassifier(
            **{**SCRATCH, "random_state": np.random.RandomState(0), "image_shape": np.array([8, 8])},
            class_weight={"zero": 1, "one": 2.0, "two": np.float64(1)},
            memory=Path("no/such/../folder"),
            early_stopping=True,
            net_params={"optimizer__weight_decay": 0.1},
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
    arguments = [how, *(str(tmp_path / name) for name in ("model", "X.npy", "p.npy"))]
    subprocess.run([sys.executable, "-c", PREDICT, *arguments], check=True)
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


def test_other_backbone_weights_are_refused(tmp_path):
    network = timm.create_model("test_efficientnet")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    clf = FineTunedCNNClassifier(**{**TINY, "weights": tmp_path / "w.pth"}, max_epochs=1).fit(DIGITS, TARGET)
    sktransfer.save(clf, tmp_path / "model")
    torch.nn.init.ones_(network.conv_stem.weight)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsMismatchError, match="not those the estimator was fitted with"):
        sktransfer.load(tmp_path / "model")


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
    with pytest.raises(ModelFileError, match="unpacks to more than it holds"):
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
    assert all(re.match(r"sklearn\.(metrics|model_selection)\.|sktransfer\._|pathlib", name) for name in trusted)
    assert sum(name.startswith("sktransfer.") for name in trusted) == 4


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
        ({"memory": joblib.Memory(None)}, "memory"),
        ({"callbacks": [EpochScoring("accuracy", name="a")], "augment": shift}, "augment, callbacks"),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_parameters_that_cannot_be_saved_are_named(params, names, within, tmp_path):
    model = FineTunedCNNClassifier(**{**SCRATCH, **params})
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
    (tmp_path / "model").write_bytes(content)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "model")]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "too large" in out
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
