"""What a fit will cost is told from trials on few images, which change nothing; samples keep every class."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures
from sktransfer._strategies._fit_times import Cost, image_readers, measure_cost, seconds_of_features
from sktransfer._strategies._sampling import PILOT, pilot_rows, sample_rows
from tiny import FLAT_64, digits

X, Y = digits(n_classes=4)


def test_sample_is_stratified_sorted_and_repeatable():
    y = np.repeat([0, 1, 2], [600, 300, 100])
    rows = sample_rows(y, 100, random_state=0)
    assert np.bincount(y[rows]).tolist() == [60, 30, 10]
    assert (np.diff(rows) > 0).all()
    assert (rows == sample_rows(y, 100, random_state=0)).all()
    assert (rows != sample_rows(y, 100, random_state=1)).any()


@pytest.mark.parametrize("n", [4, 5])
def test_sample_of_all_or_of_too_few_for_strata(n):
    y = np.array([0, 0, 1, 2])  # two classes of one image each
    assert sample_rows(y, n).tolist() == [0, 1, 2, 3]
    assert len(sample_rows(y, 3)) == 3
    assert len(sample_rows(np.repeat(np.arange(4), 3), 11)) == 11  # the rest is too small for every class


def test_pilot_holds_at_least_two_of_each_class_it_holds():
    for y in (Y, np.arange(300) % 100, np.repeat([0, 1], [3, 500])):
        counts = np.unique(y[pilot_rows(y)], return_counts=True)[1]
        assert counts.min() >= 2 and counts.sum() <= PILOT


def test_epochs_and_folds_multiply_what_is_trained_and_nothing_else():
    classifier = FineTunedCNNClassifier(max_epochs=10)
    cost = Cost(frozen=0.1, training=0.01, testing=0.001)
    one = cost.seconds(classifier, 300, [200], [100])
    assert one == pytest.approx(0.1 * 300 + 0.01 * 200 * 10 + 0.001 * 100)
    three = cost.seconds(classifier, 300, [200] * 3, [100] * 3)
    assert three - one == pytest.approx(2 * (0.01 * 200 * 10 + 0.001 * 100))
    for n, n_seen, params in [
        (100, 30 * 100, {}),
        (2000, 24_000, {"augment": "text"}),
        (2000, 16_000, {"augment": "photo"}),
        (10_000, 6 * 10_000, {"augment": "photo"}),
        # No epoch shows smaller images: they would be too small, or the losses of epochs are to be compared.
        (2000, 24_000, {"augment": "photo", "image_size": 96}),
        (2000, 24_000, {"augment": "photo", "early_stopping": True}),
    ]:
        automatic = cost.seconds(FineTunedCNNClassifier(**params), n, [n], [])
        assert automatic == pytest.approx(0.1 * n + 0.01 * n_seen)


def test_features_are_timed_and_linear_models_free():
    cost = measure_cost(make_pipeline(PretrainedCNNFeatures(**FLAT_64), LogisticRegression()), X, Y)
    assert cost.frozen > 0 and cost.training == cost.testing == 0
    assert measure_cost(DummyClassifier(), X, Y) == (0, 0, 0)


def test_trial_computes_few_images_and_leaves_the_estimator_alone(computed):
    classifier = FineTunedCNNClassifier(freeze=7, augment="text", n_views=2, tta=1, max_epochs=50, **FLAT_64)
    cost = measure_cost(classifier, X, Y)
    assert min(cost) > 0
    # Two views, the image at the cut, and its features for the first head.
    assert sum(n for start, n in computed if start == 0) <= 4 * PILOT
    assert not hasattr(classifier, "net_") and classifier.max_epochs == 50


def test_more_trained_stages_cost_more():
    all_but_one, nothing = (FineTunedCNNClassifier(freeze=freeze, **FLAT_64) for freeze in (7, 0))
    assert measure_cost(nothing, X, Y).training > 2 * measure_cost(all_but_one, X, Y).training


def test_nothing_frozen_costs_nothing_beforehand():
    scratch = FineTunedCNNClassifier("shallow_cnn", weights=None, **FLAT_64)
    cost = measure_cost(scratch, X, Y)
    assert cost.frozen == 0 and cost.training > 0


def test_trial_anew_passes_over_the_store(computed):
    features = make_pipeline(PretrainedCNNFeatures(**FLAT_64), LogisticRegression())
    head = FineTunedCNNClassifier(freeze="all", max_epochs=1, **FLAT_64)
    for estimator in (features, head):
        measure_cost(estimator, X, Y)
        computed.clear()
        assert measure_cost(estimator, X, Y).frozen < measure_cost(estimator, X, Y, anew=True).frozen
        assert sum(n for _, n in computed) >= PILOT  # none of them in the first trial
        computed.clear()
        measure_cost(estimator, X, Y)
        assert not computed


def test_features_anew_pass_over_the_store(computed):
    features = PretrainedCNNFeatures(**FLAT_64)
    features.fit_transform(X[:8])
    computed.clear()
    seconds_of_features(features, X[:8])
    assert not computed
    seconds_of_features(features, X[:8], anew=True)
    assert sum(n for _, n in computed) == 8


def test_sample_keeps_as_many_of_each_class_as_folds_need():
    for counts, n in [((998, 2), 600), ((992, 8), 500), ((50,) * 30, 100), ((900, 60, 3), 20)]:
        y = np.repeat(np.arange(len(counts)), counts)
        kept = np.bincount(y[sample_rows(y, n, least=5)])
        assert (kept >= np.minimum(counts, 5)).all()
        assert kept.sum() == max(n, np.minimum(counts, 5).sum())


@pytest.mark.parametrize("wrap", [lambda f: FeatureUnion([("a", f)]), lambda f: GridSearchCV(f, {}), lambda f: f])
def test_what_reads_images_within_others_is_found(wrap):
    features = PretrainedCNNFeatures(**FLAT_64)
    assert list(image_readers(make_pipeline("passthrough", wrap(features), LogisticRegression()), X)) == [(features, X)]
    assert not list(image_readers(make_pipeline(FunctionTransformer(), wrap(features)), X))
