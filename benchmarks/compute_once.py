"""Is whatever is frozen really computed once, and what does that buy.

Counts the images that pass through the backbone, and times grid searches and fine-tuning against the same work on
finished features, against the same with the store off, and against a plain skorch net with frozen layers.

    python benchmarks/compute_once.py            # prints, writes docs/benchmarks/compute_once.md
    python benchmarks/compute_once.py --again    # forgets the finished cells in benchmarks/results/

Photos: ELPV solar cells, from the package elpv-dataset. Finished cells are kept and not run twice.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from skorch import NeuralNetClassifier
from torch import nn

from rows import forget_rows
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, cache_info, set_cache_limits
from sktransfer._finetuning._network import TunedNetwork
from sktransfer._frozen import _keys
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._store import resolve_store
from sktransfer._images._collection import as_images
from sktransfer.datasets import load_elpv

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "compute_once.json"
REPORT = HERE.parent / "docs" / "benchmarks" / "compute_once.md"
SVM_GRID = [0.01, 0.1, 1, 10, 100, 1000]


def photos(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return paths and labels of n solar cells."""
    cells = load_elpv()
    chosen, _ = train_test_split(np.arange(len(cells.data)), train_size=n, stratify=cells.target, random_state=0)
    return cells.data[chosen], cells.target[chosen]


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class CountedFeatures(PretrainedCNNFeatures):
    """Writes to a file how many images each transform had to compute; the file is shared by worker processes."""

    def transform(self, X):
        """Transform, and append the number of rows that were computed."""
        before = cache_info().misses
        out = super().transform(X)
        with open(self.log, "a") as file:
            file.write(f"{cache_info().misses - before}\n")
        return out

    log = ""


def counted(log: Path) -> CountedFeatures:
    """Return a counting transformer; the log travels as a class attribute, which cloudpickle sends by value."""
    CountedFeatures.log = str(log)
    log.write_text("")
    return CountedFeatures()


def grid(features, **options) -> GridSearchCV:
    """Return the grid search that users write."""
    pipeline = Pipeline([("feat", features), ("svm", SVC())])
    return GridSearchCV(pipeline, {"svm__C": SVM_GRID}, cv=5, error_score="raise", **options)


def total(log: Path) -> int:
    """Sum what the transforms wrote."""
    return sum(int(line) for line in log.read_text().split())


# --- the cells ----------------------------------------------------------------------------------------------


def images_through_the_backbone() -> dict[str, float]:
    """Count for one process, for two workers with a folder, and for a new process with that folder."""
    X, y = photos(300)
    folder = Path(tempfile.mkdtemp())
    log = folder / "log"
    forget_rows()
    grid(counted(log)).fit(X, y).predict(X)
    out = {"one process": total(log)}
    forget_rows()
    features = counted(log).set_params(memory=folder)
    grid(features, n_jobs=2).fit(X, y).predict(X)
    out["two workers, a folder"] = total(log)
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); from compute_once import *; X, y = photos(300)\n"
    code += f"log = Path({str(log)!r}); grid(counted(log).set_params(memory={str(folder)!r})).fit(X, y).predict(X)\n"
    code += "print(total(log))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    out["a new process, that folder"] = int(run.stdout)
    return out


def grid_search_of_an_svm() -> dict[str, float]:
    """Time the grid search against one extraction and the same grid search on the finished matrix."""
    X, y = photos(300)
    PretrainedCNNFeatures().fit_transform(X[:32])  # warm up
    forget_rows()
    extraction = seconds(lambda: PretrainedCNNFeatures().fit_transform(X))
    matrix = PretrainedCNNFeatures().fit_transform(X)
    on_matrix = seconds(lambda: GridSearchCV(SVC(), {"C": SVM_GRID}, cv=5).fit(matrix, y).predict(matrix))
    forget_rows()
    ours = seconds(lambda: grid(PretrainedCNNFeatures()).fit(X, y).predict(X))
    return {"ours": ours, "extraction": extraction, "on matrix": on_matrix, "ratio": ours / (extraction + on_matrix)}


def head_on_a_frozen_body() -> dict[str, float]:
    """Time freeze="all" against one extraction and the same head trained on the finished features by plain torch."""
    X, y = photos(300)
    PretrainedCNNFeatures().fit_transform(X[:32])
    forget_rows()
    extraction = seconds(lambda: PretrainedCNNFeatures().fit_transform(X))
    matrix = torch.from_numpy(PretrainedCNNFeatures().fit_transform(X))
    labels = torch.from_numpy(y)
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 2))
    training = seconds(lambda: train_bare(head, matrix, labels, epochs=30))
    forget_rows()
    clf = FineTunedCNNClassifier(freeze="all", max_epochs=30, random_state=0)
    ours = seconds(lambda: clf.fit(X, y))
    return {"ours": ours, "extraction": extraction, "bare head": training, "ratio": ours / (extraction + training)}


