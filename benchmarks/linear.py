"""Time the linear model of `make_feature_classifier` after the features, and compare its search with a fine one.

Times one extraction of the training images, then the fit on stored features. Beside it, on the same features: the fine
search, over every number of stages and twice as many C with a tolerance of 1e-6, and the default of before, a grid
search of C over the means of every stage. Needs what accuracy.py needs, except for fastai.
"""

from functools import partial
from typing import Any
from unittest import mock

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from _cells import Benchmark, Cell, defaults_of, seconds, table
from problems import forget_rows, load
from sktransfer import FeatureClassifier, PretrainedCNNFeatures, _stage_search, make_feature_classifier
from sktransfer._linear import OneThreadLogisticRegression

PROBLEMS = ["clothing", "elpv-600", "elpv", "wallpaper-natural-60", "fashion-10000"]
FINE: dict[str, Any] = {"n_stages": range(1, 9), "Cs": (0.1, 0.3, 1, 3, 10, 30, 100)}
SLOW = ("fashion-10000",)  # where the grid search of before would take half an hour
WANTED = 0.3


def plan(tiny: bool) -> list[Cell]:
    return [{"problem": problem} for problem in (["tiny"] if tiny else PROBLEMS)]


def measure(problem: str) -> Cell:
    images = load(problem, 0)
    X, y = images.X_train, images.y_train
    default = make_feature_classifier(**images.params)
    default.features.fit_transform(X[:20])  # loads and compiles
    forget_rows()
    found: Cell = {"images": len(y), "extraction": seconds(partial(default.features.fit_transform, X))}
    default.features.transform(images.X_test)
    found["fit"] = seconds(partial(default.fit, X, y))
    found["accuracy"] = default.score(images.X_test, images.y_test)
    fine = FeatureClassifier(default.features, **FINE)
    with mock.patch.object(_stage_search, "_ROUGH", 1e-6):
        found["fine fit"] = seconds(partial(fine.fit, X, y))
    found["fine accuracy"] = fine.score(images.X_test, images.y_test)
    if problem not in SLOW:
        means = PretrainedCNNFeatures(**images.params, layer="all", normalize=True)
        before = make_pipeline(
            means, GridSearchCV(OneThreadLogisticRegression(max_iter=1000), {"C": [1, 10, 100, 1000]}, cv=5)
        )
        found["fit before"] = seconds(partial(before.fit, X, y))
        found["accuracy before"] = before.score(images.X_test, images.y_test)
    return found


def report(cells: list[Cell]) -> list[str]:
    rows = [
        [cell["problem"], cell["images"], cell["extraction"], cell["fit"], cell["fit"] / cell["extraction"]]
        + [cell["fine fit"], cell.get("fit before", np.nan)]
        + [cell["accuracy"], cell["fine accuracy"], cell.get("accuracy before", np.nan)]
        for cell in cells
    ]
    columns = {"problem": "", "images": "", "extraction, s": ".1f", "fit, s": ".2f", f"ratio, wanted ≤ {WANTED}": ".2f"}
    columns |= {"fine search, s": ".1f", "grid of before, s": ".1f"}
    columns |= dict.fromkeys(["accuracy", "of the fine search", "of the grid of before"], ".3f")
    return table(columns, rows)


NOTE = "One split of each problem."
DEFAULTS = defaults_of(make_feature_classifier(), PretrainedCNNFeatures())
BENCHMARK = Benchmark(__file__, __doc__, "The linear model after the features", plan, measure, report, NOTE, DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()
