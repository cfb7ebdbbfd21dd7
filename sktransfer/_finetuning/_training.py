"""Training: from an estimator's parameters and its images to a trained skorch net."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from torch.optim.lr_scheduler import LambdaLR

from .._exceptions import TrainingError
from .._frozen._device_memory import Halving
from .._frozen._engines import resolve_device
from .._progress import progress_bar
from .._protocols import FineTunes, History, Tuned
from .._validation import drawn
from ._network import TunedNetwork, fit_first_head, new_network, take_over
from ._recipe import GRADIENT_NORM, LABEL_SMOOTHING, Recipe, WeightedCrossEntropy, resolve_recipe, warmup_cosine
from ._training_data import Batch, EvenBatches, Examples, FrozenBody, TrainingSet, make_training_set


def train(
    estimator: FineTunes, body: FrozenBody, examples: Examples, n_classes: int, seed: int, trained: Tuned | None = None
) -> tuple[TunedNet, History]:
    """Train for `max_epochs`, from the pretrained weights or from `trained`; return the net and its record.

    With early stopping, a part of the examples is held out.
    """
    shuffler, viewer = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    rows, held_out = _split(estimator, examples.labels, seed)
    train_set = make_training_set(estimator, body, examples, rows, viewer)
    valid_set = None
    if held_out is not None:
        target = examples.labels[held_out], examples.weights[held_out]
        valid_set = TrainingSet(body.activations(examples.images, held_out), *target, body.engine)

    earlier = [] if trained is None else trained.history_
    network = first_network(estimator, body, examples, rows, n_classes, trained, (seed, len(earlier)))
    smaller = smaller_body(estimator, body) if trained is None else None
    pretrained = body.extractor.backbone.pretrained
    recipe = resolve_recipe(estimator, len(rows), pretrained, small_first=smaller is not None)
    record = Record(len(rows), recipe.max_epochs, estimator.verbose, earlier)
    schedule = warmup_cosine(recipe.max_epochs * len(EvenBatches(train_set, estimator.batch_size)))
    net = new_net(estimator, network, recipe, shuffler=shuffler, valid_set=valid_set, record=record, schedule=schedule)
    phases = [(train_set, recipe.max_epochs)]
    if smaller is not None and recipe.n_small > 0:
        small_set = make_training_set(estimator, smaller, examples, rows, viewer)
        phases = [(small_set, recipe.n_small), (train_set, recipe.max_epochs - recipe.n_small)]
    run(net.initialize(), phases)
    net.optimizer_.state.clear()  # it is twice the size of the network, and predictions do not need it
    return net, record.epochs_


def smaller_body(estimator: FineTunes, body: FrozenBody) -> FrozenBody | None:
    """Return the frozen stages for smaller images in the first epochs, or None if all epochs show the whole size.

    Photos of objects allow it, cracks in solar cells do not. Stored views have one size. Early stopping compares the
    losses of epochs, so they must be of one kind.
    """
    new_photos = estimator.augment == "photo" and estimator.n_views is None and not estimator.early_stopping
    pretrained = body.extractor.backbone.pretrained and estimator.lr_factor > 0
    return body.smaller() if new_photos and pretrained else None


class OngoingTraining:
    """Trains for one epoch per call, and keeps the state of the optimizer between calls.

    Training starts from the pretrained weights, with a first head fitted on `examples`, or it continues from `trained`.
    """

    def __init__(
        self,
        estimator: FineTunes,
        body: FrozenBody,
        examples: Examples,
        n_classes: int,
        seed: int,
        trained: Tuned | None,
    ) -> None:
        n_images = len(examples.images)
        earlier = [] if trained is None else trained.history_
        seeds = (seed, len(earlier))
        network = first_network(estimator, body, examples, np.arange(n_images), n_classes, trained, seeds)
        self.record = Record(n_images, 1, estimator.verbose, earlier)
        recipe = resolve_recipe(estimator, n_images, body.extractor.backbone.pretrained)
        self.net = new_net(estimator, network, recipe, shuffler=np.random.default_rng([seed, 0]), record=self.record)
        self.net.initialize()
        self.viewer = np.random.default_rng([seed, 1])

    def go_on(self, estimator: FineTunes, body: FrozenBody, examples: Examples) -> None:
        """Train for one epoch on these images."""
        self.record.n_images = len(examples.images)
        rows = np.arange(self.record.n_images)
        run(self.net, [(make_training_set(estimator, body, examples, rows, self.viewer), 1)])


def first_network(
    estimator: FineTunes,
    body: FrozenBody,
    examples: Examples,
    rows: np.ndarray,
    n_classes: int,
    trained: Tuned | None,
    seeds: tuple[int, int],
) -> TunedNetwork:
    """Return the network that training starts from; continued training has other dropout masks than earlier epochs."""
    backbone = body.extractor.backbone
    network = new_network(estimator, backbone, body.n_frozen, n_classes, hash(seeds) % 2**62)
    if trained is not None:
        take_over(network, trained.net_.module_)
    elif backbone.pretrained:
        features = body.features(examples.images, rows)
        fit_first_head(network, features, examples.labels[rows], examples.weights[rows])
    return network


def _split(estimator: FineTunes, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows to train on and those held out for early stopping, if any, both with images of every class."""
    if not estimator.early_stopping:
        return np.arange(len(labels)), None
    counts = np.bincount(labels)
    held_out = drawn(labels, np.clip(np.round(estimator.validation_fraction * counts), 1, counts - 1), seed)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


