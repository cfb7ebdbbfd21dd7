"""`FineTunedCNNClassifier`: what is frozen stays, what is learned is right, nothing leaks."""

import os
import pickle
import signal
import threading
import time

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EarlyStopping
from torchvision.transforms import v2 as torchvision_v2

from pictures import noise, written
from processes import fresh
from sktransfer import (
    FineTunedCNNClassifier,
    PretrainedCNNFeatures,
    TrainingError,
    cache_info,
    clear_cache,
    set_cache_limits,
)
from sktransfer._frozen._backbones import load_backbone
from tiny import DIGITS, FLAT, SCRATCH, TARGET, TINY

PLAIN = {"augment": None, "random_state": 0, **FLAT}
PLAIN_TINY = {**TINY, **PLAIN}
PLAIN_SCRATCH = {**SCRATCH, **PLAIN}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights, so that the tiny backbone counts as pretrained."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(0)
    import timm

    network = timm.create_model("test_efficientnet")
    network.train()
    with torch.no_grad():
        for _ in range(3):  # plausible statistics, so that the features differ between images
            network(torch.rand(16, 3, 32, 32) * 2 - 1)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def tiny(weights):
    return FineTunedCNNClassifier(**{**PLAIN_TINY, "weights": weights}, max_epochs=2)


