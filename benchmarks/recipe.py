"""What each part of the fine-tuning recipe brings: the defaults, and the defaults with one thing changed.

    python benchmarks/recipe.py                      # runs what is not finished yet, writes the table
    python benchmarks/recipe.py --variant "freeze=2" --problem elpv

Each variant is trained once per seed and tested with 1, 4 and 8 views. Finished cells are kept in
benchmarks/results/. A run on two cores takes about seven minutes.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, roc_auc_score
from skorch.callbacks import Callback

from accuracy import DOCS, machine
from problems import Problem, load
from rows import forget_rows
from sktransfer import FineTunedCNNClassifier
from sktransfer._finetuning import _training

RESULTS = Path(__file__).parent / "results" / "recipe.jsonl"
PROBLEMS = ["elpv", "clothing", "wallpaper-natural-60", "fashion-1000"]
VIEWS = [1, 4, 8]


class WeightAverage(Callback):
    """Ends training with the exponential moving average of the weights."""

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay

    def on_train_begin(self, net, **kwargs) -> None:
        """Start from the first weights."""
        self.average_ = copy.deepcopy(net.module_)
        self.step_ = 0

    def on_batch_end(self, net, training, **kwargs) -> None:
        """Move the average towards the weights; faster in the beginning."""
        self.step_ += 1
        decay = min(self.decay, (1 + self.step_) / (10 + self.step_))
        with torch.no_grad():
            for mean, value in zip(self.average_.parameters(), net.module_.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)

    def on_train_end(self, net, **kwargs) -> None:
        """Take the average."""
        net.module_.load_state_dict(self.average_.state_dict())


RANDOM_HEAD = "random first head"
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    RANDOM_HEAD: {},
    "lr=1e-3": {"lr": 1e-3},
    "lr=1e-2": {"lr": 1e-2},
    "lr=3e-4, lr_factor=1": {"lr": 3e-4, "lr_factor": 1.0},
    "lr_factor=0.3": {"lr_factor": 0.3},
    "freeze=2": {"freeze": 2},
    "freeze=3": {"freeze": 3},
    "freeze=5": {"freeze": 5},
    "freeze=6": {"freeze": 6},
    "no label smoothing": {"net_params": {"criterion__label_smoothing": 0.0}},
    "no clipping": {"net_params": {"callbacks__clip": None}},
    "weight average": {"callbacks": [WeightAverage()]},
    "no dropout": {"dropout": 0.0},
    "no augmentation": {"augment": None},
    "eight stored views": {"n_views": 8},
    "half the epochs": {"max_epochs": 0.5},
    "twice the epochs": {"max_epochs": 2.0},
    "300 pixels": {"image_size": 300},
}


def classifier(problem: Problem, variant: str, seed: int) -> FineTunedCNNClassifier:
    """Return the classifier with the variant's parameters; a float as `max_epochs` is a share of the default."""
    params = dict(VARIANTS[variant])
    if "max_epochs" in params:
        default = FineTunedCNNClassifier()
        n_epochs = _training.resolve_recipe(default, len(problem.y_train), pretrained=True).max_epochs
        params["max_epochs"] = max(1, round(params["max_epochs"] * n_epochs))
    return FineTunedCNNClassifier(**{"augment": problem.augment, "random_state": seed, **params})


def measure(problem: Problem, variant: str, seed: int) -> dict[str, float]:
    """Train once, and test with different numbers of views."""
    forget_rows()
    estimator = classifier(problem, variant, seed)
    start = time.perf_counter()
    if variant == RANDOM_HEAD:
        with mock.patch.object(_training, "fit_first_head"):
            estimator.fit(problem.X_train, problem.y_train)
    else:
        estimator.fit(problem.X_train, problem.y_train)
    scores = {"fit_seconds": time.perf_counter() - start, "train_loss": estimator.history_[-1]["train_loss"]}
    for n_views in VIEWS:
        probabilities = estimator.set_params(tta=n_views).predict_proba(problem.X_test)
        predicted = estimator.classes_[probabilities.argmax(axis=1)]
        scores[f"accuracy, {n_views} views"] = accuracy_score(problem.y_test, predicted)
        if len(estimator.classes_) == 2:
            scores[f"AUC, {n_views} views"] = roc_auc_score(problem.y_test, probabilities[:, 1])
    return scores


def finished() -> pd.DataFrame:
    """Return the finished cells, one row each."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return pd.DataFrame([json.loads(line) for line in lines], columns=None if lines else ["problem", "variant", "seed"])


def report() -> None:
    """Write the table into the docs: one row per variant, one column per problem, means over seeds."""
    cells = finished()
    columns = [f"accuracy, {n} views" for n in VIEWS]
    lines = ["# What each part of the recipe brings", "", "`python benchmarks/recipe.py`", "", f"{machine()}.", ""]
    lines += ["Accuracy with 1 / 4 / 8 views at test time, mean over seeds (their number), seconds of training.", ""]
    lines += [f"| | {' | '.join(PROBLEMS)} |", "|---|" + "---|" * len(PROBLEMS)]
    for variant in VARIANTS:
        entries = []
        for problem in PROBLEMS:
            rows = cells[(cells.problem == problem) & (cells.variant == variant)]
            scores = " / ".join(f"{rows[column].mean():.3f}" for column in columns) if len(rows) else ""
            entries.append(f"{scores} ({len(rows)}), {rows.fit_seconds.mean():.0f} s" if len(rows) else "")
        if any(entries):
            lines.append(f"| {variant} | {' | '.join(entries)} |")
    (DOCS / "recipe.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


def main() -> None:
    """Run what is not finished, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    done = set(finished()[["problem", "variant", "seed"]].itertuples(index=False, name=None))
    for seed in range(arguments.seeds):
        for variant in arguments.variant:
            for name in arguments.problem:
                if (name, variant, seed) in done:
                    continue
                print(f"{name}, {variant}, seed {seed} … ", end="", flush=True)
                scores = measure(load(name, seed), variant, seed)
                cell = {"problem": name, "variant": variant, "seed": seed, **scores, "machine": machine()}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(cell) + "\n")
                print({key: np.round(value, 4) for key, value in scores.items()}, flush=True)
    report()


if __name__ == "__main__":
    main()
