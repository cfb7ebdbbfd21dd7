"""Checks of parameters that import scikit-learn when a function is called, and not before.

Importing scikit-learn takes seconds, which a function that needs nothing else of it should not cost at its import.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def validated(constraints: Callable[[Any], dict[str, list[Any]]]) -> Callable[[F], F]:
    """Check parameters of a function at each call, by scikit-learn's constraints.

    `constraints` takes the module `_sklearn_compat`, and returns the constraints of each parameter that is checked.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            from . import _sklearn_compat

            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            rules = constraints(_sklearn_compat)
            values = {name: bound.arguments[name] for name in rules}
            _sklearn_compat.validate_parameter_constraints(rules, values, caller_name=function.__qualname__)
            return function(*args, **kwargs)

        return cast(F, checked)

    return decorate