def learned(clf):
    return {name: value.clone() for name, value in clf.net_.module_.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what it learns ---------------------------------------------------------------------------------------


def test_learns_from_scratch_and_keeps_labels():
    clf = FineTunedCNNClassifier(**PLAIN_SCRATCH, max_epochs=8, lr=0.01).fit(DIGITS[:60], TARGET[:60])
    assert clf.classes_.tolist() == ["one", "two", "zero"]
    assert clf.score(DIGITS[60:], TARGET[60:]) > 0.9
    probabilities = clf.predict_proba(DIGITS[60:])
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert clf.predict(DIGITS[60:]).dtype == TARGET.dtype
    assert (clf.classes_[probabilities.argmax(axis=1)] == clf.predict(DIGITS[60:])).all()


def test_tuning_lowers_the_loss(tiny):
    unsmoothed = {"criterion__label_smoothing": 0.0}
    tiny.set_params(freeze=0, max_epochs=6, dropout=0, net_params=unsmoothed).fit(DIGITS, TARGET)
    losses = [record["train_loss"] for record in tiny.history_]
    assert losses[-1] < 0.7 * losses[0]
    assert tiny.score(DIGITS, TARGET) > 0.9


@pytest.mark.parametrize("y", [[1, 2] * 10, [True, False] * 10, ["a", "b"] * 10, [-1.0, 1.0] * 10, list("xyzw") * 5])
def test_labels_of_any_type(tiny, y):
    clf = tiny.set_params(freeze="all").fit(DIGITS[:20], y)
    assert set(clf.predict(DIGITS[:20]).tolist()) <= set(y)
    assert clf.classes_.tolist() == sorted(set(y))


def test_class_weight_and_sample_weight_move_predictions(tiny):
    y = np.where(np.arange(90) < 80, "common", "rare")
    tiny.set_params(freeze="all", max_epochs=1)
    plain = clone(tiny).fit(DIGITS, y).predict_proba(DIGITS)[:, 1].mean()
    balanced = clone(tiny).set_params(class_weight="balanced").fit(DIGITS, y).predict_proba(DIGITS)[:, 1].mean()
    assert balanced > plain + 0.1
    weighted = clone(tiny).fit(DIGITS, y, sample_weight=np.where(y == "rare", 8.0, 1.0))
    np.testing.assert_allclose(weighted.predict_proba(DIGITS)[:, 1].mean(), balanced, atol=1e-3)


# --- what is frozen stays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [0, 2, "stage2", "all", "auto"])
def test_backbone_is_never_changed(tiny, weights, freeze):
    backbone = load_backbone("timm/test_efficientnet", weights)
    before = {name: value.clone() for name, value in backbone.stages.state_dict().items()}
    clf = tiny.set_params(freeze=freeze).fit(DIGITS, TARGET)
    assert same(before, dict(backbone.stages.state_dict()))
    assert not any(module.training for module in backbone.stages.modules())
    n_tuned = len(backbone.stages) - clf.n_frozen_stages_
    assert len(clf.net_.module_.stages) == n_tuned
    assert clf.n_frozen_stages_ == {0: 0, 2: 2, "stage2": 2, "all": 6, "auto": 3}[freeze]


def test_tuned_stages_learn_but_their_statistics_stay(tiny, weights):
    clf = tiny.set_params(freeze=3).fit(DIGITS, TARGET)
    original = load_backbone("timm/test_efficientnet", weights).stages[3:].state_dict()
    tuned = clf.net_.module_.stages.state_dict()
    for (name, before), after in zip(original.items(), tuned.values(), strict=True):
        is_statistic = "running" in name or "num_batches" in name
        assert torch.equal(before, after) is is_statistic, name


def test_lr_factor_zero_equals_freezing_all(tiny):
    frozen = clone(tiny).set_params(freeze="all").fit(DIGITS, TARGET)
    still = clone(tiny).set_params(freeze=0, lr_factor=0).fit(DIGITS, TARGET)
    np.testing.assert_allclose(still.predict_proba(DIGITS), frozen.predict_proba(DIGITS), atol=1e-4)


def test_learning_rates(tiny):
    clf = tiny.set_params(freeze=3, lr=0.02, lr_factor=0.25, max_epochs=3).fit(DIGITS, TARGET)
    for record in clf.history_:
        assert record["lr_pretrained"] == pytest.approx(0.25 * record["lr"])
    head_rates = {id(p): group["lr"] for group in clf.net_.optimizer_.param_groups for p in group["params"]}
    assert len(head_rates) == len(list(clf.net_.module_.parameters()))
    assert max(record["lr"] for record in clf.history_) <= 0.02


# --- going on ---------------------------------------------------------------------------------------------


def test_warm_start_goes_on(tiny):
    tiny.set_params(freeze=1, lr_factor=0, dropout=0).fit(DIGITS, TARGET)
    first, n_epochs = learned(tiny), len(tiny.history_)
    tiny.set_params(warm_start=True, max_epochs=0).fit(DIGITS, TARGET)
    assert same(learned(tiny), first)  # no epoch: where it was, and not at the first head
    tiny.set_params(max_epochs=3).fit(DIGITS, TARGET)
    assert not same(learned(tiny), first)
    assert [record["epoch"] for record in tiny.history_] == list(range(1, n_epochs + 4))
    assert tiny.history_[-1]["train_loss"] < tiny.history_[0]["train_loss"]


def test_warm_start_thaws_stage_by_stage(tiny, weights):
    tiny.set_params(freeze="all").fit(DIGITS, TARGET)
    head = learned(tiny)
    tiny.set_params(freeze=2, warm_start=True, max_epochs=0).fit(DIGITS, TARGET)
    thawed = learned(tiny)
    assert all(torch.equal(thawed[name], value) for name, value in head.items())
    pretrained = load_backbone("timm/test_efficientnet", weights, 0).stages.state_dict()
    body = {name.removeprefix("stages."): value for name, value in thawed.items() if name.startswith("stages.")}
    assert body and all(torch.equal(pretrained[name], value) for name, value in body.items())
    with pytest.raises(ValueError, match="freeze no more stages"):
        tiny.set_params(freeze="all").fit(DIGITS, TARGET)


def test_warm_start_keeps_the_classes(tiny):
    tiny.fit(DIGITS, TARGET)
    with pytest.raises(ValueError, match="same classes"):
        tiny.set_params(warm_start=True).fit(DIGITS, TARGET == "one")
    assert tiny.set_params(warm_start=False).fit(DIGITS, TARGET == "one").classes_.tolist() == [False, True]


def test_warm_start_from_scratch_keeps_the_random_body():
    clf = FineTunedCNNClassifier(**{**PLAIN_SCRATCH, "random_state": None}, freeze=1, warm_start=True, max_epochs=1)
    clf.fit(DIGITS, TARGET)
    checksum = clf.weights_checksum_
    clf.fit(DIGITS, TARGET)
    assert clf.weights_checksum_ == checksum and len(clf.history_) == 2


def test_whole_images_are_not_stored():
    model = FineTunedCNNClassifier(**SCRATCH, **FLAT, freeze=0, max_epochs=1).fit(DIGITS, TARGET)
    model.predict(DIGITS)
    assert cache_info().entries == 0  # as float32, the images would push out the rows that cost something


def test_partial_fit_learns_in_parts(tiny):
    tiny.set_params(freeze=1, dropout=0)
    for _ in range(8):
        for rows in np.array_split(np.arange(60), 3):
            tiny.partial_fit(DIGITS[rows], TARGET[rows], classes=["one", "two", "zero"])
    assert tiny.score(DIGITS[60:], TARGET[60:]) > 0.9
    assert [record["epoch"] for record in tiny.history_] == list(range(1, 25))
    assert {record["lr"] for record in tiny.history_} == {3e-3}  # no schedule: nobody knows how much is to come


def test_partial_fit_goes_on_from_fit_and_from_a_pickle(tiny):
    tiny.fit(DIGITS, TARGET)
    fitted = learned(tiny)
    unpickled = pickle.loads(pickle.dumps(tiny))
    for clf in (tiny, unpickled):
        clf.partial_fit(DIGITS[:6], TARGET[:6])
        change = max(float((learned(clf)[name] - value).abs().max()) for name, value in fitted.items())
        assert 0 < change <= 1.1 * 3e-3  # one step of Adam
        assert len(clf.history_) == 3
    assert same(learned(tiny), learned(unpickled))
    size = len(pickle.dumps(unpickled))
    assert len(pickle.dumps(pickle.loads(pickle.dumps(tiny)))) == pytest.approx(size, rel=0.01)


def test_partial_fit_knows_what_it_needs(tiny):
    with pytest.raises(ValueError, match="classes must be passed"):
        tiny.partial_fit(DIGITS, TARGET)
    with pytest.raises(ValueError, match="not among the classes: 'zero'"):
        tiny.partial_fit(DIGITS, TARGET, classes=["one", "two"])
    for params in ({"early_stopping": True}, {"class_weight": "balanced"}):
        with pytest.raises(ValueError, match="too few images at a time"):
            FineTunedCNNClassifier(**PLAIN_TINY, **params).partial_fit(DIGITS, TARGET, classes=TARGET)
    tiny.partial_fit(DIGITS, TARGET, classes=TARGET)
    with pytest.raises(ValueError, match="same classes"):
        tiny.partial_fit(DIGITS, TARGET, classes=["one", "two", "zero", "three"])


# --- augmentation -----------------------------------------------------------------------------------------


def test_augmentation_is_for_training_alone(tiny):
    seen = []

    def spy(image):
        seen.append(tuple(image.shape))
        return image.flip(-1)

    clf = tiny.set_params(augment=spy, max_epochs=2, tta=1).fit(DIGITS, TARGET)
    assert seen == [(3, 32, 32)] * 180
    clf.predict(DIGITS)
    assert len(seen) == 180


@pytest.mark.parametrize("freeze", [0, 1, "all"])
def test_tta_averages_the_image_and_its_views(tiny, freeze):
    negative = torchvision_v2.RandomInvert(p=1.0)
    clf = tiny.set_params(augment=negative, freeze=freeze, tta=1).fit(DIGITS, TARGET)
    plain, other = clf.predict_proba(DIGITS), clf.predict_proba(16 - DIGITS)
    assert abs(plain - other).max() > 0.2
    np.testing.assert_allclose(clf.set_params(tta=2).predict_proba(DIGITS), (plain + other) / 2, atol=0.02)
    np.testing.assert_allclose(clf.set_params(tta=3).predict_proba(DIGITS).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("augment", "tta"), [("any_orientation", 8), ("photo", 1), ("text", 1), (None, 1)])
def test_tta_auto(tiny, augment, tta):
    clf = tiny.set_params(augment=augment, max_epochs=1, freeze="all", n_views=1).fit(DIGITS, TARGET)
    automatic = clf.predict_proba(DIGITS)
    np.testing.assert_array_equal(automatic, clf.set_params(tta=tta).predict_proba(DIGITS))
    other = clf.set_params(tta=2).predict_proba(DIGITS)
    assert np.array_equal(automatic, other) == (augment is None)


def test_tta_without_augmentation_looks_at_the_image_alone(tiny, computed):
    clf = tiny.fit(DIGITS, TARGET)
    assert np.array_equal(clf.predict_proba(DIGITS), clf.set_params(tta=1).predict_proba(DIGITS))


@pytest.mark.parametrize(
    ("crop", "image_size", "cropped"),
    [(False, 128, False), (True, 128, True), (True, None, True), ("auto", 128, True), ("auto", None, False)],
)
def test_sees_the_border_unless_cropped(weights, crop, image_size, cropped):
    plain = noise(8, 512, 512)
    framed = plain.copy()
    framed[:, [0, -1], :] = framed[:, :, [0, -1]] = 255
    clf = FineTunedCNNClassifier(
        "timm/test_efficientnet", weights=weights, max_epochs=1, crop=crop, image_size=image_size
    )
    clf.fit(plain, [0, 1] * 4)
    assert np.array_equal(clf.predict_proba(plain), clf.predict_proba(framed)) == cropped


@pytest.mark.parametrize("augment", ["photo", "any_orientation", "text"])
def test_presets_train(tiny, augment):
    clf = tiny.set_params(augment=augment).fit(DIGITS, TARGET)
    assert np.isfinite(clf.predict_proba(DIGITS)).all()
    np.testing.assert_array_equal(clf.predict_proba(DIGITS), clf.predict_proba(DIGITS))


# --- computed once ----------------------------------------------------------------------------------------


def from_pixels(computed):
    return sum(n for start, n in computed if start == 0)


def test_grid_over_freeze_runs_each_image_once(tiny, computed):
    params = {"freeze": [2, 3, "all"], "lr_factor": [0.1, 0.03]}
    search = GridSearchCV(tiny.set_params(max_epochs=1), params, cv=3, error_score="raise").fit(DIGITS, TARGET)
    search.predict(DIGITS)
    distinct = len(np.unique(DIGITS, axis=0))
    assert from_pixels(computed) == distinct == 90
    deeper = [n for start, n in computed if start == 2]
    assert sum(deeper) >= 90  # freeze=3 went on from the maps of freeze=2


@pytest.mark.parametrize("params", [{"freeze": 3}, {"freeze": "all"}, {"freeze": 3, "augment": "photo", "n_views": 3}])
def test_store_changes_nothing(tiny, params):
    tiny.set_params(**params)
    first = clone(tiny).fit(DIGITS, TARGET).predict_proba(DIGITS)
    again = clone(tiny).fit(DIGITS, TARGET).predict_proba(DIGITS)
    np.testing.assert_array_equal(again, first)
    set_cache_limits(memory_mb=0)
    without = clone(tiny).fit(DIGITS, TARGET).predict_proba(DIGITS)
    np.testing.assert_allclose(without, first, atol=1e-5)


def test_views_are_drawn_once(tiny, computed):
    tiny.set_params(freeze=3, augment="photo", n_views=4, max_epochs=10).fit(DIGITS, TARGET)
    drawn = from_pixels(computed)
    assert drawn == 90 * 4 + 90  # the views, and the images themselves for the first head
    clone(tiny).set_params(lr_factor=0.5).fit(DIGITS[:50], TARGET[:50])
    assert from_pixels(computed) == drawn


def test_fresh_augmentation_runs_the_frozen_stages_each_epoch(tiny, computed):
    tiny.set_params(freeze=3, augment="photo", n_views=None, max_epochs=4).fit(DIGITS, TARGET)
    assert from_pixels(computed) == 90 * 4 + 90


def test_folder_is_shared_with_features_and_with_later_fits(tiny, computed, tmp_path):
    common = {name: value for name, value in tiny.get_params().items() if name in PretrainedCNNFeatures().get_params()}
    tiny.set_params(freeze="all", memory=tmp_path).fit(DIGITS, TARGET)
    clear_cache()
    computed.clear()
    PretrainedCNNFeatures(**{**common, "memory": tmp_path}).fit_transform(DIGITS)
    clone(tiny).fit(DIGITS, TARGET).predict(DIGITS)
    assert computed == []


# --- early stopping, callbacks, history -------------------------------------------------------------------


def test_early_stopping_returns_to_the_best_weights(tiny):
    clf = tiny.set_params(early_stopping=2, max_epochs=30, lr=0.3, freeze="all", dropout=0, validation_fraction=0.3)
    clf.fit(DIGITS, np.random.default_rng(0).permutation(TARGET))  # labels that cannot be learned
    losses = [record["valid_loss"] for record in clf.history_]
    assert len(losses) < 30
    assert np.argmin(losses) == len(losses) - 3
    stopper = dict(clf.net_.callbacks_)["early_stopping"]
    assert same(learned(clf), stopper.best_model_weights_)


def test_history(tiny):
    clf = tiny.set_params(early_stopping=True).fit(DIGITS, TARGET)
    assert [record["epoch"] for record in clf.history_] == [1, 2]
    keys = {"epoch", "seconds", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "lr_pretrained"}
    assert set(clf.history_[0]) == keys
    assert all(type(value) in (int, float) for value in clf.history_[0].values())
    assert 0 <= clf.history_[-1]["valid_accuracy"] <= 1


def test_callbacks_and_net_params_reach_skorch(tiny):
    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.count_ = getattr(self, "count_", 0) + 1

    params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.5}
    clf = tiny.set_params(callbacks=[("count", Count())], net_params=params).fit(DIGITS, TARGET)
    assert dict(clf.net_.callbacks_)["count"].count_ == 2
    assert isinstance(clf.net_.optimizer_, torch.optim.SGD)
    stopping = [EarlyStopping(monitor="train_loss", patience=1, threshold=10.0, threshold_mode="abs")]
    clf = clone(tiny).set_params(callbacks=stopping, net_params=None, max_epochs=9).fit(DIGITS, TARGET)
    assert len(clf.history_) == 2


