"""Which frozen features suit few images? Stages, poolings and normalisations, with C chosen in two ways.

    python benchmarks/features.py --only problem=clothing-60

All candidates come from one extraction: the mean and the standard deviation of each channel after each stage. A part is
one of the two of one stage. C is chosen by five inner folds, by accuracy or by log loss. A cell is one split of one
problem. Needs what accuracy.py needs, except for fastai.

The first four kinds of problems may choose a default. The others only confirm it. The last two lines are what the
package does: it chooses the number of stages and C together and calibrates, on one network or on two.
"""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.linalg import cholesky, solve_triangular
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from _cells import Benchmark, Cell, table
from problems import calibration_error, load, log_loss
from sktransfer import PretrainedCNNFeatures, make_feature_classifier
from sktransfer._linear import one_blas_thread

WALLPAPER = {60: 4, 150: 9, 400: 24, 1000: 59}  # images of each of the 17 groups
SELECTION = [
    f"wallpaper-natural-{WALLPAPER[n]}" if kind == "wallpaper" else f"{kind}-{n}"
    for n in (20, 60, 150, 400, 1000)
    for kind in ("clothing", "elpv", "fashion", "wallpaper")
    if n in WALLPAPER or kind != "wallpaper"
]
CONFIRMATION = [f"{kind}-{n}" for kind in ("groceries", "signdigits", "digits") for n in (60, 150)]
SEEDS, CS = 3, (0.1, 1.0, 10.0, 100.0, 1000.0)
LAST, LAST_CENTRED = (1, 4, 8), (1, 2, 3, 4, 5)  # numbers of stages, counted from the last one
CHOSEN = "centred: number of stages chosen by log loss"
OURS: dict[str, str | list[str]] = {
    "make_feature_classifier()": "efficientnet_lite0",
    "make_feature_classifier of two networks": ["efficientnet_lite0", "efficientnet_lite2"],
}


def plan(tiny: bool) -> list[Cell]:
    problems = ["tiny"] if tiny else [*SELECTION, *CONFIRMATION]
    return [{"problem": problem, "seed": seed} for seed in range(1 if tiny else SEEDS) for problem in problems]


def measure(problem: str, seed: int) -> Cell:
    """Return accuracy, log loss and calibration error of each candidate, with C chosen by accuracy and by log loss."""
    images = load(problem, seed)
    features = PretrainedCNNFeatures(**images.params, layer="all", pooling="avgstd").fit(images.X_train)
    X = [features.transform(part) for part in (images.X_train, images.X_test)]
    _, y = np.unique(images.y_train, return_inverse=True)
    _, y_test = np.unique(images.y_test, return_inverse=True)
    found: Cell = {}
    with one_blas_thread():
        for name, parts in candidates(*X, list(features.feature_counts_.values())).items():
            found[name] = scores(coordinates(parts, len(y)), y, y_test)
    centred = [found[f"centred: last {n}"] for n in LAST_CENTRED if f"centred: last {n}" in found]
    found[CHOSEN] = min(centred, key=lambda result: result["inner log loss"])
    for name, backbone in OURS.items():
        model = make_feature_classifier(**{"backbone": backbone, **images.params})
        start = time.perf_counter()
        probabilities = model.fit(images.X_train, images.y_train).predict_proba(images.X_test)
        found[name] = {f"{each} by log loss": function(probabilities, y_test) for each, function in MEASURED.items()}
        found[name] |= {"stages": model.n_stages_, "C": model.C_, "seconds": time.perf_counter() - start}
    return found


def candidates(train: np.ndarray, test: np.ndarray, counts: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Return the parts of each candidate, training rows first."""
    X, ends = np.concatenate([train, test]), np.cumsum(counts)
    halves = [np.split(stage, 2, axis=1) for stage in np.split(X, ends[:-1], axis=1)]
    means, deviations = ([unit(each) for each in kind] for kind in zip(*halves, strict=True))
    centred = [[unit(each - each[: len(train)].mean(axis=0)) for each in pair] for pair in halves]
    found = {}
    for n in LAST:
        found[f"mean: last {n}"] = means[-n:]
        found[f"mean and deviation: last {n}"] = means[-n:] + deviations[-n:]
    for n in LAST_CENTRED:
        found[f"centred: last {n}"] = [each for pair in centred[-n:] for each in pair]
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def coordinates(parts: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Return all rows in the space that the first n of them span, where logistic regression has the same solution."""
    products = np.array(sum(part @ part[:n].T for part in parts), dtype=float)
    products[np.diag_indices(n)] += 2e-5 * len(parts)
    triangle = cholesky(products[:n], lower=True)
    return solve_triangular(triangle, products.T, lower=True).T


def scores(X: np.ndarray, y: np.ndarray, y_test: np.ndarray) -> Cell:
    """Choose C by inner folds, fit, and test."""
    n, inner = len(y), np.zeros((len(CS), 2))
    for train, held_out in StratifiedKFold(min(5, np.bincount(y).max()), shuffle=True, random_state=0).split(y, y):
        for i, probabilities in enumerate(path(X[train], y[train], X[held_out])):
            inner[i] += np.array([accuracy(probabilities, y[held_out]), -log_loss(probabilities, y[held_out])])
    tested = list(path(X[:n], y, X[n:]))
    chosen = {"accuracy": tested[inner[:, 0].argmax()], "log loss": tested[inner[:, 1].argmax()]}
    return {
        f"{measured} by {rule}": function(probabilities, y_test)
        for rule, probabilities in chosen.items()
        for measured, function in MEASURED.items()
    } | {"inner log loss": -inner[:, 1].max()}


def path(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities for each C; each fit starts from the one before."""
    model = LogisticRegression(tol=1e-3, max_iter=1000, warm_start=True)
    return [model.set_params(C=C).fit(X, y).predict_proba(X_test) for C in CS]


def accuracy(probabilities: np.ndarray, y: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == y).mean())


MEASURED = {"accuracy": accuracy, "log loss": log_loss, "calibration error": calibration_error}


def report(cells: list[Cell]) -> list[str]:
    """Return one row per candidate: means over problems and seeds."""
    lines = []
    for title, problems in (("Selection", [*SELECTION, "tiny"]), ("Confirmation", CONFIRMATION)):
        found = [cell for cell in cells if cell["problem"] in problems]
        names = [name for name in found[0] if name not in ("problem", "seed")] if found else []
        kinds = list(dict.fromkeys(cell["problem"] for cell in found))
        rows = []
        for name in names:
            frame = pd.DataFrame([{"problem": cell["problem"], **cell[name]} for cell in found])
            mean = frame.groupby("problem").mean().mean()
            rows.append([name, *(frame[frame.problem == kind]["accuracy by log loss"].mean() for kind in kinds)])
            rows[-1] += [
                mean.get(f"{each} by {rule}", np.nan) for rule in ("log loss", "accuracy") for each in MEASURED
            ]
        columns = {f"{kind} ({sum(cell['problem'] == kind for cell in found)})": ".3f" for kind in kinds}
        for rule in ("log loss", "accuracy"):
            columns |= {f"{each}, C by {rule}": ".3f" for each in MEASURED}
        if rows:
            lines += [f"## {title}", "", *table({"": "", **columns}, rows)]
    return lines


NOTE = "First the accuracy on the test images of each problem (number of splits), C by log loss. Then means of all."
BENCHMARK = Benchmark(__file__, __doc__, "Frozen features of few images", plan, measure, report, NOTE)

if __name__ == "__main__":
    BENCHMARK.main()
