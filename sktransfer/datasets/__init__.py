"""Real image collections to try things on."""

from ._elpv import load_elpv

__all__ = ["load_elpv"]
