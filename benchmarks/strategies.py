"""Comparing strategies within ten minutes, what it costs, and whether the recommendation holds.

    python benchmarks/strategies.py                       # runs what is not finished yet, writes the report
    python benchmarks/strategies.py --problem clothing    # this problem alone
    python benchmarks/strategies.py --kind cost --again   # once more
    python benchmarks/strategies.py --report              # the report alone
    python benchmarks/strategies.py --images 60 --minutes 0.5 --image-size 64    # a try; keeps nothing

Three kinds of cells for each of three problems (600 solar cells, 900 photos of clothes, 17 × 60 wallpaper groups):

- ``comparison``: `compare_strategies` with a budget of ten minutes and three folds. Wanted: done in ten minutes.
- ``recommendation``: `recommend_strategy`; what it names is cross-validated on the same folds if the budget had left it
  out. Wanted: within a point of the best that was found.
- ``cost``: features + linear, features + SVM and the dense head, from an empty store: what is not training, that is
  features (computed, or looked up for each fold) and the search for copies. Wanted: at most 1.5 times one extraction.

Finished cells are kept in benchmarks/results/strategies.jsonl. Needs what accuracy.py needs. Run it on a quiet machine:
the budget is wall time.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.model_selection import train_test_split

from accuracy import machine
from problems import load
from rows import forget_rows
from sktransfer import (
    PretrainedCNNFeatures,
    _strategies,
    compare_strategies,
    recommend_strategy,
)
from sktransfer._frozen._extraction import Extractor

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
    forget_rows()
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
    forget_rows()
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
    """Hold what the three frozen strategies spend on features and on the search for copies against one extraction."""
    X, y, _ = images
    PretrainedCNNFeatures(layer="all", **params).fit_transform(X[:33])  # loads and compiles
    forget_rows()
    start = time.perf_counter()
    PretrainedCNNFeatures(layer="all", normalize=True, **params).fit_transform(X)
    extraction = time.perf_counter() - start

    forget_rows()
    start = time.perf_counter()
    with (
        stopwatch(Extractor, "run") as features,
        stopwatch(_strategies, "find_duplicates") as copies,
    ):
        compare_strategies(X, y, strategies=FROZEN, cv=FOLDS, refit=False, **params)
    compared = time.perf_counter() - start
    return {"extraction": extraction, "features": sum(features), "copies": sum(copies), "compared": compared}


@contextmanager
def stopwatch(owner: Any, name: str) -> Iterator[list[float]]:
    """Note the seconds of each call of a function that is not called within itself."""
    function, seconds = getattr(owner, name), []

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    with mock.patch.object(owner, name, timed):
        yield seconds


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
    lines += ["", "**Three frozen strategies**: what is not training, in extractions; seconds", ""]
    lines += [
        "| problem | one extraction | features | search for copies | with training | in extractions, wanted ≤ 1.5 |",
        "|---|---|---|---|---|---|",
    ]
    for run in all_finished():
        if run["kind"] == "cost":
            spent = [run[part] for part in ("extraction", "features", "copies", "compared")]
            share = (run["features"] + run["copies"]) / run["extraction"]
            lines.append(f"| {run['problem']} | {' | '.join(f'{each:.1f}' for each in spent)} | {share:.2f} |")
    return [*lines, ""]


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