# --- repeatable, and quiet to the outside -----------------------------------------------------------------


@pytest.mark.parametrize("params", [{"augment": "photo"}, {"freeze": 0}, {"weights": None, "freeze": 0}])
def test_same_random_state_same_model(tiny, params):
    tiny.set_params(**params)
    one, two = clone(tiny).fit(DIGITS, TARGET), clone(tiny).fit(DIGITS, TARGET)
    np.testing.assert_array_equal(one.predict_proba(DIGITS), two.predict_proba(DIGITS))
    other = clone(tiny).set_params(random_state=1).fit(DIGITS, TARGET)
    assert (one.predict_proba(DIGITS) != other.predict_proba(DIGITS)).any()


def test_global_generators_are_left_alone(tiny):
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is meant
    tiny.set_params(augment="photo").fit(DIGITS, TARGET)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002 - as above, the global one


def test_fitting_again_forgets(tiny):
    once = clone(tiny).fit(DIGITS, TARGET).predict_proba(DIGITS)
    again = clone(tiny).fit(DIGITS[:45], TARGET[:45]).fit(DIGITS, TARGET).predict_proba(DIGITS)
    np.testing.assert_array_equal(once, again)


def test_folds_are_independent(tiny):
    """A fold scored within cross-validation equals the same fold fitted alone."""
    folds = [(np.arange(45), np.arange(45, 90)), (np.arange(45, 90), np.arange(45))]
    scores = cross_val_score(tiny, DIGITS, TARGET, cv=folds)
    for (train, test), score in zip(folds, scores, strict=True):
        assert clone(tiny).fit(DIGITS[train], TARGET[train]).score(DIGITS[test], TARGET[test]) == score


