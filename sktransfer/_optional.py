"""Dependencies that only some functions need."""

from __future__ import annotations

import importlib.util


def require(user: str, extra: str, *modules: str) -> None:
    """Check that top-level modules are installed, without importing them. If not, the error names the extra to install.

    `user` is what needs them, for the message.
    """
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ModuleNotFoundError(
            f"{user} needs {' and '.join(missing)}, which {verb} not installed. Run: pip install 'sktransfer[{extra}]'"
        )
