"""Whether whatever is frozen is really computed once, and what that buys.

Counts the images that pass through the backbone, and times grid searches and fine-tuning against the same work on
finished features, against the same with the store off, and against a plain skorch net with frozen layers. The photos
are ELPV solar cells, from the package elpv-dataset.
"""

import copy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from skorch import NeuralNetClassifier
from torch import nn

from _cells import Benchmark, defaults_of, named_cells, seconds
from peers import plain_training
from problems import forget_rows, solar_cells
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, cache_info, set_cache_limits
from sktransfer._frozen import _keys
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._cut_network import Outputs
from sktransfer._frozen._store import resolve_store
from sktransfer._images._collection import as_images

OURS = partial(FineTunedCNNClassifier, crop=True, random_state=0)  # sees the images that the plain net sees
SVM_GRID = [0.01, 0.1, 1, 10, 100, 1000]


class CountedFeatures(PretrainedCNNFeatures):
    """Write to a file how many images each transform had to compute; worker processes share the file."""

    def __init__(self, log="", memory=None):
        super().__init__(memory=memory)
        self.log = log

    def transform(self, X):
        """Transform, and append the number of rows that were computed."""
        before = cache_info().misses
        out = super().transform(X)
        with open(self.log, "a") as file:
            file.write(f"{cache_info().misses - before}\n")
        return out


def grid(features: PretrainedCNNFeatures, n_jobs: int | None = None) -> GridSearchCV:
    """Return the grid search that users write."""
    pipeline = Pipeline([("feat", features), ("svm", SVC())])
    return GridSearchCV(pipeline, {"svm__C": SVM_GRID}, cv=5, error_score="raise", n_jobs=n_jobs)


def computed(n: int, log: Path, memory: Path | None = None, n_jobs: int | None = None) -> int:
    """Return how many images a grid search over n photos computes, and a prediction of them."""
    X, y = solar_cells(n)
    log.write_text("")
    grid(CountedFeatures(str(log), memory), n_jobs).fit(X, y).predict(X)
    return sum(map(int, log.read_text().split()))


def images_through_the_backbone(tiny: bool) -> dict[str, float]:
    """Count for one process, for two workers with a folder, and for a new process with that folder."""
    n = 20 if tiny else 300
    with tempfile.TemporaryDirectory() as folder:
        log, memory = Path(folder) / "log", Path(folder) / "memory"
        forget_rows()
        out = {"one process": computed(n, log)}
        forget_rows()
        out["two workers, a folder"] = computed(n, log, memory, n_jobs=2)
        code = f"from compute_once import *; print(computed({n}, Path({str(log)!r}), Path({str(memory)!r})))"
        found = subprocess.check_output([sys.executable, "-c", code], cwd=Path(__file__).parent, text=True)
        out["a new process, that folder"] = int(found)
    return out


def grid_search_of_an_svm(tiny: bool) -> dict[str, float]:
    """Time the grid search against one extraction and the same grid search on the finished matrix."""
    X, y, extraction, matrix = extracted(20 if tiny else 300)
    on_matrix = seconds(lambda: GridSearchCV(SVC(), {"C": SVM_GRID}, cv=5).fit(matrix, y).predict(matrix))
    forget_rows()
    ours = seconds(lambda: grid(PretrainedCNNFeatures()).fit(X, y).predict(X))
    return {"ours": ours, "extraction": extraction, "on matrix": on_matrix, "ratio": ours / (extraction + on_matrix)}


def head_on_a_frozen_body(tiny: bool) -> dict[str, float]:
    """Time freeze="all" against one extraction and the same head trained on the finished features by plain torch."""
    X, y, extraction, matrix = extracted(20 if tiny else 300)
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 2))
    training = seconds(lambda: train_bare(head, torch.from_numpy(matrix), torch.from_numpy(y), epochs=30))
    forget_rows()
    clf = OURS(freeze="all", max_epochs=30)
    ours = seconds(lambda: clf.fit(X, y))
    return {"ours": ours, "extraction": extraction, "bare head": training, "ratio": ours / (extraction + training)}


