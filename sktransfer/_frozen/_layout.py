"""Where the channels and the places of an activation are, which of its places are tokens, and how it is pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .._exceptions import BackboneError

POOLINGS = ("avg", "max", "avgmax", "avgstd", "token", "avg+token", "flatten")
Steps = list[tuple[str, tuple[Any, ...]]]  # methods of a tensor and their arguments


class Tokens(NamedTuple):
    """The tokens of a transformer's map (n, C, L, 1): the first are no part of the image, the others lie on a grid."""

    n_prefix: int
    has_class_token: bool  # the class token is the first
    grid: tuple[int, int]


NO_TOKENS = Tokens(0, False, (0, 0))


def pool(maps: torch.Tensor, pooling: str, tokens: Tokens = NO_TOKENS) -> torch.Tensor:
    """Turn maps (n, C, h, w) into vectors: (n, C), for two poolings (n, 2 C), and (n, C h w) for "flatten".

    All but "token" and "flatten" leave the tokens out that are no part of the image.
    """
    places = maps[:, :, tokens.n_prefix :] if tokens.n_prefix else maps
    if pooling == "avg":
        return places.mean(dim=(2, 3))
    if pooling == "max":
        return places.amax(dim=(2, 3))
    if pooling == "avgmax":
        return torch.cat([places.mean(dim=(2, 3)), places.amax(dim=(2, 3))], dim=1)
    if pooling == "avgstd":
        places = places.float()  # in bfloat16, the deviation of a map that is nearly constant would be lost
        return torch.cat([places.mean(dim=(2, 3)), places.std(dim=(2, 3), correction=0)], dim=1)
    if pooling == "flatten":
        return maps.flatten(start_dim=1)
    if not tokens.has_class_token and maps.shape[2:] != (1, 1):
        raise BackboneError(
            f"pooling={pooling!r} takes the class token, and this stage has none: its map is {maps.shape[2]} × "
            f"{maps.shape[3]}. Pass pooling='avg', or a layer with a class token."
        )
    token = maps[:, :, 0, 0]
    return token if pooling == "token" else torch.cat([places.mean(dim=(2, 3)), token], dim=1)


def tokens_of(stage: nn.Module) -> Tokens:
    """Return what is known of the tokens in a stage's map; convolutional stages have none."""
    tokens: Tokens = getattr(stage, "tokens", NO_TOKENS)
    return tokens


def own_pooling(stages: nn.Sequential) -> str:
    """Return the pooling of the last stage's map with which the network was trained."""
    return getattr(stages[-1], "own_pooling", "avg") if len(stages) else "avg"


class Layout(NamedTuple):
    """How a network's own activation becomes a map (n, C, h, w), and how the map becomes that activation again."""

    to_map: Steps
    to_own: Steps
    tokens: Tokens = NO_TOKENS


def layout_of(
    shape: Sequence[int], channels: int | None, size: tuple[int, int], n_prefix: int, has_class_token: bool
) -> Layout | None:
    """Return the layout of an activation with this shape, for images of this size; None if it is none known.

    `channels` is their number, if known; without it, two sides in the proportion of the image are taken for height and
    width.
    """
    if len(shape) == 2:
        return Layout([("unsqueeze", (2,)), ("unsqueeze", (3,))], [("flatten", (1,))])
    if len(shape) == 3 and (channels in (None, shape[2])):
        to_tokens: Steps = [("flatten", (2,)), ("transpose", (1, 2))]
        grid = _grid(shape[1] - n_prefix, size)
        if n_prefix and grid:
            return Layout(
                [("transpose", (1, 2)), ("unsqueeze", (3,))], to_tokens, Tokens(n_prefix, has_class_token, grid)
            )
        grid = _grid(shape[1], size) or (shape[1], 1)
        return Layout([("transpose", (1, 2)), ("unflatten", (2, grid))], to_tokens)
    if len(shape) == 3 and shape[1] == channels:
        return Layout([("unsqueeze", (3,))], [("flatten", (2,))])
    if len(shape) == 4:
        first = shape[1] == channels if channels else not _in_proportion(shape[1:3], size)
        last = shape[3] == channels if channels else not _in_proportion(shape[2:4], size)
        if last and (not first or not _in_proportion(shape[2:4], size)):
            return Layout([("permute", (0, 3, 1, 2))], [("permute", (0, 2, 3, 1))])
        if first or channels is None:
            return Layout([], [])
    return None


def _in_proportion(sides: Sequence[int], size: tuple[int, int]) -> bool:
    """Tell whether these sides are those of an image of this size after the same reduction of both, rounded."""
    (height, width), (whole_height, whole_width) = sides, size
    return abs(height * whole_width - width * whole_height) < max(whole_height, whole_width)


def _grid(n_places: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return height and width of a grid with so many places and the proportion of the image."""
    height = round((n_places * size[0] / size[1]) ** 0.5)
    if height < 1 or n_places % height or not _in_proportion((height, n_places // height), size):
        return None
    return height, n_places // height


def apply_steps(graph: fx.Graph, node: fx.Node, steps: Steps) -> fx.Node:
    """Append these method calls to a graph, and return the last one."""
    for method, arguments in steps:
        node = graph.call_method(method, (node, *arguments))
    return node


def run_steps(value: torch.Tensor, steps: Steps) -> torch.Tensor:
    """Call these methods one after the other."""
    for method, arguments in steps:
        value = getattr(value, method)(*arguments)
    return value
