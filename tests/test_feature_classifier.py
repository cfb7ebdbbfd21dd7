"""`FeatureClassifier` chooses stages and C by held-out images, and is scikit-learn's logistic regression on them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import FeatureUnion

from sktransfer import FeatureClassifier, ImageError, PretrainedCNNFeatures, load, make_feature_classifier, save
from sktransfer._feature_classifier import _stages
from sktransfer._stage_search import balanced, choose, fit_logistic, suffix
from tiny import FLAT, TINY, digits

X, Y = digits(60)
RNG = np.random.default_rng(0)
STAGES = [[slice(0, 30), slice(30, 60)], [slice(60, 70), slice(70, 80)]]


class Given(TransformerMixin, BaseEstimator):
    """Features that are there already."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)


def classes(n, n_features=80, n_classes=3, distance=2.0, columns=slice(60, 80)):
    """Return features of which these columns alone tell the classes apart, and the classes."""
    y = np.arange(n) % n_classes
    features = RNG.normal(size=(n, n_features))
    features[:, columns] += distance * np.random.default_rng(1).normal(size=(n_classes, n_features))[y][:, columns]
    return features.astype(np.float32), y


def folds_of(y, n=3):
    return list(StratifiedKFold(n).split(y, y))


# --- the linear model ---------------------------------------------------------------------------------------


