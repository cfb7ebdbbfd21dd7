"""Displays: what is drawn equals the numbers, lies where it should, and can be read."""

import itertools
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, LearningCurveDisplay
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedCNNClassifier,
    FreezeDepthDisplay,
    GradCAMDisplay,
    MistakesDisplay,
    PretrainedCNNFeatures,
    StrategyComparisonDisplay,
    TrainingHistoryDisplay,
)
from sktransfer._finetuning import whole_network
from sktransfer._inputs import resolve_backbone

DIGITS, TARGET = load_digits(n_class=3, return_X_y=True)
DIGITS, TARGET = DIGITS[:90], np.array(["zero", "one", "two"])[TARGET[:90]]
FLAT = {"image_shape": (8, 8), "value_range": (0, 16)}
SCRATCH = {"backbone": "shallow_cnn", "weights": None, "image_size": 16, "random_state": 0, **FLAT}
SIDE, SQUARE = 48, 16  # pixels
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30)}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


# --- what is on the canvas --------------------------------------------------------------------------------


def drawn_texts(figure):
    """All texts that the figure shows, with their bounding boxes in pixels."""
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    hidden = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not axes.axison or not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    hidden |= {tick.label1, tick.label2}
            if not axes.axison:
                hidden |= {axis.label, axis.get_offset_text()}
    return {text: text.get_window_extent() for text in texts if text not in hidden}


def assert_legible(figure):
    """No text is cut off by the figure's edge, and none lies on another."""
    boxes = drawn_texts(figure)
    assert boxes
    for text, box in boxes.items():
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        shared = Bbox.intersection(a, b)
        assert shared is None or min(shared.width, shared.height) < 1.5, (one, other)


def shown(figure):
    return {text.get_text() for text in drawn_texts(figure)}


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def pixel_at(axes, x, y):
    """The colour drawn at these data coordinates."""
    canvas = pixels(axes.figure)
    column, row = axes.transData.transform((x, y))
    return canvas[len(canvas) - 1 - int(row), int(column)]


# --- training history -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    clf = FineTunedCNNClassifier(**SCRATCH, max_epochs=5, lr=0.01, early_stopping=True, validation_fraction=0.3)
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
    estimator = FineTunedCNNClassifier(**SCRATCH, max_epochs=1) if estimator is None else estimator
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
    clf = FineTunedCNNClassifier(**SCRATCH, max_epochs=1)
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
        FineTunedCNNClassifier(**SCRATCH, max_epochs=2),
        make_pipeline(PretrainedCNNFeatures("shallow_cnn", weights=None, image_size=16, **FLAT), LogisticRegression()),
    ],
    ids=["fine-tuned", "features"],
)
def test_scikit_learns_learning_curve_display(model):
    display = LearningCurveDisplay.from_estimator(model, DIGITS, TARGET, train_sizes=[20, 40], cv=2, shuffle=True)
    assert display.train_sizes.tolist() == [20, 40]
    assert display.test_scores.shape == (2, 2) and np.isfinite(display.test_scores).all()


# --- Grad-CAM ---------------------------------------------------------------------------------------------


