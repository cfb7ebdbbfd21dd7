"""Run frozen stages over a batch of images."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ._backbones import Backbone

POOLINGS = ("avg", "max", "avgmax", "flatten")


def resolve_device(device: str) -> torch.device:
    """Return the device asked for; "auto" takes a GPU where there is one."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pool(maps: torch.Tensor, pooling: str) -> torch.Tensor:
    """Turn feature maps (n, C, h, w) into vectors: (n, C), or (n, 2 C) for "avgmax", or (n, C h w) for "flatten"."""
    if pooling == "avg":
        return maps.mean(dim=(2, 3))
    if pooling == "max":
        return maps.amax(dim=(2, 3))
    if pooling == "avgmax":
        return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
    return maps.flatten(start_dim=1)


class CutNetwork(nn.Module):
    """From canvases, or from the map at a cut, to the activations at one or several cuts of a backbone.

    All that goes in and out has its channels last, which is how convolutions want it.

    Parameters
    ----------
    backbone : Backbone
        Whose stages are run, as far as the last cut.
    cuts : sequence of int
        How many stages lie before each cut, in ascending order; 0 is the normalised image itself.
    pooling : str or None
        None returns the feature map at the only cut; otherwise the pooled cuts are concatenated.
    start : int
        The cut whose map is the input; 0 for canvases.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, backbone: Backbone, cuts: Sequence[int], pooling: str | None, start: int = 0) -> None:
        super().__init__()
        self.cuts = tuple(cuts)
        self.pooling = pooling
        self.start = start
        self.stages = backbone.stages[start : self.cuts[-1]]
        preprocessing = backbone.preprocessing
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map uint8 (n, H, W, 3), or float (n, h, w, C), to float (n, n_features), or unpooled to (n, h, w, C)."""
        x = inputs.permute(0, 3, 1, 2)
        if self.start == 0:
            x = x * self.scale + self.shift
        if self.pooling is None:
            return self.stages(x).permute(0, 2, 3, 1)
        pooled = [pool(x, self.pooling)] if self.start in self.cuts else []
        for depth, stage in enumerate(self.stages, start=self.start + 1):
            x = stage(x)
            if depth in self.cuts:
                pooled.append(pool(x, self.pooling))
        return torch.cat(pooled, dim=1)


class TorchEngine:
    """Runs a `CutNetwork` with torch: eval mode, no gradients, channels last, on one device.

    Parameters
    ----------
    network : CutNetwork
        Left as it is; on another device a copy is run.
    device : torch.device
    precision : {"float32", "bfloat16"}
        bfloat16 runs convolutions and matrix products in it; the result is float32 all the same.
    """

    def __init__(self, network: CutNetwork, device: torch.device, precision: str = "float32") -> None:
        self.device = device
        self.precision = precision
        self.network = network.eval() if device.type == "cpu" else _copy_to(network, device)

    def __call__(self, inputs: np.ndarray) -> torch.Tensor:
        """Return the float32 activations of a batch of canvases or maps, on the engine's device."""
        low = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            return self.network(torch.from_numpy(inputs).to(self.device)).float()


def _copy_to(network: CutNetwork, device: torch.device) -> CutNetwork:
    return copy.deepcopy(network).eval().to(device).to(memory_format=torch.channels_last)


def feature_counts(backbone: Backbone, cuts: Sequence[int], pooling: str) -> list[int]:
    """Return the number of pooled features at each cut, found by running one black image."""
    canvas = torch.zeros((1, *backbone.preprocessing.size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        return [CutNetwork(backbone, [cut], pooling).eval()(canvas).shape[1] for cut in cuts]