# Fewer images than features, and more, where scikit-learn's own tolerance limits the agreement.
@pytest.mark.parametrize(("n", "tolerance"), [(40, 2e-3), (200, 1e-2)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_model_in_the_span_of_the_images_is_that_of_scikit_learn(n, tolerance, n_classes):
    features, y = classes(n, n_classes=n_classes)
    weights = RNG.random(n) + 0.5
    expected = LogisticRegression(C=3, max_iter=1000, tol=1e-8).fit(features.astype(float), y, sample_weight=weights)
    model = fit_logistic(features, y, weights, 3)
    assert model.coef_.shape == expected.coef_.shape
    unseen = classes(50, n_classes=n_classes)[0]
    assert_allclose(model.predict_proba(unseen), expected.predict_proba(unseen), atol=tolerance)


def test_equal_images_are_no_trouble():
    features, y = classes(20)
    twice, labels = np.tile(features, (2, 1)), np.tile(y, 2)
    model = fit_logistic(twice, labels, np.ones(40), 1)
    expected = LogisticRegression(C=2, max_iter=1000).fit(features, y)
    assert_allclose(model.predict_proba(features), expected.predict_proba(features), atol=2e-3)


def test_parts_are_centred_and_have_norm_one():
    features, _ = classes(10)
    out = balanced(features, features.mean(axis=0), STAGES)
    for columns in (slice(0, 30), slice(30, 60), slice(60, 70), slice(70, 80)):
        assert_allclose(np.linalg.norm(out[:, columns], axis=1), 1, rtol=1e-5)
        centred = features[:, columns] - features[:, columns].mean(axis=0)
        assert_allclose(out[:, columns], centred / np.linalg.norm(centred, axis=1, keepdims=True), rtol=1e-4)


def test_an_image_that_equals_the_mean_has_features_of_zero():
    features = np.array([[1.0, 2.0], [1.0, 2.0]], dtype=np.float32)
    assert_array_equal(balanced(features, features.mean(axis=0), [[slice(0, 2)]]), 0)


# --- the choice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "expected"), [(slice(60, 80), 1), (slice(0, 60), 2)])
def test_stages_that_tell_the_classes_apart_are_chosen(columns, expected):
    features, y = classes(90, columns=columns, distance=1.0)
    choice = choose(features, STAGES, y, np.ones(90), n_stages=(1, 2), Cs=(0.1, 1, 10), folds=folds_of(y))
    assert choice.n_stages == expected
    assert set(choice.log_losses) == {1, 2}


def test_log_losses_are_those_of_scikit_learn():
    features, y = classes(60, distance=0.5)
    weights = RNG.random(60) + 0.5
    folds = folds_of(y)
    choice = choose(features, STAGES, y, weights, n_stages=(2,), Cs=(1,), folds=folds)
    part = balanced(features, np.average(features, axis=0, weights=weights), STAGES).astype(float)
    total = 0.0
    for train, test in folds:
        model = LogisticRegression(C=1, tol=1e-6, max_iter=1000).fit(
            part[train], y[train], sample_weight=weights[train]
        )
        logits = choice.sharpness * model.decision_function(part[test])
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= weights[test] @ logits[np.arange(len(test)), y[test]]
    assert_allclose(choice.log_losses[2], [total / weights.sum()], rtol=1e-3)


def test_probabilities_of_noise_are_not_sure():
    features, y = classes(90, distance=0.0)
    clf = FeatureClassifier(Given()).fit(features, y)
    assert clf.predict_proba(classes(300, distance=0.0)[0]).max() < 0.6


def test_search_stops_at_the_first_c_that_is_worse():
    features, y = classes(60, distance=0.3)
    choice = choose(features, STAGES, y, np.ones(60), n_stages=(2,), Cs=(1e-3, 1e-2, 10, 1e3, 1e5), folds=folds_of(y))
    losses = choice.log_losses[2]
    assert len(losses) < 5
    assert losses[-1] > losses[-2] == min(losses)


def test_numbers_beyond_the_network_mean_all_of_its_stages():
    features, y = classes(30)
    choice = choose(features, STAGES, y, np.ones(30), n_stages=(1, 3, 5), Cs=(1,), folds=folds_of(y))
    assert set(choice.log_losses) == {1, 2}


def test_large_sets_are_fitted_whole_and_searched_in_part(monkeypatch):
    monkeypatch.setattr("sktransfer._feature_classifier._LEAST_SEARCHED", 60)
    monkeypatch.setattr("sktransfer._feature_classifier._SEARCHED_OF_A_CLASS", 1)
    searched, fitted = [], []
    monkeypatch.setattr(
        "sktransfer._feature_classifier.choose",
        lambda features, *args, **kwargs: searched.append(len(features)) or choose(features, *args, **kwargs),
    )
    monkeypatch.setattr(
        "sktransfer._feature_classifier.fit_logistic",
        lambda features, *args: fitted.append(len(features)) or fit_logistic(features, *args),
    )
    features, y = classes(200)
    clf = FeatureClassifier(Given()).fit(features, y)
    assert 60 <= searched[0] < 64
    assert fitted == [200]
    assert clf.score(*classes(200)) > 0.8


# --- few images ---------------------------------------------------------------------------------------------


def test_one_image_of_each_class():
    features, y = classes(3)
    clf = FeatureClassifier(Given()).fit(features, y)
    assert clf.log_losses_ == {}
    assert clf.score(*classes(90)) > 0.6


def test_a_class_of_one_image_beside_larger_ones():
    features, y = classes(31)
    y[-1] = 3
    clf = FeatureClassifier(Given()).fit(features, y)
    assert clf.predict_proba(features).shape == (31, 4)
    assert clf.log_losses_


# --- images -------------------------------------------------------------------------------------------------


def test_images_in_labels_out(computed):
    labels = np.array(["zero", "one", "two"])[Y]
    clf = make_feature_classifier(**TINY, **FLAT).fit(X, labels)
    assert sum(n for _, n in computed) == len(X)  # once for all stages, folds and C
    assert list(clf.classes_) == ["one", "two", "zero"]
    assert clf.score(X, labels) > 0.9
    assert_allclose(clf.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(clf.classes_[clf.decision_function(X).argmax(axis=1)], clf.predict(X))
    assert_allclose(np.exp(clf.predict_log_proba(X)), clf.predict_proba(X), rtol=1e-5)
    assert clf.set_params(features__layer="stage2").features.layer == "stage2"


def test_last_stages_of_two_networks_count_as_one():
    one = PretrainedCNNFeatures(**TINY, **FLAT, layer="all", pooling="avgstd")
    two = PretrainedCNNFeatures(**TINY, **FLAT, layer=["stage1", "penultimate"])
    union = FeatureUnion([("one", one), ("two", two)]).fit(X)
    n, n_one = len(union.get_feature_names_out()), one.fit(X).n_features_out_
    stages = _stages(union, n)
    assert [len(stage) for stage in stages] == [2] * (len(stages) - 2) + [3, 3]
    columns, parts = suffix(stages, 1)
    assert parts[-1][-1].stop == len(columns)
    assert {n_one - 1, n - 1} <= set(columns)
    covered = sorted(column for stage in stages for part in stage for column in range(part.start, part.stop))
    assert covered == list(range(n))
    clf = FeatureClassifier(FeatureUnion([("one", one), ("two", two)])).fit(X, Y)
    assert clf.score(X, Y) > 0.9


def test_list_of_networks(tmp_path):
    names = [TINY["backbone"], "shallow_cnn"]
    clf = make_feature_classifier(**{**TINY, **FLAT, "backbone": names}).fit(X, Y)
    assert clf.score(X, Y) > 0.9
    save(clf, tmp_path / "model.sktransfer")
    assert_array_equal(load(tmp_path / "model.sktransfer").predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ValueError, match="different names"):
        make_feature_classifier(["shallow_cnn", "shallow_cnn"])


def test_a_dropped_network_of_a_union_has_no_features():
    one = PretrainedCNNFeatures(**TINY, **FLAT, layer="all")
    clf = FeatureClassifier(FeatureUnion([("one", one), ("two", "drop")])).fit(X, Y)
    assert clf.score(X, Y) > 0.9


def test_weights_of_zero():
    features, y = classes(30)
    with pytest.raises(ValueError, match="Sample weights must contain at least one non-zero number"):
        FeatureClassifier(Given()).fit(features, y, sample_weight=np.zeros(30))
    held_out_counts_nothing = (np.arange(30) >= 10).astype(float)
    clf = FeatureClassifier(Given(), cv=3).fit(features, y, sample_weight=held_out_counts_nothing)
    assert np.isfinite(list(clf.log_losses_.values())).all()


def test_groups_are_kept_together_whatever_cv_is():
    """Every image is there twice, so a copy that is held out alone is recognised."""
    rng = np.random.default_rng(0)
    copies, answers = np.vstack([rng.normal(size=(60, 80))] * 2), np.hstack([np.arange(60) % 2] * 2)
    clf = FeatureClassifier(Given(), Cs=(10, 100))
    leaking = clf.fit(copies, answers).log_losses_
    apart = clf.fit(copies, answers, groups=np.arange(120) % 60).log_losses_
    assert min(leaking[1]) < 0.5
    assert min(apart[1]) > 0.6
    few = clf.fit(copies, answers, groups=np.arange(120) // 40)  # fewer groups than folds
    assert few.log_losses_


def test_groups_are_kept_together():
    groups = np.arange(60) // 6
    clf = FeatureClassifier(Given(), cv=GroupKFold(5)).fit(X.reshape(60, -1), Y, groups=groups)
    assert clf.log_losses_
    with pytest.raises(ValueError, match="groups"):
        FeatureClassifier(Given(), cv=GroupKFold(5)).fit(X.reshape(60, -1), Y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_stages": (0, 1)}, r"n_stages=\(0, 1\): expected positive numbers.*holds 0"),
        ({"n_stages": (1.5,)}, "holds 1.5"),
        ({"Cs": ()}, "empty"),
        ({"Cs": (1, -1)}, "holds -1"),
    ],
)
def test_wrong_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        FeatureClassifier(Given(), **params).fit(*classes(30))


def test_bad_images_are_named_and_an_earlier_fit_is_kept(tmp_path):
    clf = make_feature_classifier(**TINY).fit([X[0].reshape(8, 8).astype("uint8")] * 4, [0, 1, 0, 1])
    before = clf.features_
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(ImageError, match=r"bad\.png"):
        clf.fit([bad, bad], [0, 1])
    assert clf.features_ is before
    clf.features_.set_params(on_error="nan")
    with pytest.warns(RuntimeWarning, match=r"bad\.png"), pytest.raises(ValueError, match="find_bad_images"):
        clf.predict([bad])
