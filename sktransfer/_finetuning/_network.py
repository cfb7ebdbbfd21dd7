"""The network that is trained: the stages after the cut and a new head, which starts as a logistic regression."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from .._frozen._backbones import Backbone
from .._frozen._cut_network import CutNetwork, Outputs
from .._frozen._engines import CACHED_IMAGES, resolve_device
from .._frozen._layout import own_pooling, pool, tokens_of
from .._linear import OneThreadLogisticRegression
from .._protocols import FineTunes, Tuned
from .._random import global_generator, with_own_dropout


class TunedNetwork(nn.Module):
    """The stages after the cut (perhaps none), pooling, and a new head.

    With `keep_statistics`, BatchNorm of the stages uses its stored statistics in training too, and does not change
    them. A small data set has too few batches to estimate new ones. With `low_precision`, the network computes in
    bfloat16 where it is safe (autocast).
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
        self.n_classes = n_classes
        self.keep_statistics = keep_statistics
        self.low_precision = low_precision

    def features(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the pooled features of maps (n, h, w, C) at the cut; vectors (n, C) are pooled already."""
        if activations.ndim == 2:
            return activations
        x = activations.permute(0, 3, 1, 2)
        if x.device.type == "cpu" and self.keep_statistics:
            # No layer mixes images, and the maps of a few images stay in the processor's cache.
            return torch.cat([self._pooled(part) for part in x.split(CACHED_IMAGES)])
        return self._pooled(x)

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        return pool(self.stages(x), own_pooling(self.stages), tokens_of(self.stages[-1]))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, n_classes)."""
        with torch.autocast(activations.device.type, torch.bfloat16, enabled=self.low_precision):
            logits: torch.Tensor = self.head(self.features(activations))
            return logits.float()

    def train(self, mode: bool = True) -> TunedNetwork:
        """Switch to training mode, except BatchNorm layers whose statistics are kept."""
        super().train(mode)
        if self.keep_statistics:
            for module in self.stages.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def new_network(estimator: FineTunes, backbone: Backbone, n_frozen: int, n_classes: int, seed: int) -> TunedNetwork:
    """Return the stages after the cut with a random head, built from the classifier's parameters.

    `seed` determines the head, and the masks of all dropout layers.
    """
    (n_features,) = Outputs((len(backbone.stages),), backbone.own_pooling).feature_counts(backbone)
    # Layers with learning rate 0 do not learn. Without gradients, they do not enter the norm used for clipping.
    learns = estimator.weights is None or estimator.lr_factor > 0
    with global_generator(seed):
        network = TunedNetwork(
            copy.deepcopy(backbone.stages[n_frozen:]).requires_grad_(False),
            n_features,
            n_classes,
            head_hidden=estimator.head_hidden,
            dropout=estimator.dropout,
            keep_statistics=backbone.pretrained,
            low_precision=estimator.precision == "bfloat16",
        )
    if learns:
        for parameter in tuned_parameters(network.stages, estimator.tune):
            parameter.requires_grad_(True)
    with_own_dropout(network.head, seed)  # the same masks at every freeze depth
    with_own_dropout(network.stages, seed + 1_000)
    return network.to(resolve_device(estimator.device)).to(memory_format=torch.channels_last)


def tuned_parameters(stages: nn.Module, tune: str) -> Iterator[nn.Parameter]:
    """Yield the parameters of these stages that are trained: all of them, those of normalisation layers, or biases."""
    for module in stages.modules():
        normalises = "norm" in type(module).__name__.lower()  # every library has classes of its own
        for name, parameter in module.named_parameters(recurse=False):
            if tune == "all" or (normalises if tune == "norm" else name.endswith("bias")):
                yield parameter


def take_over(network: TunedNetwork, trained: TunedNetwork) -> None:
    """Copy the weights that `trained` learned; stages that it had frozen stay as they are."""
    learned, place = trained.state_dict(), network.state_dict()
    lost = [name for name, value in learned.items() if name not in place or place[name].shape != value.shape]
    if lost:
        raise ValueError(
            f"warm_start cannot go on from the last fit: it trained {lost[0]!r}, which is frozen or has another shape "
            "with the present parameters. Keep backbone and head_hidden as they were, freeze no more stages than "
            "before, or set warm_start=False."
        )
    network.load_state_dict({**place, **learned})


def whole_network(estimator: Tuned, backbone: Backbone) -> nn.Module:
    """Return the whole network of a fitted classifier, from canvases (n, H, W, 3) to logits.

    It is a copy in eval mode without gradients, so changes to it do not affect the classifier. Its ``body.stages`` are
    the frozen and the trained stages.
    """
    tuned = copy.deepcopy(estimator.net_.module_)
    frozen = copy.deepcopy(backbone.stages[: estimator.n_frozen_stages_])
    stages = nn.Sequential(OrderedDict(zip(backbone.stage_names, [*frozen, *tuned.stages], strict=True)))
    body = CutNetwork(replace(backbone, stages=stages), Outputs((len(stages),), backbone.own_pooling))
    network = nn.Sequential(OrderedDict(body=body, head=tuned.head)).eval().requires_grad_(False)
    return network.to(resolve_device(estimator.device))


def _dense_head(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width in zip(widths, widths[1:], strict=False):
        layers += [nn.Dropout(dropout), nn.Linear(width_in, width), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit_first_head(network: TunedNetwork, features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
    """Set the head to a logistic regression on the features, so that training starts from good weights.

    A random head sends large, meaningless gradients into the pretrained layers and damages them before the head has
    learned anything (LP-FT; Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022). Features are standardised for the regression, and the scaling is folded
    into the layer's weights. A head with several layers stays random, because it has no such solution.
    """
    linears = [module for module in network.head if isinstance(module, nn.Linear)]
    if len(linears) > 1 or len(np.unique(labels[weights > 0])) < linears[-1].out_features:
        return
    scaler = StandardScaler().fit(features)
    regression = OneThreadLogisticRegression(C=0.01, max_iter=200)
    regression.fit(scaler.transform(features), labels, sample_weight=weights)
    coef, intercept = regression.coef_, regression.intercept_
    if len(coef) == 1:  # two classes share one row; split it between their logits
        coef, intercept = np.vstack([-coef, coef]) / 2, np.hstack([-intercept, intercept]) / 2
    coef = coef / scaler.scale_
    with torch.no_grad():
        linears[0].weight.copy_(torch.from_numpy(coef))
        linears[0].bias.copy_(torch.from_numpy(intercept - coef @ scaler.mean_))
