"""Ignore warnings of other libraries to which a user cannot react, without affecting other threads."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast


@contextmanager
def warnings_ignored(modules: str) -> Iterator[None]:
    """Ignore warnings of modules whose names match a regular expression, even if warnings are errors.

    `warnings.catch_warnings` replaces the filters of the whole process, so overlapping threads restore each other's.
    This function adds one filter to the list and removes it from the same list, which is safe in any order of threads.
    If another thread replaces the list within the block, the warnings are shown.
    """
    filters = cast("list[tuple[Any, ...]]", warnings.filters)
    ours = ("ignore", None, Warning, re.compile(modules), 0)
    filters.insert(0, ours)
    try:
        yield
    finally:
        with suppress(ValueError):  # the filter is gone if warnings.resetwarnings() was called
            filters.remove(ours)