_SET_BY = {
    "module": "backbone and freeze",
    "lr": "lr",
    "max_epochs": "max_epochs",
    "batch_size": "batch_size",
    "iterator_train": "batch_size",
    "iterator_valid": "batch_size",
    "train_split": "early_stopping and validation_fraction",
    "callbacks": "callbacks",
    "classes": "the labels",
    "device": "device",
    "verbose": "verbose",
    "criterion": "class_weight and sample_weight",
    "optimizer__weight_decay": "weight_decay",
    "optimizer__param_groups": "lr_factor",
    "optimizer__lr": "lr",
    "warm_start": "warm_start",
}
"""Names that `net_params` cannot hold, and the parameter to use instead. Schedule, weights and record need them."""


def check_net_params(estimator: FineTunes) -> None:
    """Refuse parameters that the classifier sets itself, because the rest of the training depends on them."""
    for name in estimator.net_params or {}:
        if name in _SET_BY:
            raise ValueError(
                f"net_params holds {name!r}, which FineTunedCNNClassifier sets itself. Use {_SET_BY[name]} instead."
            )


def new_net(
    estimator: FineTunes,
    network: TunedNetwork,
    recipe: Recipe,
    *,
    shuffler: np.random.Generator | None = None,
    valid_set: TrainingSet | None = None,
    record: Record | None = None,
    schedule: Callable[[int], float] | None = None,
) -> TunedNet:
    """Return a skorch net for the network, set up by the classifier's parameters."""
    factor = estimator.lr_factor if estimator.weights is not None else 1.0
    callbacks: list[Any] = [("clip", GradientNormClipping(GRADIENT_NORM))]
    if record is not None:
        callbacks.append(("record", record))
    if schedule is not None:
        callbacks.append(("schedule", LRScheduler(LambdaLR, lr_lambda=schedule, step_every="batch")))
    if valid_set is not None:
        patience = 5 if estimator.early_stopping is True else int(estimator.early_stopping)
        stopper = EarlyStopping(patience=patience, load_best=True, sink=lambda message: None)
        callbacks.append(("early_stopping", stopper))
    device = resolve_device(estimator.device)
    net_params = estimator.net_params or {}
    params: dict[str, Any] = {
        "criterion": WeightedCrossEntropy,
        "criterion__label_smoothing": LABEL_SMOOTHING,
        "optimizer": torch.optim.AdamW,
        "optimizer__weight_decay": estimator.weight_decay,
        "optimizer__param_groups": [("stages.*", {"lr": recipe.lr * factor})],
        "lr": recipe.lr,
        "max_epochs": recipe.max_epochs,
        "batch_size": estimator.batch_size,
        "iterator_train": functools.partial(EvenBatches, rng=shuffler),
        "iterator_valid": EvenBatches,
        "train_split": predefined_split(valid_set) if valid_set is not None else None,
        "callbacks": [*callbacks, *(estimator.callbacks or [])],
        "callbacks__valid_acc": None,  # the record counts it, from labels without their weights
        "callbacks__print_log": None,
        "classes": np.arange(network.n_classes),
        "device": device,
        "verbose": estimator.verbose,
    }
    if device.type == "cuda" and "optimizer" not in net_params:
        params["optimizer__fused"] = True
    return TunedNet(network, **{**params, **net_params})


