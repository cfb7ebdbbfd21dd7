"""`MistakesDisplay`: the images that a classifier gets wrong with the highest probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from .._images._collection import as_images
from .._protocols import Classifies
from ._panels import IMAGE_SIDE, THUMBNAIL, Keywords, check_display_labels, sheet, thumbnail, write_caption


@dataclass(kw_only=True, eq=False, repr=False)
class MistakesDisplay:
    """A sheet of the most confident mistakes, with their true and their predicted labels.

    Wrong labels and unusual images often appear here first. Use `from_estimator` or `from_predictions` to create it.
    All parameters are stored as attributes.

    Parameters
    ----------
    images : list of ndarray of shape (H, W, 3), uint8
        The images to draw, the most confident mistake first.
    indices : ndarray of shape (n_shown,)
        Positions of these images in `X`.
    true_labels, predicted_labels : sequence of str
        Labels of each drawn image.
    probabilities : ndarray of shape (n_shown,)
        Probabilities of the predicted labels.
    n_mistakes, n_images : int
        Number of mistakes, and number of all images.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The invisible axes around the images.
    axes_ : list of matplotlib Axes
        One per image.
    captions_ : list of matplotlib Text
        One per image.
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : How often each class was predicted for each true class.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import MistakesDisplay
    >>> X = np.random.default_rng(0).random((3, 16, 16))
    >>> y_proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    >>> display = MistakesDisplay.from_predictions(X, ["cat", "cat", "cat"], y_proba, ["cat", "dog"])
    >>> display.indices, display.predicted_labels
    (array([1, 2]), ['dog', 'dog'])
    """

    __module__ = "sktransfer"

    images: list[np.ndarray]
    indices: np.ndarray
    true_labels: list[str]
    predicted_labels: list[str]
    probabilities: np.ndarray
    n_mistakes: int
    n_images: int

    @classmethod
    def from_estimator(
        cls,
        estimator: Classifies,
        X: Any,
        y: Any,
        *,
        images: Any = None,
        n_shown: int = 12,
        display_labels: Any = None,
        n_columns: int = 4,
        ax: Any = None,
        im_kw: Keywords | None = None,
        text_kw: Keywords | None = None,
    ) -> MistakesDisplay:
        """Predict, and draw the most confident mistakes.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier or pipeline with ``predict_proba``.
        X : images
            Images that it was not trained on.
        y : array-like of shape (n_images,)
            True labels.
        images : images, default=None
            The images to draw, if `X` holds more than images, such as a frame with other columns.
        n_shown : int, default=12
            The largest number of images to draw.
        display_labels : array-like of str, default=None
            Names of the classes, in the order of ``classes_``.
        n_columns : int, default=4
            Images in a row.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        im_kw : dict, default=None
            Keywords of ``imshow``.
        text_kw : dict, default=None
            Keywords of the captions.

        Returns
        -------
        display : MistakesDisplay
            It holds what was drawn.
        """
        if not hasattr(estimator, "predict_proba"):
            raise ValueError(
                f"{type(estimator).__name__} has no predict_proba, so its mistakes have no order. Use a classifier "
                "that has it, such as LogisticRegression, or wrap yours in CalibratedClassifierCV."
            )
        return cls.from_predictions(
            X if images is None else images,
            y,
            estimator.predict_proba(X),
            estimator.classes_,
            image_shape=_parameter(estimator, "image_shape", None),
            value_range=_parameter(estimator, "value_range", "auto"),
            n_shown=n_shown,
            display_labels=display_labels,
            n_columns=n_columns,
            ax=ax,
            im_kw=im_kw,
            text_kw=text_kw,
        )

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        y_true: Any,
        y_proba: Any,
        classes: Any,
        *,
        image_shape: Any = None,
        value_range: Any = "auto",
        n_shown: int = 12,
        display_labels: Any = None,
        n_columns: int = 4,
        ax: Any = None,
        im_kw: Keywords | None = None,
        text_kw: Keywords | None = None,
    ) -> MistakesDisplay:
        """Draw the most confident mistakes among predictions, for instance those of `cross_val_predict`.

        Parameters
        ----------
        X : images
            Anything that the estimators accept.
        y_true : array-like of shape (n_images,)
            True labels.
        y_proba : array-like of shape (n_images, n_classes)
            Predicted probabilities.
        classes : array-like of shape (n_classes,)
            The label of each column of `y_proba`.
        image_shape : tuple of int, default=None
            Shape of one image if `X` holds flat rows, as in `PretrainedCNNFeatures`.
        value_range : "auto" or (float, float), default="auto"
            The values that mean black and white, as in `PretrainedCNNFeatures`.
        n_shown : int, default=12
            The largest number of images to draw.
        display_labels : array-like of str, default=None
            Names of the classes, in the order of `classes`.
        n_columns : int, default=4
            Images in a row.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        im_kw : dict, default=None
            Keywords of ``imshow``.
        text_kw : dict, default=None
            Keywords of the captions.

        Returns
        -------
        display : MistakesDisplay
            It holds what was drawn.
        """
        pictures = as_images(X, image_shape=image_shape, value_range=value_range)
        y_true, y_proba, classes = column_or_1d(y_true), np.asarray(y_proba), column_or_1d(classes)
        check_consistent_length(pictures, y_true, y_proba)
        if y_proba.shape != (len(y_true), len(classes)):
            raise ValueError(
                f"y_proba has shape {y_proba.shape}; expected {(len(y_true), len(classes))}, one row per image and one "
                "column per class."
            )
        names = dict(zip(classes.tolist(), check_display_labels(display_labels, classes), strict=True))
        predicted, confidence = classes[y_proba.argmax(axis=1)], y_proba.max(axis=1)
        wrong = np.flatnonzero(predicted != y_true)
        shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:n_shown]
        display = cls(
            images=[thumbnail(pictures.decode(int(row), THUMBNAIL)) for row in shown],
            indices=shown,
            true_labels=[names.get(label, str(label)) for label in y_true[shown].tolist()],
            predicted_labels=[names[label] for label in predicted[shown].tolist()],
            probabilities=confidence[shown],
            n_mistakes=len(wrong),
            n_images=len(y_true),
        )
        return display.plot(ax=ax, n_columns=n_columns, im_kw=im_kw, text_kw=text_kw)

    def plot(
        self, ax: Any = None, *, n_columns: int = 4, im_kw: Keywords | None = None, text_kw: Keywords | None = None
    ) -> MistakesDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        n_columns : int, default=4
            Images in a row.
        im_kw : dict, default=None
            Keywords of ``imshow``.
        text_kw : dict, default=None
            Keywords of the captions.

        Returns
        -------
        display : MistakesDisplay
            It holds what was drawn.
        """
        n_shown = len(self.images)
        tallness = np.median([image.shape[0] / image.shape[1] for image in self.images]) if n_shown else 1.0
        size = (IMAGE_SIDE, IMAGE_SIDE * float(np.clip(tallness, 0.5, 2)))
        ax, self.axes_ = sheet(ax, "MistakesDisplay", n_shown, n_columns, size, caption_lines=2, title=n_shown > 0)
        self.captions_ = []
        labels = zip(self.true_labels, self.predicted_labels, self.probabilities, strict=True)
        for panel, image, (true, predicted, probability) in zip(self.axes_, self.images, labels, strict=True):
            panel.imshow(image, **(im_kw or {}))
            lines = [("is ", true, ""), ("taken for ", predicted, f" {probability:.2f}")]
            self.captions_.append(write_caption(panel, lines, **(text_kw or {})))
        if n_shown == 0:
            ax.text(0.5, 0.5, f"No mistakes among {self.n_images} images", ha="center", va="center")
        elif n_shown < self.n_mistakes:
            ax.set_title(f"{n_shown} of {self.n_mistakes} mistakes among {self.n_images} images", fontsize="medium")
        else:
            ax.set_title(f"{self.n_mistakes} mistakes among {self.n_images} images", fontsize="medium")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _parameter(estimator: object, name: str, default: Any) -> Any:
    """Return a parameter of the estimator or of one within it, the first that is not at its default."""
    params = estimator.get_params() if hasattr(estimator, "get_params") else {}
    values = [value for key, value in sorted(params.items()) if key.rpartition("__")[2] == name]
    return next((value for value in values if not (isinstance(value, str) or value is None)), default)
