"""Comparing strategies within ten minutes, what it costs, and whether the recommendation holds.

    python benchmarks/strategies.py                       # runs what is not finished yet, writes the report
    python benchmarks/strategies.py --problem clothing    # this problem alone
    python benchmarks/strategies.py --kind cost --again   # once more; the report takes the median of the ratios
    python benchmarks/strategies.py --report              # the report alone
    python benchmarks/strategies.py --images 60 --minutes 0.5 --image-size 64    # a try; keeps nothing

Three kinds of cells for each of three problems (600 solar cells, 900 photos of clothes, 17 × 60 wallpaper groups):

- ``comparison``: `compare_strategies` with a budget of ten minutes and three folds. Wanted: done in ten minutes.
- ``recommendation``: `recommend_strategy`; what it names is cross-validated on the same folds if the budget had left it
  out. Wanted: within a point of the best that was found.
- ``cost``: features + linear, features + SVM and the dense head, from an empty store. Wanted: at most 1.5 times one
  extraction, plus their own training on finished features.

Finished cells are kept in benchmarks/results/strategies.jsonl. Needs what accuracy.py needs. Run it on a quiet machine:
the budget is wall time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split

from accuracy import machine
from problems import load
from sktransfer import (
    PretrainedCNNFeatures,
    clear_cache,
    compare_strategies,
    make_strategies,
    recommend_strategy,
)

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "strategies.jsonl"
REPORT = HERE.parent / "docs" / "benchmarks" / "strategies.md"
PROBLEMS = {"elpv": "elpv-600", "clothing": "clothing", "wallpaper": "wallpaper-natural-60"}
FROZEN = ["features + linear", "features + SVM", "dense head"]
FOLDS = 3
POINT = 0.01

Cell = dict[str, Any]
Images = tuple[np.ndarray, np.ndarray, str]


def images_of(name: str, n: int | None) -> Images:
    """Return images, labels and the augmentation that suits them; `n` of the images, stratified."""
    problem = load(PROBLEMS[name], 0)
    rows = np.arange(len(problem.y_train))
    if n is not None and n < len(rows):
        rows = train_test_split(rows, train_size=n, stratify=problem.y_train, random_state=0)[0]
    return problem.X_train[rows], problem.y_train[rows], problem.augment


def comparison(images: Images, earlier: dict[str, Cell], minutes: float, **params: Any) -> Cell:
    """Compare all strategies within the budget."""
    X, y, augment = images
    clear_cache()
    start = time.perf_counter()
    found = compare_strategies(X, y, cv=FOLDS, augment=augment, time_budget=60 * minutes, **params)
    seconds = time.perf_counter() - start
    print(found.summary())
    return {
        "images": len(y),
        "budget": 60 * minutes,
        "seconds": seconds,
        "scores": {name: scores.tolist() for name, scores in found.scores_.items()},
        "seconds_each": found.seconds_,
        "left_out": found.left_out_,
        "verdict": found.verdict(),
    }


def recommendation(images: Images, earlier: dict[str, Cell], minutes: float, **params: Any) -> Cell:
    """Ask for a recommendation, and look at it on the folds of the comparison."""
    X, y, augment = images
    clear_cache()
    start = time.perf_counter()
    advice = recommend_strategy(X, y, augment=augment, **params)
    seconds = time.perf_counter() - start
    print(advice.summary())
    compared = earlier["comparison"]["scores"]
    scores = compared.get(advice.strategy)
    if scores is None:
        chosen = {advice.strategy: advice.estimator}
        scores = compare_strategies(X, y, strategies=chosen, cv=FOLDS, refit=False).scores_[advice.strategy].tolist()
    return {
        "strategy": advice.strategy,
        "seconds": seconds,
        "skill": advice.skill,
        "distance": advice.distance,
        "expected_minutes": advice.minutes,
        "score": float(np.mean(scores)),
        "within_budget": advice.strategy in compared,
        "best": max(float(np.mean(each)) for each in compared.values()),
    }


def cost(images: Images, earlier: dict[str, Cell], minutes: float, **params: Any) -> Cell:
    """Hold the three frozen strategies against one extraction and their own training on its result."""
    X, y, _ = images
    strategies = make_strategies(**params)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    PretrainedCNNFeatures(layer="all", **params).fit_transform(X[:33])  # loads and compiles
    clear_cache()
    start = time.perf_counter()
    features = PretrainedCNNFeatures(layer="all", normalize=True, **params).fit_transform(X)
    extraction = time.perf_counter() - start

    start = time.perf_counter()
    for name in FROZEN[:2]:
        cross_val_score(strategies[name][-1], features, y, cv=folds, error_score="raise")
    cross_val_score(strategies[FROZEN[2]], X, y, cv=folds, error_score="raise")  # its features are stored
    training = time.perf_counter() - start

    clear_cache()
    start = time.perf_counter()
    compare_strategies(X, y, strategies=FROZEN, cv=FOLDS, refit=False, **params)  # looks for duplicates too
    return {"extraction": extraction, "training": training, "compared": time.perf_counter() - start}


KINDS: dict[str, Callable[..., Cell]] = {
    "cost": cost,
    "comparison": comparison,
    "recommendation": recommendation,
}


def finished() -> dict[tuple[str, str], Cell]:
    """Return the finished cells by problem and kind; of several the last."""
    return {(cell["problem"], cell["kind"]): cell for cell in all_finished()}


def all_finished() -> list[Cell]:
    """Return the finished cells in the order in which they were run."""
    return list(map(json.loads, RESULTS.read_text().splitlines())) if RESULTS.exists() else []


def run(
    problems: list[str], kinds: list[str], again: bool, n: int | None, minutes: float, image_size: int | None
) -> None:
    """Run the cells that are not finished, or all again; keep them unless this is a try on fewer images."""
    a_try = n is not None or image_size is not None
    done = {} if a_try else finished()
    for kind in kinds:  # a recommendation may take longest
        for name in problems:
            if (name, kind) in done and not again:
                continue
            images = images_of(name, n)
            print(f"\n{name}, {kind} …", flush=True)
            earlier = {other: cell for (problem, other), cell in done.items() if problem == name}
            cell = KINDS[kind](images, earlier, minutes, image_size=image_size)
            cell = {"problem": name, "kind": kind, **cell, "machine": machine()}
            done[name, kind] = cell
            if a_try:
                print(json.dumps(cell))
                continue
            with RESULTS.open("a") as file:
                file.write(json.dumps(cell) + "\n")


def report(cells: dict[tuple[str, str], Cell]) -> list[str]:
    """Return the lines of the report."""
    machines = sorted({cell["machine"] for cell in cells.values()})
    lines = ["# Which strategy", "", "`python benchmarks/strategies.py`", "", f"{'; '.join(machines)}.", ""]
    lines += [
        f"**Comparison with a budget**, {FOLDS} folds: done in time?",
        "",
        "| problem | images | budget, s | took, s | |",
        "|---|---|---|---|---|",
    ]
    for name in PROBLEMS:
        if cell := cells.get((name, "comparison")):
            verdict = "yes" if cell["seconds"] <= cell["budget"] else "no"
            lines.append(f"| {name} | {cell['images']} | {cell['budget']:.0f} | {cell['seconds']:.0f} | {verdict} |")
    lines += ["", "| problem | strategy | accuracy | spread | seconds |", "|---|---|---|---|---|"]
    for name in PROBLEMS:
        if cell := cells.get((name, "comparison")):
            lines += [
                f"| {name} | {strategy} | {np.mean(scores):.3f} | {np.std(scores, ddof=1):.3f} "
                f"| {cell['seconds_each'][strategy]:.0f} |"
                for strategy, scores in cell["scores"].items()
            ]
            lines += [f"| {name} | {strategy} | | | {why} |" for strategy, why in cell["left_out"].items()]
    lines += ["", f"**Recommendation**: within {100 * POINT:.0f} point of the best that was found?", ""]
    lines += [
        "| problem | recommended | its score | best | skill | distance | took, s | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in PROBLEMS:
        if cell := cells.get((name, "recommendation")):
            verdict = "yes" if cell["score"] >= cell["best"] - POINT else "no"
            beyond = "" if cell["within_budget"] else " (beyond the budget)"
            lines.append(
                f"| {name} | {cell['strategy']}{beyond} | {cell['score']:.3f} | {cell['best']:.3f} "
                f"| {cell['skill']:.2f} | {cell['distance']:.2f} | {cell['seconds']:.0f} | {verdict} |"
            )
    lines += ["", "**Three frozen strategies** against 1.5 extractions and their own training, seconds", ""]
    lines += [
        "| problem | extraction | own training | compared | in extractions, wanted ≤ 1.5 |",
        "|---|---|---|---|---|",
    ]
    for name in PROBLEMS:
        runs = [cell for cell in all_finished() if (cell["problem"], cell["kind"]) == (name, "cost")]
        lines += [
            f"| {name} | {run['extraction']:.1f} | {run['training']:.1f} | {run['compared']:.1f} "
            f"| {in_extractions(run):.2f} |"
            for run in runs
        ]
        if len(runs) > 1:
            lines.append(f"| {name} | | | median | {np.median(list(map(in_extractions, runs))):.2f} |")
    return [*lines, ""]


def in_extractions(run: Cell) -> float:
    """Return what a comparison cost beyond training, in extractions."""
    return (run["compared"] - run["training"]) / run["extraction"]


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--again", action="store_true", help="run finished ones too")
    parser.add_argument("--minutes", type=float, default=10, help="the budget")
    parser.add_argument("--images", type=int, help="a try on so many images")
    parser.add_argument("--image-size", type=int, help="a try with smaller images")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        sizes = arguments.images, arguments.minutes, arguments.image_size
        run(arguments.problem, arguments.kind, arguments.again, *sizes)
    if cells := finished():
        text = "\n".join(report(cells))
        REPORT.write_text(text)
        print(text)


if __name__ == "__main__":
    main()