# --- inside scikit-learn ----------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["paths", "array", "column"])
def test_grid_search_as_promised(container, tmp_path):
    stack = (DIGITS.reshape(-1, 8, 8) / 16)[:24]
    paths = list(map(str, written(np.rint(stack * 255).astype(np.uint8), tmp_path)))
    X = {"paths": paths, "array": stack, "column": pd.DataFrame({"image": paths})["image"]}[container]
    clf = FineTunedCNNClassifier(max_epochs=1, image_size=32)
    search = GridSearchCV(clf, {"freeze": [4, "all"], "lr_factor": [0.1, 0.03]}, n_jobs=2, cv=2, error_score="raise")
    search.fit(X, TARGET[:24])
    assert len(search.cv_results_["params"]) == 4
    assert search.predict(X).shape == (24,)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"freeze": 7}, "freeze=7 is out of range: .* has 6 stages, stage1, .*Pass 0 to 6"),
        ({"freeze": -1}, "'freeze' parameter"),
        ({"freeze": "layer4"}, "no stage 'layer4'.*stage1, stage2"),
        ({"augment": "photos"}, "'augment' parameter"),
        ({"lr": 0}, "'lr' parameter"),
        ({"max_epochs": 1.5}, "'max_epochs' parameter"),
    ],
)
def test_bad_parameters(tiny, params, message):
    with pytest.raises(ValueError, match=message):
        tiny.set_params(**params).fit(DIGITS, TARGET)


