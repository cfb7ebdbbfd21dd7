"""`recommend_strategy`: its advice follows from the number of images, the skill of features and the distance."""

import numpy as np
import pandas as pd
import pytest

from sktransfer import make_strategies, recommend_strategy
from sktransfer._strategies import _recommendation
from sktransfer._strategies._candidates import candidates
from sktransfer._strategies._fit_times import Cost
from sktransfer._strategies._recommendation import FAR, FEW, MANY, SOLVED, SOME, _advice, _probe, _skill_and_distance
from tiny import FLAT, FLAT_64, TINY, digits

X, Y = digits(n_classes=4)
STRATEGIES = candidates("efficientnet_lite0", augment=None, random_state=0)
NAMES = list(make_strategies())
NEAR, HALF = FAR / 2, SOLVED / 2


@pytest.fixture
def untimed(monkeypatch):
    """No strategy is tried out; each takes a minute per image."""
    monkeypatch.setattr(_recommendation, "measure_cost", lambda *_, anew: Cost(60.0, 0.0, 0.0))


def advised(n, skill, distance):
    return _advice(STRATEGIES, np.array([n // 2, n - n // 2]), skill, distance)[0].name


@pytest.mark.parametrize("distance", [NEAR, 1.0])
def test_few_images_or_a_solved_task_need_features_alone(distance):
    assert advised(FEW - 1, HALF, distance) == "features + linear"
    assert advised(2 * MANY, 0.99, distance) == "features + linear"


def test_the_farther_and_the_more_images_the_more_is_trained():
    assert advised(FEW, HALF, NEAR) == advised(2 * MANY, HALF, NEAR) == "fine-tuned, freeze=4"
    far = [advised(n, HALF, 1.0) for n in (FEW, SOME, MANY)]
    assert far == ["fine-tuned, freeze=4", "fine-tuned, freeze=0", "from scratch"]


def test_reasons_state_the_facts():
    reasons = " ".join(_advice(STRATEGIES, np.array([700, 300]), 0.5, 0.25)[1])
    assert "1000 images in 2 classes of 300 to 700" in reasons
    assert "50% of the way" in reasons and "25% of that" in reasons and "near" in reasons


def test_recommendation_for_flat_rows(untimed):
    y = Y[:100].astype(str)
    advice = recommend_strategy(X[:100], y, **FLAT_64)
    assert advice.strategy == "features + linear"
    assert (advice.n_images, advice.n_classes) == (100, 4)
    assert (advice.smallest_class, advice.largest_class) == (23, 26)
    assert advice.image_sizes == (8, 8) and any("8 pixels" in reason for reason in advice.reasons)
    assert advice.minutes == dict.fromkeys(NAMES, 100)
    for text in ("Recommended: features + linear", advice.reasons[0], "100.0  from scratch"):
        assert text in advice.summary()
    assert advice.estimator.fit(X[:100], y).score(X[:100], y) == 1


def test_containers_of_images_get_the_same_advice(untimed):
    images = (X[:60].reshape(-1, 8, 8) * 15).astype(np.uint8)
    first = recommend_strategy(images, Y[:60], image_size=64)
    for container in (list(images), pd.Series(list(images)), np.stack([images] * 3, axis=-1)):
        other = recommend_strategy(container, Y[:60], image_size=64)
        assert (other.skill, other.distance, other.reasons) == (first.skill, first.distance, first.reasons)


def test_features_are_stored_for_the_fit_that_follows(untimed, computed):
    advice = recommend_strategy(X[:60], Y[:60], **FLAT_64)
    computed.clear()
    advice.estimator.fit(X[:60], Y[:60])
    assert not computed


def test_parameters_reach_the_estimator(untimed, tmp_path, monkeypatch):
    monkeypatch.setattr(_recommendation, "FEW", 10)
    monkeypatch.setattr(_recommendation, "SOLVED", 1.0)
    advice = recommend_strategy(X[:60], Y[:60], augment="text", memory=tmp_path, random_state=3, **FLAT_64)
    assert advice.strategy.startswith("fine-tuned")
    params = advice.estimator.get_params()
    assert (params["augment"], params["memory"], params["random_state"], params["image_size"]) == (
        "text",
        tmp_path,
        3,
        64,
    )
    assert not any("augment=" in reason for reason in advice.reasons)
    unnamed = recommend_strategy(X[:60], Y[:60], **FLAT_64)
    assert any("augment='photo'" in reason for reason in unnamed.reasons)


def test_uneven_classes_are_a_reason(untimed):
    rows = np.concatenate([np.flatnonzero(Y == 0)[:60], np.flatnonzero(Y == 1)[:10]])
    assert any("uneven" in reason for reason in recommend_strategy(X[rows], Y[rows], **FLAT_64).reasons)
    rows = np.flatnonzero(Y < 2)[:60]
    assert not any("uneven" in reason for reason in recommend_strategy(X[rows], Y[rows], **FLAT_64).reasons)


def test_noise_has_no_skill():
    labels = np.random.default_rng(0).permutation(Y[:100])
    skill, _ = _probe(X[:100], labels, FLAT_64, 0)
    assert skill < 0.2
    assert _probe(X[:100], Y[:100], FLAT_64, 0)[0] > 0.9


def test_distance_is_that_of_the_first_half():
    """Textures tell these classes apart already; the last stages add nothing."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (60, 64, 64), dtype=np.uint8)
    labels = np.arange(60) % 2
    noise[labels == 1] = noise[labels == 1, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)
    skill, distance = _probe(noise, labels, {"image_size": 64}, 0)
    assert skill > 0.9 and distance == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.zeros(40), "one class"),
        (Y[:39], "X holds 40 images and y 39 labels"),
        (np.array([0] * 39 + [1]), "at least 2 images of each class, but class 1 has 1"),
        (np.linspace(0, 1, 40), "continuous"),
    ],
)
def test_bad_labels(y, match):
    with pytest.raises(ValueError, match=match):
        recommend_strategy(X[:40], y, **FLAT_64)


def test_unknown_parameter():
    with pytest.raises(ValueError, match="no parameter 'max_epochs'"):
        recommend_strategy(X[:40], Y[:40], max_epochs=1)


# --- rare classes, noise, and trials that fail ------------------------------------------------------------


@pytest.fixture
def many():
    """A thousand small digits, of which two are of the rare class."""
    rng = np.random.default_rng(0)
    X, y = digits(n_classes=2)
    rows = np.concatenate([np.flatnonzero(y == 0)[np.arange(998) % 178], np.flatnonzero(y == 1)[:2]])
    order = rng.permutation(1000)
    return X[rows][order], np.array(["ok"] * 998 + ["defect"] * 2)[order]


def test_a_rare_class_is_in_the_sample(untimed, many):
    advice = recommend_strategy(*many, **TINY, **FLAT)
    assert (advice.smallest_class, advice.largest_class) == (2, 998)


def test_noise_is_given_no_distance(untimed):
    labels = np.random.default_rng(0).permutation(Y[:300])
    advice = recommend_strategy(X[:300], labels, **TINY, **FLAT)
    assert np.isnan(advice.distance) and advice.strategy == "features + linear"
    assert "no better than guessing: are the labels right?" in advice.summary()
    assert "far from" not in advice.summary() and "near those" not in advice.summary() and "nan" not in advice.summary()


@pytest.mark.parametrize("accuracy", [0.0, 0.4, 0.5, 0.50001, 0.52])
def test_without_skill_a_distance_cannot_be_told(accuracy):
    for first_half in (0.0, 0.5, 0.9):
        assert np.isnan(_skill_and_distance(accuracy, first_half, chance=0.5, n=600)[1])
    assert np.isnan(_skill_and_distance(0.501, 0.9, chance=0.5, n=10**9)[1])


def test_with_skill_a_distance_is_told():
    assert _skill_and_distance(0.9, 0.7, chance=0.5, n=600) == pytest.approx((0.8, 0.5))
    assert _skill_and_distance(1.0, 0.4, chance=0.5, n=4) == (1.0, 0.0)


def test_a_trial_that_fails_costs_one_strategy(monkeypatch):
    def trial(estimator, X, y, anew):
        if getattr(estimator, "freeze", None) == 4:
            raise RuntimeError("no room")
        return Cost(60.0, 0.0, 0.0)

    monkeypatch.setattr(_recommendation, "measure_cost", trial)
    monkeypatch.setattr(_recommendation, "FEW", 10)
    monkeypatch.setattr(_recommendation, "SOLVED", 1.0)
    advice = recommend_strategy(X[:60], Y[:60], augment="text", **FLAT_64)
    assert advice.left_out == {"fine-tuned, freeze=4": "failed: RuntimeError: no room"}
    assert advice.strategy in advice.minutes and "fine-tuned, freeze=4" not in advice.minutes
    assert any("would be advised, but its trial failed: RuntimeError: no room" in reason for reason in advice.reasons)
    assert "no room" in advice.summary()
