"""Accuracy and time of each way to use a pretrained network, on four kinds of images, against the peers.

    python benchmarks/accuracy.py            # runs what is not finished yet, writes the table and the figure
    python benchmarks/accuracy.py --problem elpv clothing --strategy fine-tuned --seeds 2
    python benchmarks/accuracy.py --report   # the table and the figure alone

Needs: pip install 'sktransfer[demo,openvino]' fastai, and Debian's package dataset-fashion-mnist. Clothing is a
folder of photos, see problems.py; wallpaper groups are generated. Everything uses EfficientNet-Lite0 with the same
weights and splits; ours runs at its defaults, but for the name of the augmentation. Finished cells are kept in
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import peers
from problems import Problem, load
from rows import forget_rows
from sktransfer import FineTunedCNNClassifier, make_feature_classifier

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "accuracy.jsonl"
DOCS = HERE.parent / "docs" / "benchmarks"


def _estimator(build: Callable[[Problem, int], BaseEstimator]) -> Callable[[Problem, int], tuple[np.ndarray, float]]:
    """Turn a recipe for an estimator into one that trains and returns probabilities and seconds, as `peers` has it."""

    def work(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
        estimator = build(problem, seed)
        start = time.perf_counter()
        estimator.fit(problem.X_train, problem.y_train)
        seconds = time.perf_counter() - start
        return estimator.predict_proba(problem.X_test), seconds

    return work


STRATEGIES: dict[str, Callable[[Problem, int], tuple[np.ndarray, float]]] = {
    "features + linear": _estimator(lambda problem, seed: make_feature_classifier()),
    "features + linear, no crop": _estimator(lambda problem, seed: make_feature_classifier(crop=False)),
    "dense head": _estimator(
        lambda problem, seed: FineTunedCNNClassifier(freeze="all", crop=True, head_hidden=(256,), random_state=seed)
    ),
    "fine-tuned": _estimator(lambda problem, seed: FineTunedCNNClassifier(augment=problem.augment, random_state=seed)),
    "fine-tuned, crop": _estimator(
        lambda problem, seed: FineTunedCNNClassifier(crop=True, augment=problem.augment, random_state=seed)
    ),
    "shallow from scratch": _estimator(
        lambda problem, seed: FineTunedCNNClassifier(
            "shallow_cnn", weights=None, augment=problem.augment, random_state=seed
        )
    ),
    "from scratch": _estimator(
        lambda problem, seed: FineTunedCNNClassifier(weights=None, augment=problem.augment, random_state=seed)
    ),
    "fastai fine_tune(5)": peers.fastai_fine_tune,
    "skorch tutorial": peers.skorch_tutorial,
}
PEERS = ("fastai fine_tune(5)", "skorch tutorial")
OTHER_CROPS = ("fine-tuned, crop", "features + linear, no crop")  # than the default
LINEAR_AND_TUNED = ("features + linear", "fine-tuned")
FOUR_KINDS = ["elpv", "clothing", "wallpaper-natural-60", "fashion-1000"]
PAIRS = [
    ("fine-tuned", "features + linear"),
    ("fine-tuned", "fine-tuned, crop"),
    ("features + linear, no crop", "features + linear"),
    ("fine-tuned", "fastai fine_tune(5)"),
    ("features + linear", "fastai fine_tune(5)"),
    ("fine-tuned", "skorch tutorial"),
]
OURS = tuple(name for name in STRATEGIES if name not in (*PEERS, *OTHER_CROPS))

# What to run, most wanted first: problem, strategies, seeds.
PLAN: list[tuple[str, tuple[str, ...], int]] = [
    ("elpv", (*OURS, *PEERS), 5),
    ("clothing", (*OURS, *PEERS), 5),
    ("wallpaper-natural-60", (*OURS, *PEERS), 5),
    ("wallpaper-matched-60", OURS, 5),
    ("fashion-1000", (*OURS, *PEERS), 5),
    *((f"fashion-{n}-all", ("features + linear",), 5) for n in (100, 1000)),
    ("fashion-10000-all", LINEAR_AND_TUNED, 2),
    ("wallpaper-natural-300", OURS, 2),
    ("wallpaper-matched-300", OURS, 2),
    *((f"fashion-{n}", LINEAR_AND_TUNED, 2) for n in (50, 100, 200, 500, 2000, 5000)),
    *((f"elpv-{n}", LINEAR_AND_TUNED, 2) for n in (50, 100, 200, 500, 1000)),
    *((name, OTHER_CROPS, 5) for name in FOUR_KINDS),
]


def measure(problem: Problem, strategy: str, seed: int) -> dict[str, float]:
    """Train and test once."""
    if len(problem.X_test) < 10_000:  # the largest test set, which is the same for all seeds, is not paid for anew
        forget_rows()  # each strategy pays for its own features
    start = time.perf_counter()
    probabilities, fit_seconds = STRATEGIES[strategy](problem, seed)
    classes = np.unique(problem.y_train)
    predicted = classes[probabilities.argmax(axis=1)]
    scores = {"accuracy": accuracy_score(problem.y_test, predicted)}
    if len(classes) == 2:
        scores["f1"] = f1_score(problem.y_test, predicted)
        scores["auc"] = roc_auc_score(problem.y_test, probabilities[:, 1])
    return {**scores, "fit_seconds": fit_seconds, "all_seconds": time.perf_counter() - start}


def finished() -> pd.DataFrame:
    """Return the finished cells, one row each."""
    if not RESULTS.exists():
        return pd.DataFrame(columns=["problem", "strategy", "seed"])
    return pd.DataFrame([json.loads(line) for line in RESULTS.read_text().splitlines()])


def run(problems: list[str] | None, strategies: list[str] | None, max_seeds: int) -> None:
    """Run the cells that are not finished; the first seed of all before the second of any."""
    done = set(finished()[["problem", "strategy", "seed"]].itertuples(index=False, name=None))
    for seed in range(max_seeds):
        for name, wanted, seeds in PLAN:
            if seed >= seeds or (problems is not None and name not in problems):
                continue
            for strategy in wanted:
                if (name, strategy, seed) in done or (strategies is not None and strategy not in strategies):
                    continue
                print(f"{name}, {strategy}, seed {seed} … ", end="", flush=True)
                cell = {"problem": name, "strategy": strategy, "seed": seed}
                scores = measure(load(name, seed), strategy, seed)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({**cell, **scores, "machine": machine()}) + "\n")
                print({key: round(value, 4) for key, value in scores.items()}, flush=True)


def machine() -> str:
    """Return the processor and the number of threads."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads"


