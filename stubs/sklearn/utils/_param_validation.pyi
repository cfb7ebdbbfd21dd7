from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

def validate_params(
    parameter_constraints: dict[str, list[Any]], *, prefer_skip_nested_validation: bool
) -> Callable[[_F], _F]: ...
def __getattr__(name: str) -> Any: ...
