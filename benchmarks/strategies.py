"""Comparing strategies within ten minutes, what it costs, and whether the recommendation holds.

    python benchmarks/strategies.py --only problem=clothing kind=cost

Three kinds of cells for each of three problems (600 solar cells, 900 photos of clothes, 17 × 60 wallpaper groups):

- ``cost``: features + linear, features + SVM and the dense head, from an empty store: what is not training, that is
  features (computed, or looked up for each fold) and the search for copies. Wanted: at most 1.5 times one extraction.
- ``comparison``: `compare_strategies` with a budget of ten minutes and three folds. Wanted: done in ten minutes.
- ``recommendation``: `recommend_strategy`; the strategy that it names is cross-validated on the same folds if the
  budget had left it out. Wanted: within a point of the best that was found. It needs the comparison.

Needs what accuracy.py needs. Run it on a quiet machine, because the budget is wall time.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from _cells import Benchmark, Cell, defaults_of, seconds, table
from problems import Problem, forget_rows, load
from sktransfer import (
    FineTunedCNNClassifier,
    PretrainedCNNFeatures,
    compare_strategies,
    make_feature_classifier,
    recommend_strategy,
)
from sktransfer._frozen._extraction import Extractor
from sktransfer._strategies import _race

PROBLEMS = {"elpv": "elpv-600", "clothing": "clothing", "wallpaper": "wallpaper-natural-60", "tiny": "tiny"}
FROZEN = ["features + linear", "features + SVM", "dense head"]
FOLDS, POINT = 3, 0.01
YES = {True: "yes", False: "no"}


def plan(tiny: bool) -> list[Cell]:
    problems = ["tiny"] if tiny else ["elpv", "clothing", "wallpaper"]
    cells = [{"problem": each, "kind": "cost", "repeat": n} for n in range(1 if tiny else 3) for each in problems]
    return cells + [{"problem": each, "kind": kind} for kind in ("comparison", "recommendation") for each in problems]


def measure(problem: str, kind: str, repeat: int = 0) -> Cell:
    """Measure one cell from an empty store."""
    images = load(PROBLEMS[problem], 0)
    forget_rows()
    if kind == "cost":
        return cost(images)
    if kind == "comparison":
        return comparison(images, budget=3 if problem == "tiny" else 600)
    wanted = {"problem": problem, "kind": "comparison"}
    compared = [cell["results"] for cell in BENCHMARK.finished().values() if cell["settings"] == wanted]
    if not compared:
        raise FileNotFoundError(f"the comparison for {problem} comes first, and it is not finished")
    whole = {name: scores for name, scores in compared[0]["scores"].items() if name not in compared[0]["fractions"]}
    return recommendation(images, whole)


def comparison(images: Problem, budget: float) -> Cell:
    """Compare all strategies within the budget."""
    X, y, start = images.X_train, images.y_train, time.perf_counter()
    params = {"augment": images.augment, "refit": False, **images.params}  # the budget does not include the last fit
    found = compare_strategies(X, y, cv=FOLDS, time_budget=budget, **params)
    took = time.perf_counter() - start
    print(found.summary())
    return {
        "images": len(y),
        "budget": budget,
        "seconds": took,
        "scores": {name: scores.tolist() for name, scores in found.scores_.items()},
        "seconds_each": found.seconds_,
        "left_out": found.left_out_,
        "fractions": found.fractions_,
        "references": {name: scores.tolist() for name, scores in found.references_.items()},
        "verdict": found.verdict(),
    }


def recommendation(images: Problem, compared: dict[str, list[float]]) -> Cell:
    """Ask for a recommendation, and cross-validate it on the folds of the comparison."""
    X, y, start = images.X_train, images.y_train, time.perf_counter()
    advice = recommend_strategy(X, y, augment=images.augment, **images.params)
    took = time.perf_counter() - start
    print(advice.summary())
    scores = compared.get(advice.strategy)
    if scores is None:
        chosen = {advice.strategy: advice.estimator}
        scores = compare_strategies(X, y, strategies=chosen, cv=FOLDS, refit=False).scores_[advice.strategy]
    return {
        "strategy": advice.strategy,
        "seconds": took,
        "skill": advice.skill,
        "distance": advice.distance,
        "expected_minutes": advice.minutes,
        "score": float(np.mean(scores)),
        "within_budget": advice.strategy in compared,
        "best": max(float(np.mean(each)) for each in compared.values()),
    }


def cost(images: Problem) -> Cell:
    """Compare what the three frozen strategies spend on features and on the search for copies with one extraction."""
    X, y, params = images.X_train, images.y_train, images.params
    PretrainedCNNFeatures(layer="all", **params).fit_transform(X[:33])  # loads and compiles
    forget_rows()
    features = PretrainedCNNFeatures(layer="all", normalize=True, **params)
    extraction = seconds(lambda: features.fit_transform(X))
    forget_rows()
    with stopwatch(Extractor, "run") as extractions, stopwatch(_race, "find_duplicates") as searches:
        compared = seconds(lambda: compare_strategies(X, y, strategies=FROZEN, cv=FOLDS, refit=False, **params))
    return {"extraction": extraction, "features": sum(extractions), "copies": sum(searches), "compared": compared}


@contextmanager
def stopwatch(owner: Any, name: str) -> Iterator[list[float]]:
    """Note the seconds of each call of a function that is not called within itself."""
    function, noted = getattr(owner, name), []

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        noted.append(time.perf_counter() - start)
        return result

    with mock.patch.object(owner, name, timed):
        yield noted


def report(cells: list[Cell]) -> list[str]:
    budgets, strategies, recommended, costs = [], [], [], []
    for cell in cells:
        problem = cell["problem"]
        if cell["kind"] == "comparison":
            in_time = YES[cell["seconds"] <= cell["budget"]]
            budgets.append([problem, cell["images"], cell["budget"], cell["seconds"], in_time])
            for name, scores in cell["scores"].items():
                took = cell["seconds_each"][name]
                part = cell["fractions"].get(name, 1)
                reference = np.mean(cell["references"][name]) if name in cell["references"] else ""
                strategies.append([problem, name, part, np.mean(scores), np.std(scores, ddof=1), reference, took])
            strategies += [[problem, name, "", "", "", "", why] for name, why in cell["left_out"].items()]
        elif cell["kind"] == "recommendation":
            name = cell["strategy"] + ("" if cell["within_budget"] else " (beyond the budget)")
            figures = [cell[key] for key in ("score", "best", "skill", "distance", "seconds")]
            recommended.append([problem, name, *figures, YES[cell["score"] >= cell["best"] - POINT]])
        else:
            spent = [cell[key] for key in ("extraction", "features", "copies", "compared")]
            costs.append([problem, *spent, (cell["features"] + cell["copies"]) / cell["extraction"]])
    advice = {"problem": "", "recommended": "", "its score": ".3f", "best": ".3f", "skill": ".2f", "distance": ".2f"}
    compared = {"problem": "", "strategy": "", "part of the images": "", "accuracy": ".3f", "spread": ".3f"}
    spent = dict.fromkeys(["one extraction", "features", "search for copies", "with training"], ".1f")
    return [
        f"**Comparison with a budget**, {FOLDS} folds: done in time?\n",
        *table({"problem": "", "images": "", "budget, s": ".0f", "took, s": ".0f", "": ""}, budgets),
        *table({**compared, "linear with as many": ".3f", "seconds": ".0f"}, strategies),
        f"**Recommendation**: within {100 * POINT:.0f} point of the best that was found?\n",
        *table({**advice, "took, s": ".0f", "": ""}, recommended),
        "**Three frozen strategies**: what is not training, in extractions; seconds\n",
        *table({"problem": "", **spent, "in extractions, wanted ≤ 1.5": ".2f"}, costs),
    ]


DEFAULTS = defaults_of(
    FineTunedCNNClassifier(), PretrainedCNNFeatures(), make_feature_classifier(), compare_strategies, recommend_strategy
)
BENCHMARK = Benchmark(__file__, __doc__, "Which strategy", plan, measure, report, defaults=DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()
