"""Draw the figures of docs/guide/plots.md from photos of solar cells, in a few minutes.

``python docs/make_figures.py`` draws all, ``python docs/make_figures.py mistakes freeze_depth`` some.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
from sklearn.model_selection import (
    GridSearchCV,
    LearningCurveDisplay,
    StratifiedKFold,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sktransfer import (
    FineTunedCNNClassifier,
    FreezeDepthDisplay,
    GradCAMDisplay,
    MistakesDisplay,
    PretrainedCNNFeatures,
    StrategyComparisonDisplay,
    TrainingHistoryDisplay,
    compare_strategies,
    make_feature_classifier,
)
from sktransfer.datasets import load_elpv

FOLDER = Path(__file__).parent / "figures"
FOLDS = StratifiedKFold(n_splits=3, shuffle=True, random_state=0)
N_TRAIN, N_TEST, N_FEW = 400, 400, 180
MOST_BYTES = 150_000
TINY, SMALL, MEDIUM = 64, 96, 160  # pixels


@functools.cache
def load_cells() -> SimpleNamespace:
    """Return some cells to train on, fewer for what is cross-validated, and others to test."""
    elpv = load_elpv()
    X_train, X_test, y_train, y_test = train_test_split(
        elpv.data, elpv.target, train_size=N_TRAIN, test_size=N_TEST, stratify=elpv.target, random_state=0
    )
    return SimpleNamespace(
        X_train=X_train,
        y_train=y_train,
        X_few=X_train[:N_FEW],
        y_few=y_train[:N_FEW],
        X_test=X_test,
        y_test=y_test,
        names=elpv.target_names,
    )


def draw_history() -> Any:
    """Fine-tune with early stopping."""
    cells = load_cells()
    clf = FineTunedCNNClassifier(
        freeze=6,
        image_size=MEDIUM,
        lr=1e-3,
        augment="any_orientation",
        n_views=3,
        max_epochs=12,
        early_stopping=True,
        validation_fraction=0.25,
        random_state=0,
    )
    return TrainingHistoryDisplay.from_estimator(clf.fit(cells.X_train, cells.y_train))


def draw_comparison() -> Any:
    """Cross-validate five strategies on some of the cells."""
    cells = load_cells()
    tuned = {"image_size": SMALL, "augment": "any_orientation", "n_views": 3, "max_epochs": 5, "random_state": 0}
    strategies = {
        "features + linear": make_feature_classifier(image_size=SMALL),
        "features + SVM": make_pipeline(PretrainedCNNFeatures(image_size=SMALL), StandardScaler(), SVC(C=3)),
        "dense head": FineTunedCNNClassifier(
            image_size=SMALL, freeze="all", head_hidden=(64,), max_epochs=20, random_state=0
        ),
        "fine-tuned, freeze=6": FineTunedCNNClassifier(**tuned, freeze=6),
        "fine-tuned, freeze=4": FineTunedCNNClassifier(**tuned, freeze=4),
    }
    comparison = compare_strategies(cells.X_few, cells.y_few, strategies=strategies, cv=FOLDS, refit=False)
    return StrategyComparisonDisplay.from_comparison(comparison)


def draw_freeze_depth() -> Any:
    """Search the depth together with the learning rate of the pretrained stages."""
    cells = load_cells()
    clf = FineTunedCNNClassifier(image_size=TINY, max_epochs=4, random_state=0)
    grid = {"freeze": [3, 4, 5, 6, 7, "all"], "lr_factor": [0.1, 0.02]}
    search = GridSearchCV(clf, grid, cv=FOLDS, refit=False, error_score="raise").fit(cells.X_few, cells.y_few)
    return FreezeDepthDisplay.from_search(search)


def draw_learning_curve() -> Any:
    """Score features and an SVM over the number of training images, by scikit-learn's own display."""
    cells = load_cells()
    model = make_pipeline(PretrainedCNNFeatures(image_size=SMALL), StandardScaler(), SVC())
    display = LearningCurveDisplay.from_estimator(
        model, cells.X_train, cells.y_train, train_sizes=[50, 100, 200, 266], cv=FOLDS, score_name="accuracy"
    )
    display.figure_.set(size_inches=(5.2, 3.6), layout_engine="constrained")
    return display


def draw_grad_cam() -> Any:
    """Show what a classifier sees in the cells that it most surely, and rightly, calls defective."""
    cells = load_cells()
    clf = FineTunedCNNClassifier(freeze="all", image_size=MEDIUM, random_state=0).fit(cells.X_train, cells.y_train)
    defective = cells.X_test[cells.y_test == 1]
    surest = np.argsort(-clf.predict_proba(defective)[:, 1])[:4]
    return GradCAMDisplay.from_estimator(clf, defective[surest], targets=1, display_labels=cells.names, n_columns=2)


def draw_mistakes() -> Any:
    """Show where features and a logistic regression go wrong."""
    cells = load_cells()
    model = make_feature_classifier(image_size=SMALL).fit(cells.X_train, cells.y_train)
    return MistakesDisplay.from_estimator(model, cells.X_test, cells.y_test, display_labels=cells.names, n_shown=8)


FIGURES: dict[str, Callable[[], Any]] = {
    "training_history": draw_history,
    "grad_cam": draw_grad_cam,
    "strategy_comparison": draw_comparison,
    "freeze_depth": draw_freeze_depth,
    "learning_curve": draw_learning_curve,
    "mistakes": draw_mistakes,
}


def save(figure: Any, path: Path) -> None:
    """Save at the highest of some resolutions at which the file is small."""
    for dpi in range(90, 45, -4):
        figure.savefig(path, dpi=dpi, pil_kwargs={"optimize": True})
        if path.stat().st_size < MOST_BYTES:
            return


def main(names: list[str]) -> None:
    """Draw the figures of these names; all by default."""
    matplotlib.use("Agg")
    FOLDER.mkdir(exist_ok=True)
    for name in names or FIGURES:
        start = time.perf_counter()
        path = FOLDER / f"{name}.png"
        save(FIGURES[name]().figure_, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
