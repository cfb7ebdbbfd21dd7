"""Networks and engines that are built once for the whole process: one bounded list of them, one lock.

Building is not safe in two threads at once: torch's tracer and OpenVINO's import and conversion share state of the
process. So everything is built under one lock. A process that was forked drops what it inherited, since the threads
behind it live in its parent alone.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar, cast

T = TypeVar("T")

LIMIT = 12  # networks and engines; a grid over every depth of one network needs about ten

_built: OrderedDict[Hashable, Any] = OrderedDict()
_building = threading.RLock()  # an engine's builder asks for a network
_inherited: list[Any] = []  # never used again, but their destructors would wait for threads that are not there
_forked = False
_has_one_thread = False


def built_once(key: Hashable, build: Callable[[], T]) -> T:
    """Return what `build` made for this key before, or make it now. The least recently used goes first."""
    with suppress(KeyError):
        _built.move_to_end(key)
        return cast(T, _built[key])  # without waiting for what another thread builds, or even downloads
    with _building:
        if key not in _built:
            _built[key] = build()
            while len(_built) > LIMIT:
                _built.popitem(last=False)
        return cast(T, _built[key])


def forget_built() -> None:
    """Drop all networks and engines, so that their memory is free once nobody else holds them."""
    with _building:
        _built.clear()


def is_forked() -> bool:
    """Say whether this process is a copy of another, whose threads it lacks."""
    return _forked


def start_clean_after_fork() -> None:
    """Let a forked process compute with one thread; call it before anything is computed.

    The pools of threads behind torch are not copied by a fork, and work for them would wait for ever. torch's own data
    loader does the same in its workers.
    """
    global _has_one_thread
    if _forked and not _has_one_thread:
        import torch

        torch.set_num_threads(1)
        _has_one_thread = True


def _drop_inherited() -> None:
    global _building, _forked, _has_one_thread
    _inherited.extend(_built.values())
    _built.clear()
    _building = threading.RLock()  # a thread of the parent may have held it
    _forked, _has_one_thread = True, False


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_drop_inherited)