class TunedNet(NeuralNetClassifier):  # type: ignore[misc]  # skorch is untyped
    """skorch's net. If a batch does not fit into the device's memory, the gradients of its two halves are summed."""

    def initialize(self) -> TunedNet:
        """Build module, loss and optimizer."""
        self.parts_ = Halving()
        super().initialize()
        return self

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, torch.Tensor]:
        """Return the loss and the logits of a batch, after the gradients are set."""
        inputs, target = batch
        self._set_training(True)

        def gradients(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
            if rows.start == 0:
                self._zero_grad_optimizer()  # delete gradients of a first try that did not fit
            logits = self.infer(inputs[rows], **fit_params)
            loss = self.get_loss(logits, [part[rows] for part in target], training=True)
            loss = loss * (len(logits) / len(inputs))
            loss.backward()
            return loss.detach(), logits.detach()

        losses, logits = zip(*self.parts_(gradients, len(inputs)), strict=True)
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(logits)}


def run(net: TunedNet, phases: Sequence[tuple[TrainingSet, int]]) -> None:
    """Run skorch's loop on each training set for its number of epochs. Ctrl-C is not caught, as skorch's ``fit`` does.

    Early stopping ends the loop with a ``KeyboardInterrupt`` too; its count of epochs distinguishes it from Ctrl-C.
    """
    net.notify("on_train_begin", X=phases[0][0], y=None)
    try:
        for train_set, epochs in phases:
            net.fit_loop(train_set, epochs=epochs)
    except KeyboardInterrupt:
        stoppers = [callback for _, callback in net.callbacks_ if isinstance(callback, EarlyStopping)]
        if not any(stopper.misses_ >= stopper.patience for stopper in stoppers):
            raise
    net.notify("on_train_end", X=phases[-1][0], y=None)


class Record(Callback):  # type: ignore[misc]  # skorch is untyped
    """Keeps one plain dict per epoch, shows a progress bar, and stops training if the loss is not finite.

    An epoch has `n_images` images. The records follow those of `earlier` training, which this training continues.
    """

    def __init__(
        self, n_images: int, max_epochs: int, verbose: int = 0, earlier: Sequence[dict[str, float]] = ()
    ) -> None:
        self.n_images = n_images
        self.max_epochs = max_epochs
        self.verbose = verbose
        self.epochs_ = list(earlier)

    def on_train_begin(self, net: TunedNet, **kwargs: Any) -> None:
        """Open the bar."""
        self.bar_ = progress_bar(self.n_images * self.max_epochs, "Fine-tuning", self.verbose)

    def on_epoch_begin(self, net: TunedNet, **kwargs: Any) -> None:
        """Start the clock and the counts."""
        self.start_ = time.perf_counter()
        self.hits_ = {True: 0, False: 0}
        self.seen_ = {True: 0, False: 0}
        self.loss_ = {True: 0.0, False: 0.0}

    def on_batch_end(
        self, net: TunedNet, batch: Batch, training: bool, loss: Any = None, y_pred: Any = None, **kwargs: Any
    ) -> None:
        """Count the images that were classified correctly."""
        labels = batch[1][0].to(y_pred.device)
        self.hits_[training] += int((y_pred.argmax(dim=1) == labels).sum())
        self.seen_[training] += len(labels)
        loss = loss.item()
        self.loss_[training] += loss * len(labels)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in epoch {len(self.epochs_) + 1} at lr={net.lr}. "
                "Lower lr, or lr_factor for the pretrained layers, and fit again."
            )
        if training:
            self.bar_.update(len(labels))

    def on_epoch_end(self, net: TunedNet, **kwargs: Any) -> None:
        """Write the epoch's record."""
        record = {"epoch": len(self.epochs_) + 1, "seconds": time.perf_counter() - self.start_}
        for training, name in ((True, "train"), (False, "valid")):
            if self.seen_[training]:
                record[f"{name}_loss"] = self.loss_[training] / self.seen_[training]
                record[f"{name}_accuracy"] = self.hits_[training] / self.seen_[training]
        rates = [group["lr"] for group in net.optimizer_.param_groups if group["params"]]
        record["lr"], record["lr_pretrained"] = rates[-1], rates[0] if len(rates) > 1 else 0.0
        self.epochs_.append(record)
        self.bar_.set_postfix(loss=f"{record['train_loss']:.3f}", accuracy=f"{record['train_accuracy']:.3f}")

    def on_train_end(self, net: TunedNet, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar_.close()
