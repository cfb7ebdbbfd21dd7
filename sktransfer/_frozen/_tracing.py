"""Record what a network computes, step by step, with `torch.fx`."""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models import _features_fx as timm_fx
from torch import fx, nn

BATCHES = (4, 6)  # sizes of the batches for which a computation is recorded


class Whole(nn.Module):
    """The computation that is traced: images to features, with a mark where the network's own pooling starts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.end_of_maps = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the vectors that the network's last layer turns into logits."""
        network: Any = self.network
        features: torch.Tensor
        if hasattr(network, "forward_head"):
            features = network.forward_head(self.end_of_maps(network.forward_features(images)), pre_logits=True)
        else:
            features = _before_last_layer(network(images))
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


@dataclass
class Computation:
    """A traced network: its steps in order, their values, and the same steps for a larger batch."""

    whole: Whole
    nodes: list[fx.Node]
    values: dict[fx.Node, Any]
    others: dict[fx.Node, fx.Node]
    of_images: set[fx.Node] = field(default_factory=set)  # values that depend on the pixels
    last_use: dict[fx.Node, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        position = {node: i for i, node in enumerate(self.nodes)}
        for node in self.nodes:
            self.last_use[node] = max((position.get(user, -1) for user in node.users), default=-1)
            depends = any(each in self.of_images for each in node.all_input_nodes)
            if node.op == "placeholder" or (depends and holds_tensors(self.values.get(node))):
                self.of_images.add(node)

    def only_value_after(self, i: int) -> fx.Node | None:
        """Return the value that alone is needed after step i; None if several are needed."""
        needed = [node for node in self.nodes[: i + 1] if node in self.of_images and self.last_use[node] > i]
        return needed[0] if len(needed) == 1 and isinstance(self.values[needed[0]], torch.Tensor) else None


def follow(whole: Whole, ends: Sequence[str], size: tuple[int, int], within: bool) -> Computation:
    """Record the computation for batches of 4 and 6 images: numbers that differ tell where the size of the batch is."""
    whole.eval()
    linear = [name for name, module in whole.named_modules() if isinstance(module, nn.Linear)]
    for twin, device in ((_without_weights(whole), "meta"), (whole, "cpu")):
        images = [torch.zeros(n, 3, *size, device=device) for n in BATCHES]
        tracers = [Tracer(twin, each, [*ends, *linear[-1:]], within) for each in images]
        try:
            with torch.no_grad():
                first, second = (_live(tracer.trace(whole)) for tracer in tracers)
            break
        except (NotImplementedError, RuntimeError):
            if device == "cpu" or any(parameter.is_meta for parameter in whole.parameters()):
                raise
            # The network looks at numbers, not only at shapes. So it is run on black images.
    if [_kind(whole, node) for node in first] != [_kind(whole, node) for node in second]:
        raise ValueError("what it computes depends on the size of the batch")
    return Computation(whole, first, tracers[0].values, dict(zip(first, second, strict=True)))


def _kind(whole: Whole, node: fx.Node) -> tuple[str, Any]:
    """Return what a step does, to be compared; constants have another name in each recording, and the same shape."""
    if node.op == "get_attr" and str(node.target).startswith("_tensor_constant"):
        return node.op, operator.attrgetter(str(node.target))(whole).shape
    return node.op, node.target


def _live(graph: fx.Graph) -> list[fx.Node]:
    """Return the steps that the result needs, in order."""
    live: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op in ("placeholder", "output") or node in live:
            live.update([node, *node.all_input_nodes])
    return [node for node in graph.nodes if node in live]


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


class Known(fx.Proxy):
    """A value of the traced network whose shape is known, so that the network's code may depend on it."""

    @property
    def value(self) -> Any:
        """The value without its numbers."""
        return self.tracer.values[self.node]  # type: ignore[attr-defined]

    @property
    def shape(self) -> torch.Size:
        """The shape."""
        return torch.Size(self.value.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The number format."""
        return self.value.dtype  # type: ignore[no-any-return]

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or one entry of it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return the number of axes."""
        return self.ndim

    def numel(self) -> int:
        """Return the number of elements."""
        return self.shape.numel()

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return (operator.getitem(self, i) for i in range(len(self.value)))


class Tracer(fx.Tracer):
    """Records the computation for a batch of n images.

    It follows the code of the modules that contain an end of a stage, and of the head; `within` follows all others. The
    shapes come from `twin`, a copy of the network.
    """

    def __init__(self, twin: nn.Module, images: torch.Tensor, ends: Iterable[str], within: bool) -> None:
        super().__init__(autowrap_functions=tuple(timm_fx.get_notrace_functions()), param_shapes_constant=True)
        self.twin, self.images, self.ends, self.within = twin, images, set(ends), within
        self.opaque = tuple(timm_fx.get_notrace_modules())
        self.values: dict[fx.Node, Any] = {}
        self.is_computing = False  # meanwhile nothing is recorded
        self.thread = threading.get_ident()

    @property
    def is_recording(self) -> bool:
        """Whether a call is part of the network's code; `torch.fx` intercepts the calls of all threads."""
        return not self.is_computing and threading.get_ident() == self.thread

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Record the call of a module, or what it calls."""
        return super().call_module(m, forward, args, kwargs) if self.is_recording else forward(*args, **kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Record the use of a parameter."""
        return super().getattr(attr, attr_val, parameter_proxy_cache) if self.is_recording else attr_val

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a call of this module is one step of the graph."""
        name = module_qualified_name
        self.within = self.within or name == "end_of_maps"  # the head's last layer must not count as part of it
        if name in self.ends or not any(True for _ in m.children()):
            return True
        if any(end.startswith(f"{name}.") for end in self.ends):
            return False
        return not self.within or isinstance(m, self.opaque) or super().is_leaf_module(m, name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the value of a step, as the network's code sees it."""
        return Known(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **more: Any) -> Any:
        """Record a step. Return its value; that is a plain one if it is no tensor, such as a size."""
        proxy = super().create_proxy(kind, target, args, kwargs, *others, **more)
        self.is_computing = True
        try:
            value = fx.node.map_aggregate(self._computed(proxy.node), _without_numbers)
        finally:
            self.is_computing = False
        self.values[proxy.node] = value
        return proxy if holds_tensors(value) or isinstance(value, torch.device) else value

    def _computed(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.images
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.twin)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._known)
        if node.op == "output":
            return args
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = self.twin.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        return function(*args, **kwargs)

    def _known(self, node: fx.Node) -> Any:
        def zeros(each: Any) -> Any:
            return torch.zeros_like(each, device="cpu") if isinstance(each, torch.Tensor) else each

        if node not in self.values:  # a tensor that the network's code made or took from itself
            self.values[node] = _without_numbers(operator.attrgetter(str(node.target))(self.root))
        return self.values[node] if self.images.is_meta else fx.node.map_aggregate(self.values[node], zeros)


def holds_tensors(value: Any) -> bool:
    """Tell whether a value is a tensor, or a container with one."""
    if isinstance(value, (list, tuple)):
        return any(holds_tensors(each) for each in value)
    if isinstance(value, dict):
        return any(holds_tensors(each) for each in value.values())
    return isinstance(value, torch.Tensor)


def _without_numbers(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value
