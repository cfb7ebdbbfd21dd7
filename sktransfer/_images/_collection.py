"""Turn anything a user calls an image into an RGB array, lazily and one image at a time.

`as_images` takes X out of its container once. The result is a list of items, or an array with one image per row. From
there on, each item is processed alone and in one direction::

    path ──▶ bytes ──▶ PIL image ──┐
                array, tensor, row ┴──▶ grey levels, uint8 ──▶ RGB, uint8 (H, W, 3)

The functions on this path report only what is wrong; `Images` adds which image it was.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from PIL import Image

from .._exceptions import BadImage, ImageError
from ._containers import check_stack, unpacked
from ._decoding import UsedValues, ValueRange, rgb_from_array, rgb_from_file, rgb_from_pil, values_used
from ._items import (
    Shape,
    described,
    file_content,
    is_encoded,
    is_path,
    is_tensor,
    is_trouble_of_the_machine,
    layout,
    reason,
    to_array,
)

_DARK = 64  # of 255 grey levels; a darker image may use fewer bits than its dtype has
_LOOKED_AT = 16  # number of images examined to tell a dark collection from a single dark image

_judging = threading.Lock()


class Images(Sequence[np.ndarray]):
    """A sequence of images, made by `as_images`. An image is decoded each time it is accessed.

    Files are read in the formats that `readable_formats` names, with at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (89
    million by default; None lifts the limit). Truncated files are refused, unless another library has set
    ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True``: Pillow then silently fills in what is missing. Colour profiles
    (ICC) are ignored: values of any colour space are taken to be sRGB.
    """

    def __init__(self, items: Any, image_shape: Shape | None, value_range: ValueRange) -> None:
        self._items = items
        self._image_shape = image_shape
        self._value_range = value_range
        self._is_judged = value_range != "auto"

    def __len__(self) -> int:
        return len(self._items)

    @property
    def value_range(self) -> ValueRange:
        """The values of black and white."""
        return self._value_range

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]  # no slices
        return self.decode(i)

    def read(self, i: int) -> Any:
        """Return image `i` undecoded: the bytes of a file, or else the item itself.

        Pass the result to `content` and `decode`, so that both use the same bytes and the file is read only once.
        """
        with self._blamed_on(i) as item:
            return file_content(item) if is_path(item) else item

    def decode(self, i: int, least_side: int | None = None, item: Any = None) -> np.ndarray:
        """Return image `i`. `item` is what `read` returned; None reads it now.

        With `least_side`, a large JPEG may be decoded at a fraction of its size, as long as its shorter side keeps that
        many pixels.
        """
        with self._blamed_on(i) as own:
            item = own if item is None else item
            item = file_content(item) if is_path(item) else item
            rgb = self._decoded(item, least_side)
        if not self._is_judged and rgb[::16, ::16].max() <= _DARK and rgb.max() <= _DARK:
            self._judge(i, item)
        return rgb

    def path(self, i: int) -> str | None:
        """Return the path of image `i`, or None if it is not a file."""
        item = self._item(i)
        return os.fsdecode(item) if is_path(item) else None

    def describe(self, i: int) -> str:
        """Return the position and description of an image for messages: ``image 3 (/data/cat.jpg)``."""
        return f"image {range(len(self))[i]} ({described(self._item(i))})"

    def content(self, i: int, item: Any = None) -> bytes | bytearray | memoryview:
        """Return bytes that identify image `i`, to be hashed. The image is not decoded unless necessary.

        The bytes are those of the file, or dtype, shape and pixels. `value_range`, which decides the meaning of arrays
        and 16-bit files, is not included. `item` is what `read` returned; None reads it now.
        """
        with self._blamed_on(i) as own:
            item = own if item is None else item
            if is_path(item):
                return file_content(item)
            if isinstance(item, (bytes, bytearray, memoryview)):
                return item
            # A PIL image also has a palette, transparency and orientation; decoding takes all of them into account.
            array = self._decoded(item) if isinstance(item, Image.Image) else self._channels_last(item)
            return f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()

    def _item(self, i: int) -> Any:
        return self._items[range(len(self))[operator.index(i)]]

    @contextmanager
    def _blamed_on(self, i: int) -> Iterator[Any]:
        i = range(len(self))[operator.index(i)]  # outside the try: its IndexError ends for loops
        name, item = f"image {i}", None
        try:
            item = self._item(i)  # may fail, for instance for an array on disk
            name = self.describe(i)
            yield item
        except Exception as error:  # for a broken file, decoders raise errors of any type
            path = None if item is None or not is_path(item) else os.fsdecode(item)
            if is_trouble_of_the_machine(error):
                if isinstance(error, OSError) and error.filename is None:
                    error.filename = path
                error.add_note(f"While reading {name}.")
                raise
            cause = None if isinstance(error, ImageError) else error
            bad = BadImage(i, path, reason(error, item))
            raise ImageError(f"Cannot read {name}: {bad.reason}", [bad]) from cause

    def _decoded(self, item: Any, least_side: int | None = None) -> np.ndarray:
        if isinstance(item, (bytes, bytearray, memoryview)):
            return rgb_from_file(item, self._value_range, least_side)
        if isinstance(item, Image.Image):
            return rgb_from_pil(item, self._value_range)
        return rgb_from_array(self._channels_last(item), self._value_range)

    def _judge(self, i: int, item: Any) -> None:
        """Warn, once for all images, if images of more than 8 bits come out nearly black.

        A single dark image among brighter ones is no reason to warn, so some other images are examined too.
        """
        used, brightest = self._values_used(item), i
        if used is None:
            return
        with _judging:
            if self._is_judged:
                return
            self._is_judged = True
        for other in np.linspace(0, len(self) - 1, _LOOKED_AT).astype(int):
            with suppress(ImageError), self._blamed_on(other) as item:
                of_other = self._values_used(item)
                if of_other is not None and of_other.share > used.share:
                    used, brightest = of_other, other
        if used.share > 0 and used.is_little:
            warnings.warn(
                f"{self.describe(brightest)} {used.complaint} This is said once for all images.", stacklevel=3
            )

    def _values_used(self, item: Any) -> UsedValues | None:
        if is_encoded(item):
            return values_used(file_content(item) if is_path(item) else item)
        return values_used(self._channels_last(item))

    def _channels_last(self, item: Any) -> np.ndarray:
        """Return an array, a tensor or a flat row as an array of shape (H, W) or (H, W, C)."""
        array = to_array(item)
        shape, channels_first = layout(array.shape, self._image_shape)
        return np.moveaxis(array, 0, -1) if channels_first else array.reshape(shape)


def as_images(
    X: Any, *, image_shape: Sequence[int] | None = None, value_range: str | Sequence[float] = "auto"
) -> Images:
    """Return anything a user calls images as a sequence of RGB arrays, decoded on access.

    An error in X as a whole is raised here. An error in a single image is raised when that image is accessed.

    Parameters
    ----------
    X : collection of images
        A list, an array, a Series or a one-column DataFrame of paths, file contents (bytes), PIL images, arrays or
        tensors, in any mixture; or a stack of shape (n, H, W), (n, H, W, C) or (n, C, H, W); or, with `image_shape`,
        flat rows of shape (n, n_features).
    image_shape : tuple of int, default=None
        Shape (H, W) or (H, W, C) of one image. Flat rows are reshaped to it as `numpy.reshape` does; one entry may be
        -1. Arrays of exactly this shape are taken to have their channels last.
    value_range : "auto" or tuple of float, default="auto"
        The values of black and white in arrays and in images of more than 8 bits. "auto" means 0 to 255 for uint8,
        0 to 65535 for uint16, False to True for bool, and 0 to 1 for floats.
    """
    shape, limits = _checked_image_shape(image_shape), _checked_value_range(value_range)
    items = list(X._items) if isinstance(X, Images) else unpacked(X)
    if len(items) == 0:
        raise ImageError("Found 0 image(s) in X while a minimum of 1 is required.")
    if not isinstance(items, list):
        check_stack(tuple(items.shape), shape, channels_first=is_tensor(X))
    return Images(items, shape, limits)


def is_flat(X: Any, image_shape: Sequence[int] | None) -> bool:
    """Tell whether X consists of flat rows, which scikit-learn should check before they are reshaped; never raises.

    If `image_shape` is given, anything that is not recognised as a collection of images counts as flat rows.
    """
    if image_shape is None:
        return False
    try:
        if np.ma.is_masked(X):  # scikit-learn's checks would drop the mask
            return False
        items = list(X._items) if isinstance(X, Images) else unpacked(X)
        if not isinstance(items, list):
            return len(items.shape) < 3
        return not (is_encoded(items[0]) or is_tensor(items[0]) or len(items[0].shape) >= 2)
    except Exception:  # scikit-learn's checks then say what is wrong with X
        return True


def _checked_image_shape(image_shape: Sequence[int] | None) -> Shape | None:
    if image_shape is None:
        return None
    shape: Shape = ()
    with suppress(TypeError):
        shape = tuple(operator.index(side) for side in image_shape)
    if len(shape) not in (2, 3) or shape.count(-1) > 1 or any(side < 1 and side != -1 for side in shape):
        expected = "(H, W) or (H, W, C), positive integers of which one may be -1"
        raise ImageError(f"image_shape must be {expected}; got {reprlib.repr(image_shape)}.")
    if len(shape) == 3 and shape[2] not in (-1, 1, 3, 4):
        hint = f"If your rows hold their channels first, reshape X yourself: X.reshape{(-1, *shape)}"
        raise ImageError(f"image_shape={shape} must end in 1, 3 or 4 channels. {hint}.")
    return shape


def _checked_value_range(value_range: str | Sequence[float]) -> ValueRange:
    if isinstance(value_range, str) and value_range == "auto":
        return "auto"
    with suppress(TypeError, ValueError):
        low, high = (float(limit) for limit in value_range)
        if -math.inf < low < high < math.inf:
            return low, high
    expected = "'auto' or (low, high), the values of black and white, low < high"
    raise ImageError(f"value_range must be {expected}; got {reprlib.repr(value_range)}.")
