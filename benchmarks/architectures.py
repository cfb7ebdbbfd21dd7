"""How many of timm's pretrained architectures can be cut into stages, with the right features and frozen parts.

Each architecture of ``timm.list_models(pretrained=True)`` is one cell. Its weights are random, and its images have the
first of several sizes that it takes. Networks of more than 300 million parameters are cut on torch's meta device, which
knows shapes and no numbers. Checked are:

- the features of the stages, run one after the other, against timm's own ``forward_head(pre_logits=True)``;
- that no stage changes its input, because the input may be stored;
- that a step of training changes no frozen stage, at ``freeze=1`` and with all but the last stage frozen.

    python benchmarks/architectures.py --only architecture=resnet18

All in one run take about an hour.
"""

import copy
from typing import Any

import timm
import torch

from _cells import Benchmark, Cell, table
from sktransfer._frozen._backbones import Backbone, timm_preprocessing
from sktransfer._frozen._cut_network import CutNetwork, Outputs
from sktransfer._frozen._stages import depends_on_size, split_into_stages

SIZES = (64, 96, 128, 192, 224)
MOST_PARAMETERS = 300_000_000
TOLERANCE = 1e-4  # of the largest value
TINY = ("test_resnet", "test_vit")


def plan(tiny: bool) -> list[Cell]:
    names = TINY if tiny else sorted({name.partition(".")[0] for name in timm.list_models(pretrained=True)})
    return [{"architecture": name} for name in names]


def measure(architecture: str) -> Cell:
    """Measure one architecture; what it cannot do is the result."""
    try:
        return check(architecture)
    except Exception as error:  # networks fail in many ways, and each is a result
        return {"fault": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}


def check(architecture: str) -> Cell:
    with torch.device("meta"):
        empty = timm.create_model(architecture)
    n_parameters = sum(parameter.numel() for parameter in empty.parameters())
    if n_parameters > MOST_PARAMETERS:
        size = timm_preprocessing(empty).size
        stages = split_into_stages(empty.eval(), size)
        with torch.no_grad():
            ours, own = (
                shapes(stages, size),
                tuple(own_features(empty, torch.zeros(2, 3, *size, device="meta")).shape),
            )
        assert ours[-1][:2] == own[:2], f"features have the shape {ours[-1]} and not {own}"
        return {"parameters": n_parameters, "stages": len(stages), "size": size[0], "meta": True, **kind(empty, stages)}
    torch.manual_seed(0)
    network, size = at_smallest_size(with_values(timm.create_model(architecture).eval()))
    stages = split_into_stages(network, size).requires_grad_(False)
    backbone = Backbone(architecture, stages, timm_preprocessing(network).with_image_size(size), architecture, True)
    canvases = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)
    body = CutNetwork(backbone, Outputs((len(stages),), backbone.own_pooling))
    with torch.no_grad():
        images = canvases.permute(0, 3, 1, 2) * body.scale + body.shift
        own = own_features(network, images).flatten(1)
        difference = (body(canvases) - own).abs().max() / own.abs().max()
    assert torch.isfinite(difference), "the features are no finite numbers"
    return {
        "parameters": n_parameters,
        "stages": len(stages),
        "size": size[0],
        "difference": difference.item(),
        "inputs_kept": inputs_kept(stages, images),
        "frozen_kept": all(frozen_kept(stages, images, depth) for depth in {1, len(stages) - 1} - {0}),
        **kind(network, stages),
    }


def with_values(network: Any) -> Any:
    """Give values to parameters that start as zero or next to it, because they would hide a difference."""
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point() and (value.ndim <= 1 or not value.any()):
                value.copy_(torch.rand_like(value) * 0.2 + (0.9 if value.ndim <= 1 else 0))
    return network


def at_smallest_size(network: Any) -> tuple[Any, tuple[int, int]]:
    """Return the network for the first size that it takes, and that size."""
    own_size = timm_preprocessing(network).size
    for side in SIZES:
        if side < own_size[0]:
            try:
                changed = copy.deepcopy(network)
                if hasattr(changed, "set_input_size"):
                    changed.set_input_size(img_size=(side, side))
                with torch.no_grad():
                    own_features(changed, torch.zeros(1, 3, side, side))
                split_into_stages(changed, (side, side))
            except Exception:  # networks refuse a size in many ways
                continue
            return changed, (side, side)
    return network, own_size


def own_features(network: Any, images: torch.Tensor) -> torch.Tensor:
    maps: torch.Tensor = network.forward_features(images)
    if type(network).__name__ == "VGG":  # its fully connected layers are left out of the stages, on purpose
        return maps.mean(dim=(2, 3))
    features: torch.Tensor = network.forward_head(maps, pre_logits=True)
    return features


def shapes(stages: Any, size: tuple[int, int]) -> list[tuple[int, ...]]:
    x, found = torch.zeros(2, 3, *size, device="meta"), []
    for stage in stages:
        x = stage(x)
        found.append(tuple(x.shape))
    return found


def kind(network: Any, stages: Any) -> Cell:
    tokens = getattr(stages[0], "tokens", None)
    return {
        "cut": "by tracing" if depends_on_size(network) else "by a rule",
        "prefix": tokens.n_prefix if tokens else 0,
        "pooling": getattr(stages[-1], "own_pooling", "avg"),
    }


def inputs_kept(stages: Any, images: torch.Tensor) -> bool:
    """Tell whether all stages leave their input as it is."""
    x, kept = images, True
    with torch.no_grad():
        for stage in stages:
            before = x.clone()
            after = stage(x)
            kept, x = kept and torch.equal(before, x), after
    return kept


def frozen_kept(stages: Any, images: torch.Tensor, depth: int) -> bool:
    """Tell whether a step of training changes no frozen stage, and some trained one."""
    frozen, tuned = stages[:depth], copy.deepcopy(stages[depth:]).requires_grad_(True)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    parameters = list(tuned.parameters())
    old = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.1) if parameters else None
    tuned(frozen(images)).square().mean().backward()
    if optimizer is not None:
        optimizer.step()
    changed = any(not torch.equal(one, two) for one, two in zip(old, parameters, strict=True))
    return changed and all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())


def right(cell: Cell) -> bool:
    if "fault" in cell:
        return False
    return cell.get("meta") or (cell["difference"] <= TOLERANCE and cell["inputs_kept"] and cell["frozen_kept"])


def report(cells: list[Cell]) -> list[str]:
    good, wrong = [cell for cell in cells if right(cell)], [cell for cell in cells if not right(cell)]
    rows = []
    for cell in wrong:
        kept = f"inputs kept: {cell.get('inputs_kept')}, frozen parts kept: {cell.get('frozen_kept')}"
        rows.append([cell["architecture"], cell.get("fault", f"difference {cell.get('difference', 0):.1g}, {kept}")])
    ways = [
        [
            way,
            sum(cell["cut"] == way for cell in good),
            max((cell.get("difference", 0) for cell in good if cell["cut"] == way), default=0),
        ]
        for way in ("by a rule", "by tracing")
    ]
    return [
        f"{len(good)} of {len(cells)} architectures pass all checks ({len(good) / len(cells):.1%}, wanted ≥ 97 %). "
        f"{sum(bool(cell.get('meta')) for cell in good)} of them were checked on the meta device, by shapes alone.\n",
        *table({"cut": "", "architectures": "", "largest difference": ".1g"}, ways),
        *(["The others:\n", *table({"architecture": "", "reason": ""}, rows)] if rows else []),
    ]


BENCHMARK = Benchmark(__file__, __doc__, "Any architecture of timm", plan, measure, report)

if __name__ == "__main__":
    BENCHMARK.main()