def squares(n, seed):
    """Grey noise, with a red or a green square somewhere or neither; return images, labels, masks of the squares."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 166, (n, SIDE, SIDE, 3)).astype(np.uint8)
    masks = np.zeros((n, SIDE, SIDE), dtype=bool)
    y = np.array(["red", "green", "neither"])[np.arange(n) % 3]
    for k in range(n):
        top, left = rng.integers(0, SIDE - SQUARE, 2)
        if y[k] != "neither":
            masks[k, top : top + SQUARE, left : left + SQUARE] = True
            images[k][masks[k]] = COLOURS[y[k]]
    return images, y, masks


def coloured_squares(n, seed):
    images, y, masks = squares(n, seed)
    coloured = y != "neither"
    return images[coloured], y[coloured], masks[coloured]


@pytest.fixture(scope="module", params=[(0, 8), (2, 10), ("all", 60)], ids=["freeze=0", "freeze=2", "freeze=all"])
def seer(request):
    """A classifier of coloured squares, frozen to some depth."""
    freeze, max_epochs = request.param
    images, y, _ = squares(60, seed=0)
    clf = FineTunedCNNClassifier(
        "shallow_cnn", weights=None, image_size=SIDE, freeze=freeze, max_epochs=max_epochs, lr=0.01, random_state=0
    )
    return clf.fit(images, y)


def whole(clf):
    return whole_network(clf, resolve_backbone(clf, clf._seed))


def test_whole_network_predicts_as_the_classifier(seer):
    images, _, _ = squares(5, seed=1)
    probabilities = whole(seer)(torch.from_numpy(images)).softmax(dim=1)
    np.testing.assert_allclose(probabilities, seer.predict_proba(images), atol=2e-4)


def test_whole_network_of_the_embedded_backbone():
    images, y, _ = squares(12, seed=1)
    clf = FineTunedCNNClassifier(freeze=8, image_size=64, max_epochs=0, random_state=0).fit(images, y)
    backbone = resolve_backbone(clf)
    canvases = torch.from_numpy(np.stack([backbone.preprocessing.canvas(image) for image in images[:3]]))
    probabilities = whole(clf)(canvases).softmax(dim=1)
    np.testing.assert_allclose(probabilities, clf.predict_proba(images[:3]), atol=2e-4)
    display = GradCAMDisplay.from_estimator(clf, images[:3])
    np.testing.assert_array_equal(display.images, canvases)
    np.testing.assert_allclose(display.probabilities, probabilities.max(dim=1).values, atol=2e-4)


def test_grad_cam_lies_on_the_object(seer):
    images, y, masks = coloured_squares(18, seed=2)
    assert seer.score(images, y) == 1
    display = GradCAMDisplay.from_estimator(seer, images)
    assert display.targets == y.tolist()
    assert display.heatmaps.shape == masks.shape and (display.heatmaps >= 0).all()
    np.testing.assert_array_equal(display.images, images)
    finer = GradCAMDisplay.from_estimator(seer, images, layer="stage3")
    rows, columns = np.indices(masks.shape[1:])
    for coarse, fine, mask in zip(display.heatmaps, finer.heatmaps, masks, strict=True):
        assert coarse[mask].mean() > 1.3 * coarse[~mask].mean()
        assert fine[mask].mean() > 2 * fine[~mask].mean()
        peak = [np.average(axis, weights=fine**2) for axis in (rows, columns)]
        centre = [rows[mask].mean(), columns[mask].mean()]
        assert np.abs(np.subtract(peak, centre)).max() < SQUARE / 2


def test_grad_cam_moves_with_the_object(seer):
    """The same square in the opposite corner, and each map lies on its own side."""
    images = np.full((2, SIDE, SIDE, 3), 128, dtype=np.uint8)
    images[0, 2 : 2 + SQUARE, 2 : 2 + SQUARE] = images[1, -SQUARE - 2 : -2, -SQUARE - 2 : -2] = COLOURS["green"]
    first, second = GradCAMDisplay.from_estimator(seer, images, targets="green", layer="stage3").heatmaps
    half = SIDE // 2
    assert first[:half, :half].sum() > 2 * first[half:, half:].sum()
    assert second[half:, half:].sum() > 2 * second[:half, :half].sum()


def test_grad_cam_tells_the_classes_of_two_objects_apart(seer):
    image = np.full((1, SIDE, SIDE, 3), 128, dtype=np.uint8)
    image[0, 16:32, 2:18], image[0, 16:32, -18:-2] = COLOURS["red"], COLOURS["green"]
    maps = {
        colour: GradCAMDisplay.from_estimator(seer, image, targets=[colour], layer="stage3").heatmaps[0]
        for colour in COLOURS
    }
    half = SIDE // 2
    left_share = {colour: heat[:, :half].sum() / heat.sum() for colour, heat in maps.items()}
    assert left_share["red"] > 0.6 and left_share["green"] < 0.4, left_share


def test_grad_cam_targets(seer):
    images, y, _ = coloured_squares(6, seed=3)
    own = GradCAMDisplay.from_estimator(seer, images, targets=y)
    red = GradCAMDisplay.from_estimator(seer, images, targets="red")
    assert own.targets == y.tolist() and red.targets == ["red"] * len(y)
    column = list(seer.classes_).index("red")
    np.testing.assert_allclose(red.probabilities, seer.predict_proba(images)[:, column], atol=2e-4)
    same = [np.allclose(a, b) for a, b in zip(own.heatmaps, red.heatmaps, strict=True)]
    assert same == (y == "red").tolist()


def test_grad_cam_at_the_last_stage_is_its_closed_form(seer):
    """With average pooling and one dense layer the gradient is the layer's weights: CAM (Zhou et al. 2016)."""
    images, _, _ = squares(2, seed=4)
    display = GradCAMDisplay.from_estimator(seer, images, targets="red", layer="stage4")
    network = whole(seer)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) * network.body.scale + network.body.shift
    maps = network.body.stages(x)
    weights = network.head[-1].weight[list(seer.classes_).index("red")]
    expected = torch.relu(torch.einsum("nchw,c->nhw", maps, weights)) / maps[0, 0].numel()
    expected = torch.nn.functional.interpolate(expected[:, None], (SIDE, SIDE), mode="bilinear")[:, 0]
    np.testing.assert_allclose(display.heatmaps, expected, rtol=1e-3, atol=1e-5)


