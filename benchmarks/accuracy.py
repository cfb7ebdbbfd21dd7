"""Accuracy and time of each way to use a pretrained network, on four kinds of images, beside other packages.

    python benchmarks/accuracy.py --only problem=elpv problem=clothing strategy=fine-tuned seed=0

Needs: pip install 'sktransfer[demo,openvino]' fastai lightly-train, Debian's package dataset-fashion-mnist, and a
folder of photos of clothes (problems.py names it); wallpaper groups are generated. AutoGluon wants older packages than
ours, and so an environment of its own (README.md). All strategies use EfficientNet-Lite0 with the same weights and
splits. Ours run at their defaults, except for the kind of augmentation.
"""

import time
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator

import automl
import peers
from _cells import Benchmark, Cell, defaults_of, table
from problems import forget_rows, load
from sktransfer import FineTunedCNNClassifier, make_feature_classifier

FEATURES: dict[str, dict[str, Any]] = {
    "features + linear": {},
    "features of two networks + linear": {"backbone": ["efficientnet_lite0", "efficientnet_lite2"]},
    "features + linear, no crop": {"crop": False},
}
TRAINED: dict[str, dict[str, Any]] = {
    "dense head": {"freeze": "all", "crop": True, "head_hidden": (256,), "augment": None},
    "fine-tuned": {},
    "fine-tuned, crop": {"crop": True},
    "shallow from scratch": {"backbone": "shallow_cnn", "weights": None},
    "from scratch": {"weights": None},
}
FIVE_SEEDS = {"fastai fine_tune(5)": peers.fastai_fine_tune, "skorch tutorial": peers.skorch_tutorial}
ONE_SEED = {
    "timm probe": peers.timm_probe,
    "features + boosted trees": peers.boosted_trees,
    "lightly-train": automl.lightly_train_classification,
    "AutoGluon": automl.autogluon_multimodal,
}
PEERS = FIVE_SEEDS | ONE_SEED
OTHER_CROPS = ("fine-tuned, crop", "features + linear, no crop")  # than the default
LINEAR_AND_TUNED = ("features + linear", "fine-tuned")
FOUR_KINDS = ["elpv", "clothing", "wallpaper-natural-60", "fashion-1000"]
TWO = "features of two networks + linear"
PAIRS = [
    ("fine-tuned", "features + linear"),
    (TWO, "features + linear"),
    ("fine-tuned", TWO),
    ("fine-tuned", "fine-tuned, crop"),
    ("features + linear, no crop", "features + linear"),
    ("fine-tuned", "fastai fine_tune(5)"),
    ("features + linear", "fastai fine_tune(5)"),
    ("fine-tuned", "skorch tutorial"),
    ("features + linear", "timm probe"),
    ("features + linear", "features + boosted trees"),
    ("fine-tuned", "lightly-train"),
    ("fine-tuned", "AutoGluon"),
]
MEASURED = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "f1": "F1",
    "auc": "AUC",
}
OURS = ("features + linear", *(name for name in TRAINED if name not in OTHER_CROPS))

# Problem, strategies, number of seeds, in the order of the report.
PLAN: list[tuple[str, tuple[str, ...], int]] = [
    ("elpv", (*OURS, *FIVE_SEEDS), 5),
    ("clothing", (*OURS, *FIVE_SEEDS), 5),
    ("wallpaper-natural-60", (*OURS, *FIVE_SEEDS), 5),
    ("wallpaper-matched-60", OURS, 5),
    ("fashion-1000", (*OURS, *FIVE_SEEDS), 5),
    *((f"fashion-{n}-all", ("features + linear",), 5) for n in (100, 1000)),
    ("fashion-10000-all", LINEAR_AND_TUNED, 2),
    ("wallpaper-natural-300", OURS, 2),
    ("wallpaper-matched-300", OURS, 2),
    *((f"fashion-{n}", LINEAR_AND_TUNED, 2) for n in (50, 100, 200, 500, 2000, 5000)),
    *((f"elpv-{n}", LINEAR_AND_TUNED, 2) for n in (50, 100, 200, 500, 1000)),
    *((f"{kind}-{n}", LINEAR_AND_TUNED, 2) for kind in ("clothing", "groceries", "signdigits") for n in (40, 60, 150)),
    *((f"digits-{n}", LINEAR_AND_TUNED, 2) for n in (20, 60)),
    *((f"{kind}-20", LINEAR_AND_TUNED, 2) for kind in ("elpv", "fashion")),
    *((f"wallpaper-natural-{n}", LINEAR_AND_TUNED, 2) for n in (2, 4, 9)),
    *((name, (TWO,), 5) for name in FOUR_KINDS),
    *((name, OTHER_CROPS, 5) for name in FOUR_KINDS),
    *((name, tuple(ONE_SEED), 1) for name in FOUR_KINDS),
]
TINY_PLAN = [("tiny", (*FEATURES, *TRAINED, *PEERS), 1)]


