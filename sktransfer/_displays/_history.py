"""`TrainingHistoryDisplay`: how training went, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._protocols import History, Tuned
from ._panels import Keywords, axes_or_new, side_by_side

METRICS = {"loss": "Loss", "accuracy": "Accuracy", "lr": "Learning rate"}
_LINES = {
    "loss": {"train_loss": "training", "valid_loss": "validation"},
    "accuracy": {"train_accuracy": "training", "valid_accuracy": "validation"},
    "lr": {"lr": "head", "lr_pretrained": "pretrained stages"},
}


@dataclass(kw_only=True, eq=False, repr=False)
class TrainingHistoryDisplay:
    """Loss and accuracy of each epoch of training.

    Use `from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    history : list of dict
        One record per epoch, as in `FineTunedCNNClassifier.history_`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes around the panels, or the panel itself if there is only one.
    axes_ : dict of str to matplotlib Axes
        The panel of each metric.
    lines_ : dict of str to matplotlib Line2D
        The lines by the name of their value in the records, such as ``"train_loss"``.
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : The score over the number of training images.

    Notes
    -----
    Training values are means over the steps of an epoch, while the network learns, with dropout and augmentation.
    Validation values are measured at the end of the epoch, so they can look better than the training values.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedCNNClassifier, TrainingHistoryDisplay
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = FineTunedCNNClassifier(
    ...     "shallow_cnn", weights=None, image_shape=(8, 8), value_range=(0, 16), image_size=16, max_epochs=3
    ... )
    >>> display = TrainingHistoryDisplay.from_estimator(clf.fit(X[:60], y[:60]))
    >>> sorted(display.lines_)
    ['train_accuracy', 'train_loss']
    """

    __module__ = "sktransfer"

    history: History

    @classmethod
    def from_estimator(
        cls,
        estimator: Tuned,
        *,
        metrics: Any = ("loss", "accuracy"),
        ax: Any = None,
        line_kw: Keywords | None = None,
    ) -> TrainingHistoryDisplay:
        """Draw the history of a fitted classifier.

        Parameters
        ----------
        estimator : FineTunedCNNClassifier
            A fitted classifier.
        metrics : str or sequence of {"loss", "accuracy", "lr"}, default=("loss", "accuracy")
            One panel each, side by side.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        line_kw : dict, default=None
            Keywords of all lines.

        Returns
        -------
        display : TrainingHistoryDisplay
            It holds what was drawn.
        """
        check_is_fitted(estimator, "history_")
        return cls(history=list(estimator.history_)).plot(ax=ax, metrics=metrics, line_kw=line_kw)

    def plot(
        self, ax: Any = None, *, metrics: Any = ("loss", "accuracy"), line_kw: Keywords | None = None
    ) -> TrainingHistoryDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.
        metrics : str or sequence of {"loss", "accuracy", "lr"}, default=("loss", "accuracy")
            One panel each, side by side.
        line_kw : dict, default=None
            Keywords of all lines.

        Returns
        -------
        display : TrainingHistoryDisplay
            It holds what was drawn.
        """
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        unknown = [metric for metric in metrics if metric not in METRICS]
        if unknown or not metrics:
            raise ValueError(f"metrics={metrics!r}: expected some of {list(METRICS)}.")
        ax = axes_or_new(ax, "TrainingHistoryDisplay", (0.8 + 3.6 * len(metrics), 3.2))
        panels = side_by_side(ax, len(metrics)) if len(metrics) > 1 else [ax]
        self.ax_, self.figure_ = ax, ax.figure
        self.axes_ = dict(zip(metrics, panels, strict=True))
        self.lines_: dict[str, Any] = {}
        for metric, panel in self.axes_.items():
            self._draw(metric, panel, line_kw or {})
        return self

    def _draw(self, metric: str, panel: Any, line_kw: Keywords) -> None:
        from matplotlib.ticker import MaxNLocator

        epochs = [record["epoch"] for record in self.history]
        # If trained from scratch, the stages learn at the head's learning rate; frozen stages have none.
        pretrained_learn = any(record["lr_pretrained"] not in (0, record["lr"]) for record in self.history)
        marker = "o" if len(epochs) <= 30 else None
        for key, name in _LINES[metric].items():
            # partial_fit and warm_start may add epochs with other keys than the first ones.
            values = np.array([record.get(key, np.nan) for record in self.history], dtype=float)
            if np.isnan(values).all() or (key == "lr_pretrained" and not pretrained_learn):
                continue
            style = {"label": name, "marker": marker, "markersize": 3.5, **line_kw}
            (self.lines_[key],) = panel.plot(epochs, values, **style)
        losses = [record.get("valid_loss", np.nan) for record in self.history]
        if metric != "lr" and not np.isnan(losses).all():
            panel.axvline(epochs[int(np.nanargmin(losses))], color="grey", linestyle=":", label="best epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.set(xlabel="Epoch", ylabel=METRICS[metric])
        # The legend is above the panel, where it hides no line.
        style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "frameon": False, "borderaxespad": 0.2}
        panel.legend(**style, fontsize="small", handlelength=1.5, columnspacing=1.2, borderpad=0.2)