def test_bad_targets(tiny):
    with pytest.raises(ValueError, match="X holds 90 images and y 5 labels"):
        tiny.fit(DIGITS, TARGET[:5])
    with pytest.raises(ValueError, match="y should be a 1d array, one label for each image; got None"):
        tiny.fit(DIGITS, None)
    with pytest.raises(ValueError, match="continuous"):
        tiny.fit(DIGITS, np.linspace(0, 1, 90))
    with pytest.raises(ValueError, match="n_samples=1"):
        tiny.fit(DIGITS[:1], TARGET[:1])


def test_divergence_is_an_error_and_leaves_nothing(tiny):
    with pytest.raises(TrainingError, match=r"loss became .* in epoch \d+ at lr=1e\+30.*Lower lr"):
        tiny.set_params(freeze=0, lr=1e30, max_epochs=9).fit(DIGITS, TARGET)
    assert not hasattr(tiny, "net_")


@pytest.mark.parametrize("params", [{"batch_size": 32}, {"batch_size": 2}])
def test_last_batch_of_one_image(params):
    clf = FineTunedCNNClassifier(**PLAIN_SCRATCH, max_epochs=1, **params).fit(DIGITS[:33], TARGET[:33])
    assert np.isfinite(clf.predict_proba(DIGITS[:1])).all()


