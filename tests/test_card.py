"""`card`: what it says is what the model is, and its numbers are right."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_score, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import sktransfer
from pictures import noise
from sktransfer import (
    ExportError,
    FineTunedCNNClassifier,
    LabelError,
    PretrainedCNNFeatures,
    card,
    make_feature_classifier,
)
from sktransfer._card import wilson_interval
from sktransfer._frozen._backbones import load_backbone
from tiny import DIGITS, FLAT, TARGET, TINY


@pytest.fixture(scope="module")
def model():
    return make_pipeline(PretrainedCNNFeatures(**TINY, **FLAT), LogisticRegression(C=1e-3)).fit(
        DIGITS[:60], TARGET[:60]
    )


def rows_of(text):
    """The rows of the table of classes, by class."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines[1:]}


def test_scores_are_right(model):
    X, y = DIGITS[60:], TARGET[60:]
    text, predicted = card(model, X=X, y=y).render(), model.predict(X)
    low, high = binomtest(int((predicted == y).sum()), len(y)).proportion_ci(method="wilson")
    assert f"Accuracy on 30 test images: {accuracy_score(y, predicted):.3f} [{low:.3f}, {high:.3f}]." in text
    assert 0 < accuracy_score(y, predicted) < 1  # so that the numbers can be wrong
    for position, name in enumerate(model.classes_):
        count, recall, precision = rows_of(text)[name]
        assert int(count) == (y == name).sum()
        assert recall.startswith(f"{recall_score(y, predicted, average=None)[position]:.3f} [")
        answered = (predicted == name).sum()
        expected = (
            f"{precision_score(y, predicted, average=None, zero_division=0)[position]:.3f} [" if answered else "–"
        )
        assert precision.startswith(expected)


@pytest.mark.parametrize("hits, n", [(0, 1), (1, 1), (0, 30), (8, 10), (372, 372), (150, 300)])
def test_wilson_interval(hits, n):
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson_interval(hits, n), expected, atol=1e-12)


def test_without_test_images_no_score_is_claimed(model):
    text = card(model).render()
    assert "the accuracy of the model is not known" in text and "Accuracy on" not in text
    assert "not described" in text
    assert "900 photos of our own" in card(model, data="900 photos of our own, CC BY 4.0.").render()


def test_card_says_what_the_model_is(model):
    text = card(model).render()
    assert "3 classes" in text and "one, two, zero" in text
    n_stages = len(load_backbone("timm/test_efficientnet", None).stages)
    assert f"Network: timm/test_efficientnet. All {n_stages} stages are frozen." in text
    assert "Weights: random weights." in text
    assert "`C=0.001`" in text and "`image_size=32`" in text and "verbose" not in text
    assert f"sktransfer {sktransfer.__version__}" in text
    assert "central 32 × 32 pixels" in text
    assert "one of its classes for every picture" in text and "find_duplicates" in text


def test_embedded_weights_and_their_licence():
    X = [noise(40, 40, 3, seed=seed) for seed in range(4)]
    clf = FineTunedCNNClassifier(freeze=6, image_size=64, max_epochs=0, random_state=0).fit(X, [0, 1, 0, 1])
    text = card(clf).render()
    assert "EfficientNet-Lite0 by Google, Apache-2.0" in text
    assert "6 of its 8 stages are frozen" in text


def test_what_was_chosen_on_held_out_images_is_said():
    model = make_feature_classifier(**TINY, **FLAT, cv=2).fit(DIGITS[:60], TARGET[:60])
    model.n_stages_, model.C_ = 3, 0.1
    assert "- FeatureClassifier with `cv=2`. It reads the last 3 stages, with `C=0.1`\n" in card(model).render()
    model.n_stages_ = 1
    assert "It reads the last stage, with" in card(model).render()


def test_card_is_written(model, tmp_path):
    returned = card(model, tmp_path / "cells.md")
    text = (tmp_path / "cells.md").read_text(encoding="utf-8")
    assert text == returned.render().lstrip() and text.startswith("# cells\n")
    assert "sktransfer.load('cells.sktransfer')" in text
    returned.add(**{"cells/Contact": "Write to us."})
    assert "## Contact" in returned.render()


def test_names_of_classes_do_not_break_the_table():
    X = [noise(32, 32, 3, seed=seed) for seed in range(6)]
    y = np.array(["a|b", "line\nbreak"])[np.arange(6) % 2]
    model = make_pipeline(PretrainedCNNFeatures(**TINY), SVC()).fit(X, y)
    text = card(model, X=X, y=y).render()
    assert "| a\\|b | 3 |" in text and "| line break | 3 |" in text


def test_labels_that_the_model_does_not_know_count_as_wrong(model):
    text = card(model, X=DIGITS[:2], y=["three", TARGET[1]]).render()
    assert "does not know: three." in text
    expected = (model.predict(DIGITS[1:2]) == TARGET[1]).sum() / 2
    assert f"Accuracy on 2 test images: {expected:.3f}" in text


def test_wrong_arguments(model):
    with pytest.raises(ValueError, match="Pass both X and y"):
        card(model, X=DIGITS)
    with pytest.raises(LabelError):
        card(model, X=DIGITS[:3], y=TARGET[:2])
    with pytest.raises(NotFittedError):
        card(FineTunedCNNClassifier())
    with pytest.raises(ExportError, match="reads the images"):
        card(LogisticRegression().fit(DIGITS, TARGET))
