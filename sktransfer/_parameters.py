"""Turn the parameters of an estimator into the objects that they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from ._frozen._backbones import Backbone, load_backbone
from ._frozen._cut_network import Outputs
from ._frozen._engines import resolve_device
from ._frozen._extraction import Extractor
from ._frozen._store import resolve_store
from ._protocols import ReadsImages
from ._sklearn_compat import HasMethods, Interval, StrOptions

SHARED_CONSTRAINTS: dict[str, list[Any]] = {
    "backbone": [str],
    "weights": [str, os.PathLike, None],
    "image_size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
    "crop": ["boolean", StrOptions({"auto"})],
    "resize": [StrOptions({"auto", "crop", "pad", "squash"})],
    "image_shape": ["array-like", None],
    "value_range": [StrOptions({"auto"}), "array-like"],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "precision": [StrOptions({"float32", "bfloat16"})],
    "device": [str],
    "memory": [str, os.PathLike, HasMethods("cache"), None],
    "n_jobs": [Integral, None],
    "verbose": ["verbose"],
}


def resolve_backbone(estimator: ReadsImages, seed: int = 0) -> Backbone:
    """Return the backbone that an estimator's parameters name, for images of their size and crop."""
    return as_seen(estimator, load_backbone(estimator.backbone, estimator.weights, seed))


def as_seen(estimator: ReadsImages, backbone: Backbone) -> Backbone:
    """Return a backbone for images of the size and crop that an estimator's parameters ask for."""
    # If the user sets image_size, showing the whole image would make objects smaller than in pretraining.
    crop = estimator.image_size is not None if estimator.crop == "auto" else estimator.crop
    return backbone.with_image_size(estimator.image_size, crop, estimator.resize)


def make_extractor(estimator: ReadsImages, backbone: Backbone, *, anew: bool = False) -> Extractor:
    """Return the extractor of a backbone's activations, set up by the parameters; `anew` ignores stored activations."""
    return Extractor(
        backbone,
        None if anew else resolve_store(estimator.memory),
        engine=getattr(estimator, "engine", "auto"),
        device=resolve_device(estimator.device),
        precision=estimator.precision,
        batch_size=estimator.batch_size,
        n_jobs=estimator.n_jobs,
        verbose=estimator.verbose,
    )


def resolve_stage(stage: str, backbone: Backbone) -> int:
    """Return the number of stages up to and including the one of that name."""
    names = backbone.stage_names
    if stage not in names:
        raise ValueError(
            f"{backbone.name!r} has no stage {stage!r}. Its stages, from input to output: {', '.join(names)}."
        )
    return names.index(stage) + 1


def resolve_outputs(layer: str | Sequence[str], pooling: str, backbone: Backbone) -> Outputs:
    """Return what to compute: the pooled features of the stages that ``layer`` names."""
    pooling = backbone.own_pooling if pooling == "auto" else pooling
    if layer == "all":
        return Outputs(tuple(range(1, len(backbone.stages) + 1)), pooling)
    layers = [layer] if isinstance(layer, str) else layer
    if not layers:
        raise ValueError("layer=[] names no stage. Name at least one, such as 'penultimate'.")
    last = backbone.stage_names[-1]
    cuts = {resolve_stage(last if name == "penultimate" else name, backbone) for name in layers}
    return Outputs(tuple(sorted(cuts)), pooling)


def resolve_freeze(freeze: int | str, backbone: Backbone) -> int:
    """Return the number of stages that ``freeze`` freezes."""
    n_stages = len(backbone.stages)
    if freeze == "all":
        return n_stages
    if freeze == "auto":
        return n_stages // 2 if backbone.pretrained else 0
    if isinstance(freeze, str):
        return resolve_stage(freeze, backbone)
    if freeze > n_stages:
        raise ValueError(
            f"freeze={freeze} is out of range: {backbone.name!r} has {n_stages} stages, "
            f"{', '.join(backbone.stage_names)}. Pass 0 to {n_stages}, a stage's name, or 'all'."
        )
    return int(freeze)
