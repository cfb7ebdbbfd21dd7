"""`rank_backbones`: its scores are those of cross-validated probes or LogME's, the best first; failures are named."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sktransfer import ImageError, PretrainedCNNFeatures, TrainingError, UnknownBackboneError, rank_backbones
from sktransfer._strategies._ranking import PROBE_C, logme
from tiny import FLAT, FLAT_64, TINY, digits

X, Y = digits(100, n_classes=4)


def test_scores_are_those_of_cross_validated_probes_best_first(computed):
    ranking = rank_backbones(X, Y, layers=["stage2", "stage5", "penultimate"], cv=3, **FLAT_64)
    pilot = sum(n for _, n in computed) - len(X)
    assert 0 < pilot <= 64  # besides the few that are timed, each image runs once for all layers
    assert [row.score for row in ranking] == sorted((row.score for row in ranking), reverse=True)
    for row in ranking:
        features = PretrainedCNNFeatures(layer=row.layer, normalize=True, **FLAT_64).fit_transform(X)
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        scores = cross_val_score(LogisticRegression(C=PROBE_C, max_iter=1000), features, Y, cv=folds)
        assert (row.score, row.spread) == pytest.approx((scores.mean(), scores.std(ddof=1)))
        assert row.milliseconds > 0


def test_trained_layers_outrank_random_ones():
    scores = {}
    for weights in ("default", None):
        (row,) = rank_backbones(X, Y, "efficientnet_lite0", "stage6", weights=weights, cv=3, **FLAT_64)
        scores[weights] = row.score
    assert scores["default"] > scores[None]


@pytest.mark.parametrize("method", ["linear_probe", "logme"])
def test_frame_of_a_sample(method, computed):
    frame = pd.DataFrame(rank_backbones(X, Y, layers=["stage3", "all"], method=method, max_images=40, cv=2, **FLAT_64))
    assert frame.columns.tolist() == ["backbone", "layer", "score", "spread", "milliseconds"]
    assert set(frame.layer) == {"stage3", "all"} and set(frame.backbone) == {"efficientnet_lite0"}
    assert frame.spread.isna().all() == (method == "logme")
    assert sum(n for _, n in computed) <= 40 + 64


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"method": "nonsense"}, ValueError, "'method' parameter"),
        ({"backbones": ["nonsense"]}, UnknownBackboneError, "nonsense"),
        ({"layers": ["stage99"]}, ValueError, "has no stage 'stage99'"),
        ({"y": np.zeros(100)}, ValueError, "one class"),
        ({"y": Y[:50]}, ValueError, "X holds 100 images and y 50 labels"),
        ({"cv": 60}, ValueError, "cv=60 needs at least 60 images of each class, but class 0 has"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_bad_input(change, error, match):
    with pytest.raises(error, match=match):
        rank_backbones(**{"X": X, "y": Y, **FLAT_64, **change})


def log_evidence(features, target, alpha, beta):
    """The textbook's marginal: the target is normal with covariance I / beta + F F' / alpha."""
    covariance = np.eye(len(target)) / beta + features @ features.T / alpha
    return multivariate_normal(np.zeros(len(target)), covariance).logpdf(target)


@pytest.mark.parametrize(("n", "d", "noise"), [(30, 5, 1.0), (40, 60, 3.0)])
def test_logme_is_the_largest_evidence(n, d, noise):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d))
    labels = (features @ rng.normal(size=d) + noise * rng.normal(size=n) > 0).astype(int)
    best = []
    for label in (0, 1):
        target = (labels == label).astype(float)

        def loss(logs, target=target):
            return -log_evidence(features, target, *np.exp(logs))

        best.append(-min(minimize(loss, start, bounds=[(-5, 12)] * 2).fun for start in ([0, 0], [4, 0], [4, 3])) / n)
    assert logme(features, labels) == pytest.approx(np.mean(best), abs=1e-4)


def test_logme_prefers_features_that_tell():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    noise = rng.normal(size=(60, 8))
    assert logme(noise + 2 * np.eye(8)[labels], labels) > logme(noise, labels)


def test_logme_does_not_depend_on_the_names_of_the_classes():
    features = np.random.default_rng(0).normal(size=(20, 3))
    labels = np.arange(20) % 2
    assert logme(features, labels) == logme(features, np.array(["b", "a"])[labels])


RANDOM = {"weights": None, "image_size": 32, **FLAT}


def test_a_rare_class_is_in_the_sample():
    images, labels = digits(n_classes=2)
    rows = np.concatenate([np.flatnonzero(labels == 0)[np.arange(992) % 178], np.flatnonzero(labels == 1)[:8]])
    y = np.array(["ok"] * 992 + ["defect"] * 8)
    (row,) = rank_backbones(images[rows], y, TINY["backbone"], "penultimate", **RANDOM)
    assert 0 < row.score <= 1


def test_a_backbone_or_a_layer_that_fails_is_named_and_the_others_are_ranked():
    backbones = ["nonsense", TINY["backbone"]]
    with pytest.warns(UserWarning, match=r"(?s)could not be ranked:.*'nonsense': UnknownBackbone.*'stage99': ValueErr"):
        ranking = rank_backbones(X, Y, backbones, ["stage99", "penultimate"], cv=3, **RANDOM)
    assert [(row.backbone, row.layer) for row in ranking] == [(backbones[1], "penultimate")]


def test_all_reasons_are_named_if_every_backbone_fails():
    with pytest.raises(TrainingError, match=r"(?s)'nonsense': UnknownBackbone.*'stage99': ValueError"):
        rank_backbones(X, Y, ["nonsense", TINY["backbone"]], ["stage99"], cv=3, **RANDOM)


def test_images_that_cannot_be_read_are_an_error_at_once():
    with pytest.raises(ImageError, match="image 7 "):
        images = [row.reshape(8, 8).astype(np.uint8) for row in X]
        images[7] = b"no picture"
        rank_backbones(images, Y, TINY["backbone"], cv=3, weights=None, image_size=32)
