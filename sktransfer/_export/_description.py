"""What a program must know to use an exported model, in plain values: preprocessing, classes, versions, licences."""

from __future__ import annotations

from datetime import date
from importlib.metadata import version
from typing import Any

from .._fitted_parts import Parts, Reader, weights_of
from .._frozen._preprocessing import Preprocessing

FORMAT = 1


def described(parts: Parts, names: list[str]) -> dict[str, Any]:
    """Describe a model whose inputs have these names, in values that JSON can hold."""
    packages = (
        "sktransfer",
        "torch",
        "timm",
        "torchvision",
        "scikit-learn",
        "onnx",
        "onnxscript",
        "skl2onnx",
        "pillow",
    )
    return {
        "format": FORMAT,
        "classes": [label if isinstance(label, int | float) else str(label) for label in parts.classes.tolist()],
        "values": "probabilities" if parts.has_probabilities else "scores",
        "inputs": [_input(name, reader) for name, reader in zip(names, parts.readers, strict=True)],
        "created": date.today().isoformat(),
        "versions": {name: version(name) for name in packages},
    }


def _input(name: str, reader: Reader) -> dict[str, Any]:
    preprocessing = reader.backbone.preprocessing
    return {
        "name": name,
        "backbone": reader.backbone.name,
        "weights": weights_of(reader),
        "preprocessing": steps_of(preprocessing) | {"in words": preprocessing.in_words},
    }


def steps_of(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the steps from a decoded image to the input of the network."""
    height, width = preprocessing.size
    target_height, target_width = preprocessing.resized_to
    return {
        "colour": "RGB",
        "dtype": "uint8",
        "layout": "height, width, channel",
        "resize": [target_height, target_width],  # see resize_mode
        "resize_mode": preprocessing.resize_mode,
        "fill": list(preprocessing.fill),  # the colour around the image, if resize_mode is "fit"
        "interpolation": preprocessing.interpolation,
        "antialias": preprocessing.interpolation != "nearest",
        "crop": [height, width],
        "crop_fraction": preprocessing.crop_fraction,
        "normalisation": "within the graph",
    }