# --- interrupts -------------------------------------------------------------------------------------------


def test_ctrl_c_is_not_a_finished_fit(tiny, request):
    # A shell that runs this in the background makes Python ignore the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    tiny.set_params(freeze=0, max_epochs=10_000)
    interrupt = threading.Timer(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        tiny.fit(DIGITS, TARGET)
    interrupt.join()
    time.sleep(0.1)
    assert not hasattr(tiny, "net_")


# --- pickles ----------------------------------------------------------------------------------------------


@pytest.mark.openvino  # a new process predicts too
def test_pickle_holds_what_predicts_and_no_more(tiny, tmp_path):
    clf = tiny.set_params(freeze=5).fit(DIGITS, TARGET)
    frozen = clf._backbone.stages[:5].state_dict()  # their weights are in a local file, so they go along
    size = sum(value.numel() * value.element_size() for value in [*learned(clf).values(), *frozen.values()])
    assert size < len(pickle.dumps(clf)) < size + 30_000
    joblib.dump(clf, tmp_path / "clf.joblib")
    np.save(tmp_path / "X.npy", DIGITS)
    code = "import sys, joblib, numpy as np; c = joblib.load(sys.argv[1])\n"
    code += "np.save(sys.argv[3], c.predict_proba(np.load(sys.argv[2])))"
    fresh(code, *(tmp_path / name for name in ("clf.joblib", "X.npy", "p.npy")))
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), clf.predict_proba(DIGITS))


