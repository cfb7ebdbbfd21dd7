"""Cut a network whose family is unknown into stages, by following its computation.

`torch.fx` records which values a network computes, and from which others. Where a single value is all that the rest of
the network needs, the network can be cut: what comes before maps images to this value, and what comes after maps it to
the features. No rule for a single architecture is needed.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from timm.models import _features_fx as timm_fx
from torch import fx, nn

from .._exceptions import BackboneError
from ._layout import Layout, apply_steps, layout_of, pool, run_steps

MOST_STAGES = 8  # stages before the last one; the blocks of a transformer are grouped, so that there are no more
_OUT_OF_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}


class Whole(nn.Module):
    """The computation that is traced: images to features, with a mark where the network's own pooling starts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.end_of_maps = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the vectors that the network's last layer turns into logits."""
        network: Any = self.network
        if not hasattr(network, "forward_head"):
            return _before_last_layer(network(images))
        maps = self.end_of_maps(network.forward_features(images))
        features: torch.Tensor = network.forward_head(maps, pre_logits=True)
        return features


def _before_last_layer(logits: Any) -> Any:
    """Return the input of a traced network's last layer, if its output is that of a linear layer."""
    last = logits.node
    network = logits.tracer.root
    while last.op == "call_module" and isinstance(network.get_submodule(last.target), nn.Linear | nn.Identity):
        is_linear = isinstance(network.get_submodule(last.target), nn.Linear)
        last = last.args[0]
        if is_linear:
            break
    return fx.Proxy(last, logits.tracer)


