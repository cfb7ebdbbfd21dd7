"""What others do: a plain training loop, and the recipes of other packages on the backbone and weights of ours.

A recipe trains on the problem's training images, and returns the probabilities of the test images' classes and the
seconds that training took.
"""

import copy
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Freezer, LRScheduler
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision.transforms import v2

from _cells import seconds
from problems import Problem
from sktransfer import PretrainedCNNFeatures
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._weights import embedded_lite_weights

LITE0 = "tf_efficientnet_lite0"  # timm's name of our default backbone


def plain_training(network: nn.Module, batches: Callable[[], Iterable], epochs: int) -> list[float]:
    """Train with a plain torch loop; return the seconds of each epoch."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4)
    network.train()

    def epoch() -> None:
        for inputs, labels in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()

    return [seconds(epoch) for _ in range(epochs)]


def files_of(images: np.ndarray, folder: Path, prefix: str) -> list[str]:
    """Return paths of the images; those that are arrays are written to PNG files."""
    if images.dtype.kind == "U":
        return images.tolist()
    paths = [folder / f"{prefix}{i:05}.png" for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


def fastai_fine_tune(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Train as fastai's ``fine_tune(5)`` does: one epoch of its head, five of everything.

    All its defaults (batches of 64, `aug_transforms`); vertical flips are added where ours turn the images too.
    """
    from fastai.vision import all as fastai

    fastai.set_seed(seed)
    backbone = load_backbone()
    with tempfile.TemporaryDirectory() as folder:
        train = files_of(problem.X_train, Path(folder), "train")
        test = files_of(problem.X_test, Path(folder), "test")
        # fastai wants a validation set: a batch of eight training images, so that it costs nothing.
        labels = dict(zip(train, problem.y_train.tolist(), strict=True))
        items = [*train, *train[:8]]
        block = fastai.DataBlock(
            blocks=(fastai.ImageBlock, fastai.CategoryBlock(vocab=np.unique(problem.y_train).tolist())),
            get_y=lambda path: labels[path],
            splitter=fastai.IndexSplitter(range(len(train), len(items))),
            item_tfms=fastai.Resize(backbone.preprocessing.size[0]),
            batch_tfms=[
                *fastai.aug_transforms(flip_vert=problem.augment == "any_orientation"),
                fastai.Normalize.from_stats(backbone.preprocessing.mean, backbone.preprocessing.std),
            ],
        )
        start = time.perf_counter()
        loaders = block.dataloaders(items)
        body = copy.deepcopy(backbone.stages).requires_grad_(True)
        head = fastai.create_head(1280, len(np.unique(problem.y_train)))
        learner = fastai.Learner(loaders, nn.Sequential(body, head), splitter=fastai.default_split)
        fastai.apply_init(learner.model[1], nn.init.kaiming_normal_)
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(5 if problem.max_epochs == "auto" else problem.max_epochs)
            took = time.perf_counter() - start
            probabilities, _ = learner.get_preds(dl=loaders.test_dl(test))
    return probabilities.numpy(), took


class Files(torch.utils.data.Dataset):
    """Images by path, as tutorials read them."""

    def __init__(self, paths: list[str], labels: np.ndarray, transform: Callable) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), int(self.labels[index])


def skorch_tutorial(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Train as skorch's tutorial on transfer learning does: a new layer on a frozen body.

    25 epochs of SGD, batches of 4, learning rate 0.001 with momentum 0.9, a tenth of it after each 7 epochs, random
    resized crops and horizontal flips.
    """
    torch.manual_seed(seed)
    classes, positions = np.unique(problem.y_train, return_inverse=True)
    backbone = load_backbone()
    mean, std, (size, _) = backbone.preprocessing.mean, backbone.preprocessing.std, backbone.preprocessing.size
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    augmented = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *last])
    resize = v2.Resize(round(size / backbone.preprocessing.crop_fraction))
    plain = v2.Compose([resize, v2.CenterCrop(size), *last])
    body = copy.deepcopy(backbone.stages).requires_grad_(True)
    head = nn.Linear(1280, len(classes))
    net = NeuralNetClassifier(
        nn.Sequential(OrderedDict(body=body, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=head)),
        criterion=nn.CrossEntropyLoss,
        lr=0.001,
        batch_size=4,
        max_epochs=25 if problem.max_epochs == "auto" else problem.max_epochs,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[LRScheduler(policy="StepLR", step_size=7, gamma=0.1), Freezer(["body.*"])],
        classes=np.arange(len(classes)),
        device="cuda" if torch.cuda.is_available() else "cpu",
        verbose=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        train = Files(files_of(problem.X_train, Path(folder), "train"), positions, augmented)
        test = Files(files_of(problem.X_test, Path(folder), "test"), np.zeros(len(problem.X_test)), plain)
        took = seconds(lambda: net.fit(train, None))
        return net.predict_proba(test), took


def timm_probe(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Fit a logistic regression to the pooled features of timm's network, seen through timm's own transform."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = timm.create_model(LITE0, num_classes=0, checkpoint_path=str(embedded_lite_weights(0))).eval().to(device)
    transform = create_transform(**resolve_data_config(model=network))

    @torch.inference_mode()
    def features(paths: list[str]) -> np.ndarray:
        batches = torch.utils.data.DataLoader(Files(paths, np.zeros(len(paths)), transform), batch_size=32)
        return np.concatenate([network(inputs.to(device)).cpu().numpy() for inputs, _ in batches])

    with tempfile.TemporaryDirectory() as folder:
        train = files_of(problem.X_train, Path(folder), "train")
        test = files_of(problem.X_test, Path(folder), "test")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        took = seconds(lambda: model.fit(features(train), problem.y_train))
        return model.predict_proba(features(test)), took


def boosted_trees(problem: Problem, seed: int) -> tuple[np.ndarray, float]:
    """Fit scikit-learn's boosted trees, a model for tables, to our features."""
    model = make_pipeline(PretrainedCNNFeatures(**problem.params), HistGradientBoostingClassifier(random_state=seed))
    took = seconds(lambda: model.fit(problem.X_train, problem.y_train))
    return model.predict_proba(problem.X_test), took
