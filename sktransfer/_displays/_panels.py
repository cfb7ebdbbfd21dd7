"""Functions that the displays share: they import matplotlib when needed, and divide axes into several panels."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .._images._decoding import resize
from .._optional import require

Keywords: TypeAlias = dict[str, Any]

CAPTION_SIZE = 9  # points
LINE_HEIGHT = 1.35  # of a caption, in its font size
IMAGE_SIDE = 1.9  # inches, in a sheet of images
PANEL_GAP = 0.12  # inches
TITLE_HEIGHT = 0.35  # inches
THUMBNAIL = 256  # pixels of the longer side: more than a panel shows at 120 dots per inch


def axes_or_new(ax: Any, user: str, figsize: tuple[float, float]) -> Any:
    """Return `ax`, or the axes of a new figure of that size, whose layout keeps every label within it."""
    require(user, "plot", "matplotlib")
    from matplotlib import pyplot as plt

    if ax is not None:
        return ax
    return plt.figure(figsize=figsize, layout="constrained").add_subplot()


def side_by_side(ax: Any, n_panels: int) -> list[Any]:
    """Divide axes into panels, three quarters of an inch apart; the axes themselves become invisible."""
    width = _inches(ax)[0]
    gap_share = min(0.75 / width, 0.5 / n_panels)
    panel = (1 - gap_share * (n_panels - 1)) / n_panels
    ax.set_axis_off()
    return [ax.inset_axes((k * (panel + gap_share), 0, panel, 1)) for k in range(n_panels)]


def sheet(
    ax: Any,
    user: str,
    n_panels: int,
    n_columns: int,
    size: tuple[float, float],
    caption_lines: int,
    title: bool = False,
) -> tuple[Any, list[Any]]:
    """Divide axes, or a new figure, into panels for images in reading order, each with room for a caption above it.

    In a new figure, each panel has this width and height in inches, and `title` leaves room for one. The axes around
    the panels, which are returned with them, are invisible.
    """
    require(user, "plot", "matplotlib")
    from matplotlib import pyplot as plt

    n_columns = max(1, min(n_columns, n_panels))
    n_rows = max(1, math.ceil(n_panels / n_columns))
    caption = caption_lines * CAPTION_SIZE * LINE_HEIGHT / 72
    if ax is None:
        top = TITLE_HEIGHT if title else 0
        width = max(n_columns * (size[0] + PANEL_GAP), 3.0) + PANEL_GAP
        height = n_rows * (size[1] + caption + PANEL_GAP) + PANEL_GAP + top
        ax = plt.figure(figsize=(width, height)).add_axes((0, 0, 1, (height - top) / height))
    ax.set_axis_off()
    width, height = _inches(ax)
    gap, caption = PANEL_GAP / width, caption / height
    column = (1 - gap) / n_columns
    row = (1 - PANEL_GAP / height) / n_rows
    panels = []
    for k in range(n_panels):
        left, bottom = gap + k % n_columns * column, 1 - (k // n_columns + 1) * row
        # Even if the given axes are very small, a part of each image stays visible.
        room = max(row - caption - PANEL_GAP / height, 0.3 * row)
        panel = ax.inset_axes((left, bottom, column - gap, room))
        panel.set_anchor("N")
        panel.set_axis_off()
        panels.append(panel)
    return ax, panels


def write_caption(panel: Any, lines: Sequence[tuple[str, str, str]], **text_kw: Any) -> Any:
    """Write lines above a panel, none of them wider than it.

    A line is the text before a label, the label, and the text after it. A label that is too long is shortened.
    """
    style = {"fontsize": CAPTION_SIZE, "linespacing": 1.15, "pad": 3.0, "parse_math": False, **text_kw}
    room = panel.get_position(original=True).width * panel.figure.bbox.width
    caption = panel.set_title("", **style)

    def too_wide(text: str) -> bool:
        caption.set_text(text)
        return bool(caption.get_window_extent().width > room)

    fitted = []
    for before, label, behind in lines:
        text = f"{before}{label}{behind}"
        if too_wide(text) and len(label) > 1:
            shorter = [f"{before}{label[:n_kept]}…{behind}" for n_kept in range(1, len(label))]
            text = shorter[max(bisect.bisect(shorter, False, key=too_wide) - 1, 0)]
        fitted.append(text)
    caption.set_text("\n".join(fitted))
    return caption


def _inches(ax: Any) -> tuple[float, float]:
    box = ax.get_window_extent()
    dpi = ax.figure.dpi
    return box.width / dpi, box.height / dpi


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return an RGB image, shrunk if it is larger than a panel shows."""
    height, width = image.shape[:2]
    shrink = THUMBNAIL / max(height, width)
    if shrink >= 1:
        return image
    return resize(image, (max(1, round(height * shrink)), max(1, round(width * shrink))), "bilinear")


def check_display_labels(display_labels: Any, classes: np.ndarray) -> list[str]:
    """Return one name per class: the classes themselves by default."""
    names = classes if display_labels is None else display_labels
    if len(names) != len(classes):
        raise ValueError(f"display_labels has {len(names)} names for {len(classes)} classes, {classes.tolist()}.")
    return [str(name) for name in names]
