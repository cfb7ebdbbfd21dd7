"""Find a backbone by its name, and return its stages, preprocessing and weights.

Backbones come from three sources: sktransfer (the embedded default and a small CNN), torchvision, and timm
(``"timm/…"``).
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn
from torchvision import models

from .._exceptions import BackboneError, WeightsMismatchError, WeightsNotFoundError
from .._protocols import StrPath
from .._random import global_generator
from .._registry import built_once
from ._catalogue import LITE, check_tag, licence_warning, refuse_unknown
from ._layout import own_pooling
from ._preprocessing import Preprocessing
from ._stages import depends_on_size, split_into_stages
from ._weights import OFFLINE_HINT, embedded_lite_weights, fetch_weights, read_weights, weights_checksum

DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class Backbone:
    """A network cut into stages, frozen and in eval mode. It is shared within the process and must not be changed.

    The named stages map normalised images (n, 3, H, W) to feature maps one after the other. The checksum is the SHA-256
    of the architecture's name and of the stages' parameters and buffers. The name is included because two architectures
    with the same parameters may compute different values.
    """

    name: str
    stages: nn.Sequential
    preprocessing: Preprocessing
    checksum: str
    pretrained: bool  # False if the weights are random
    published: bool = False  # True if the name is enough to find the weights again
    network: nn.Module | None = None  # the whole network if its stages hold for one image size only
    cut_for: tuple[int, int] = (0, 0)  # that image size

    @property
    def identity(self) -> tuple[str, str, str]:
        """Architecture, package with its version, and checksum of the weights: they determine the network's output."""
        return architecture_of(self.name), _source(self.name), self.checksum

    @property
    def own_pooling(self) -> str:
        """The pooling of the last stage's map with which the weights were trained, as `pool` takes it."""
        return own_pooling(self.stages)

    @property
    def stage_names(self) -> list[str]:
        """The names of the stages, in order."""
        return [name for name, _ in self.stages.named_children()]

    def with_image_size(
        self, image_size: int | Sequence[int] | None, crop: bool = True, resize: str = "auto"
    ) -> Backbone:
        """Return the same backbone for another image size, or without the crop, or for images resized otherwise."""
        resized = replace(self, preprocessing=self.preprocessing.with_image_size(image_size, crop, resize))
        size = resized.preprocessing.size
        if self.network is None or size == self.cut_for:
            return resized
        stages = built_once(("resized", *self.identity, size), lambda: _stages_for(self, size))
        return replace(resized, stages=stages, cut_for=size)


