"""The parts that training is made of: network, first head, loss, schedule, record, and the loop.

`FineTunedCNNClassifier` puts them together and lets skorch run the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from ._engines import CACHED_IMAGES, pool
from ._exceptions import TrainingError
from ._extraction import progress_bar
from ._training_data import TrainingSet


class TunedNetwork(nn.Module):
    """The stages after the cut, pooling, and a new head.

    Parameters
    ----------
    stages : torch.nn.Sequential
        What lies after the cut; may be empty.
    n_features : int
        Number of pooled features.
    n_classes : int
    head_hidden : sequence of int
        Widths of dense layers before the last.
    dropout : float
        Before each dense layer of the head.
    keep_statistics : bool
        BatchNorm of the stages normalises by its stored statistics in training too, and keeps them. Batches
        of a small data set are too few to estimate new ones.
    low_precision : bool
        Compute in bfloat16 where it is safe (autocast).
    """

    def __init__(
        self,
        stages: nn.Sequential,
        n_features: int,
        n_classes: int,
        *,
        head_hidden: Sequence[int] = (),
        dropout: float = 0.0,
        keep_statistics: bool = True,
        low_precision: bool = False,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.head = _dense_head([n_features, *head_hidden, n_classes], dropout)
        self.keep_statistics = keep_statistics
        self.low_precision = low_precision

    def features(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the pooled features of maps (n, h, w, C) at the cut; vectors (n, C) are pooled already."""
        if activations.ndim == 2:
            return activations
        x = activations.permute(0, 3, 1, 2)
        if x.device.type == "cpu" and self.keep_statistics:
            # No layer looks across images, and the maps of a few stay in the processor's cache.
            return torch.cat([pool(self.stages(part), "avg") for part in x.split(CACHED_IMAGES)])
        return pool(self.stages(x), "avg")

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, n_classes)."""
        with torch.autocast(activations.device.type, torch.bfloat16, enabled=self.low_precision):
            return self.head(self.features(activations)).float()

    def train(self, mode: bool = True) -> TunedNetwork:
        """Switch to training, but for BatchNorm whose statistics are kept."""
        super().train(mode)
        if self.keep_statistics:
            for module in self.stages.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def _dense_head(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width in zip(widths, widths[1:], strict=False):
        layers += [nn.Dropout(dropout), nn.Linear(width_in, width), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit_first_head(network: TunedNetwork, features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
    """Set the head to a logistic regression on the features, so that training starts from a good place.

    A random head sends large, meaningless gradients into the pretrained layers and spoils them before it has
    learned itself (LP-FT; Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022). Features are standardised for the regression, and the scaling is folded
    into the layer's weights. Only a head of one layer has such a solution.
    """
    linears = [module for module in network.head if isinstance(module, nn.Linear)]
    if len(linears) > 1 or len(np.unique(labels[weights > 0])) < linears[-1].out_features:
        return
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=0.01, max_iter=200)
    regression.fit(scaler.transform(features), labels, sample_weight=weights)
    coef, intercept = regression.coef_, regression.intercept_
    if len(coef) == 1:  # two classes share one row; split it between their logits
        coef, intercept = np.vstack([-coef, coef]) / 2, np.hstack([-intercept, intercept]) / 2
    coef = coef / scaler.scale_
    with torch.no_grad():
        linears[0].weight.copy_(torch.from_numpy(coef))
        linears[0].bias.copy_(torch.from_numpy(intercept - coef @ scaler.mean_))


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy of each image times its weight, averaged over the batch."""

    def forward(self, logits: torch.Tensor, target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the loss; `target` holds class indices and weights, both (n,)."""
        labels, weights = target
        return (nn.functional.cross_entropy(logits, labels, reduction="none") * weights).mean()


def warmup_cosine(n_steps: int, warmup: float = 0.1) -> Callable[[int], float]:
    """Return the factor of the learning rate at each step: up in a line, then down along a cosine.

    Parameters
    ----------
    n_steps : int
        Batches in the whole training.
    warmup : float
        Share of them before the peak.
    """
    rise = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))

    return factor


class Record(Callback):
    """Keeps one plain dict per epoch, shows a progress bar, and stops training that went astray.

    Parameters
    ----------
    n_images : int
        Images in one epoch of training.
    max_epochs : int
    verbose : int
        1 shows the bar.
    """

    def __init__(self, n_images: int, max_epochs: int, verbose: int = 0) -> None:
        self.n_images = n_images
        self.max_epochs = max_epochs
        self.verbose = verbose

    def on_train_begin(self, net, **kwargs) -> None:
        """Open the bar."""
        self.epochs_: list[dict[str, float]] = []
        self.bar_ = progress_bar(self.n_images * self.max_epochs, "Fine-tuning", self.verbose)

    def on_epoch_begin(self, net, **kwargs) -> None:
        """Start the clock and the counts."""
        self.start_ = time.perf_counter()
        self.hits_ = {True: 0, False: 0}
        self.seen_ = {True: 0, False: 0}
        self.loss_ = {True: 0.0, False: 0.0}

    def on_batch_end(self, net, batch, training, loss=None, y_pred=None, **kwargs) -> None:
        """Count the images that were classified right."""
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

    def on_epoch_end(self, net, **kwargs) -> None:
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

    def on_train_end(self, net, **kwargs) -> None:
        """Close the bar."""
        self.bar_.close()


def run(net: NeuralNetClassifier, train_set: TrainingSet) -> None:
    """Run skorch's loop; unlike skorch's own ``fit``, let Ctrl-C through.

    Early stopping ends the loop with a ``KeyboardInterrupt`` too. It is told from Ctrl-C by its count.
    """
    net.notify("on_train_begin", X=train_set, y=None)
    try:
        net.fit_loop(train_set)
    except KeyboardInterrupt:
        stoppers = [callback for _, callback in net.callbacks_ if isinstance(callback, EarlyStopping)]
        if not any(stopper.misses_ >= stopper.patience for stopper in stoppers):
            raise
    net.notify("on_train_end", X=train_set, y=None)
    net.optimizer_.state.clear()  # twice the size of the network, and of no use to predict