class _Tracer(fx.Tracer):
    """Follows the code of the modules that contain an end of a stage, and of the head; `within` follows all others."""

    def __init__(self, ends: Iterable[str], within: bool) -> None:
        functions = tuple(timm_fx.get_notrace_functions())
        super().__init__(autowrap_functions=functions, param_shapes_constant=True)
        self.ends, self.within = set(ends), within
        self.opaque = tuple(timm_fx.get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a call of this module is one step of the graph."""
        name = module_qualified_name
        self.within = self.within or name == "end_of_maps"  # the head's last layer must not count as part of it
        if name in self.ends or not any(True for _ in m.children()):
            return True
        if any(end.startswith(f"{name}.") for end in self.ends):
            return False
        return not self.within or isinstance(m, self.opaque) or super().is_leaf_module(m, name)


@dataclass
class _Computation:
    """A traced network: its steps in order, and what is known of the value of each."""

    whole: Whole
    nodes: list[fx.Node]
    values: dict[fx.Node, Any]  # for a batch of 2
    others: dict[fx.Node, Any]  # for a batch of 3
    of_images: set[fx.Node] = field(default_factory=set)  # values that depend on the pixels
    last_use: dict[fx.Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        position = {node: i for i, node in enumerate(self.nodes)}
        for node in self.nodes:
            self.last_use[node] = max((position.get(user, -1) for user in node.users), default=-1)
            if node.op == "placeholder":
                self.of_images.add(node)
            elif _holds_tensors(self.values.get(node)) and any(each in self.of_images for each in node.all_input_nodes):
                self.of_images.add(node)

    def only_value_after(self, i: int) -> fx.Node | None:
        """Return the value that alone is needed after step i; None if several are needed."""
        needed = [node for node in self.nodes[: i + 1] if node in self.of_images and self.last_use[node] > i]
        return needed[0] if len(needed) == 1 and isinstance(self.values[needed[0]], torch.Tensor) else None


def traced_stages(network: nn.Module, size: tuple[int, int]) -> list[nn.Module]:
    """Return the stages of a network for images of this height and width, in order.

    The last stage ends before the network's own pooling if that is the mean over all places, or takes the class token.
    Otherwise it includes the pooling, and its map is 1 × 1.
    """
    ends = {f"network.{name}": channels for name, channels in _ends_of_stages(network).items()}
    faults = []
    for within in (False, True):
        try:
            computation = _follow(Whole(network), list(ends), size, within)
            cuts = list(_cuts(computation, ends, size))
        except Exception as error:  # tracing runs code of any kind
            faults.append(error)
            continue
        if cuts:
            return _stages(computation, cuts, size)
    reason = f" ({type(faults[0]).__name__}: {str(faults[0]).splitlines()[0][:200]})" if faults else ""
    raise BackboneError(
        f"Cannot cut a {type(network).__name__} for images of {size[0]} × {size[1]} pixels into stages: at no end of a "
        f"block is one value all that the rest needs{reason}. list_backbones() names networks that work."
    )


def _ends_of_stages(network: Any) -> dict[str, int | None]:
    """Return the modules at whose end a stage may end, with the number of channels there if it is known.

    timm lists them. Otherwise they are the members of the innermost list of modules that holds most parameters.
    """
    listed = getattr(network, "feature_info", None) or []
    listed = getattr(listed, "info", listed)
    if listed:
        return {each["module"]: each.get("num_chs") for each in listed}
    prefix, module = "", network
    most = _n_parameters(network) / 2
    while True:
        children = {name: child for name, child in module.named_children() if _n_parameters(child)}
        inner = [name for name, child in children.items() if _n_parameters(child) > most]
        if not inner:
            return {f"{prefix}{name}": None for name in children}
        prefix, module = f"{prefix}{inner[0]}.", children[inner[0]]


def _n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _follow(whole: Whole, ends: Sequence[str], size: tuple[int, int], within: bool) -> _Computation:
    graph = _Tracer(ends, within).trace(whole.eval())
    first, second = (_values(whole, graph, n, size) for n in (2, 3))
    return _Computation(whole, _live(graph), first, second)


def _live(graph: fx.Graph) -> list[fx.Node]:
    """Return the steps that the result needs, in order."""
    live: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op in ("placeholder", "output") or node in live:
            live.update([node, *node.all_input_nodes])
    return [node for node in graph.nodes if node in live]


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the value of each step, without its numbers."""

    def run_node(self, n: fx.Node) -> Any:
        """Compute one step."""
        value = super().run_node(n)
        self.values[n] = fx.node.map_aggregate(value, _without_numbers)
        return value

    values: dict[fx.Node, Any]


def _values(whole: Whole, graph: fx.Graph, n: int, size: tuple[int, int]) -> dict[fx.Node, Any]:
    """Return the values of all steps for a batch of n images: tensors without their numbers, and everything else."""
    for network, device in ((_without_weights(whole), "meta"), (whole, "cpu")):
        recorder = _Recorder(network, graph=graph)
        recorder.values = {}
        try:
            with torch.no_grad():
                recorder.run(torch.zeros(n, 3, *size, device=device))
        except (NotImplementedError, RuntimeError):
            if device == "cpu":
                raise
            continue  # the network looks at numbers, not only at shapes
        break
    return recorder.values


def _without_weights(whole: Whole) -> Whole:
    """Return a copy on the meta device. Networks may cache what they compute, so the original must not run there."""
    tensors: dict[int, torch.Tensor] = {}
    for module in whole.modules():
        own = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for value in own:
            if isinstance(value, nn.Parameter):
                tensors[id(value)] = nn.Parameter(torch.empty_like(value, device="meta"), value.requires_grad)
            elif isinstance(value, torch.Tensor):
                tensors[id(value)] = torch.empty_like(value, device="meta")
    return copy.deepcopy(whole, dict(tensors))


def _without_numbers(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensors(each) for each in value)
    if isinstance(value, dict):
        return any(_holds_tensors(each) for each in value.values())
    return isinstance(value, torch.Tensor)


class _Cut(NamedTuple):
    """A value at which the network is cut, and its layout."""

    node: fx.Node
    layout: Layout


def _cuts(computation: _Computation, ends: dict[str, int | None], size: tuple[int, int]) -> Iterator[_Cut]:
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


def _stages(computation: _Computation, cuts: list[_Cut], size: tuple[int, int]) -> list[nn.Module]:
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


def _end(computation: _Computation, size: tuple[int, int]) -> tuple[_Cut, str]:
    """Return where the last stage ends, and the pooling of its map with which the network was trained."""
    nodes, values = computation.nodes, computation.values
    network: Any = computation.whole.network
    (output,) = nodes[-1].args
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


def _has_parameters(computation: _Computation, start: _Cut, end: _Cut) -> bool:
    """Tell whether anything can be learned between two cuts."""
    steps = [node for node in _needed(computation, start.node, end.node) if node.op in ("call_module", "get_attr")]
    used = [operator.attrgetter(str(node.target))(computation.whole) for node in steps]
    return any(isinstance(each, nn.Parameter) or (isinstance(each, nn.Module) and _n_parameters(each)) for each in used)


def _part(computation: _Computation, start: _Cut, end: _Cut) -> fx.GraphModule:
    """Return the module that computes the map at `end` from the map at `start`.

    Sizes are constants, except that of the batch. What depends on no pixel, such as an embedding of positions, is
    computed in each part that needs it.
    """
    graph = fx.Graph()
    x = graph.placeholder("x")
    found = {start.node: apply_steps(graph, x, start.layout.to_own)}
    needed = _needed(computation, start.node, end.node)
    attributes: dict[str, Any] = {}

    def argument(node: fx.Node) -> Any:
        if node in found:
            return found[node]
        return _size(graph, x, computation.values[node], computation.others[node])

    for node in computation.nodes:
        if node not in needed:
            continue
        if node.target == "end_of_maps":
            found[node] = argument(node.all_input_nodes[0])
            continue
        target = node.target
        if node.op in ("call_module", "get_attr"):
            target = str(target).removeprefix("network.")
            attributes[target] = operator.attrgetter(str(node.target))(computation.whole)
        arguments, keywords = fx.node.map_arg((node.args, node.kwargs), argument)
        found[node] = graph.create_node(node.op, _out_of_place(target), arguments, keywords)
    graph.output(apply_steps(graph, found[end.node], end.layout.to_map))
    return fx.GraphModule(attributes, graph)


def _needed(computation: _Computation, start: fx.Node, end: fx.Node) -> set[fx.Node]:
    """Return the steps from `start`, which is not among them, to `end`, without those that compute sizes."""
    needed: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is start or node in needed or not _holds_tensors(computation.values[node]):
            continue
        if node.op == "placeholder":
            raise ValueError(f"{end} needs the image again after {start}")
        needed.add(node)
        waiting.extend(node.all_input_nodes)
    return needed


def _size(graph: fx.Graph, x: fx.Node, value: Any, other: Any) -> Any:
    """Return a value that is no tensor, from its values for batches of 2 and 3, for the batch of `x`."""
    if isinstance(value, (list, tuple)):
        parts = [_size(graph, x, one, two) for one, two in zip(value, other, strict=True)]
        return type(value)(parts) if type(value) in (list, tuple) else tuple(parts)
    if isinstance(value, slice):
        ends = [(value.start, other.start), (value.stop, other.stop), (value.step, other.step)]
        return slice(*(_size(graph, x, one, two) for one, two in ends))
    if isinstance(value, torch.device):
        return graph.call_function(getattr, (x, "device"))
    if value == other:
        return value
    if isinstance(value, int) and value == 2 * (other - value):
        n_images = graph.call_function(operator.getitem, (graph.call_function(getattr, (x, "shape")), 0))
        return graph.call_function(operator.mul, (n_images, other - value))
    raise ValueError(f"the number {value} depends on the size of the batch in an unknown way")


def _out_of_place(target: Any) -> Any:
    """Return the step that computes the same and leaves its input as it is, because that may be stored."""
    if isinstance(target, str) and target.endswith("_") and not target.endswith("__"):
        return target[:-1] if hasattr(torch.Tensor, target[:-1]) else target
    return _OUT_OF_PLACE.get(target, target)