def table(cells: pd.DataFrame) -> list[str]:
    """Return the lines of a Markdown table: mean ± standard deviation over seeds, and seconds."""
    lines = ["| problem | strategy | seeds | accuracy | F1 | AUC | training, s |", "|---|---|---|---|---|---|---|"]
    for name, wanted, _ in PLAN:
        for strategy in wanted:
            rows = cells[(cells.problem == name) & (cells.strategy == strategy)]
            if rows.empty:
                continue
            scores = [
                f"{rows[score].mean():.3f} ± {rows[score].std(ddof=1):.3f}" if rows[score].notna().all() else ""
                for score in ("accuracy", "f1", "auc")
            ]
            seconds = rows.fit_seconds.mean()  # not there where other work ran beside it
            lines.append(
                f"| {name} | {strategy} | {len(rows)} | {' | '.join(scores).replace(' ± nan', '')} "
                f"| {'' if np.isnan(seconds) else round(seconds)} |"
            )
    return lines


def gains(cells: pd.DataFrame) -> list[str]:
    """Return what our strategies gain over others, on the seeds that both have run, and the mean of the four kinds."""
    scores = cells.pivot_table(index=["problem", "seed"], columns="strategy", values=["accuracy", "fit_seconds"])
    lines = ["| problem | strategy | against | seeds | gain, points | time ratio |", "|---|---|---|---|---|---|"]
    for strategy, other in PAIRS:
        if not {strategy, other} <= set(scores.accuracy):
            continue
        gain = 100 * (scores.accuracy[strategy] - scores.accuracy[other]).dropna()
        seconds = scores.fit_seconds.reindex(columns=[strategy, other]).dropna()  # not there for all cells
        both = seconds.groupby("problem").mean()
        for name, rows in gain.groupby("problem", sort=False):
            ratio = f"{both[strategy][name] / both[other][name]:.2f}" if name in both.index else ""
            lines.append(f"| {name} | {strategy} | {other} | {len(rows)} | {rows.mean():+.1f} | {ratio} |")
        means = gain.groupby("problem").mean()
        if set(FOUR_KINDS) <= set(means.index) & set(both.index):
            four = both.loc[FOUR_KINDS].sum()
            lines.append(
                f"| **mean of the four kinds** | {strategy} | {other} | | {means[FOUR_KINDS].mean():+.1f} "
                f"| {four[strategy] / four[other]:.2f} |"
            )
    return lines


def draw(cells: pd.DataFrame, path: Path) -> None:
    """Draw the learning curves: accuracy over the number of training images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    full = {"elpv": 1968}
    for ax, kind, title in zip(axes, ("fashion", "elpv"), ("Fashion-MNIST", "ELPV solar cells"), strict=True):
        parts = cells.problem.str.split("-")
        rows = cells[(parts.str[0] == kind) & (cells.strategy.isin(LINEAR_AND_TUNED))]
        rows = rows.groupby(["problem", "seed"]).filter(lambda cell: len(cell) == 2)  # the same images for both
        rows["n"] = [int(full.get(name, name.split("-")[-1 if "all" not in name else 1])) for name in rows.problem]
        for strategy in LINEAR_AND_TUNED:
            curve = rows[rows.strategy == strategy].groupby("n").accuracy
            ax.errorbar(curve.mean().index, curve.mean(), curve.std().fillna(0), marker="o", capsize=3, label=strategy)
        ax.set(xscale="log", xlabel="training images", ylabel="accuracy", title=title)
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report() -> None:
    """Write the table and the figure into the docs, and print the table."""
    cells = finished()
    lines = ["# Accuracy", "", "`python benchmarks/accuracy.py`", "", f"{'; '.join(sorted(set(cells.machine)))}.", ""]
    lines += [*table(cells), "", *gains(cells), ""]
    if {"fashion-50", "elpv-50"} <= set(cells.problem):
        draw(cells, DOCS / "learning_curves.png")
        lines += ["![Learning curves](learning_curves.png)", ""]
    (DOCS / "accuracy.md").write_text("\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", help="run these problems", choices=[name for name, _, _ in PLAN])
    parser.add_argument("--strategy", nargs="+", help="run these strategies", choices=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=5, help="run so many seeds at most")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        run(arguments.problem, arguments.strategy, arguments.seeds)
    report()


if __name__ == "__main__":
    main()
