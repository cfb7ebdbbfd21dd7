"""Grad-CAM: the map lies on the object, at whatever depth is frozen, and leaves the classifier as it was."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from canvas import assert_legible, pixel_at
from pictures import noise
from processes import fresh
from sktransfer import (
    FineTunedCNNClassifier,
    GradCAMDisplay,
    make_feature_classifier,
)
from sktransfer._finetuning._network import whole_network
from sktransfer._parameters import resolve_backbone
from tiny import DIGITS, FLAT, SCRATCH, TARGET

SIDE, SQUARE = 48, 16  # pixels
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30)}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


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
    return FineTunedCNNClassifier(**SCRATCH, **FLAT, max_epochs=1).fit(DIGITS[:40], TARGET[:40])


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
    images = noise(4, 40, 100, 3)
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
    with pytest.raises(TypeError, match="draws a FineTunedCNNClassifier.*got a FeatureClassifier"):
        GradCAMDisplay.from_estimator(make_feature_classifier(), [])
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


# --- what is missing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["matplotlib", "captum"])
def test_a_missing_library_is_named(monkeypatch, scratch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{module}.*pip install 'sktransfer\[plot\]'"):
        GradCAMDisplay.from_estimator(scratch, DIGITS[:1])


def test_matplotlib_is_imported_to_plot_and_not_before():
    code = (
        "import sys, sktransfer; sktransfer.GradCAMDisplay, sktransfer.FineTunedCNNClassifier;"
        "assert not {'matplotlib', 'captum'} & set(sys.modules)"
    )
    fresh(code)