def load_backbone(name: str = DEFAULT_BACKBONE, weights: StrPath | None = "default", seed: int = 0) -> Backbone:
    """Return a backbone by its name in `list_backbones`. Each backbone is built once per process.

    The weights "default" are the published ones, a path names a local file, and None means random weights from `seed`.
    """
    if weights is None or weights == "default":
        seed = seed if weights is None else 0
        return built_once(("backbone", name, weights, seed), lambda: _build(name, weights, seed))
    path = Path(weights).expanduser()
    # The file may change, so its state is part of the key.
    stat = path.stat() if path.exists() else None
    stamp = stat and (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return built_once(("backbone", name, str(path.absolute()), stamp), lambda: _build(name, str(path), 0))


def backbone_with(
    name: str, n_stages: int | None, state: Mapping[str, torch.Tensor], preprocessing: Preprocessing, pretrained: bool
) -> Backbone:
    """Return a backbone whose first `n_stages` (None: all) have these parameters. The others must not be used.

    `state` holds all parameters and buffers of these stages, by their names in the whole ``Sequential`` of stages.
    """
    checksum = weights_checksum(state, architecture_of(name))

    def build() -> Backbone:
        network, own = _random(name, 0)
        stages = split_into_stages(network, own.size)
        try:
            stages[:n_stages].load_state_dict(state)
        except RuntimeError as error:
            raise WeightsMismatchError(f"These are not the first {n_stages} stages of {name!r}: {error}") from error
        backbone = Backbone(name, _frozen(stages), preprocessing, checksum, pretrained)
        return _with_network(backbone, network, own.size)

    return built_once(("backbone", name, n_stages, checksum, preprocessing, pretrained), build)


def architecture_of(name: str) -> str:
    """Return a backbone's name without the tag of its weights: ``"timm/resnet18.a1_in1k"`` is ``"timm/resnet18"``."""
    return name.partition(".")[0] if name.startswith("timm/") else name


def _source(name: str) -> str:
    if name == "shallow_cnn":
        return "sktransfer"
    if name in LITE or name.startswith("timm/"):
        return f"timm {timm.__version__}"
    return f"torchvision {torchvision.__version__}"


def _build(name: str, weights: str | None, seed: int) -> Backbone:
    network, preprocessing = _with_published_weights(name) if weights == "default" else _random(name, seed)
    stages = split_into_stages(network, preprocessing.size)
    if weights not in ("default", None):
        _load_into_stages(network, stages, read_weights(str(weights)), str(weights))
    stages = _frozen(stages)
    checksum = weights_checksum(stages.state_dict(), architecture_of(name))
    backbone = Backbone(name, stages, preprocessing, checksum, weights is not None, published=weights == "default")
    return _with_network(backbone, network, preprocessing.size)


def _with_network(backbone: Backbone, network: nn.Module, size: tuple[int, int]) -> Backbone:
    """Keep the network beside its stages if they have to be cut anew for another image size."""
    return replace(backbone, network=network, cut_for=size) if depends_on_size(network) else backbone


def _stages_for(backbone: Backbone, size: tuple[int, int]) -> nn.Sequential:
    """Return the stages of the same network for another image size; position embeddings are interpolated by timm."""
    network: Any = copy.deepcopy(backbone.network)
    try:
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=size)
        return _frozen(split_into_stages(network, size))
    except Exception as error:  # networks refuse a size in many ways
        raise BackboneError(
            f"{backbone.name!r} cannot take images of {size[0]} × {size[1]} pixels: {str(error).splitlines()[0]} "
            f"It was pretrained with {backbone.cut_for[0]} × {backbone.cut_for[1]}; image_size=None takes this size."
        ) from error


def _frozen(stages: nn.Sequential) -> nn.Sequential:
    return stages.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _random(name: str, seed: int) -> tuple[nn.Module, Preprocessing]:
    with global_generator(seed):
        return _architecture(name)


