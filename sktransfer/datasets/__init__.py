"""Images to try things on, and the loader for your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._elpv import load_elpv
    from ._fashion_mnist import load_fashion_mnist
    from ._image_folder import load_image_folder
    from ._wallpaper import make_wallpaper_groups

__all__ = ["load_elpv", "load_fashion_mnist", "load_image_folder", "make_wallpaper_groups"]

_HOME = {
    "load_elpv": "._elpv",
    "load_fashion_mnist": "._fashion_mnist",
    "load_image_folder": "._image_folder",
    "make_wallpaper_groups": "._wallpaper",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
