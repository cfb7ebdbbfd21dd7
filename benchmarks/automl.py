"""Packages that choose the recipe themselves, with the backbone and weights of ours: lightly-train and AutoGluon.

Each function trains and predicts as those in ``peers.py`` do.
"""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import timm
import torch

from _cells import seconds
from peers import LITE0, files_of
from problems import Problem
from sktransfer._frozen._weights import embedded_lite_weights, read_weights


def lightly_train_classification(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Train all layers as lightly-train does, for 20 epochs, as its notebook on photos of clothes does.

    All else are its defaults (batches of 16, its random crops and colours), with four exceptions. Its 100,000 steps
    would take more than a day on two cores. Training is in float32, because bfloat16 is slower on a CPU without it.
    Pixels are normalised as in pretraining. Vertical flips are added where ours turn the images too.
    """
    import lightly_train

    classes, positions = np.unique(problem.y_train, return_inverse=True)
    config, upside_down = timm.get_pretrained_cfg(LITE0), 0.5 if problem.augment == "any_orientation" else 0.0
    epochs = 20 if problem.max_epochs == "auto" else problem.max_epochs
    with tempfile.TemporaryDirectory() as name, _lightly_train_works(name):
        folder = Path(name)
        rows = pd.DataFrame({"image_path": files_of(problem.X_train, folder, "train"), "label": positions})
        test = files_of(problem.X_test, folder, "test")
        rows.to_csv(folder / "train.csv", index=False)
        # It wants a validation set: a few training images, so that it costs nothing. The last model is used.
        rows[:8].to_csv(folder / "val.csv", index=False)
        torch.save(read_weights(embedded_lite_weights(0)), folder / "weights.pt")
        start = time.perf_counter()
        lightly_train.train_image_classification(
            out=folder / "out",
            data={
                "train": folder / "train.csv",
                "val": folder / "val.csv",
                "classes": {i: str(each) for i, each in enumerate(classes)},
                "csv_label_type": "id",
            },
            model=f"timm/{LITE0}",
            steps=epochs * math.ceil(len(rows) / 16),
            precision="32-true",
            seed=seed,
            model_args={"backbone_weights": folder / "weights.pt"},
            transform_args={
                "normalize": {"mean": config.mean, "std": config.std},
                "random_flip": {"horizontal_prob": 0.5, "vertical_prob": upside_down},
            },
        )
        took = time.perf_counter() - start
        model = lightly_train.load_model(folder / "out" / "exported_models" / "exported_last.pt")
        probabilities = np.zeros((len(test), len(classes)))
        for i in range(0, len(test), 32):
            for row, found in enumerate(model.predict_batch(test[i : i + 32], topk=len(classes)), start=i):
                probabilities[row, found["labels"].cpu().numpy()] = found["scores"].cpu().numpy()
    return probabilities, took


@contextlib.contextmanager
def _lightly_train_works(folder: str) -> Iterator[None]:
    """Let lightly-train train an EfficientNet, keep its temporary files in the folder, and report nothing to its maker.

    Release 0.18 expects the 1,280 channels of the last convolution, but asks timm for the maps before it, which have
    320, and fails. Here timm returns the maps after it.
    """
    variables = {"LIGHTLY_TRAIN_CACHE_DIR": folder, "LIGHTLY_TRAIN_EVENTS_DISABLED": "1"}
    last_maps = mock.patch.object(
        timm.models.EfficientNet, "forward_intermediates", lambda self, inputs, **_: [self.forward_features(inputs)]
    )
    with mock.patch.dict(os.environ, variables), last_maps:
        yield


def autogluon_multimodal(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Train as AutoGluon's preset for small networks does: up to 20 epochs of everything, stopped early."""
    from autogluon.multimodal import MultiModalPredictor

    classes, positions = np.unique(problem.y_train, return_inverse=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = pd.DataFrame({"image": files_of(problem.X_train, folder, "train"), "label": positions})
        test = pd.DataFrame({"image": files_of(problem.X_test, folder, "test")})
        predictor = MultiModalPredictor(
            label="label",
            problem_type="binary" if len(classes) == 2 else "multiclass",
            presets="medium_quality",
            path=str(folder / "out"),
            hyperparameters={
                "model.names": ["timm_image"],
                "model.timm_image.checkpoint_name": str(_autogluon_checkpoint(folder / LITE0)),
                **({} if problem.max_epochs == "auto" else {"optim.max_epochs": problem.max_epochs}),
            },
        )
        took = seconds(lambda: predictor.fit(train, seed=seed))
        return predictor.predict_proba(test)[range(len(classes))].to_numpy(), took


def _autogluon_checkpoint(folder: Path) -> Path:
    """Write the weights as AutoGluon reads them from a folder."""
    folder.mkdir()
    torch.save(read_weights(embedded_lite_weights(0)), folder / "pytorch_model.bin")
    network = timm.create_model(LITE0)
    config = {"architecture": LITE0, "num_features": network.num_features, "pretrained_cfg": network.default_cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
