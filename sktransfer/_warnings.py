"""Warnings of other libraries that cannot be acted on here, ignored without disturbing other threads."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast


@contextmanager
def warnings_ignored(modules: str) -> Iterator[None]:
    """Ignore what the modules warn of whose names match a regular expression, even where warnings are errors.

    `warnings.catch_warnings` swaps the filters of the whole process, so threads that overlap put back each other's.
    To add a filter of one's own, and to take it out of the same list, is safe in whatever order threads come and go.
    If another thread swaps the list within the block, the warnings are seen.
    """
    filters = cast("list[tuple[Any, ...]]", warnings.filters)
    ours = ("ignore", None, Warning, re.compile(modules), 0)
    filters.insert(0, ours)
    try:
        yield
    finally:
        with suppress(ValueError):  # it is gone if someone called warnings.resetwarnings()
            filters.remove(ours)
