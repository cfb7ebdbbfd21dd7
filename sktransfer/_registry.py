"""Networks and engines that are built once per process, in one list of limited length and under one lock.

Two threads must not build at the same time: torch's tracer and OpenVINO's import and conversion use state that all
threads share. So everything is built under one lock. A forked process drops the networks and engines that it inherited,
because their threads exist only in its parent.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar, cast

T = TypeVar("T")

LIMIT = 12  # largest number of networks and engines; a grid over all depths of one network needs about ten

_built: OrderedDict[Hashable, Any] = OrderedDict()
_building = threading.RLock()  # reentrant, because building an engine may build its network
_inherited: list[Any] = []  # never used again, but kept: their destructors would wait for threads that do not exist
_forked = False
_has_one_thread = False


def built_once(key: Hashable, build: Callable[[], T]) -> T:
    """Return what `build` returned for this key before, or call it now. Old objects beyond `LIMIT` are dropped."""
    with suppress(KeyError):
        _built.move_to_end(key)
        return cast(T, _built[key])  # without waiting while another thread builds or downloads something
    with _building:
        if key not in _built:
            _built[key] = build()
            while len(_built) > LIMIT:
                _built.popitem(last=False)
        return cast(T, _built[key])


def forget_built() -> None:
    """Drop all networks and engines. Their memory is freed when nothing else refers to them."""
    with _building:
        _built.clear()


def is_forked() -> bool:
    """Tell whether this process was forked from another one, and therefore lacks its threads."""
    return _forked


def start_clean_after_fork() -> None:
    """Make torch use one thread in a forked process. Call this function before computing anything.

    A fork does not copy torch's thread pools, and work given to them would wait for ever. torch's data loader also uses
    one thread in its workers.
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
