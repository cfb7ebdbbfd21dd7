"""The torch module of a fitted model: from canvases to features or probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from .._classifier import FineTunedCNNClassifier
from .._exceptions import ExportError
from .._feature_classifier import FeatureClassifier
from .._features import PretrainedCNNFeatures
from .._finetuning._network import whole_network
from .._finetuning._recipe import resolve_tta
from .._finetuning._training_data import make_views
from .._fitted_parts import Parts, Reader
from .._frozen._augmentation import Change, drawn_change
from .._frozen._backbones import Backbone
from .._frozen._cut_network import CutNetwork, folded
from .._parameters import resolve_outputs
from .._stage_search import Stages

Canvases = tuple[torch.Tensor, ...]  # one uint8 batch (n, H, W, 3) for each reader


def image_network(parts: Parts) -> nn.Module:
    """Return the part of a model that torch computes: from canvases to probabilities, or else to features.

    The linear model of a `FeatureClassifier` belongs to it. Other steps behind the features do not.
    """
    reader = parts.readers[0]
    if isinstance(reader.estimator, FineTunedCNNClassifier):
        return _tuned(reader).eval()
    features = _Features(parts.readers)
    if parts.steps and isinstance(parts.steps[0][1], FeatureClassifier):
        return nn.Sequential(features, _LinearHead(parts.steps[0][1])).eval()
    return features.eval()


def sample_canvases(backbone: Backbone, n: int) -> torch.Tensor:
    """Return random canvases of the backbone's size, always the same ones."""
    shape = (n, *backbone.preprocessing.size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class _Features(nn.Module):
    """The features of all readers side by side."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        super().__init__()
        networks, self.counts, self.factors = [], list[list[int] | None](), [reader.factor for reader in readers]
        for reader in readers:
            estimator = cast(PretrainedCNNFeatures, reader.estimator)
            outputs = resolve_outputs(estimator.layer, estimator.pooling, reader.backbone)
            networks.append(_plain(CutNetwork(reader.backbone, outputs), reader.backbone))
            self.counts.append(list(estimator.feature_counts_.values()) if estimator.normalize else None)
        self.networks = nn.ModuleList(networks)

    def forward(self, canvases: Canvases) -> torch.Tensor:
        """Return the features (n, n_features)."""
        found = []
        for network, batch, counts, factor in zip(self.networks, canvases, self.counts, self.factors, strict=True):
            features = network(batch)
            if counts is not None:
                features = torch.cat([_divided_by_norm(part) for part in features.split(counts, dim=1)], dim=1)
            found.append(features if factor == 1 else features * factor)
        return torch.cat(found, dim=1)


class _LinearHead(nn.Module):
    """The linear model of a `FeatureClassifier`: from all features to probabilities."""

    columns: torch.Tensor
    centre: torch.Tensor

    def __init__(self, classifier: FeatureClassifier) -> None:
        super().__init__()
        self.parts: Stages = classifier._parts
        coef, intercept = classifier.classifier_.coef_, classifier.classifier_.intercept_
        if len(coef) == 1:  # two classes: the logit of the first is 0
            coef, intercept = np.vstack([0 * coef, coef]), np.hstack([0 * intercept, intercept])
        self.register_buffer("columns", torch.from_numpy(np.asarray(classifier._columns)))
        self.register_buffer("centre", torch.from_numpy(np.asarray(classifier._centre, dtype=np.float32)))
        self.linear = nn.Linear(coef.shape[1], len(coef))
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(coef))
            self.linear.bias.copy_(torch.from_numpy(intercept))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (n, n_classes)."""
        centred = features[:, self.columns] - self.centre
        balanced = [_divided_by_norm(centred[:, columns]) for stage in self.parts for columns in stage]
        probabilities: torch.Tensor = self.linear(torch.cat(balanced, dim=1)).softmax(dim=1)
        return probabilities


class _TunedNetwork(nn.Module):
    """A fine-tuned network with its head. The probabilities are averaged over the image and its changed views."""

    def __init__(self, network: nn.Module, changes: Sequence[Change]) -> None:
        super().__init__()
        self.network, self.changes = network, changes

    def forward(self, canvases: Canvases) -> torch.Tensor:
        """Return the probabilities (n, n_classes)."""
        (images,) = canvases
        if not self.changes:
            probabilities: torch.Tensor = self.network(images).softmax(dim=1)
            return probabilities
        first = images.permute(0, 3, 1, 2)
        views = torch.cat([first, *(change(first) for change in self.changes)]).permute(0, 2, 3, 1)
        logits: torch.Tensor = self.network(views)
        return logits.softmax(dim=1).reshape(1 + len(self.changes), -1, logits.shape[1]).mean(dim=0)


def _tuned(reader: Reader) -> nn.Module:
    estimator = cast(FineTunedCNNClassifier, reader.estimator)
    network = whole_network(estimator, reader.backbone)
    network.body = _plain(cast(CutNetwork, network.body), reader.backbone)
    return _TunedNetwork(network, shared_views(estimator, reader.backbone.preprocessing.size))


def shared_views(estimator: FineTunedCNNClassifier, size: tuple[int, int]) -> list[Change]:
    """Return the changes that make the views over which predictions are averaged, the same ones for each image.

    The estimator itself draws other views for each image, from its content. A graph cannot do that.
    """
    n_views = resolve_tta(estimator)
    if n_views == 1:
        return []
    if callable(estimator.augment):
        raise ExportError(
            "augment is a function, so its views cannot be written to a file. Pass tta=1, which does not need them: "
            "model.set_params(tta=1)."
        )
    views = make_views(estimator, n_views - 1)
    return [drawn_change(str(estimator.augment), views.seed_of(b"", view), size) for view in range(views.count)]


def _divided_by_norm(features: torch.Tensor) -> torch.Tensor:
    norms = features.norm(dim=1, keepdim=True)
    return features / torch.where(norms == 0, torch.ones_like(norms), norms)


def _plain(network: CutNetwork, backbone: Backbone) -> CutNetwork:
    """Return a copy on the CPU with BatchNorm folded, in torch's usual layout."""
    return folded(network, sample_canvases(backbone, 1)).to(memory_format=torch.contiguous_format)
