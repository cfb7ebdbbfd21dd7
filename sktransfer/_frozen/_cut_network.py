"""The frozen network up to one or several cuts: what it returns, and its copy in which BatchNorm is folded."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .._registry import start_clean_after_fork
from ._backbones import Backbone
from ._layout import NO_TOKENS, pool, tokens_of


@dataclass(frozen=True)
class Outputs:
    """What a run through the stages returns: pooled features of one or several cuts, or the whole map at one cut."""

    cuts: tuple[int, ...]  # how many stages lie before each cut, in ascending order; 0 is the normalised image itself
    pooling: str | None  # as `pool` takes it, with the cuts concatenated; None returns the map at the only cut

    def feature_counts(self, backbone: Backbone) -> list[int]:
        """Return the number of pooled features at each cut."""
        counts = _all_feature_counts(backbone, self.pooling or "avg")
        return [counts[cut - 1] for cut in self.cuts]


class CutNetwork(nn.Module):
    """Computes the activations at one or several cuts of a backbone, from canvases or from the map at the cut `start`.

    Inputs and outputs have their channels last, the layout in which convolutions are fastest.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, backbone: Backbone, outputs: Outputs, start: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        self.start = start
        self.stages = backbone.stages[start : outputs.cuts[-1]]
        self.tokens = tokens_of(backbone.stages[start - 1]) if start else NO_TOKENS
        preprocessing = backbone.preprocessing
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map uint8 (n, H, W, 3) or float (n, h, w, C) to float (n, n_features), or without pooling (n, h, w, C)."""
        x = inputs.permute(0, 3, 1, 2)
        if self.start == 0:
            x = x * self.scale + self.shift
        cuts, pooling = self.outputs.cuts, self.outputs.pooling
        if pooling is None:
            maps: torch.Tensor = self.stages(x)
            return maps.permute(0, 2, 3, 1)
        pooled = [pool(x, pooling, self.tokens)] if self.start in cuts else []
        for depth, stage in enumerate(self.stages, start=self.start + 1):
            x = stage(x)
            if depth in cuts:
                pooled.append(pool(x, pooling, tokens_of(stage)))
        return torch.cat(pooled, dim=1)


def folded(network: CutNetwork, sample: torch.Tensor) -> CutNetwork:
    """Return a copy whose BatchNorm layers are folded into the convolutions before them.

    The order of the layers suggests which convolution feeds which BatchNorm. This guess is tested on `sample`: if the
    folded copy computes other values, an unfolded copy is returned.
    """
    plain = copy.deepcopy(network).eval()
    candidate = copy.deepcopy(plain)
    _fold_children(candidate)
    with torch.inference_mode():
        try:
            expected, got = plain(sample), candidate(sample)
        except (RuntimeError, TypeError):
            return plain
    same = (expected - got).abs().max() <= 1e-4 * expected.abs().max()
    return candidate if same.item() else plain


def _fold_children(module: nn.Module) -> None:
    for (name, first), (next_name, second) in itertools.pairwise(list(module.named_children())):
        if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d)):
            continue
        if first.out_channels == second.num_features:
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, next_name, getattr(second, "act", nn.Identity()))  # of timm's BatchNormAct2d
    for child in module.children():
        _fold_children(child)


_counts: dict[tuple[object, ...], list[int]] = {}  # a few numbers per network; they do not keep the network in memory


def _all_feature_counts(backbone: Backbone, pooling: str) -> list[int]:
    """Return the number of pooled features after each stage, found by running one black image."""
    size = backbone.preprocessing.size
    if pooling != "flatten" and backbone.network is None:  # the number does not depend on the size
        size = (min(size[0], 256), min(size[1], 256))
    key = (*backbone.identity, pooling, size)
    if key not in _counts:
        start_clean_after_fork()
        counts = []
        with torch.inference_mode():
            x = torch.zeros(1, 3, *size)
            for stage in backbone.stages:
                x = stage(x)
                counts.append(pool(x, pooling, tokens_of(stage)).shape[1])
        _counts[key] = counts
    return _counts[key]
