"""Dependencies that only some functions need."""

from __future__ import annotations

import importlib.util


def require(user: str, extra: str, *modules: str) -> None:
    """Check that optional dependencies are installed, without importing them.

    Parameters
    ----------
    user : str
        What needs them, for the message.
    extra : str
        The extra of sktransfer that brings them.
    *modules : str
        Names of top-level modules.

    Raises
    ------
    ModuleNotFoundError
        If one is missing. The message says how to install it.
    """
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ModuleNotFoundError(
            f"{user} needs {' and '.join(missing)}, which {verb} not installed. Run: pip install 'sktransfer[{extra}]'"
        )