def test_pickled_from_scratch_and_cloned():
    clf = FineTunedCNNClassifier(**PLAIN_SCRATCH, max_epochs=1).fit(DIGITS, TARGET)
    back = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(back.predict_proba(DIGITS), clf.predict_proba(DIGITS))
    assert back.history_ == clf.history_
    clone(back).fit(DIGITS, TARGET)


def test_pickle_predicts_though_the_weights_file_changed(tiny, weights, tmp_path):
    state = torch.load(weights)
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    clf = tiny.set_params(weights=path).fit(DIGITS, TARGET)
    content = pickle.dumps(clf)
    state["conv_stem.weight"][0, 0, 0, 0] += 1
    torch.save(state, path)
    np.testing.assert_allclose(pickle.loads(content).predict_proba(DIGITS), clf.predict_proba(DIGITS), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_model_loads_on_cpu(tiny):
    clf = tiny.set_params(device="cuda").fit(DIGITS, TARGET)
    back = pickle.loads(pickle.dumps(clf)).set_params(device="cpu")
    np.testing.assert_allclose(back.predict_proba(DIGITS), clf.predict_proba(DIGITS), atol=1e-3)


# --- a fit that fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator", [FineTunedCNNClassifier(**PLAIN_SCRATCH), PretrainedCNNFeatures("shallow_cnn", weights=None)]
)
def test_failed_first_fit_does_not_look_fitted(estimator):
    estimator = clone(estimator).set_params(image_shape=(8, 8), value_range=(0, 1))  # digits go up to 16
    if isinstance(estimator, PretrainedCNNFeatures):
        estimator.set_params(layer="stage99")
    with pytest.raises(ValueError, match=r"value_range|stage99"):
        estimator.fit(DIGITS, TARGET)
    assert not hasattr(estimator, "n_features_in_")
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)


def test_failed_refit_leaves_the_model_that_was(no_store):
    model = FineTunedCNNClassifier(**PLAIN_SCRATCH).fit(DIGITS, TARGET)
    expected, before = model.predict_proba(DIGITS), dict(vars(model))
    with pytest.raises(ValueError, match="value_range"):
        model.set_params(image_shape=(4, 4)).fit(100 * DIGITS[:, :16], TARGET)
    model.set_params(image_shape=(8, 8))
    assert vars(model) == before
    np.testing.assert_array_equal(model.predict_proba(DIGITS), expected)


@pytest.mark.parametrize(
    ("net_params", "instead"),
    [
        ({"max_epochs": 8}, "max_epochs"),
        ({"batch_size": 16}, "batch_size"),
        ({"callbacks": []}, "callbacks"),
        ({"lr": 0.1}, "lr"),
        ({"optimizer__weight_decay": 0.1}, "weight_decay"),
        ({"train_split": None}, "early_stopping"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_net_params_that_the_classifier_sets_itself_are_refused(net_params, instead, method):
    model = FineTunedCNNClassifier(**PLAIN_SCRATCH, net_params=net_params)
    with pytest.raises(ValueError, match=rf"net_params holds '{next(iter(net_params))}'.*Use {instead}"):
        getattr(model, method)(DIGITS, TARGET, **({"classes": [0, 1, 2]} if method == "partial_fit" else {}))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu"])
def test_device_that_is_not_there_is_said_in_plain_words(device):
    with pytest.raises(ValueError, match=rf"device='{device}' does not exist.*'auto', 'cpu', 'cuda' or 'mps'"):
        FineTunedCNNClassifier(**PLAIN_SCRATCH, device=device).fit(DIGITS, TARGET)
