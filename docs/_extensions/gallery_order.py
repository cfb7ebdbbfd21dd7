"""The order of the examples in the gallery."""

from __future__ import annotations

from pathlib import Path


class InOrder:
    """Sort examples as ``order.txt`` beside them lists them; those that it does not name come last, by name."""

    def __init__(self, folder: str) -> None:
        order = Path(folder) / "order.txt"
        self.names = order.read_text(encoding="utf-8").split() if order.exists() else []

    def __call__(self, name: str) -> tuple[int, str]:
        """Return the key to sort a file by."""
        return (self.names.index(name) if name in self.names else len(self.names)), name
