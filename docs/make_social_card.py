"""Draw docs/_static/social_card.png, which is shown where a page of the site is shared."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

TARGET = Path(__file__).parent / "_static" / "social_card.png"
FROZEN, TUNED = "#3a6ea5", "#e07b22"
STAGES = [(0.4, 0.7, FROZEN), (0.9, 1.3, FROZEN), (1.7, 1.9, TUNED), (2.2, 2.4, TUNED)]  # left side, lower side, colour


def main() -> None:
    """Draw the card of 1200 by 630 pixels."""
    matplotlib.use("Agg")
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 12), ylim=(0, 6.3))
    ax.set_axis_off()
    for left, low, colour in STAGES:
        height = 2 * (3.15 - low)
        ax.add_patch(
            FancyBboxPatch(
                (left + 0.5, low), 0.3, height, boxstyle="round,pad=0,rounding_size=0.06", color=colour, lw=0
            )
        )
    ax.plot([2.05, 2.05], [0.4, 5.9], color="#888888", linewidth=2)
    ax.text(3.9, 4.0, "sktransfer", fontsize=58, fontweight="bold", color="#1b2a3a", va="center")
    ax.text(3.95, 2.75, "Pretrained CNNs for your own images,", fontsize=25, color="#333333", va="center")
    ax.text(3.95, 2.15, "as scikit-learn estimators", fontsize=25, color="#333333", va="center")
    figure.savefig(TARGET, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
