"""Accuracy of pretrained features + a linear SVM on the ELPV solar cells, in float32 and in bfloat16.

    python benchmarks/elpv.py --only precision=bfloat16

Five random 75/25 splits, stratified over label × module type (8 strata: four probabilities of a defect, mono and poly).
C is chosen on each training part by cross-validation. Published figures, of other splits (Deitsch et al. 2019):
hand-made features + SVM 0.824, fine-tuned VGG-19 0.884.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from _cells import Benchmark, Cell, defaults_of, seconds, table
from problems import load
from sktransfer import PretrainedCNNFeatures


def plan(tiny: bool) -> list[Cell]:
    problem, seeds = ("tiny", 1) if tiny else ("elpv", 5)
    precisions = "float32", "bfloat16"
    return [{"precision": each, "seed": seed, "problem": problem} for each in precisions for seed in range(seeds)]


def measure(precision: str, seed: int, problem: str) -> dict[str, float]:
    """Search C on one training part and test on the other."""
    images = load(problem, seed)
    features = PretrainedCNNFeatures(precision=precision, verbose=1, **images.params).fit(images.X_train)
    X_train, X_test = features.transform(images.X_train), features.transform(images.X_test)  # stored after one split
    pipeline = make_pipeline(StandardScaler(), LinearSVC())
    search = GridSearchCV(pipeline, {"linearsvc__C": np.logspace(-5, -2, 7)}, cv=5, n_jobs=2)
    took = seconds(lambda: search.fit(X_train, images.y_train))
    return {
        "C": search.best_params_["linearsvc__C"],
        "accuracy": search.score(X_test, images.y_test),
        "f1": f1_score(images.y_test, search.predict(X_test)),
        "auc": roc_auc_score(images.y_test, search.decision_function(X_test)),
        "seconds": took,
    }


def report(cells: list[Cell]) -> list[str]:
    """Return mean ± standard deviation over the splits."""
    rows = []
    for precision, found in pd.DataFrame(cells).groupby("precision", sort=False):
        scores = [f"{found[score].mean():.4f} ± {found[score].std():.4f}" for score in ("accuracy", "f1", "auc")]
        rows.append([precision, len(found), *scores, found.seconds.mean()])
    columns = dict.fromkeys(["precision", "splits", "accuracy", "F1", "AUC"], "")
    return table({**columns, "search of C, s": ".1f"}, rows)


TITLE, DEFAULTS = "A linear SVM on features of solar cells", defaults_of(PretrainedCNNFeatures())
BENCHMARK = Benchmark(__file__, __doc__, TITLE, plan, measure, report, defaults=DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()
