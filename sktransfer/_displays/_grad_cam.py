"""`GradCAMDisplay`: the regions of an image that support a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .._finetuning._network import whole_network
from .._frozen._engines import CACHED_IMAGES, resolve_device
from .._frozen._layout import tokens_of
from .._optional import require
from .._parameters import as_seen, make_extractor, resolve_stage
from .._protocols import Tuned
from .._validation import check_images
from ._panels import IMAGE_SIDE, Keywords, check_display_labels, sheet, write_caption


@dataclass(kw_only=True, eq=False, repr=False)
class GradCAMDisplay:
    """Grad-CAM heat maps [1]_ over the images as the network sees them, resized and cropped.

    Use `from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    images : ndarray of shape (n_images, H, W, 3), uint8
        The images as the network sees them.
    heatmaps : ndarray of shape (n_images, H, W)
        How much each place supports the class, 0 or more, in the scale of the logits' gradient.
    targets : sequence of str
        The class of each map.
    probabilities : ndarray of shape (n_images,)
        Probabilities of the target classes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The invisible axes around the images.
    axes_ : list of matplotlib Axes
        One per image.
    overlays_ : list of matplotlib AxesImage
        The heat maps.
    captions_ : list of matplotlib Text
        One per image.
    figure_ : matplotlib Figure

    Notes
    -----
    Each map is drawn relative to its own largest value. If a map is 0 everywhere, nothing in the image supports the
    class. Maps are as coarse as the activations of their layer, often 7 × 7. They do not use the classifier's
    test-time augmentation.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization",
       ICCV 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedCNNClassifier, GradCAMDisplay
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> clf = FineTunedCNNClassifier(
    ...     "shallow_cnn", weights=None, image_shape=(8, 8), value_range=(0, 16), image_size=32, max_epochs=1
    ... )
    >>> display = GradCAMDisplay.from_estimator(clf.fit(X[:40], y[:40]), X[40:43])
    >>> display.heatmaps.shape
    (3, 32, 32)
    """

    __module__ = "sktransfer"

    images: np.ndarray
    heatmaps: np.ndarray
    targets: list[str]
    probabilities: np.ndarray

    @classmethod
    def from_estimator(
        cls,
        estimator: Tuned,
        X: Any,
        *,
        targets: Any = None,
        layer: str | None = None,
        display_labels: Any = None,
        n_columns: int = 3,
        ax: Any = None,
        show_images: bool = True,
        im_kw: Keywords | None = None,
        text_kw: Keywords | None = None,
    ) -> GradCAMDisplay:
        """Compute and draw the maps of some images.

        Parameters
        ----------
        estimator : FineTunedCNNClassifier
            A fitted classifier of any freeze depth. It is not changed.
        X : images
            A few images. All of them are drawn.
        targets : label or array-like of shape (n_images,), default=None
            The class of the maps, one for all images or one for each. None takes the most probable class.
        layer : str, default=None
            The stage whose activations are weighted. None takes the last stage whose maps have more than one place.
        display_labels : array-like of str, default=None
            Names of the classes, in the order of ``classes_``.
        n_columns : int, default=3
            Images in a row.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        show_images : bool, default=True
            Draw each image also without its map, to the left.
        im_kw : dict, default=None
            Keywords of the heat maps' ``imshow``, such as ``cmap``.
        text_kw : dict, default=None
            Keywords of the captions.

        Returns
        -------
        display : GradCAMDisplay
            It holds what was drawn.
        """
        if not hasattr(estimator, "freeze"):
            raise TypeError(
                f"GradCAMDisplay draws a FineTunedCNNClassifier, whose head is part of the network; got a "
                f"{type(estimator).__name__}. FineTunedCNNClassifier(freeze='all') trains such a head in seconds."
            )
        check_is_fitted(estimator, "net_")
        images = check_images(estimator, X, reset=False)
        backbone = as_seen(estimator, estimator._fitted_backbone())
        canvases = make_extractor(estimator, backbone).canvases(images, np.arange(len(images)))
        network = whole_network(estimator, backbone)
        depth = _deepest_map(network, canvases[:1]) if layer is None else resolve_stage(layer, backbone)
        columns = _columns(targets, estimator.classes_, len(images))
        names = check_display_labels(display_labels, estimator.classes_)

        heatmaps, chosen, probabilities = [], [], []
        for first in range(0, len(canvases), CACHED_IMAGES):
            rows = slice(first, first + CACHED_IMAGES)
            part = torch.from_numpy(canvases[rows]).to(resolve_device(estimator.device))
            with torch.no_grad():
                proba = network(part).softmax(dim=1)
            target = proba.argmax(dim=1) if columns is None else torch.from_numpy(columns[rows]).to(part.device)
            heatmaps.append(grad_cam(network, depth, part, target).cpu().numpy())
            chosen.append(target.cpu().numpy())
            probabilities.append(proba.gather(1, target[:, None])[:, 0].cpu().numpy())
        display = cls(
            images=canvases,
            heatmaps=np.concatenate(heatmaps),
            targets=[names[column] for column in np.concatenate(chosen)],
            probabilities=np.concatenate(probabilities),
        )
        return display.plot(ax=ax, n_columns=n_columns, show_images=show_images, im_kw=im_kw, text_kw=text_kw)

    def plot(
        self,
        ax: Any = None,
        *,
        n_columns: int = 3,
        show_images: bool = True,
        im_kw: Keywords | None = None,
        text_kw: Keywords | None = None,
    ) -> GradCAMDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        n_columns : int, default=3
            Images in a row.
        show_images : bool, default=True
            Draw each image also without its map, to the left.
        im_kw : dict, default=None
            Keywords of the heat maps' ``imshow``, such as ``cmap``.
        text_kw : dict, default=None
            Keywords of the captions.

        Returns
        -------
        display : GradCAMDisplay
            It holds what was drawn.
        """
        n_images, height, width = self.heatmaps.shape
        # The map lies over the second of two copies, or over the only one.
        left = 1.03 * width - 0.5 if show_images else -0.5
        size = (IMAGE_SIDE * (left + width + 0.5) / width, IMAGE_SIDE * height / width)
        ax, self.axes_ = sheet(ax, "GradCAMDisplay", n_images, n_columns, size, caption_lines=1)
        self.overlays_, self.captions_ = [], []
        for panel, image, heatmap in zip(self.axes_, self.images, self.heatmaps, strict=True):
            place = (left, left + width, height - 0.5, -0.5)
            if show_images:
                panel.imshow(image)
            panel.imshow(image, extent=place)
            heat = heatmap / (heatmap.max() or 1.0)
            style = {"cmap": "inferno", "vmin": 0, "vmax": 1, "alpha": 0.75 * np.sqrt(heat), **(im_kw or {})}
            self.overlays_.append(panel.imshow(heat, extent=place, **style))
            panel.set(xlim=(-0.5, left + width), ylim=(height - 0.5, -0.5))
        for k, panel in enumerate(self.axes_):
            line = ("", self.targets[k], f" {self.probabilities[k]:.2f}")
            self.captions_.append(write_caption(panel, [line], **(text_kw or {})))
        self.ax_, self.figure_ = ax, ax.figure
        return self


def grad_cam(network: Any, depth: int, canvases: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the heat maps (n, H, W) of a `whole_network`, 0 or more, at the size of the canvases.

    The activations of stage `depth`, counted from 1, are weighted. The targets are columns of the logits.
    """
    require("GradCAMDisplay", "plot", "captum", "matplotlib")
    from captum import attr

    # The weights have requires_grad=False, so the input must require a gradient to get one at the layer.
    inputs = canvases.float().requires_grad_()
    method = attr.LayerGradCam(network, network.body.stages[depth - 1])
    maps = method.attribute(inputs, targets, relu_attributions=True)
    tokens = tokens_of(network.body.stages[depth - 1])
    if tokens.n_prefix:
        maps = maps[:, :, tokens.n_prefix :].unflatten(2, tokens.grid)[..., 0]
    size = tuple(canvases.shape[1:3])
    large: torch.Tensor = attr.LayerAttribution.interpolate(maps, size, interpolate_mode="bilinear")
    return large[:, 0].detach()


def _deepest_map(network: Any, canvas: np.ndarray) -> int:
    """Return the last stage, counted from 1, whose map has more than one place on which the logits depend.

    If the class token is pooled, the logits depend on no other token of the last stages.
    """
    maps: list[torch.Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda module, inputs, output: maps.append(output)) for stage in network.body.stages
    ]
    inputs = torch.from_numpy(canvas).to(network.body.scale.device).float().requires_grad_()
    logits = network(inputs)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(logits.max(), maps)
    places = [
        gradient[:, :, tokens_of(stage).n_prefix :].abs().sum(dim=1)
        for stage, gradient in zip(network.body.stages, gradients, strict=True)
    ]
    return max((depth for depth, place in enumerate(places, start=1) if place.numel() > 1 and place.any()), default=1)


def _columns(targets: Any, classes: np.ndarray, n_images: int) -> np.ndarray | None:
    """Return the position of each target among the classes; None for the most probable ones."""
    if targets is None:
        return None
    labels = [targets] * n_images if np.ndim(targets) == 0 else list(targets)
    if len(labels) != n_images:
        raise ValueError(f"targets has {len(labels)} labels for {n_images} images. Pass one for all, or one for each.")
    positions = {label: column for column, label in enumerate(classes.tolist())}
    unknown = [label for label in labels if label not in positions]
    if unknown:
        raise ValueError(f"targets holds {unknown[0]!r}, which is no class. The classes are {classes.tolist()}.")
    return np.array([positions[label] for label in labels])
