"""Displays: what is drawn equals the numbers, lies where it should, and can be read."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, LearningCurveDisplay
from sklearn.pipeline import make_pipeline

from canvas import assert_legible, pixel_at, shown
from sktransfer import (
    FineTunedCNNClassifier,
    FreezeDepthDisplay,
    MistakesDisplay,
    PretrainedCNNFeatures,
    StrategyComparisonDisplay,
    TrainingHistoryDisplay,
)
from tiny import DIGITS, FLAT, SCRATCH, TARGET


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


# --- training history -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    clf = FineTunedCNNClassifier(**SCRATCH, **FLAT, max_epochs=5, lr=0.01, early_stopping=True, validation_fraction=0.3)
    return clf.fit(DIGITS, TARGET)


def test_history_draws_the_records(trained):
    display = TrainingHistoryDisplay.from_estimator(trained, metrics=["loss", "accuracy", "lr"])
    assert set(display.lines_) == {"train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "lr"}
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(line.get_ydata(), [record[name] for record in trained.history_])
    best = 1 + np.argmin([record["valid_loss"] for record in trained.history_])
    (mark,) = [line for line in display.axes_["loss"].lines if line.get_linestyle() == ":"]
    assert mark.get_xdata()[0] == best
    assert {"Epoch", "Loss", "Accuracy", "Learning rate", "training", "validation"} <= shown(display.figure_)
    assert_legible(display.figure_)


def test_history_without_validation_and_within_given_axes():
    history = [{"epoch": 1, "train_loss": 0.7, "train_accuracy": 0.5, "lr": 0.1, "lr_pretrained": 0.0}]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3), layout="constrained")
    display = TrainingHistoryDisplay(history=history).plot(ax=left)
    assert display.ax_ is left and display.figure_ is figure
    assert set(display.lines_) == {"train_loss", "train_accuracy"}
    assert "best epoch" not in shown(figure)
    assert_legible(figure)
    display.plot(ax=right, metrics="accuracy", line_kw={"color": "red"})
    assert display.axes_ == {"accuracy": right} and display.lines_["train_accuracy"].get_color() == "red"


def test_history_says_what_is_wrong(trained):
    with pytest.raises(NotFittedError):
        TrainingHistoryDisplay.from_estimator(FineTunedCNNClassifier())
    with pytest.raises(ValueError, match="expected some of"):
        TrainingHistoryDisplay.from_estimator(trained, metrics="f1")


# --- comparison of strategies -----------------------------------------------------------------------------


def comparison(**changes):
    scores = {
        "features + linear": np.array([0.8, 0.9, 0.85]),
        "fine-tuned, freeze=4": np.array([0.9, 0.95, 0.88]),
        "from scratch with a long name $x$": np.array([0.5, 0.6, 0.4]),
    }
    seconds = dict(zip(scores, [3.4, 130.0, 7200.0], strict=True))
    left_out = {"shallow from scratch": "needs about 9 min"}
    return SimpleNamespace(
        **{"scores_": scores, "seconds_": seconds, "left_out_": left_out, "scoring": "balanced_accuracy"} | changes
    )


def test_comparison_draws_folds_means_and_seconds():
    compared = comparison()
    display = StrategyComparisonDisplay.from_comparison(compared)
    for height, scores in enumerate(compared.scores_.values()):
        np.testing.assert_array_equal(display.folds_[height].get_xdata(), scores)
        assert display.means_[height].get_xdata()[0] == scores.mean()
        assert set(display.folds_[height].get_ydata()) == {height}
        colour = "C1" if height == 1 else "C0"  # the best stands out
        np.testing.assert_allclose(pixel_at(display.ax_, scores.mean(), height), to_rgb(colour), atol=0.02)
    texts = shown(display.figure_)
    assert {*compared.scores_, "3.4 s", "2.2 min", "2.0 h", "balanced accuracy (◆ mean of 3 folds)"} <= texts
    assert not texts & set(compared.left_out_)
    assert_legible(display.figure_)
    heights = [display.ax_.transData.transform((0, height))[1] for height in range(3)]
    assert heights == sorted(heights, reverse=True), "the first is on top"


def test_comparison_of_one_strategy_within_given_axes():
    _, ax = plt.subplots()
    display = StrategyComparisonDisplay.from_comparison(comparison(scores_={"features + linear": [0.8, 0.9]}), ax=ax)
    assert display.ax_ is ax and len(display.means_) == 1
    assert plt.get_fignums() == [ax.figure.number], "no second figure"


# --- depth of freezing ------------------------------------------------------------------------------------


def searched(grid, estimator=None, **params):
    estimator = FineTunedCNNClassifier(**SCRATCH, **FLAT, max_epochs=1) if estimator is None else estimator
    return GridSearchCV(estimator, grid, cv=2, refit=False, **params).fit(DIGITS[:40], TARGET[:40])


def test_freeze_depth_resolves_names_and_takes_the_best():
    search = searched({"freeze": ["all", "stage2", "auto", 3], "lr": [1e-3, 1e-2]})
    display = FreezeDepthDisplay.from_search(search)
    results = search.cv_results_
    assert display.depths.tolist() == [4, 4, 2, 2, 0, 0, 3, 3] and display.n_stages == 4
    means = results["mean_test_score"].reshape(4, 2)
    (line,) = display.lines_
    assert line.get_xdata().tolist() == [0, 2, 3, 4]
    np.testing.assert_array_equal(line.get_ydata(), means.max(axis=1)[[2, 1, 3, 0]])
    np.testing.assert_array_equal(np.sort(display.candidates_.get_offsets()[:, 1]), np.sort(means.ravel()))
    assert {"0\nnone", "4\nall", "Frozen stages, of 4", "accuracy"} <= shown(display.figure_)
    assert_legible(display.figure_)


def test_freeze_depth_in_a_pipeline_with_a_line_for_each_value():
    clf = FineTunedCNNClassifier(**SCRATCH, **FLAT, max_epochs=1)
    pipeline = make_pipeline("passthrough", clf)
    grid = {f"finetunedcnnclassifier__{name}": values for name, values in {"freeze": [0, 4], "lr": [0.1, 0.2]}.items()}
    search = searched(grid, pipeline, scoring=["accuracy", "f1_macro"])
    display = FreezeDepthDisplay.from_search(search, by="finetunedcnnclassifier__lr", metric="f1_macro")
    assert [line.get_label() for line in display.lines_] == [f"finetunedcnnclassifier__lr={lr}" for lr in (0.1, 0.2)]
    means = search.cv_results_["mean_test_f1_macro"].reshape(2, 2)
    for column, line in enumerate(display.lines_):
        np.testing.assert_array_equal(line.get_ydata(), means[:, column])
    assert display.candidates_ is None, "all lie on the lines"
    assert display.ax_.get_ylabel() == "f1 macro"
    with pytest.raises(ValueError, match="accuracy, f1_macro"):
        FreezeDepthDisplay.from_search(search)


def test_freeze_depth_says_what_is_wrong():
    with pytest.raises(NotFittedError):
        FreezeDepthDisplay.from_search(GridSearchCV(FineTunedCNNClassifier(), {"freeze": [0]}))
    search = searched({"lr": [1e-3]})
    with pytest.raises(ValueError, match="went over lr, not over freeze"):
        FreezeDepthDisplay.from_search(search)
    with pytest.raises(ValueError, match="did not go over 'dropout', but over lr"):
        FreezeDepthDisplay.from_search(search, param_name="dropout")


def test_freeze_depth_leaves_out_failed_fits():
    nan = np.nan
    display = FreezeDepthDisplay(depths=[0, 2, 2, 4], mean_scores=[0.5, nan, 0.7, nan], std_scores=[0.1, nan, 0, nan])
    assert display.plot().lines_[0].get_xdata().tolist() == [0, 2]


# --- learning curve: scikit-learn's own -------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        FineTunedCNNClassifier(**SCRATCH, **FLAT, max_epochs=2),
        make_pipeline(PretrainedCNNFeatures("shallow_cnn", weights=None, image_size=16, **FLAT), LogisticRegression()),
    ],
    ids=["fine-tuned", "features"],
)
def test_scikit_learns_learning_curve_display(model):
    display = LearningCurveDisplay.from_estimator(model, DIGITS, TARGET, train_sizes=[20, 40], cv=2, shuffle=True)
    assert display.train_sizes.tolist() == [20, 40]
    assert display.test_scores.shape == (2, 2) and np.isfinite(display.test_scores).all()


# --- mistakes ---------------------------------------------------------------------------------------------


def test_mistakes_are_sorted_by_confidence():
    X = np.stack([np.full((10, 10), grey, dtype=np.uint8) for grey in (10, 60, 110, 160, 210)])
    y_proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.8, 0.2], [0.3, 0.7]])
    y_true = np.array([0, 0, 0, 1, 1])
    display = MistakesDisplay.from_predictions(X, y_true, y_proba, [0, 1], display_labels=["fine", "broken"], n_shown=2)
    assert display.indices.tolist() == [2, 3] and display.n_mistakes == 3
    captions = [caption.get_text() for caption in display.captions_]
    assert captions == ["is fine\ntaken for broken 0.95", "is broken\ntaken for fine 0.80"]
    for panel, grey in zip(display.axes_, (110, 160), strict=True):
        np.testing.assert_allclose(pixel_at(panel, 5, 5), grey / 255, atol=0.01)
    assert "2 of 3 mistakes among 5 images" in shown(display.figure_)
    assert_legible(display.figure_)


def test_mistakes_of_a_pipeline_on_flat_rows():
    features = PretrainedCNNFeatures("shallow_cnn", weights=None, image_size=16, **FLAT)
    model = make_pipeline(features, LogisticRegression()).fit(DIGITS[:60], TARGET[:60])
    y = TARGET[60:].copy()
    y[[3, 7]] = np.where(y[[3, 7]] == "one", "two", "one")  # wrong labels
    display = MistakesDisplay.from_estimator(model, DIGITS[60:], y)
    predicted = model.predict(DIGITS[60:])
    assert set(display.indices) == set(np.flatnonzero(predicted != y)) >= {3, 7}
    assert display.predicted_labels == predicted[display.indices].tolist()
    assert display.true_labels == y[display.indices].tolist()
    np.testing.assert_allclose(display.probabilities, model.predict_proba(DIGITS[60:])[display.indices].max(axis=1))
    expected = DIGITS[60:][display.indices[0]].reshape(8, 8) / 16 * 255
    np.testing.assert_allclose(display.images[0][..., 0], expected, atol=1)


def test_no_mistakes_make_an_empty_sheet():
    display = MistakesDisplay.from_predictions(DIGITS.reshape(-1, 8, 8) / 16, TARGET, np.eye(3)[[0] * 90], ["x"] * 3)
    assert display.n_mistakes == 90
    y_proba = (TARGET[:, None] == np.unique(TARGET)).astype(float)
    display = MistakesDisplay.from_predictions(DIGITS.reshape(-1, 8, 8) / 16, TARGET, y_proba, np.unique(TARGET))
    assert display.axes_ == [] and len(display.indices) == 0
    assert shown(display.figure_) == {"No mistakes among 90 images"}
    assert_legible(display.figure_)


@pytest.mark.parametrize("given", [False, True], ids=["new figure", "given axes"])
def test_long_labels_are_shortened_rather_than_laid_over_each_other(given):
    rng = np.random.default_rng(0)
    X = [rng.random((20, 30 if k % 2 else 12)) for k in range(7)]  # of different shapes
    classes = ["a class whose name goes on and on, further than any image is wide", "W" * 40, "costs $5 or $6"]
    y_proba = rng.dirichlet([1, 1, 1], 7)
    y_true = [classes[column] for column in y_proba.argmin(axis=1)]
    ax = plt.subplots(figsize=(9, 7))[1] if given else None
    display = MistakesDisplay.from_predictions(X, y_true, y_proba, classes, ax=ax, n_columns=4)
    assert_legible(display.figure_)
    assert all(f"{p:.2f}" in text.get_text() for p, text in zip(display.probabilities, display.captions_, strict=True))
    assert any("…" in text.get_text() for text in display.captions_)
    assert any("$5 or $6" in text.get_text() for text in display.captions_), "dollars are no formula"


def test_mistakes_draw_other_images_than_those_predicted_from():
    clf = LogisticRegression().fit(DIGITS[:60], TARGET[:60])
    y = np.roll(TARGET[60:], 1)
    drawn = np.zeros((30, 5, 5), dtype=np.uint8)
    display = MistakesDisplay.from_estimator(clf, DIGITS[60:], y, images=drawn)
    assert display.n_mistakes == (clf.predict(DIGITS[60:]) != y).sum() and display.images[0].shape == (5, 5, 3)


def test_mistakes_say_what_is_wrong():
    ridge = RidgeClassifier().fit(DIGITS, TARGET)
    with pytest.raises(ValueError, match="RidgeClassifier has no predict_proba"):
        MistakesDisplay.from_estimator(ridge, DIGITS, TARGET)
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected \(2, 2\)"):
        MistakesDisplay.from_predictions(np.zeros((2, 8, 8)), [0, 1], np.zeros((2, 3)), [0, 1])