def _architecture(name: str) -> tuple[nn.Module, Preprocessing]:
    """Return the network with random weights, and the preprocessing of its published weights."""
    if name == "shallow_cnn":
        return ShallowCNN(), Preprocessing((64, 64), 1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    timm_name = f"tf_{name}" if name in LITE else name.removeprefix("timm/")
    if name in LITE or (name.startswith("timm/") and timm.is_model(timm_name)):
        network = timm.create_model(timm_name)
        return network, timm_preprocessing(network)
    if name in models.list_models(module=models):
        options = {}
        if name in ("googlenet", "inception_v3"):  # torchvision uses these options for the pretrained weights
            options = {"aux_logits": False, "init_weights": False, "transform_input": True}
        return models.get_model(name, weights=None, **options), _torchvision_preprocessing(name)
    raise refuse_unknown(name)


def _with_published_weights(name: str) -> tuple[nn.Module, Preprocessing]:
    if name == "shallow_cnn":
        raise WeightsNotFoundError(
            "'shallow_cnn' has no pretrained weights; it is meant for training from scratch. Pass weights=None."
        )
    if name.startswith("timm/"):
        return _timm_pretrained(name.removeprefix("timm/"))
    network, preprocessing = _random(name, 0)
    if name in LITE:
        published = read_weights(embedded_lite_weights(LITE[name]))
        if name != DEFAULT_BACKBONE:  # these packages use older names than timm, in the same order
            published = dict(zip(network.state_dict(), published.values(), strict=True))
    else:
        published = read_weights(fetch_weights(models.get_model_weights(name).DEFAULT.url))
    _load_into_stages(network, split_into_stages(network, preprocessing.size), published, name)
    return network, preprocessing


def _timm_pretrained(name: str) -> tuple[nn.Module, Preprocessing]:
    if not timm.is_model(name):
        raise refuse_unknown(f"timm/{name}")
    check_tag(name)
    try:
        with global_generator(0):
            empty = _without_values(name)
            split_into_stages(empty, timm_preprocessing(empty).size)  # raises before the download
            network = timm.create_model(name, pretrained=True)
    except BackboneError:
        raise
    except Exception as error:  # when offline or without weights, timm and its hub raise errors of many types
        raise WeightsNotFoundError(
            f"timm cannot load the weights of {name!r}: {type(error).__name__}: {error} {OFFLINE_HINT}"
        ) from error
    complaint = licence_warning(name)
    if complaint:
        warnings.warn(complaint, stacklevel=2)
    return network, timm_preprocessing(network)


def _without_values(name: str) -> nn.Module:
    """Return timm's network on the meta device, where no memory is filled."""
    try:
        with torch.device("meta"):
            return timm.create_model(name)
    except RuntimeError:  # some networks of timm 1.0.10 ask for values while they are built
        return timm.create_model(name)


def _load_into_stages(network: nn.Module, stages: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load the weights that the stages need; the original head may be present, missing, or of another size."""
    of_stages = {id(tensor) for tensor in stages.state_dict(keep_vars=True).values()}
    needed = {name: value for name, value in network.state_dict(keep_vars=True).items() if id(value) in of_stages}
    missing, misshapen = _faults(needed, state)
    if missing or misshapen:
        state = _as_timm_names_them(network, state)
        missing, misshapen = _faults(needed, state)
    if missing or misshapen:
        wrong = missing or [
            f"{name} is {tuple(state[name].shape)}, not {tuple(needed[name].shape)}" for name in misshapen
        ]
        raise WeightsMismatchError(
            f"The weights in {source!r} do not fit the network: {len(missing)} tensors are missing and "
            f"{len(misshapen)} have another shape, the first of them {', '.join(wrong[:3])}. "
            "Check that they were saved from this architecture."
        )
    network.load_state_dict({name: state[name] for name in needed if name in state}, strict=False)


def _faults(needed: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Return the names that a state dict lacks, and those whose shape differs."""
    # Old files lack the counters of BatchNorm, which are not used in eval mode.
    missing = [name for name in needed if name not in state and not name.endswith("num_batches_tracked")]
    return missing, [name for name in needed if name in state and state[name].shape != needed[name].shape]


def _as_timm_names_them(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict with timm's names and shapes, if timm knows those of the original authors or of another size.

    For instance, embeddings of positions are interpolated.
    """
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        return state if translate is None else dict(translate(dict(state), network))
    except (KeyError, RuntimeError, ValueError, AttributeError):  # timm does not know them
        return state


def timm_preprocessing(network: nn.Module) -> Preprocessing:
    """Return how images were prepared for the weights of a network of timm."""
    config = resolve_data_config(model=network)
    return Preprocessing(
        size=tuple(config["input_size"][1:]),
        crop_fraction=config["crop_pct"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize="squash" if config["crop_mode"] == "squash" else "crop",
    )


def _torchvision_preprocessing(name: str) -> Preprocessing:
    transform = models.get_model_weights(name).DEFAULT.transforms()
    (crop,), (whole,) = transform.crop_size, transform.resize_size
    return Preprocessing(
        size=(crop, crop),
        crop_fraction=crop / whole,
        interpolation=transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


class ShallowCNN(nn.Module):
    """A network of four convolutions with pooling (0.4 million parameters), to train from scratch on few images."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(
                nn.Conv2d(width_in, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(kernel_size=2, ceil_mode=True),
            )
            for width_in, width in zip((3, *widths), widths, strict=False)
        ]
        self.features = nn.Sequential(*blocks)
