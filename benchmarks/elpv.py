"""Accuracy of pretrained features + a linear SVM on the ELPV solar cells.

Protocol: five random 75/25 splits, stratified over label × module type (8 strata: four probabilities of a
defect, mono and poly). C is chosen on each training part by cross-validation. Published figures, of other splits
(Deitsch et al. 2019): hand-made features + SVM 0.824, fine-tuned VGG-19 0.884.

    python benchmarks/elpv.py            # prints a table, writes benchmarks/results/elpv-float32.csv
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sktransfer import PretrainedCNNFeatures
from sktransfer.datasets import load_elpv

RESULTS = Path(__file__).parent / "results"


def linear_svm() -> GridSearchCV:
    """StandardScaler + LinearSVC, C by inner five-fold cross-validation."""
    pipeline = make_pipeline(StandardScaler(), LinearSVC())
    return GridSearchCV(pipeline, {"linearsvc__C": np.logspace(-5, -2, 7)}, cv=5, n_jobs=2)


def run(seeds: int, image_size: int | None, precision: str) -> pd.DataFrame:
    """Return one row per seed."""
    cells = load_elpv()
    strata = [f"{p:.2f} {kind}" for p, kind in zip(cells.probability, cells.module_type, strict=True)]
    start = time.perf_counter()
    features = PretrainedCNNFeatures(image_size=image_size, precision=precision, verbose=1).fit_transform(cells.data)
    print(f"features of {len(features)} photos in {time.perf_counter() - start:.1f} s")
    rows = []
    for seed in range(seeds):
        train, test = train_test_split(np.arange(len(features)), test_size=0.25, stratify=strata, random_state=seed)
        start = time.perf_counter()
        search = linear_svm().fit(features[train], cells.target[train])
        rows.append(
            {
                "seed": seed,
                "C": search.best_params_["linearsvc__C"],
                "accuracy": search.score(features[test], cells.target[test]),
                "f1": f1_score(cells.target[test], search.predict(features[test])),
                "auc": roc_auc_score(cells.target[test], search.decision_function(features[test])),
                "seconds": time.perf_counter() - start,
            }
        )
        print(rows[-1])
    return pd.DataFrame(rows)


def main() -> None:
    """Run the benchmark and report means and spreads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    table = run(arguments.seeds, arguments.image_size, arguments.precision)
    table.to_csv(RESULTS / f"elpv-{arguments.precision}.csv", index=False)
    print(table.drop(columns=["seed", "C"]).agg(["mean", "std"]).round(4).to_string())


if __name__ == "__main__":
    main()