def plan(tiny: bool) -> list[Cell]:
    """Return the first seed of all problems before the second of any."""
    return [
        {"problem": problem, "strategy": strategy, "seed": seed}
        for seed in range(5)
        for problem, strategies, seeds in (TINY_PLAN if tiny else PLAN)
        for strategy in strategies
        if seed < seeds
    ]


def estimator(strategy: str, params: Cell, training: Cell) -> BaseEstimator:
    """Return one of ours, with the parameters of all estimators and those of training."""
    if strategy in FEATURES:
        return make_feature_classifier(**FEATURES[strategy] | params)
    return FineTunedCNNClassifier(**params | training | TRAINED[strategy])


def measure(problem: str, strategy: str, seed: int) -> dict[str, float]:
    images = load(problem, seed)
    if len(images.X_test) < 10_000:  # the largest test set is the same for all seeds, and is read once
        forget_rows()
    start = time.perf_counter()
    if strategy in PEERS:
        probabilities, fit_seconds = PEERS[strategy](images, seed)
    else:
        training = {"augment": images.augment, "max_epochs": images.max_epochs, "random_state": seed}
        model = estimator(strategy, images.params, training).fit(images.X_train, images.y_train)
        fit_seconds = time.perf_counter() - start
        probabilities = model.predict_proba(images.X_test)
    return {**images.scores(probabilities), "fit_seconds": fit_seconds, "all_seconds": time.perf_counter() - start}


def defaults(problem: str, strategy: str, seed: int) -> Cell:
    return {} if strategy in PEERS else defaults_of(estimator(strategy, {}, {}))


def report(cells: list[Cell]) -> list[str]:
    """Return mean ± standard deviation over seeds, what our strategies gain over others, and the learning curves."""
    frame = pd.DataFrame(cells, columns=["problem", "strategy", "seed", *MEASURED, "fit_seconds"])
    rows = [
        # Cells have no time if other work ran at the same time.
        [name, strategy, len(found), *(mean_and_spread(found[each]) for each in MEASURED)]
        + ["" if found.fit_seconds.isna().all() else found.fit_seconds.mean()]
        for name, strategies, _ in (*PLAN, *TINY_PLAN)
        for strategy in strategies
        if len(found := frame[(frame.problem == name) & (frame.strategy == strategy)])
    ]
    columns = dict.fromkeys(["problem", "strategy", "seeds", *MEASURED.values()], "")
    lines = table({**columns, "training, s": ".0f"}, rows)
    columns = dict.fromkeys(["problem", "strategy", "against", "seeds"], "")
    lines += table({**columns, "gain, points": "+.1f", "time ratio": ".2f"}, gains(frame))
    if {"fashion-50", "elpv-50"} <= set(frame.problem):
        draw(frame)
        lines += ["![Learning curves](learning_curves.png)", ""]
    if set(FOUR_KINDS) <= set(frame.problem):
        draw_minutes(frame)
        lines += ["Accuracy over the seconds of training on two CPU cores, first split:", ""]
        lines += ["![Accuracy per minute](accuracy_per_minute.png)"]
    return lines


