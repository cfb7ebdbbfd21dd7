"""Cut a network into an ordered list of stages that run one after the other.

A stage ends where the authors of the architecture end one. Examples are a residual layer of ResNet, a block group of
EfficientNet, and in plain chains (VGG, MobileNetV2) everything up to a downsampling. The stem belongs to the first
stage, so that ``freeze=k`` and the name ``"stage{k}"`` mean the same cut. The classifier is left out; for VGG-like
networks this means all fully connected layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ._traced_stages import traced_stages

Stages = list[list[nn.Module]]


def split_into_stages(network: nn.Module, size: tuple[int, int]) -> nn.Sequential:
    """Return the network's body as ``Sequential(stage1=…, stage2=…, …)``, for images of this height and width.

    The stages share their parameters with `network`. Run in order, they give its last feature map. If the architecture
    normalises or convolves after its global pooling (ConvNeXt, timm's MobileNetV3 and V4), the last stage does so
    too, and its map is 1 × 1. Networks of families without a rule here are cut by `traced_stages`.
    """
    if depends_on_size(network):
        stages = traced_stages(network, size)
    else:
        stages = [nn.Sequential(*modules) for modules in _FAMILIES[type(network).__name__](network)]
    body = nn.Sequential()
    for number, stage in enumerate(stages, start=1):
        body.add_module(f"stage{number}", stage)
    for module in body.modules():
        if hasattr(module, "inplace"):  # an in-place first layer would overwrite the stored input of a stage
            setattr(module, "inplace", False)  # noqa: B010 - torch's type of an attribute is Tensor | Module
    return body


def depends_on_size(network: nn.Module) -> bool:
    """Tell whether the stages hold for one image size only."""
    return type(network).__name__ not in _FAMILIES


class StandardizedInput(nn.Module):
    """Replace normalisation with ImageNet's mean and deviation by normalisation with 0.5 and 0.5.

    This is torchvision's ``transform_input``: its GoogLeNet and Inception weights come from another library.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images (n, 3, H, W) to the range with which the original weights were trained."""
        mean = x.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = x.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        return (x * std + mean - 0.5) / 0.5


def _children(module: Any, names: str) -> list[nn.Module]:
    return [getattr(module, name) for name in names.split()]


def _stem_then(stem: Sequence[nn.Module], modules: Iterable[nn.Module]) -> Stages:
    first, *rest = modules
    return [[*stem, first], *([module] for module in rest)]


def _downsamples(module: nn.Module) -> bool:
    """Tell whether any convolution or pooling inside has a stride above 1."""
    strides = (getattr(inner, "stride", 1) for inner in module.modules())
    return any(max(stride) > 1 if isinstance(stride, tuple) else stride > 1 for stride in strides)


def _cut_at_downsampling(chain: Iterable[nn.Module], *, before: bool = True) -> Stages:
    """Group a chain of blocks: a new stage starts before (or after) each block that downsamples."""
    groups: Stages = [[]]
    for block in chain:
        strided = _downsamples(block)
        if strided and before and groups[-1]:
            groups.append([])
        groups[-1].append(block)
        if strided and not before:
            groups.append([])
    return [group for group in groups if group]


def _resnet(net: Any) -> Stages:
    activation = net.relu if hasattr(net, "relu") else net.act1
    stem = [net.conv1, net.bn1, activation, net.maxpool]
    return _stem_then(stem, _children(net, "layer1 layer2 layer3 layer4"))


def _alexnet(net: Any) -> Stages:
    # The first convolution has a stride too, so only the poolings mark the ends of stages.
    features = list(net.features)
    ends = [i + 1 for i, module in enumerate(features) if isinstance(module, nn.MaxPool2d)]
    return [features[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _squeezenet(net: Any) -> Stages:
    stem, first, *rest = _cut_at_downsampling(net.features)
    return [[*stem, *first], *rest]


def _densenet(net: Any) -> Stages:
    features = dict(net.features.named_children())
    groups: Stages = [[]]
    for name, module in features.items():
        groups[-1].append(module)
        if name.startswith("transition"):
            groups.append([])
    if type(features["norm5"]) is nn.BatchNorm2d:  # torchvision applies the last ReLU in forward
        groups[-1].append(nn.ReLU())
    return groups


def _mobilenet_chain(net: Any) -> Stages:
    chain = list(net.features)
    stem, first, *rest = _cut_at_downsampling(chain[:-1])
    return [[*stem, *first], *rest, [chain[-1]]]


def _mobilenet_v3(net: Any) -> Stages:
    if hasattr(net, "features"):  # torchvision
        return _mobilenet_chain(net)
    blocks = _stem_then([net.conv_stem, net.bn1], net.blocks)
    return [*blocks, [net.global_pool, net.conv_head, net.norm_head, net.act2]]


def _efficientnet(net: Any) -> Stages:
    if hasattr(net, "features"):  # torchvision
        stem, *rest = net.features
        return _stem_then([stem], rest)
    blocks = _stem_then([net.conv_stem, net.bn1], net.blocks)
    return [*blocks, [net.conv_head, net.bn2]]


def _convnext(net: Any) -> Stages:
    if hasattr(net, "features"):  # torchvision: stem, stage, downsampling, stage, downsampling, …
        stem, first, *rest = net.features
        pairs = [rest[i : i + 2] for i in range(0, len(rest), 2)]
        return [[stem, first], *pairs, [net.avgpool, net.classifier[0]]]
    stages = _stem_then([net.stem], net.stages)
    if not hasattr(net.head, "norm"):  # the few networks that normalise before pooling
        return [*stages, [net.norm_pre]]
    return [*stages, [net.norm_pre, net.head.global_pool, net.head.norm]]


def _regnet(net: Any) -> Stages:
    if hasattr(net, "trunk_output"):  # torchvision
        return _stem_then([net.stem], net.trunk_output)
    stages = _stem_then([net.stem], _children(net, "s1 s2 s3 s4"))
    return [*stages[:-1], [*stages[-1], net.final_conv]]


def _shufflenet(net: Any) -> Stages:
    return _stem_then([net.conv1, net.maxpool], _children(net, "stage2 stage3 stage4 conv5"))


def _mnasnet(net: Any) -> Stages:
    chain = list(net.layers)
    return [*_stem_then(chain[:8], chain[8:14]), chain[14:]]


def _googlenet(net: Any) -> Stages:
    stem = _children(net, "conv1 maxpool1 conv2 conv3 maxpool2")
    third = _children(net, "inception3a inception3b")
    fourth = _children(net, "maxpool3 inception4a inception4b inception4c inception4d inception4e")
    return _with_input_transform(net, [[*stem, *third], fourth, _children(net, "maxpool4 inception5a inception5b")])


def _inception_v3(net: Any) -> Stages:
    stem = _children(net, "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2")
    groups = [
        [*stem, *_children(net, "Mixed_5b Mixed_5c Mixed_5d")],
        _children(net, "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e"),
        _children(net, "Mixed_7a Mixed_7b Mixed_7c"),
    ]
    return _with_input_transform(net, groups)


def _with_input_transform(net: Any, stages: Stages) -> Stages:
    return [[StandardizedInput(), *stages[0]], *stages[1:]] if net.transform_input else stages


_FAMILIES: dict[str, Callable[[Any], Stages]] = {
    "AlexNet": _alexnet,
    "ConvNeXt": _convnext,
    "DenseNet": _densenet,
    "EfficientNet": _efficientnet,
    "GoogLeNet": _googlenet,
    "Inception3": _inception_v3,
    "MNASNet": _mnasnet,
    "MobileNetV2": _mobilenet_chain,
    "MobileNetV3": _mobilenet_v3,
    "RegNet": _regnet,
    "ResNet": _resnet,
    "ShallowCNN": lambda net: _stem_then([], net.features),
    "ShuffleNetV2": _shufflenet,
    "SqueezeNet": _squeezenet,
    "VGG": lambda net: _cut_at_downsampling(net.features, before=False),
}