def train_bare(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[float]:
    """Train with a plain torch loop on tensors in memory; return the seconds of each epoch."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4)
    times = []
    for _ in range(epochs):
        start = time.perf_counter()
        network.train()
        for part in torch.randperm(len(inputs)).tensor_split(-(-len(inputs) // 32)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[part]), labels[part]).backward()
            optimizer.step()
        times.append(time.perf_counter() - start)
    return times


def pixels(X: np.ndarray) -> torch.Tensor:
    """Return normalised images (n, 3, 224, 224), decoded beforehand: the plain net is given its inputs for nothing."""
    preprocessing = load_backbone().preprocessing
    stack = np.stack([preprocessing.canvas(image) for image in as_images(X)])
    return (torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous() / 255 - 0.5) / 0.5


class PlainNetwork(nn.Module):
    """Lite0 with a new head and frozen first layers, as tutorials have it."""

    def __init__(self, freeze: int | str) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", num_classes=2)
        parts = [self.net.conv_stem, self.net.bn1, self.net.blocks[:freeze] if freeze != "all" else self.net.blocks]
        parts += [self.net.conv_head, self.net.bn2] if freeze == "all" else []
        for part in parts:
            part.requires_grad_(False)

    def forward(self, x):
        """Return logits."""
        return self.net(x)


def plain_skorch(freeze: int | str, epochs: int) -> NeuralNetClassifier:
    """Return the net of the tutorials."""
    return NeuralNetClassifier(
        PlainNetwork,
        module__freeze=freeze,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-4,
        max_epochs=epochs,
        batch_size=32,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def fine_tuning(freeze: int) -> dict[str, float]:
    """Time epochs and whole fits with the body frozen up to a stage."""
    X, y = photos(160)
    images, labels = pixels(X), torch.from_numpy(y)
    forget_rows()
    clf = FineTunedCNNClassifier(freeze=freeze, max_epochs=10, random_state=0)
    ours = seconds(lambda: clf.fit(X, y))
    epoch = float(np.median([record["seconds"] for record in clf.history_[1:]]))
    suffix = TunedNetwork(load_backbone().stages[freeze:], 1280, 2, dropout=0.2)
    import copy

    suffix = copy.deepcopy(suffix).requires_grad_(True).to(memory_format=torch.channels_last)
    with torch.no_grad():
        body = load_backbone().stages[:freeze]
        maps = torch.cat([body(part) for part in images.split(32)]).permute(0, 2, 3, 1).contiguous()
    bare = float(np.median(train_bare(suffix, maps, labels, epochs=6)[1:]))
    plain = seconds(lambda: plain_skorch(freeze, 10).fit(images, labels))
    return {
        "our epoch": epoch,
        "bare epoch": bare,
        "epoch ratio": epoch / bare,
        "our fit": ours,
        "plain skorch fit": plain,
        "fit speed-up": plain / ours,
    }


def grid_over_freeze() -> dict[str, float]:
    """Time a grid over freeze and lr_factor with the store, without it, and with plain skorch nets."""
    X, y = photos(120)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    clf = FineTunedCNNClassifier(max_epochs=5, random_state=0)
    params = {"freeze": [5, 6, "all"], "lr_factor": [0.1, 0.03]}
    search = GridSearchCV(clf, params, cv=folds, error_score="raise")

    def run() -> np.ndarray:
        forget_rows()
        search.fit(X, y)
        return search.predict_proba(X)

    run_times, outcomes = {}, {}
    for name, megabytes in (("store", 512), ("store off", 0)):
        set_cache_limits(memory_mb=megabytes)
        run_times[name] = seconds(lambda name=name: outcomes.update({name: run()}))
        outcomes[f"{name} scores"] = search.cv_results_["mean_test_score"]
    set_cache_limits(memory_mb=512)
    images, labels = pixels(X), torch.from_numpy(y)

    def plain() -> None:
        for freeze in params["freeze"]:
            for _ in params["lr_factor"]:
                for train, test in folds.split(X, y):
                    net = plain_skorch(freeze, 5).fit(images[train], labels[train])
                    net.predict(images[test])
        plain_skorch(6, 5).fit(images, labels).predict(images)

    run_times["plain skorch"] = seconds(plain)
    return {
        **run_times,
        "speed-up over store off": run_times["store off"] / run_times["store"],
        "speed-up over plain skorch": run_times["plain skorch"] / run_times["store"],
        "largest difference of probabilities": float(abs(outcomes["store"] - outcomes["store off"]).max()),
        "scores equal": float((outcomes["store scores"] == outcomes["store off scores"]).all()),
    }


def cost_and_gain_of_the_store() -> dict[str, float]:
    """Time what the store adds to a cold pass, and a warm pass over 5,000 vectors from disk."""
    with tempfile.TemporaryDirectory() as folder:
        X = five_thousand_photos(Path(folder) / "photos")
        memory = Path(folder) / "cache"
        forget_rows()
        model = PretrainedCNNFeatures(memory=memory).fit(X)
        cold = seconds(lambda: model.transform(X))
        store, images = resolve_store(memory), as_images(X)
        rows = model.transform(X[:1000])
        origin = _keys.Origin("once more", load_backbone().preprocessing, "auto", "", "", (8,), "avg")
        keys = [_keys.row_key(origin, _keys.fingerprint(images, i)[0]) for i in range(1000)]

        def store_alone() -> None:
            _keys._known_files.clear()
            for i in range(1000):
                _keys.row_key(origin, _keys.fingerprint(images, i)[0])
                store.get(keys[i])
                store.put(keys[i], rows[i].copy())

        added = 5 * seconds(store_alone)
        forget_rows()
        code = "import sys, time, glob; from sktransfer import PretrainedCNNFeatures\n"
        code += "X = sorted(glob.glob(sys.argv[1] + '/*.jpg')); m = PretrainedCNNFeatures(memory=sys.argv[2]).fit(X)\n"
        code += "start = time.perf_counter(); m.transform(X); print(time.perf_counter() - start)"
        command = [sys.executable, "-c", code, str(Path(folder) / "photos"), str(memory)]
        warm = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "cold pass": cold,
        "store's part of it": added,
        "share": added / (cold - added),
        "warm pass, new process": warm,
        "speed-up": cold / warm,
    }


def five_thousand_photos(folder: Path) -> list[str]:
    """Write JPEGs of the cells and of their mirror images."""
    folder.mkdir()
    for number, path in enumerate(load_elpv().data[:2500]):
        with Image.open(path) as image:
            image.save(folder / f"{number:05}.jpg", quality=90)
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{number:05}m.jpg", quality=90)
    return sorted(str(path) for path in folder.iterdir())


CELLS: dict[str, tuple[str, Callable[[], dict[str, float]]]] = {
    "images through the backbone": (
        "300 photos, six C, five folds, refit, predict",
        images_through_the_backbone,
    ),
    "grid search of an SVM": ("wanted: ratio ≤ 1.25", grid_search_of_an_svm),
    "head on a frozen body, 30 epochs": ("wanted: ratio ≤ 1.3", head_on_a_frozen_body),
    "fine-tuning, freeze=5": ("wanted: epoch ratio ≤ 1.15, fit speed-up ≥ 2", lambda: fine_tuning(5)),
    "fine-tuning, freeze=6": ("wanted: epoch ratio ≤ 1.15, fit speed-up ≥ 4", lambda: fine_tuning(6)),
    "grid over freeze and lr_factor": ("wanted: ≥ 2.2 over store off, ≥ 4 over plain skorch", grid_over_freeze),
    "cost and gain of the store": ("wanted: share ≤ 0.03, speed-up ≥ 50", cost_and_gain_of_the_store),
}


def main() -> None:
    """Run the cells that are not finished, print all, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="run finished cells again")
    parser.add_argument("--only", help="run cells whose name contains this")
    arguments = parser.parse_args()
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, (_, work) in CELLS.items():
        chosen = arguments.only is None or arguments.only in name
        if chosen and (arguments.again or name not in done):
            print(f"{name} …", flush=True)
            done[name] = work()
            RESULTS.write_text(json.dumps(done, indent=1))
    lines = ["# Computed once", "", "`python benchmarks/compute_once.py`", ""]
    lines += [f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads. Times in seconds.", ""]
    for name, (note, _) in CELLS.items():
        if name in done:
            lines += [f"**{name}** ({note})", "", *(f"- {key}: {value:.4g}" for key, value in done[name].items()), ""]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
