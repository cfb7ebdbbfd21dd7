"""The order of the examples in the gallery."""

from __future__ import annotations

from pathlib import Path


class InOrder:
    """Sort examples as ``order.txt`` beside them lists them, which names all of them."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)  # sphinx-gallery also makes one without a folder, to see whether it is possible

    def __call__(self, name: str) -> int:
        """Return the key to sort a file by."""
        return (self.folder / "order.txt").read_text(encoding="utf-8").split().index(name)