def extracted(n: int) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return photos, labels, the seconds of one extraction from an empty store, and the features."""
    X, y = solar_cells(n)
    PretrainedCNNFeatures().fit_transform(X[:32])  # warm up
    forget_rows()
    return X, y, seconds(lambda: PretrainedCNNFeatures().fit_transform(X)), PretrainedCNNFeatures().fit_transform(X)


def train_bare(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[float]:
    """Train on shuffled tensors in memory; return the seconds of each epoch."""

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        parts = torch.randperm(len(inputs)).tensor_split(-(-len(inputs) // 32))
        return ((inputs[part], labels[part]) for part in parts)

    return plain_training(network, batches, epochs)


def pixels(X: np.ndarray) -> torch.Tensor:
    """Return normalised images (n, 3, 224, 224), decoded beforehand: the plain net is given its inputs for nothing."""
    preprocessing = load_backbone().preprocessing
    stack = np.stack([preprocessing.canvas(image) for image in as_images(X)])
    return (torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous() / 255 - 0.5) / 0.5


def plain_skorch(freeze: int | str, epochs: int) -> NeuralNetClassifier:
    """Return the net of the tutorials: Lite0 with a new head and frozen first layers."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    frozen = [network.conv_stem, network.bn1, *(network.blocks if freeze == "all" else network.blocks[:freeze])]
    for part in [*frozen, network.conv_head, network.bn2] if freeze == "all" else frozen:
        part.requires_grad_(False)
    return NeuralNetClassifier(
        network,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=1e-4,
        max_epochs=epochs,
        batch_size=32,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def fine_tuning(freeze: int, tiny: bool) -> dict[str, float]:
    """Time epochs and whole fits with the body frozen up to a stage."""
    (X, y), epochs = solar_cells(8 if tiny else 160), 2 if tiny else 10
    images, labels = pixels(X), torch.from_numpy(y)
    forget_rows()
    clf = OURS(freeze=freeze, max_epochs=epochs)
    ours = seconds(lambda: clf.fit(X, y))
    epoch = statistics.median(record["seconds"] for record in clf.history_[1:])
    with torch.no_grad():
        body = load_backbone().stages[:freeze]
        maps = torch.cat([body(part) for part in images.split(32)]).permute(0, 2, 3, 1).contiguous()
    suffix = copy.deepcopy(clf.net_.module_).requires_grad_(True)
    bare = statistics.median(train_bare(suffix, maps, labels, epochs=6)[1:])
    plain = seconds(lambda: plain_skorch(freeze, epochs).fit(images, labels))
    of_an_epoch = {"our epoch": epoch, "bare epoch": bare, "epoch ratio": epoch / bare}
    return {**of_an_epoch, "our fit": ours, "plain skorch fit": plain, "fit speed-up": plain / ours}


def grid_over_freeze(tiny: bool) -> dict[str, float]:
    """Time a grid over freeze and lr_factor with the store, without it, and with plain skorch nets."""
    (X, y), epochs = solar_cells(12 if tiny else 120), 1 if tiny else 5
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    clf = OURS(max_epochs=epochs)
    params = {"freeze": [5, 6, "all"], "lr_factor": [0.1, 0.03]}
    search = GridSearchCV(clf, params, cv=folds, error_score="raise")
    times, probabilities, scores = {}, [], []
    for name, megabytes in (("store", 512), ("store off", 0)):
        forget_rows()
        set_cache_limits(memory_mb=megabytes)
        times[name] = seconds(lambda: probabilities.append(search.fit(X, y).predict_proba(X)))
        scores.append(search.cv_results_["mean_test_score"])
    set_cache_limits(memory_mb=512)
    images, labels = pixels(X), torch.from_numpy(y)

    def plain() -> None:
        for freeze, _, (train, test) in product(*params.values(), folds.split(X, y)):
            plain_skorch(freeze, epochs).fit(images[train], labels[train]).predict(images[test])
        plain_skorch(6, epochs).fit(images, labels).predict(images)

    times["plain skorch"] = seconds(plain)
    return {
        **times,
        "speed-up over store off": times["store off"] / times["store"],
        "speed-up over plain skorch": times["plain skorch"] / times["store"],
        "largest difference of probabilities": float(abs(probabilities[0] - probabilities[1]).max()),
        "scores equal": float((scores[0] == scores[1]).all()),
    }


def cost_and_gain_of_the_store(tiny: bool) -> dict[str, float]:
    """Time what the store adds to a cold pass, and a warm pass over 5,000 vectors from disk."""
    n = 20 if tiny else 5_000
    with tempfile.TemporaryDirectory() as folder:
        X = mirrored_photos(n, Path(folder) / "photos")
        memory = Path(folder) / "cache"
        forget_rows()
        model = PretrainedCNNFeatures(memory=memory).fit(X)
        cold = seconds(lambda: model.transform(X))
        store, images = resolve_store(memory), as_images(X)
        rows = model.transform(X[: n // 5])
        origin = _keys.Origin("once more", load_backbone().preprocessing, "auto", "", "", Outputs((8,), "avg"))

        def store_alone() -> None:
            _keys._known_files.clear()
            for i, row in enumerate(rows):
                key = _keys.row_key(origin, _keys.fingerprint(images, i)[0])
                store.get(key)
                store.put(key, row.copy())

        added = 5 * seconds(store_alone)
        forget_rows()
        code = "import sys, time, glob; from sktransfer import PretrainedCNNFeatures\n"
        code += "X = sorted(glob.glob(sys.argv[1] + '/*.jpg')); m = PretrainedCNNFeatures(memory=sys.argv[2]).fit(X)\n"
        code += "start = time.perf_counter(); m.transform(X); print(time.perf_counter() - start)"
        command = [sys.executable, "-c", code, str(Path(folder) / "photos"), str(memory)]
        warm = float(subprocess.check_output(command, text=True))
    share = {"cold pass": cold, "store's part of it": added, "share": added / (cold - added)}
    return {**share, "warm pass, new process": warm, "speed-up": cold / warm}


def mirrored_photos(n: int, folder: Path) -> list[str]:
    """Write n JPEGs, of n / 2 cells and of their mirror images."""
    folder.mkdir()
    for number, path in enumerate(solar_cells(n // 2)[0]):
        with Image.open(path) as image:
            image.save(folder / f"{number:05}.jpg", quality=90)
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / f"{number:05}m.jpg", quality=90)
    return sorted(str(path) for path in folder.iterdir())


CELLS = {
    "images through the backbone": ("300 photos, six C, five folds, refit, predict", images_through_the_backbone),
    "grid search of an SVM": ("wanted: ratio ≤ 1.25", grid_search_of_an_svm),
    "head on a frozen body, 30 epochs": ("wanted: ratio ≤ 1.3", head_on_a_frozen_body),
    "fine-tuning, freeze=5": ("wanted: epoch ratio ≤ 1.15, fit speed-up ≥ 2", partial(fine_tuning, 5)),
    "fine-tuning, freeze=6": ("wanted: epoch ratio ≤ 1.15, fit speed-up ≥ 4", partial(fine_tuning, 6)),
    "grid over freeze and lr_factor": ("wanted: ≥ 2.2 over store off, ≥ 4 over plain skorch", grid_over_freeze),
    "cost and gain of the store": ("wanted: share ≤ 0.03, speed-up ≥ 50", cost_and_gain_of_the_store),
}


DEFAULTS = defaults_of(OURS(), PretrainedCNNFeatures())
BENCHMARK = Benchmark(
    __file__, __doc__, "Computed once", *named_cells(CELLS, digits=4), note="Times in seconds.", defaults=DEFAULTS
)

if __name__ == "__main__":
    BENCHMARK.main()
