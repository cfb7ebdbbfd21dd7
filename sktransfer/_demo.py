"""The demo: real photos of solar cells, classified in three ways, compared by cross-validation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import Bunch

from . import FineTunedCNNClassifier, PretrainedCNNFeatures, compare_strategies
from .datasets import load_elpv

N_CELLS = 240  # keeps the whole run under five minutes on two cores
FOLDS = StratifiedKFold(n_splits=3, shuffle=True, random_state=0)
FREEZE_GRID: list[int | str] = [4, 6, "all"]
IMAGE_SIZE = 160
FIGURE = Path("sktransfer-demo.png")


def sample_of_cells() -> Bunch:
    """Return some of the ELPV photos, as mixed as the whole in label and module type."""
    cells = load_elpv()
    strata = [f"{p:.2f} {kind}" for p, kind in zip(cells.probability, cells.module_type, strict=True)]
    chosen, _ = train_test_split(np.arange(len(strata)), train_size=N_CELLS, stratify=strata, random_state=0)
    return Bunch(data=cells.data[chosen], target=cells.target[chosen])


def strategies() -> dict[str, BaseEstimator]:
    """Return the usual ways to apply a pretrained network to other images.

    Fine-tuning is cut short, to 20 steps, so its learning rate is lower than the default.
    """
    shared: dict[str, Any] = {"image_size": IMAGE_SIZE, "random_state": 0}
    tuned: dict[str, Any] = {**shared, "augment": "any_orientation", "max_epochs": 4, "lr": 1e-3}
    return {
        "features + scaling + SVM": make_pipeline(
            PretrainedCNNFeatures(image_size=IMAGE_SIZE), StandardScaler(), SVC(C=3)
        ),
        "dense head, frozen body": FineTunedCNNClassifier(**shared, freeze="all", head_hidden=(64,), max_epochs=20),
        **{f"fine-tuned, freeze={depth}": FineTunedCNNClassifier(**tuned, freeze=depth) for depth in FREEZE_GRID},
    }


def run() -> None:
    """Run the whole demo."""
    from matplotlib.figure import Figure  # not pyplot, which may want a screen

    start = time.perf_counter()
    cells = sample_of_cells()
    defective = cells.target.mean()
    print(f"{len(cells.data)} photos of solar cells, {defective:.0%} of them defective (ELPV, Deitsch et al. 2019)")
    comparison = compare_strategies(cells.data, cells.target, strategies=strategies(), cv=FOLDS, refit=False, verbose=1)
    print(comparison.summary())
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    ax = comparison.plot(ax=figure.subplots()).ax_
    ax.axvline(1 - defective, color="grey", linestyle=":", label="the larger class always")
    ax.set_title(f"Defective solar cells: {len(cells.data)} photos, 3-fold cross-validation", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(FIGURE, dpi=150)
    print(f"\nFigure: {FIGURE.resolve()}   ({time.perf_counter() - start:.0f} seconds in all)")
