"""Apply the user's Pillow settings in joblib's workers too.

The settings are sent to the workers together with the estimators. Only an estimator sent to another process carries
them; its saved files, copies and hashes do not change.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import Any

from joblib.externals.loky.backend import reduction as loky
from PIL import Image, ImageFile, PngImagePlugin

from ._decoding import is_pillows

_SETTINGS = (
    (Image, "MAX_IMAGE_PIXELS"),
    (ImageFile, "LOAD_TRUNCATED_IMAGES"),
    (PngImagePlugin, "MAX_TEXT_CHUNK"),
    (PngImagePlugin, "MAX_TEXT_MEMORY"),
)


class TakesSettingsAlong:
    """Base class of estimators that carry the Pillow settings to the workers."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        ForkingPickler.register(cls, _reduced)
        loky.register(cls, _reduced)


def _reduced(estimator: Any) -> tuple[Any, ...]:
    make, arguments, *state = estimator.__reduce_ex__(2)
    return _made, (_present(), make, arguments), *state


def _made(settings: tuple[list[Any], list[bytes]], make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if multiprocessing.parent_process() is not None:  # an estimator returned by a worker changes no settings here
        values, openers = settings
        for (module, name), value in zip(_SETTINGS, values, strict=True):
            setattr(module, name, value)
        for opener in openers:
            with suppress(Exception):  # the opener's package or script cannot be imported here
                Image.register_open(*pickle.loads(opener))
    return make(*arguments)


def _present() -> tuple[list[Any], list[bytes]]:
    """Return the values of the settings, and the formats that the user has registered."""
    openers = []
    for name, (opener, accept) in Image.OPEN.items():
        if not is_pillows(opener):
            with suppress(Exception):  # such as a nested function; the error in the worker says what to do
                openers.append(pickle.dumps((name, opener, accept)))
    return [getattr(module, name) for module, name in _SETTINGS], openers
