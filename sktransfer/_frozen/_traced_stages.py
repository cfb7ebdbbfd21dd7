"""Cut a network whose family is unknown into stages, by following its computation.

`torch.fx` records which values a network computes, and from which others. Where a single value is all that the rest of
the network needs, the network can be cut: what comes before maps images to this value, and what comes after maps it to
the features. No rule for a single architecture is needed.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._exceptions import BackboneError
from ._layout import Layout, apply_steps, layout_of, pool, run_steps
from ._tracing import BATCHES, Computation, Whole, follow

MOST_STAGES = 8  # stages before the last one; the blocks of a transformer are grouped, so that there are no more
_OUT_OF_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}


def traced_stages(network: nn.Module, size: tuple[int, int]) -> list[nn.Module]:
    """Return the stages of a network for images of this height and width, in order.

    The last stage ends before the network's own pooling if that is the mean over all places, or takes the class token.
    Otherwise it includes the pooling, and its map is 1 × 1.
    """
    ends = {f"network.{name}": channels for name, channels in _ends_of_stages(network).items()}
    faults = []
    for within in (False, True):
        try:
            computation = follow(Whole(network), list(ends), size, within)
            stages = _stages(computation, list(_cuts(computation, ends, size)), size)
        except Exception as error:  # tracing runs code of any kind
            faults.append(error)
            continue
        if len(stages) > 1:
            return stages
    reason = f" ({type(faults[0]).__name__}: {str(faults[0]).splitlines()[0][:200]})" if faults else ""
    raise BackboneError(
        f"Cannot cut a {type(network).__name__} for images of {size[0]} × {size[1]} pixels into stages: at no end of a "
        f"block is one value all that the rest needs{reason}. list_backbones() names networks that work."
    )


def _ends_of_stages(network: Any) -> dict[str, int | None]:
    """Return the modules at whose end a stage may end, with the number of channels there if it is known.

    timm lists them. Otherwise they are the members of the innermost list of modules that holds most layers.
    """
    listed = getattr(network, "feature_info", None) or []
    listed = getattr(listed, "info", listed)
    if listed:
        return {each["module"]: each.get("num_chs") for each in listed}
    prefix, module = "", network
    found: dict[str, int | None] = {}
    while True:
        children = {name: child for name, child in module.named_children() if _n_parameters(child)}
        if len(children) > 1:
            found = {f"{prefix}{name}": None for name in children}
        inner = [name for name, child in children.items() if _n_layers(child) > _n_layers(network) / 2]
        if not inner:
            return found
        prefix, module = f"{prefix}{inner[0]}.", children[inner[0]]


def _n_layers(module: nn.Module) -> int:
    return sum(any(True for _ in layer.parameters(recurse=False)) for layer in module.modules())


def _n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class _Cut(NamedTuple):
    """A value at which the network is cut, and its layout."""

    node: fx.Node
    layout: Layout


def _cuts(computation: Computation, ends: dict[str, int | None], size: tuple[int, int]) -> Iterator[_Cut]:
    """Yield where a stage may end, in order: the first single value behind the end of a module of `ends`."""
    last_of = {name: i for i, node in enumerate(computation.nodes) for name in _modules_of(node) if name in ends}
    network: Any = computation.whole.network
    positions = sorted((i, name) for name, i in last_of.items())
    limits = [i for i, _ in positions[1:]] + [len(computation.nodes) - 1]
    done: set[fx.Node] = set()
    for (i, name), limit in zip(positions, limits, strict=True):
        for place in range(i, max(limit, i + 1)):
            node = computation.only_value_after(place)
            if node is None or node.op == "placeholder" or node in done:
                continue
            layout = layout_of(computation.values[node].shape, ends[name], size, **_prefix_of(network))
            if layout is not None:
                done.add(node)
                yield _Cut(node, layout)
                break


def _prefix_of(network: Any) -> dict[str, Any]:
    """Return the number of tokens before those of the image, and whether the first of them is the class token."""
    return {
        "n_prefix": getattr(network, "num_prefix_tokens", 0),
        "has_class_token": getattr(network, "cls_token", None) is not None,
    }


def _modules_of(node: fx.Node) -> Iterator[str]:
    """Yield the names of the modules whose code this step belongs to."""
    if node.op == "call_module":
        yield str(node.target)
    for name, _ in (node.meta.get("nn_module_stack") or {}).values():
        yield name


def _stages(computation: Computation, cuts: list[_Cut], size: tuple[int, int]) -> list[nn.Module]:
    """Return the parts between the cuts as modules, after the grouping of blocks and the choice of the end."""
    end, pooling = _end(computation, size)
    position = {node: i for i, node in enumerate(computation.nodes)}
    cuts = [cut for cut in cuts if position[cut.node] < position[end.node]]
    last_of_group = range(len(cuts) - 1, -1, -max(1, -(-len(cuts) // MOST_STAGES)))
    start = _Cut(computation.nodes[0], Layout([], []))
    kept = [start]
    for cut in [cuts[i] for i in reversed(last_of_group)]:
        if _has_parameters(computation, kept[-1], cut):
            kept.append(cut)
    if len(kept) > 1 and not _has_parameters(computation, kept[-1], end):
        kept.pop()
    stages: list[nn.Module] = []
    for first, last in itertools.pairwise([*kept, end]):
        stage: Any = nn.Sequential(_part(computation, first, last))
        stage.tokens = last.layout.tokens
        stages.append(stage)
    last_stage: Any = stages[-1]
    last_stage.own_pooling = pooling
    return stages


def _end(computation: Computation, size: tuple[int, int]) -> tuple[_Cut, str]:
    """Return where the last stage ends, and the pooling of its map with which the network was trained."""
    nodes, values = computation.nodes, computation.values
    network: Any = computation.whole.network
    (output,) = nodes[-1].all_input_nodes
    mark = next((node for node in nodes if node.target == "end_of_maps"), None)
    if mark is not None and computation.only_value_after(nodes.index(mark)) is mark:
        layout = layout_of(values[mark].shape, getattr(network, "num_features", None), size, **_prefix_of(network))
        if layout is not None:
            end = _Cut(mark.all_input_nodes[0], layout)
            start, finish = _Cut(mark, Layout([], [])), _Cut(output, Layout([], []))
            if not _has_parameters(computation, start, finish):
                pooling = _pooling_of(_part(computation, start, finish), values[mark].shape, layout)
                if pooling:
                    return end, pooling
    layout = layout_of(values[output].shape, None, size, 0, False)
    if layout is None:
        raise ValueError(f"the features have the shape {tuple(values[output].shape)}")
    return _Cut(output, layout), "avg"


def _pooling_of(head: nn.Module, shape: Sequence[int], layout: Layout) -> str | None:
    """Return the pooling of maps that computes the same as a head without parameters; None if there is none."""
    own = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    features, maps = head(own), run_steps(own, layout.to_map)
    for pooling in ("avg", "token"):
        if pooling == "token" and not layout.tokens.has_class_token:
            continue
        pooled = pool(maps, pooling, layout.tokens)
        if features.flatten(1).shape == pooled.shape and torch.allclose(features.flatten(1), pooled, atol=1e-5):
            return pooling
    return None


def _has_parameters(computation: Computation, start: _Cut, end: _Cut) -> bool:
    """Tell whether anything can be learned between two cuts."""
    steps = [node for node in _needed(computation, start.node, end.node) if node.op in ("call_module", "get_attr")]
    used = [operator.attrgetter(str(node.target))(computation.whole) for node in steps]
    return any(isinstance(each, nn.Parameter) or (isinstance(each, nn.Module) and _n_parameters(each)) for each in used)


def _part(computation: Computation, start: _Cut, end: _Cut) -> fx.GraphModule:
    """Return the module that computes the map at `end` from the map at `start`.

    Sizes are constants, except that of the batch. What depends on no pixel, such as an embedding of positions, is
    computed in each part that needs it.
    """
    graph = fx.Graph()
    x = graph.placeholder("x")
    found = {start.node: apply_steps(graph, x, start.layout.to_own)}
    needed = _needed(computation, start.node, end.node)
    attributes: dict[str, Any] = {}
    for node in computation.nodes:
        if node not in needed:
            continue
        if node.target == "end_of_maps":
            found[node] = found[node.all_input_nodes[0]]
            continue
        target = node.target
        if node.op in ("call_module", "get_attr"):
            target = str(target).removeprefix("network.")
            attributes[target] = operator.attrgetter(str(node.target))(computation.whole)
        other = computation.others[node]
        arguments = _argument(graph, x, found, node.args, other.args)
        keywords = _argument(graph, x, found, node.kwargs, other.kwargs)
        found[node] = graph.create_node(node.op, _out_of_place(target), arguments, keywords)
    graph.output(apply_steps(graph, found[end.node], end.layout.to_map))
    return fx.GraphModule(attributes, graph)


def _needed(computation: Computation, start: fx.Node, end: fx.Node) -> set[fx.Node]:
    """Return the steps from `start`, which is not among them, to `end`, without those that ask for the device."""
    needed: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is start or node in needed or isinstance(computation.values[node], torch.device):
            continue
        if node.op == "placeholder":
            raise ValueError(f"{end} needs the image again after {start}")
        needed.add(node)
        waiting.extend(node.all_input_nodes)
    return needed


def _argument(graph: fx.Graph, x: fx.Node, found: dict[fx.Node, fx.Node], value: Any, other: Any) -> Any:
    """Return an argument of a step for the batch of `x`, from the arguments for both recorded batches."""

    def merged(value: Any, other: Any) -> Any:
        if isinstance(value, fx.Node):
            return found[value] if value in found else graph.call_function(getattr, (x, "device"))
        if isinstance(value, dict):
            return {key: merged(value[key], other[key]) for key in value}
        if isinstance(value, (list, tuple)):
            parts = [merged(one, two) for one, two in zip(value, other, strict=True)]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, slice):
            return slice(*merged((value.start, value.stop, value.step), (other.start, other.stop, other.step)))
        if value == other:
            return value
        per_image, rest = divmod(value, BATCHES[0])
        if not isinstance(value, int) or rest or other != per_image * BATCHES[1]:
            raise ValueError(f"the number {value} depends on the size of the batch in an unknown way")
        n_images = graph.call_function(operator.getitem, (graph.call_function(getattr, (x, "shape")), 0))
        return graph.call_function(operator.mul, (n_images, per_image))

    return merged(value, other)


def _out_of_place(target: Any) -> Any:
    """Return the step that computes the same and leaves its input as it is, because that may be stored."""
    if isinstance(target, str) and target.endswith("_") and not target.endswith("__"):
        return target[:-1] if hasattr(torch.Tensor, target[:-1]) else target
    return _OUT_OF_PLACE.get(target, target)