def mean_and_spread(scores: pd.Series) -> str:
    """Return nothing if a score is missing, and no spread of a single score."""
    return "" if scores.isna().any() else f"{scores.mean():.3f} ± {scores.std():.3f}".removesuffix(" ± nan")


def gains(frame: pd.DataFrame) -> list[list[Any]]:
    """Return what our strategies gain over others, on the seeds that both have run, and the mean of the four kinds."""
    scores = frame.pivot_table(index=["problem", "seed"], columns="strategy", values=["accuracy", "fit_seconds"])
    rows: list[list[Any]] = []
    for strategy, other in PAIRS:
        if not {strategy, other} <= set(scores.accuracy):
            continue
        gain = 100 * (scores.accuracy[strategy] - scores.accuracy[other]).dropna()
        seconds = scores.fit_seconds.reindex(columns=[strategy, other]).dropna().groupby("problem").mean()
        ratios = seconds[strategy] / seconds[other]
        for name, of_problem in gain.groupby("problem"):
            rows.append([name, strategy, other, len(of_problem), of_problem.mean(), ratios.get(name, "")])
        means = gain.groupby("problem").mean()
        if set(FOUR_KINDS) <= set(means.index) & set(seconds.index):
            total = seconds.loc[FOUR_KINDS].sum()
            mean = "**mean of the four kinds**", strategy, other, "", means[FOUR_KINDS].mean()
            rows.append([*mean, total[strategy] / total[other]])
    return rows


def draw(frame: pd.DataFrame) -> None:
    """Draw the learning curves: accuracy over the number of training images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes, full = figure.subplots(1, 2), {"elpv": 1968}
    for ax, kind, title in zip(axes, ("fashion", "elpv"), ("Fashion-MNIST", "ELPV solar cells"), strict=True):
        rows = frame[(frame.problem.str.split("-").str[0] == kind) & (frame.strategy.isin(LINEAR_AND_TUNED))]
        rows = rows.groupby(["problem", "seed"]).filter(lambda cell: len(cell) == 2)  # the same images for both
        rows["n"] = [full.get(name) or int(name.removesuffix("-all").split("-")[1]) for name in rows.problem]
        for strategy in LINEAR_AND_TUNED:
            curve = rows[rows.strategy == strategy].groupby("n").accuracy
            ax.errorbar(curve.mean().index, curve.mean(), curve.std().fillna(0), marker="o", capsize=3, label=strategy)
        ax.set(xscale="log", xlabel="training images", ylabel="accuracy", title=title)
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    figure.savefig(BENCHMARK.report_file.with_name("learning_curves.png"), dpi=130)


def draw_minutes(frame: pd.DataFrame) -> None:
    """Draw accuracy over training time of all strategies on the first split, and the best accuracy of ours so far."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    first = frame[(frame.seed == 0) & ~frame.strategy.isin(OTHER_CROPS)].dropna(subset="fit_seconds")
    colours = {name: f"C{k}" for k, name in enumerate(sorted(set(first.strategy)))}
    for ax, problem in zip(figure.subplots(2, 2).flat, FOUR_KINDS, strict=True):
        cells = first[first.problem == problem].sort_values("fit_seconds")
        for cell in cells.itertuples():
            marker = "s" if cell.strategy in PEERS else "o"
            ax.plot(cell.fit_seconds, cell.accuracy, marker, color=colours[cell.strategy], label=cell.strategy)
        ours = cells[~cells.strategy.isin(PEERS)]
        ax.step(ours.fit_seconds, ours.accuracy.cummax(), where="post", color="grey", lw=1, zorder=0)
        ax.set(xscale="log", xlabel="seconds of training", ylabel="accuracy", title=problem)
        ax.grid(alpha=0.3)
    points = {label: line for ax in figure.axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(points.values(), points.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(BENCHMARK.report_file.with_name("accuracy_per_minute.png"), dpi=130)


NOTE = "Fine-tuning of clothes and Fashion-MNIST took twice the time when it was measured (TRAIN-16)."
BENCHMARK = Benchmark(__file__, __doc__, "Accuracy", plan, measure, report, NOTE, defaults)

if __name__ == "__main__":
    BENCHMARK.main()
