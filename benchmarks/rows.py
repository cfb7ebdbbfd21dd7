"""Start each measurement without stored activations, but with the networks and engines that are built already."""

from __future__ import annotations

from sktransfer import set_cache_limits


def forget_rows() -> None:
    """Drop the activations of this process; `sktransfer.clear_cache` would drop networks and engines too."""
    set_cache_limits(memory_mb=0)
    set_cache_limits(memory_mb=512)
