"""What the advice of `recommend_strategy` is worth, on every problem for which accuracy.py has measured strategies.

    python benchmarks/advice.py

A cell is the advice for the training images of one problem. Its accuracy on the test images, and the accuracy of the
best strategy, are those that accuracy.py keeps. Wanted: the advice is within a point of the best. The trials that only
predict how long a fit takes are left out here. Needs what accuracy.py needs, except for other packages.
"""

from unittest import mock

import pandas as pd

import accuracy
from _cells import Benchmark, Cell, table
from problems import forget_rows, load
from sktransfer import recommend_strategy
from sktransfer._strategies import _recommendation

POINT = 0.01
YES = {True: "yes", False: "no"}


def plan(tiny: bool) -> list[Cell]:
    problems = ["tiny"] if tiny else [name for name, strategies, _ in accuracy.PLAN if "fine-tuned" in strategies]
    return [{"problem": problem} for problem in problems]


def measure(problem: str) -> Cell:
    images = load(problem, 0)
    forget_rows()
    with mock.patch.object(_recommendation, "_trials", lambda *_: ({}, {})):
        advice = recommend_strategy(images.X_train, images.y_train, augment=images.augment, **images.params)
    return {"images": advice.n_images, "strategy": advice.strategy, "skill": advice.skill, "distance": advice.distance}


def report(cells: list[Cell]) -> list[str]:
    """Return what the advice loses against the best strategy, on the seeds that all strategies have run."""
    measured = [cell["settings"] | cell["results"] for cell in accuracy.BENCHMARK.finished().values()]
    scores = pd.DataFrame(measured).pivot_table(index=["problem", "seed"], columns="strategy", values="accuracy")
    rows = []
    for cell in sorted(cells, key=lambda cell: (cell["problem"].split("-")[0], cell["images"])):
        if cell["problem"] not in scores.index:
            continue
        compared = scores.loc[cell["problem"], list(accuracy.OURS)].dropna(axis="columns", how="all").dropna()
        means = compared.mean()
        # accuracy.py trains one network: the default, of which the second half of the stages is trained.
        advised = "fine-tuned" if cell["strategy"] == "fine-tuned, freeze=4" else cell["strategy"]
        loss = means.max() - means[advised] if advised in means else None
        row = [cell["problem"], cell["images"], cell["skill"], cell["distance"], cell["strategy"], len(compared)]
        verdict = "not measured" if loss is None else YES[loss <= POINT]
        rows.append([*row, means.get(advised, ""), means.max(), means.idxmax(), verdict])
    columns = {"problem": "", "images": "", "skill": ".2f", "distance": ".2f", "advice": "", "seeds": ""}
    return table({**columns, "its accuracy": ".3f", "best": ".3f", "of": "", "within a point": ""}, rows)


BENCHMARK = Benchmark(__file__, __doc__, "What the advice is worth", plan, measure, report)

if __name__ == "__main__":
    BENCHMARK.main()
