"""The demo: real photos of solar cells, classified in three ways, compared by cross-validation."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import Bunch

from ._classifier import FineTunedCNNClassifier
from ._features import PretrainedCNNFeatures
from .datasets import load_elpv

N_CELLS = 240  # keeps the whole run under five minutes on two cores
FOLDS = StratifiedKFold(n_splits=3, shuffle=True, random_state=0)
FREEZE_GRID = [4, 6, "all"]
IMAGE_SIZE = 160
FIGURE = Path("sktransfer-demo.png")


def strategies() -> dict[str, BaseEstimator]:
    """Return the three usual ways to apply a pretrained network to other images.

    Fine-tuning is cut short, to 20 steps, so its learning rate is lower than the default.
    """
    return {
        "features + scaling + SVM": make_pipeline(
            PretrainedCNNFeatures(image_size=IMAGE_SIZE), StandardScaler(), SVC(C=3)
        ),
        "dense head, frozen body": FineTunedCNNClassifier(
            image_size=IMAGE_SIZE, freeze="all", head_hidden=(64,), augment=None, max_epochs=20, random_state=0
        ),
        "fine-tuned": FineTunedCNNClassifier(
            image_size=IMAGE_SIZE, augment="any_orientation", max_epochs=4, lr=1e-3, random_state=0
        ),
    }


def sample_of_cells() -> Bunch:
    """Return some of the ELPV photos, as mixed as the whole in label and module type."""
    cells = load_elpv()
    strata = [f"{p:.2f} {kind}" for p, kind in zip(cells.probability, cells.module_type, strict=True)]
    chosen, _ = train_test_split(np.arange(len(strata)), train_size=N_CELLS, stratify=strata, random_state=0)
    return Bunch(data=cells.data[chosen], target=cells.target[chosen], target_names=cells.target_names)


def compare(cells: Bunch) -> list[tuple[str, np.ndarray, float]]:
    """Cross-validate each strategy; return its name, the scores of the folds, and the seconds it took."""
    rows = []
    for name, estimator in strategies().items():
        print(f"cross-validating: {name} …", flush=True)
        start = time.perf_counter()
        scores = cross_val_score(estimator, cells.data, cells.target, cv=FOLDS, error_score="raise")
        rows.append((name, scores, time.perf_counter() - start))
    return rows


def search_freeze(cells: Bunch) -> tuple[GridSearchCV, float]:
    """Search how many stages to freeze; return the search and the seconds it took."""
    print(f"grid search: freeze in {FREEZE_GRID} …", flush=True)
    start = time.perf_counter()
    estimator = strategies()["fine-tuned"]
    search = GridSearchCV(estimator, {"freeze": FREEZE_GRID}, cv=FOLDS, refit=False, error_score="raise")
    search.fit(cells.data, cells.target)
    return search, time.perf_counter() - start


def print_table(rows: list[tuple[str, np.ndarray, float]], search: GridSearchCV, seconds: float) -> None:
    """Print accuracies and seconds."""
    print(f"\n{'':28}{'accuracy':>10}{'spread':>9}{'seconds':>9}")
    for name, scores, duration in rows:
        print(f"{name:28}{scores.mean():10.3f}{scores.std():9.3f}{duration:9.1f}")
    results = search.cv_results_
    for freeze, mean, std in zip(FREEZE_GRID, results["mean_test_score"], results["std_test_score"], strict=True):
        print(f"{f'fine-tuned, freeze={freeze}':28}{mean:10.3f}{std:9.3f}")
    print(f"{'(the whole grid)':47}{seconds:9.1f}")


def draw(rows: list[tuple[str, np.ndarray, float]], search: GridSearchCV, chance: float) -> None:
    """Save a figure of the scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    results = search.cv_results_
    names = [*(name for name, _, _ in rows), *(f"fine-tuned, freeze={freeze}" for freeze in FREEZE_GRID)]
    folds = [results[f"split{k}_test_score"] for k in range(FOLDS.get_n_splits())]
    scores = [*(scores for _, scores, _ in rows), *np.transpose(folds)]
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    colours = ["tab:blue"] * len(rows) + ["tab:orange"] * len(FREEZE_GRID)
    for height, (values, colour) in enumerate(zip(scores, colours, strict=True)):
        ax.plot(values, [height] * len(values), "o", color=colour, alpha=0.4, markersize=5)
        ax.plot(np.mean(values), height, "D", color=colour, markersize=8)
    ax.axvline(chance, color="grey", linestyle=":", label="the larger class always")
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="accuracy (◆ mean of the folds)")
    ax.set_title(f"Defective solar cells: {N_CELLS} photos, {FOLDS.get_n_splits()}-fold cross-validation", fontsize=10)
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(FIGURE, dpi=150)
    plt.close(figure)


def run() -> None:
    """Run the whole demo."""
    start = time.perf_counter()
    cells = sample_of_cells()
    n_defective = int(cells.target.sum())
    print(f"{len(cells.data)} photos of solar cells, {n_defective} of them defective (ELPV, Deitsch et al. 2019)")
    rows = compare(cells)
    search, seconds = search_freeze(cells)
    print_table(rows, search, seconds)
    draw(rows, search, chance=1 - n_defective / len(cells.data))
    print(f"\nFigure: {FIGURE.resolve()}   ({time.perf_counter() - start:.0f} seconds in all)")
