"""The neighbours' recipes, on the same backbone, weights and splits as ours.

Each function trains on the problem's training images and returns the probabilities of the test images' classes
with the seconds that training took.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skorch import NeuralNetClassifier
from skorch.callbacks import Freezer, LRScheduler
from torch import nn
from torchvision.transforms import v2

from problems import Problem
from sktransfer._frozen._backbones import load_backbone

BACKBONE = "efficientnet_lite0"


def _files(images: np.ndarray, folder: Path, prefix: str) -> list[str]:
    """Return paths of the images; those that are arrays are written to PNG files."""
    if images.dtype.kind == "U":
        return images.tolist()
    paths = [folder / f"{prefix}{i:05}.png" for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


def fastai_fine_tune(problem: Problem, seed: int, epochs: int = 5) -> tuple[np.ndarray, float]:
    """Train as fastai's ``fine_tune(5)`` does: one epoch of its head, five of everything.

    All its defaults (batches of 64, `aug_transforms`); vertical flips are added where ours turn the images too.
    """
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Learner,
        Normalize,
        Resize,
        apply_init,
        aug_transforms,
        create_head,
        default_split,
        set_seed,
    )

    set_seed(seed)
    backbone = load_backbone(BACKBONE, "default", 0)
    with tempfile.TemporaryDirectory() as folder:
        train = _files(problem.X_train, Path(folder), "train")
        test = _files(problem.X_test, Path(folder), "test")
        # fastai wants a validation set: a batch of eight training images, so that it costs nothing.
        labels = dict(zip(train, problem.y_train.tolist(), strict=True))
        items = [*train, *train[:8]]
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock(vocab=np.unique(problem.y_train).tolist())),
            get_y=lambda path: labels[path],
            splitter=IndexSplitter(range(len(train), len(items))),
            item_tfms=Resize(backbone.preprocessing.size[0]),
            batch_tfms=[
                *aug_transforms(flip_vert=problem.augment == "any_orientation"),
                Normalize.from_stats(backbone.preprocessing.mean, backbone.preprocessing.std),
            ],
        )
        start = time.perf_counter()
        loaders = block.dataloaders(items)
        body = copy.deepcopy(backbone.stages).requires_grad_(True)
        head = create_head(1280, len(np.unique(problem.y_train)))
        learner = Learner(loaders, nn.Sequential(body, head), splitter=default_split)
        apply_init(learner.model[1], nn.init.kaiming_normal_)
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(epochs)
            seconds = time.perf_counter() - start
            probabilities, _ = learner.get_preds(dl=loaders.test_dl(test))
    return probabilities.numpy(), seconds


class _Files(torch.utils.data.Dataset):
    """Images by path, transformed."""

    def __init__(self, paths: list[str], labels: np.ndarray, transform: v2.Transform) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[index])


class _PretrainedModel(nn.Module):
    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.model = nn.Sequential()
        self.model.add_module("body", copy.deepcopy(load_backbone(BACKBONE, "default", 0).stages).requires_grad_(True))
        self.model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.model.add_module("fc", nn.Linear(1280, n_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def skorch_tutorial(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Train as skorch's tutorial on transfer learning does: a new layer on a frozen body.

    25 epochs of SGD, batches of 4, learning rate 0.001 with momentum 0.9, a tenth of it after each 7 epochs, random
    resized crops and horizontal flips.
    """
    torch.manual_seed(seed)
    classes, positions = np.unique(problem.y_train, return_inverse=True)
    preprocessing = load_backbone(BACKBONE, "default", 0).preprocessing
    last = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(preprocessing.mean, preprocessing.std),
    ]
    (size, _), crop = preprocessing.size, preprocessing.crop_fraction
    augmented = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *last])
    plain = v2.Compose([v2.Resize(round(size / crop)), v2.CenterCrop(size), *last])
    net = NeuralNetClassifier(
        _PretrainedModel,
        criterion=nn.CrossEntropyLoss,
        lr=0.001,
        batch_size=4,
        max_epochs=25,
        module__n_classes=len(classes),
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[
            LRScheduler(policy="StepLR", step_size=7, gamma=0.1),
            Freezer(lambda name: not name.startswith("model.fc")),
        ],
        classes=np.arange(len(classes)),
        device="cuda" if torch.cuda.is_available() else "cpu",
        verbose=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        train = _files(problem.X_train, Path(folder), "train")
        test = _files(problem.X_test, Path(folder), "test")
        start = time.perf_counter()
        net.fit(_Files(train, positions, augmented), None)
        seconds = time.perf_counter() - start
        return net.predict_proba(_Files(test, np.zeros(len(test)), plain)), seconds
