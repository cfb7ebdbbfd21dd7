"""What the tests of plots ask of a canvas: which texts are shown, whether they can be read, and pixels."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox


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
