"""Draw the figures of docs/displays.md from photos of solar cells: ``python docs/make_figures.py`` (a few minutes)."""

from __future__ import annotations

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
    cross_val_score,
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
    make_feature_classifier,
)
from sktransfer.datasets import load_elpv

FOLDER = Path(__file__).parent / "figures"
FOLDS = StratifiedKFold(n_splits=3, shuffle=True, random_state=0)
N_TRAIN, N_TEST = 400, 400
SMALL, MEDIUM = 96, 160  # pixels


def draw_history(cells: SimpleNamespace) -> Any:
    """Fine-tune with early stopping; keep the classifier for the heat maps."""
    cells.tuned = FineTunedCNNClassifier(
        freeze=6,
        image_size=MEDIUM,
        augment="any_orientation",
        n_views=4,
        max_epochs=16,
        early_stopping=True,
        validation_fraction=0.2,
        random_state=0,
    )
    cells.tuned.fit(cells.X_train, cells.y_train)
    return TrainingHistoryDisplay.from_estimator(cells.tuned)


def draw_comparison(cells: SimpleNamespace) -> Any:
    """Cross-validate four strategies on some of the cells."""
    tuned = {"image_size": SMALL, "augment": "any_orientation", "n_views": 4, "max_epochs": 6, "random_state": 0}
    strategies = {
        "features + linear": make_feature_classifier(image_size=SMALL),
        "features + SVM": make_pipeline(PretrainedCNNFeatures(image_size=SMALL), StandardScaler(), SVC(C=3)),
        "dense head": FineTunedCNNClassifier(
            image_size=SMALL, freeze="all", head_hidden=(64,), max_epochs=20, random_state=0
        ),
        "fine-tuned, freeze=6": FineTunedCNNClassifier(**tuned, freeze=6),
        "fine-tuned, freeze=4": FineTunedCNNClassifier(**tuned, freeze=4),
    }
    comparison = SimpleNamespace(scores_={}, seconds_={}, left_out_={}, scoring="accuracy")
    for name, estimator in strategies.items():
        start = time.perf_counter()
        comparison.scores_[name] = cross_val_score(estimator, cells.X_few, cells.y_few, cv=FOLDS, error_score="raise")
        comparison.seconds_[name] = time.perf_counter() - start
    return StrategyComparisonDisplay.from_comparison(comparison)


def draw_freeze_depth(cells: SimpleNamespace) -> Any:
    """Search the depth together with the learning rate of the pretrained stages."""
    clf = FineTunedCNNClassifier(image_size=SMALL, max_epochs=6, random_state=0)
    grid = {"freeze": [2, 4, 5, 6, 7, "all"], "lr_factor": [0.1, 0.02]}
    search = GridSearchCV(clf, grid, cv=FOLDS, refit=False, error_score="raise").fit(cells.X_few, cells.y_few)
    return FreezeDepthDisplay.from_search(search)


def draw_learning_curve(cells: SimpleNamespace) -> Any:
    """Score features and an SVM over the number of training images, by scikit-learn's own display."""
    model = make_pipeline(PretrainedCNNFeatures(image_size=MEDIUM), StandardScaler(), SVC())
    display = LearningCurveDisplay.from_estimator(
        model, cells.X_train, cells.y_train, train_sizes=[50, 100, 200, 266], cv=FOLDS, score_name="accuracy"
    )
    display.figure_.set_size_inches(5.2, 3.6)
    return display


def draw_grad_cam(cells: SimpleNamespace) -> Any:
    """Show what the classifier sees in the cells that it most surely, and rightly, calls defective."""
    defective = cells.X_test[cells.y_test == 1]
    surest = np.argsort(-cells.tuned.predict_proba(defective)[:, 1])[:6]
    return GradCAMDisplay.from_estimator(cells.tuned, defective[surest], targets=1, display_labels=cells.names)


def draw_mistakes(cells: SimpleNamespace) -> Any:
    """Show where features and a logistic regression go wrong."""
    model = make_feature_classifier(image_size=MEDIUM).fit(cells.X_train, cells.y_train)
    return MistakesDisplay.from_estimator(model, cells.X_test, cells.y_test, display_labels=cells.names, n_shown=8)


FIGURES: dict[str, Callable[[SimpleNamespace], Any]] = {
    "training_history": draw_history,
    "grad_cam": draw_grad_cam,  # of the classifier whose history was drawn
    "strategy_comparison": draw_comparison,
    "freeze_depth": draw_freeze_depth,
    "learning_curve": draw_learning_curve,
    "mistakes": draw_mistakes,
}


def load_cells() -> SimpleNamespace:
    """Return some cells to train on, fewer for what is cross-validated, and others to test."""
    elpv = load_elpv()
    X_train, X_test, y_train, y_test = train_test_split(
        elpv.data, elpv.target, train_size=N_TRAIN, test_size=N_TEST, stratify=elpv.target, random_state=0
    )
    return SimpleNamespace(
        X_train=X_train,
        y_train=y_train,
        X_few=X_train[:200],
        y_few=y_train[:200],
        X_test=X_test,
        y_test=y_test,
        names=elpv.target_names,
    )


def main() -> None:
    """Draw all."""
    matplotlib.use("Agg")
    FOLDER.mkdir(exist_ok=True)
    cells = load_cells()
    for name, draw in FIGURES.items():
        start = time.perf_counter()
        display = draw(cells)
        path = FOLDER / f"{name}.png"
        display.figure_.savefig(path, dpi=90)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
