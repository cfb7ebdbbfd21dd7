"""What each part of the fine-tuning recipe brings: the defaults, and the defaults with one thing changed.

    python benchmarks/recipe.py --only variant=freeze=2 problem=elpv

Each cell trains once and tests with 1, 4 and 8 views, which takes about ten minutes on two cores. Needs what
accuracy.py needs, except for fastai.
"""

from typing import Any
from unittest import mock

import pandas as pd
import torch
from skorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel

from _cells import Benchmark, Cell, defaults_of, seconds, table
from problems import Problem, forget_rows, load
from sktransfer import FineTunedCNNClassifier
from sktransfer._finetuning import _recipe, _training

PROBLEMS = ["elpv", "clothing", "wallpaper-natural-60", "fashion-1000"]
SEEDS, VIEWS = 2, [1, 4, 8]


class WeightAverage(Callback):
    """End training with an exponential moving average of the weights, which moves faster in the beginning."""

    def on_train_begin(self, net, **kwargs) -> None:
        def moved(mean: torch.Tensor, value: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
            return mean.lerp(value, 1 - min(0.99, (1 + int(step)) / (10 + int(step))))

        self.average_ = AveragedModel(net.module_, avg_fn=moved)

    def on_batch_end(self, net, **kwargs) -> None:
        self.average_.update_parameters(net.module_)

    def on_train_end(self, net, **kwargs) -> None:
        net.module_.load_state_dict(self.average_.module.state_dict())


RANDOM_HEAD, ONE_SIZE = "random first head", "the whole size in all epochs"
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    RANDOM_HEAD: {},
    ONE_SIZE: {},
    "the whole size in all epochs, 1.5 times the epochs": {"epochs": 1.5},
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
    "half the epochs": {"epochs": 0.5},
    "twice the epochs": {"epochs": 2.0},
    "300 pixels": {"image_size": 300},
}


def plan(tiny: bool) -> list[Cell]:
    return [
        {"problem": problem, "variant": variant, "seed": seed}
        for seed in range(1 if tiny else SEEDS)
        for variant in (["default", RANDOM_HEAD, ONE_SIZE, "weight average", "twice the epochs"] if tiny else VARIANTS)
        for problem in (["tiny"] if tiny else PROBLEMS)
    ]


def classifier(images: Problem, variant: str, seed: int) -> FineTunedCNNClassifier:
    """Return the classifier with the variant's parameters; ``epochs`` is a factor."""
    effort = {"augment": images.augment, "max_epochs": images.max_epochs, "random_state": seed}
    params = images.params | effort | VARIANTS[variant]
    factor = params.pop("epochs", None)
    estimator = FineTunedCNNClassifier(**params)
    if factor is not None:
        small_first = estimator.augment == "photo"
        n_epochs = _training.resolve_recipe(estimator, len(images.y_train), True, small_first=small_first).max_epochs
        estimator.set_params(max_epochs=max(1, round(factor * n_epochs)))
    return estimator


def measure(problem: str, variant: str, seed: int) -> dict[str, float]:
    """Train once, and test with different numbers of views."""
    images = load(problem, seed)
    forget_rows()
    estimator = classifier(images, variant, seed)
    original = _training.fit_first_head
    with (
        mock.patch.object(_training, "fit_first_head", mock.Mock() if variant == RANDOM_HEAD else original),
        mock.patch.object(_recipe, "SMALL_EPOCHS", 0.0 if variant.startswith(ONE_SIZE) else _recipe.SMALL_EPOCHS),
    ):
        scores = {"fit_seconds": seconds(lambda: estimator.fit(images.X_train, images.y_train))}
    scores["train_loss"] = estimator.history_[-1]["train_loss"]
    for n_views in VIEWS:
        probabilities = estimator.set_params(tta=n_views).predict_proba(images.X_test)
        scores |= {f"{name}, {n_views} views": score for name, score in images.scores(probabilities).items()}
    return scores


def report(cells: list[Cell]) -> list[str]:
    """Return one row per variant and one column per problem."""
    frame, columns = pd.DataFrame(cells), [f"accuracy, {n} views" for n in VIEWS]
    problems, rows = list(frame.problem.unique()), []
    for variant, of_variant in frame.groupby("variant", sort=False):
        rows.append([variant])
        for problem in problems:
            found = of_variant[of_variant.problem == problem]
            scores = " / ".join(f"{found[column].mean():.3f}" for column in columns)
            rows[-1].append(f"{scores} ({len(found)}), {found.fit_seconds.mean():.0f} s" if len(found) else "")
    return table(dict.fromkeys(["", *problems], ""), rows)


NOTE = "Accuracy with 1 / 4 / 8 views at test time, mean over seeds (their number), seconds of training."
TITLE = "What each part of the recipe brings"
BENCHMARK = Benchmark(__file__, __doc__, TITLE, plan, measure, report, NOTE, defaults_of(FineTunedCNNClassifier()))

if __name__ == "__main__":
    BENCHMARK.main()
