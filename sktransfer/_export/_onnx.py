"""A fitted model as one ONNX graph, from canvases to probabilities and labels."""

from __future__ import annotations

import json
import threading
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from .._exceptions import ExportError
from .._feature_classifier import FeatureClassifier
from .._fitted_parts import Parts
from .._warnings import warnings_ignored
from ._description import described
from ._graph import image_network, sample_canvases
from ._steps import KNOWN_CLASSES, OPSETS, VALUES, rename, steps_to_onnx

IR_VERSION = 8  # the one that goes with opset 18; onnxruntime reads both from 1.14 on
DESCRIPTION = "sktransfer"  # name of the metadata
_exporting = threading.Lock()  # torch's exporter changes state that all threads share


def to_onnx(parts: Parts) -> Any:
    """Return the ONNX model, with the description of the model as JSON in its metadata.

    Its inputs are the canvases of each reader, uint8 (batch, H, W, 3). Its outputs are ``probabilities`` or ``scores``,
    float32 (batch, n_classes), and ``label``: text, or int64 if all classes are whole numbers.
    """
    from onnx import checker, compose

    steps = [] if parts.steps and isinstance(parts.steps[0][1], FeatureClassifier) else parts.steps
    if len(parts.steps) > 1 and any(isinstance(step, FeatureClassifier) for _, step in parts.steps):
        raise ExportError("A FeatureClassifier must stand directly behind the features, and nothing behind it.")
    names = input_names(parts)
    model = _network_to_onnx(parts, names, "features" if steps else VALUES)
    if steps:
        n_features = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        behind = steps_to_onnx(steps, n_features, len(parts.classes))
        behind.ir_version = IR_VERSION
        joint = [("features", "features")]
        model = compose.merge_models(model, behind, joint, prefix1="network/", prefix2="steps/")
        for prefix, own in (("network/", names), ("steps/", ["label", VALUES])):
            for name in own:
                rename(model.graph, prefix + name, name)
    _add_labels(model.graph, parts.classes)
    _name_outputs(model.graph, "probabilities" if parts.has_probabilities else "scores", len(parts.classes))
    del model.metadata_props[:]
    model.metadata_props.add(key=DESCRIPTION, value=json.dumps(described(parts, names), ensure_ascii=False))
    model.producer_name, model.producer_version = "sktransfer", version("sktransfer")
    model.doc_string = "Classifies images. The metadata entry 'sktransfer' (JSON) says how to prepare them."
    checker.check_model(model)
    return model


def input_names(parts: Parts) -> list[str]:
    """Return the names of the inputs: ``images``, or for several readers ``images_1``, ``images_2``, …."""
    if len(parts.readers) == 1:
        return ["images"]
    return [f"images_{number}" for number in range(1, len(parts.readers) + 1)]


def _network_to_onnx(parts: Parts, names: list[str], output: str) -> Any:
    network = image_network(parts)
    canvases = tuple(sample_canvases(reader.backbone, 2) for reader in parts.readers)
    batch = torch.export.Dim("batch")
    with _exporting, torch.no_grad(), warnings_ignored(""):
        program = torch.onnx.export(
            network,
            (canvases,),
            dynamo=True,
            input_names=names,
            output_names=[output],
            dynamic_shapes=(tuple({0: batch} for _ in canvases),),
            opset_version=OPSETS[""],
            verbose=False,
        )
    assert program is not None  # it is None only if a path is given
    model = program.model_proto
    _strip(model)
    model.ir_version = IR_VERSION
    return model


def _strip(model: Any) -> None:
    """Remove what the exporter notes of its work. It takes space, and it names folders of this machine."""
    for things in (model.graph.node, model.graph.input, model.graph.output, model.graph.initializer):
        for thing in things:
            del thing.metadata_props[:]
            thing.doc_string = ""
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""


def as_labels(classes: np.ndarray) -> np.ndarray:
    """Return the classes as a file names them: int64 if all are whole numbers, otherwise text."""
    if classes.dtype.kind in "iuf":
        return classes.astype(np.int64)
    return np.array([str(label) for label in classes.tolist()], dtype=object)


def _add_labels(graph: Any, classes: np.ndarray) -> None:
    """Add the label of the largest value, unless the steps know the label."""
    from onnx import TensorProto, helper

    labels = as_labels(classes)
    kind = TensorProto.STRING if labels.dtype == object else TensorProto.INT64
    own = next((output for output in graph.output if output.name == "label"), None)
    if own is not None and classes.dtype.kind in KNOWN_CLASSES:
        return
    if own is not None:
        graph.output.remove(own)
        for node in graph.node:  # the label of the steps is not used
            node.output[:] = ["steps/unused_label" if name == "label" else name for name in node.output]
    values: Any = [str(label).encode() for label in labels] if kind == TensorProto.STRING else labels.tolist()
    graph.initializer.append(helper.make_tensor("classes", kind, [len(labels)], values))
    graph.node.append(helper.make_node("ArgMax", [VALUES], ["position"], axis=1, keepdims=0))
    graph.node.append(helper.make_node("Gather", ["classes", "position"], ["label"], axis=0))
    graph.output.append(helper.make_tensor_value_info("label", kind, ["batch"]))


def _name_outputs(graph: Any, name: str, n_classes: int) -> None:
    """Let the outputs be the values, under this name, and the labels."""
    from onnx import TensorProto, helper

    label = next(output for output in graph.output if output.name == "label")
    kind = label.type.tensor_type.elem_type
    graph.node.append(helper.make_node("Identity", [VALUES], [name]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n_classes]))
    graph.output.append(helper.make_tensor_value_info("label", kind, ["batch"]))
