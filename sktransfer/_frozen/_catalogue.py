"""Which backbones there are: names, the nearest names, licences, and what is known of each."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import functools
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from torchvision import models

from .._exceptions import UnknownBackboneError
from .._optional import require

LITE = {f"efficientnet_lite{variant}": variant for variant in (0, 1, 2)}

# Licences in timm's table that allow research alone, or no commercial use, as their texts say.
_NOT_COMMERCIAL = ("apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license", "seer-license")


def list_backbones(pattern: str = "*", *, details: bool = False) -> Any:
    """Return the names of all backbones that `PretrainedCNNFeatures` and `FineTunedCNNClassifier` accept.

    Parameters
    ----------
    pattern : str, default="*"
        Shell-style wildcard, such as ``"*resnet*"`` or ``"timm/*"``.
    details : bool, default=False
        Whether to return a table instead, with what is known of the published weights. This needs pandas.

    Returns
    -------
    list of str, or pandas.DataFrame
        The embedded backbones come first, then torchvision's, then timm's. The weights of torchvision and timm are
        downloaded when first used. A timm name may carry a tag: ``"timm/resnet18.a1_in1k"``. The table has a row for
        each name and these columns:

        - ``size``: height and width in pixels that the weights were trained for;
        - ``parameters``: their number, in millions, with the original head;
        - ``accuracy``: on ImageNet's validation images, as torchvision and timm report it;
        - ``licence`` of the weights, and whether it allows ``commercial`` use; missing if it is not known;
        - ``here``: whether the weights are on this machine.

    Examples
    --------
    >>> from sktransfer import list_backbones
    >>> list_backbones("efficientnet_lite*")
    ['efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2']
    """
    timm_names = [f"timm/{name}" for name in timm.list_models()]
    names = [*LITE, "shallow_cnn", *models.list_models(module=models), *timm_names]
    names = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    return _table(names) if details else names


def refuse_unknown(name: str) -> UnknownBackboneError:
    """Return the error for a name that no source knows, with the nearest names."""
    close = [f"timm/{name}"] if timm.is_model(name) else []  # such as "resnet50.a1_in1k"
    close += difflib.get_close_matches(name, list_backbones(), n=5)
    close += [f"timm/{near}" for near in difflib.get_close_matches(name, timm.list_models(), n=2)]
    hint = f"Did you mean {' or '.join(map(repr, dict.fromkeys(close)))}? " if close else ""
    return UnknownBackboneError(f"There is no backbone {name!r}. {hint}list_backbones() returns all names.")


def check_tag(name: str) -> None:
    """Refuse a name of timm, without its prefix, whose tag stands for no weights."""
    architecture, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        known = f"Its tags are {', '.join(tags)}." if tags else "It has none."
        raise UnknownBackboneError(f"There are no weights 'timm/{name}': {architecture!r} has no tag {tag!r}. {known}")


def licence_warning(name: str) -> str | None:
    """Return what to say about the licence of timm's weights of this name, without its prefix; None if nothing."""
    config = timm.get_pretrained_cfg(name)
    licence = config and config.license
    if licence not in _NOT_COMMERCIAL:
        return None
    return (
        f"The weights of 'timm/{name}' have the licence {licence!r}, which does not allow commercial use. "
        "list_backbones(details=True) shows the licences of others."
    )


def _table(names: Iterable[str]) -> Any:
    require("list_backbones(details=True)", "cli", "pandas")
    import pandas as pd

    columns = ["name", "size", "parameters", "accuracy", "licence", "commercial", "here"]
    return pd.DataFrame([_row(name) for name in names], columns=columns).set_index("name")


def _row(name: str) -> tuple[Any, ...]:
    if name == "shallow_cnn":
        return name, (64, 64), 0.39, None, None, None, False
    if name in LITE:
        return _row_of_timm(name, f"tf_{name}", here=LITE[name] == 0)
    if name.startswith("timm/"):
        return _row_of_timm(name, name.removeprefix("timm/"))
    weights = models.get_model_weights(name).DEFAULT
    size, metrics = weights.transforms().crop_size[0], weights.meta["_metrics"]["ImageNet-1K"]
    here = _in_hub_folder(weights.url)
    return name, (size, size), weights.meta["num_params"] / 1e6, metrics["acc@1"] / 100, None, None, here


def _row_of_timm(name: str, timm_name: str, here: bool | None = None) -> tuple[Any, ...]:
    config = timm.get_pretrained_cfg(timm_name)
    if config is None:
        return name, None, None, None, None, None, False
    tag = f".{config.tag}" if config.tag else ""
    full = timm_name if "." in timm_name else f"{timm_name}{tag}"
    height, width = config.input_size[1:]
    accuracy, parameters = _results().get((full, height), (None, None))
    licence = config.license if config.license != "unknown" else None
    commercial = None if licence is None else licence not in _NOT_COMMERCIAL
    here = any(_places(config)) if here is None else here
    return name, (height, width), parameters, accuracy, licence, commercial, here


def _places(config: Any) -> Iterator[bool]:
    """Tell for each source of timm's weights whether it has been copied to this machine."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            yield isinstance(try_to_load_from_cache(config.hf_hub_id, file), str)
    if config.url:
        yield _in_hub_folder(config.url)


def _in_hub_folder(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name).is_file()


@functools.cache
def _results() -> dict[tuple[str, int], tuple[float, float]]:
    """Return accuracy on ImageNet and millions of parameters, by name with tag and by size. NOTICE names the source."""
    with (files("sktransfer") / "weights" / "imagenet_accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        (row["model"], int(row["size"])): (float(row["accuracy"]), float(row["million_parameters"])) for row in rows
    }