def test_grad_cam_leaves_the_classifier_as_it_was(seer):
    images, _, _ = squares(2, seed=5)
    module = seer.net_.module_.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    proba, random_state = seer.predict_proba(images), torch.get_rng_state()
    module.train()
    state = [(part.training, len(part._forward_hooks), len(part._backward_hooks)) for part in module.modules()]
    needs = [parameter.requires_grad for parameter in module.parameters()]
    GradCAMDisplay.from_estimator(seer, images)
    GradCAMDisplay.from_estimator(seer, images, layer="stage2")
    assert [(part.training, len(part._forward_hooks), len(part._backward_hooks)) for part in module.modules()] == state
    assert [parameter.requires_grad for parameter in module.parameters()] == needs
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    frozen = resolve_backbone(seer, seer._seed).stages
    assert not any(part._forward_hooks or part._backward_hooks or part.training for part in frozen.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    np.testing.assert_array_equal(seer.predict_proba(images), proba)


@pytest.fixture(scope="module")
def scratch():
    """A small network of its own, for what does not depend on the backbone."""
    return FineTunedCNNClassifier(**SCRATCH, max_epochs=1).fit(DIGITS[:40], TARGET[:40])


def test_grad_cam_is_drawn_over_the_image(scratch):
    display = GradCAMDisplay.from_estimator(scratch, DIGITS[:5], targets="one", n_columns=3)
    assert len(display.axes_) == 5
    assert [caption.get_text()[:3] for caption in display.captions_] == ["one"] * 5
    assert_legible(display.figure_)
    heat, image = np.zeros((2, 8, 12)), np.full((2, 8, 12, 3), 200, dtype=np.uint8)
    heat[0, 2, 9] = 3.0  # the second map is 0 everywhere
    display = GradCAMDisplay(images=image, heatmaps=heat, targets=["a", "b"], probabilities=np.array([0.9, 0.1]))
    display.plot(im_kw={"cmap": "Reds_r", "interpolation": "nearest"}, n_columns=1)
    hot, empty = display.axes_
    grey = np.full(3, 200 / 255)
    start = display.overlays_[0].get_extent()[0] + 0.5
    assert start >= 12, "to the right of the plain image"
    assert not np.allclose(pixel_at(hot, start + 9, 2), grey, atol=0.05), "at its place"
    for x, y in [(9, 2), (start + 2, 2), (start + 9, 5), (start + 10, 2)]:
        np.testing.assert_allclose(pixel_at(hot, x, y), grey, atol=0.01)
    np.testing.assert_allclose(pixel_at(empty, start + 9, 2), grey, atol=0.01)
    display.plot(show_images=False, im_kw={"cmap": "Reds_r", "interpolation": "nearest"})
    assert not np.allclose(pixel_at(display.axes_[0], 9, 2), grey, atol=0.05)


def test_grad_cam_takes_the_last_stage_that_has_places():
    """The last stage of ConvNeXt pools: its map would have a single place."""
    clf = FineTunedCNNClassifier("timm/test_convnext", weights=None, image_size=32, max_epochs=0, random_state=0)
    images, y, _ = squares(9, seed=0)
    clf.fit(images, y)
    heatmaps = [GradCAMDisplay.from_estimator(clf, images, targets=label).heatmaps for label in clf.classes_]
    assert np.ptp(heatmaps, axis=(-1, -2)).max() > 0
    flat = [GradCAMDisplay.from_estimator(clf, images, targets=y[0], layer="stage5").heatmaps]
    assert np.ptp(flat, axis=(-1, -2)).max() < 1e-5


def test_grad_cam_shows_what_the_network_sees():
    """Of a wide image the middle, and the map at its size."""
    clf = FineTunedCNNClassifier("shallow_cnn", weights=None, image_size=(32, 24), max_epochs=1, random_state=0)
    images = np.random.default_rng(0).integers(0, 255, (4, 40, 100, 3)).astype(np.uint8)
    display = GradCAMDisplay.from_estimator(clf.fit(images, [0, 1, 0, 1]), images[:2], display_labels=["no", "yes"])
    expected = [resolve_backbone(clf, clf._seed).preprocessing.canvas(image) for image in images[:2]]
    np.testing.assert_array_equal(display.images, expected)
    assert display.heatmaps.shape == (2, 32, 24) and set(display.targets) <= {"no", "yes"}
    for panel, overlay in zip(display.axes_, display.overlays_, strict=True):
        plain, under, over = panel.images
        assert over is overlay and tuple(over.get_extent()) == tuple(under.get_extent())
        left, right, bottom, top = over.get_extent()
        assert (right - left, bottom - top) == (24, 32) and left >= plain.get_extent()[1]
    assert_legible(display.figure_)


def test_grad_cam_says_what_is_wrong(scratch):
    with pytest.raises(NotFittedError):
        GradCAMDisplay.from_estimator(FineTunedCNNClassifier(), DIGITS[:1])
    with pytest.raises(ValueError, match="'three', which is no class"):
        GradCAMDisplay.from_estimator(scratch, DIGITS[:1], targets="three")
    with pytest.raises(ValueError, match="2 labels for 1 images"):
        GradCAMDisplay.from_estimator(scratch, DIGITS[:1], targets=["one", "two"])
    with pytest.raises(ValueError, match="stage1, stage2"):
        GradCAMDisplay.from_estimator(scratch, DIGITS[:1], layer="conv1")
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        GradCAMDisplay.from_estimator(scratch, DIGITS[:1], display_labels=["a", "b"])


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


# --- what is missing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["matplotlib.pyplot", "captum.attr"])
def test_a_missing_library_is_named(monkeypatch, scratch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{module.partition('.')[0]}.*pip install 'sktransfer\[plot\]'"):
        GradCAMDisplay.from_estimator(scratch, DIGITS[:1])


def test_matplotlib_is_imported_to_plot_and_not_before():
    code = (
        "import sys, sktransfer; sktransfer.GradCAMDisplay, sktransfer.FineTunedCNNClassifier;"
        "assert not {'matplotlib', 'captum'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
