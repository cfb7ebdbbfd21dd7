"""Compare an exported model with the Python model on the same images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .._classifier import FineTunedCNNClassifier
from .._exceptions import ExportError
from .._fitted_parts import Parts, Reader
from .._parameters import make_extractor
from .._portable import placed
from .._validation import check_images
from ._graph import image_network, shared_views
from ._onnx import as_labels

TOLERANCE = 1e-4
N_GENERATED = 8

Answers = tuple[np.ndarray, np.ndarray]  # probabilities or scores (n, n_classes), and labels (n,)
Run = Callable[[Sequence[np.ndarray]], Answers]  # from the canvases of each reader to the answers of a file


class Reference(NamedTuple):
    """What the Python model answers, and the canvases of its readers for the same images."""

    values: np.ndarray
    labels: np.ndarray
    canvases: list[np.ndarray]


def on_this_cpu(model: Any) -> Any:
    """Return a copy of a fitted model that computes in float32 on the CPU and stores nothing in a folder."""
    with placed(device="cpu", precision="float32", memory=None, verbose=0):
        return copy.deepcopy(model)


def reference(model: Any, parts: Parts, images: Any = None) -> Reference:
    """Return the answers of the Python model; `images` None generates a few."""
    if images is None:
        images = generated_images(parts.readers[0])
    canvases = [_canvases(reader, images) for reader in parts.readers]
    first = parts.readers[0]
    if isinstance(first.estimator, FineTunedCNNClassifier) and shared_views(first.estimator, (8, 8)):
        # The model draws other views for each image than for the next, and the file the same ones for all.
        with torch.inference_mode():
            values = image_network(parts)((torch.from_numpy(canvases[0]),)).numpy()
        return Reference(values, as_labels(parts.classes)[values.argmax(axis=1)], canvases)
    if not parts.has_probabilities and not hasattr(model, "decision_function"):
        raise ExportError("The classifier gives neither probabilities nor scores, so there is nothing to compare.")
    values = model.predict_proba(images) if parts.has_probabilities else model.decision_function(images)
    if values.ndim == 1:
        values = np.stack([-values, values], axis=1)
    return Reference(values, as_labels(np.asarray(model.predict(images))), canvases)


def compare(run: Run, expected: Reference, what: str) -> float:
    """Run a file on the canvases, all at once and the first one alone, and return the largest difference of values.

    Differences of scores count in relation to the largest score, if that is above 1.

    Raises
    ------
    ExportError
        If a value differs by more than `TOLERANCE`, or if a label differs and its two largest values do not tie.
    """
    values, labels = run(expected.canvases)
    alone, _ = run([canvases[:1] for canvases in expected.canvases])
    if values.shape != expected.values.shape or alone.shape != expected.values[:1].shape:
        raise ExportError(f"{what} gives values of shape {values.shape}, the model {expected.values.shape}.")
    scale = max(1.0, float(np.abs(expected.values).max()))
    differences = np.abs(np.concatenate([values, alone]) - np.concatenate([expected.values, expected.values[:1]]))
    largest = float(differences.max()) / scale
    if not largest <= TOLERANCE:
        raise ExportError(
            f"{what} does not predict as the model does: the largest difference of a probability or score is "
            f"{largest:.2g}, and {TOLERANCE:g} is allowed. Nothing was written. Please report this with the output of "
            "sktransfer.show_versions()."
        )
    top = np.sort(expected.values, axis=1)
    differs = (labels != expected.labels) & (top[:, -1] - top[:, -2] > TOLERANCE * scale)
    if differs.any():
        row = int(np.flatnonzero(differs)[0])
        raise ExportError(
            f"{what} does not predict as the model does: {int(differs.sum())} of {len(labels)} labels differ, the "
            f"first at image {row}, {labels[row]!r} instead of {expected.labels[row]!r}. The largest difference of a "
            f"probability or score is {largest:.2g}. Nothing was written."
        )
    return largest


def generated_images(reader: Reader) -> list[np.ndarray]:
    """Return a few images of coarse and fine noise, somewhat larger than the network's input, always the same ones."""
    rng = np.random.default_rng(0)
    height, width = (side + side // 2 for side in reader.backbone.preprocessing.resized_to)
    images = []
    for number in range(N_GENERATED):
        coarse = rng.integers(0, 256, (2 + number, 2 + number, 3)).astype(float)
        rows, columns = (np.arange(side) * (2 + number) // side for side in (height, width))
        image = coarse[rows][:, columns] * 0.7 + rng.integers(0, 77, (height, width, 3))
        images.append(image.astype(np.uint8))
    limits = reader.estimator.value_range
    if isinstance(limits, str):
        return images
    low, high = limits
    return [(low + image / 255 * (high - low)).clip(low, high) for image in images]


def _canvases(reader: Reader, images: Any) -> np.ndarray:
    extractor = make_extractor(reader.estimator, reader.backbone)
    images = check_images(reader.estimator, images, reset=False)
    return np.array(extractor.canvases(images, np.arange(len(images))))
