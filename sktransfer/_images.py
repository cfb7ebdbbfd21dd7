"""Anything a user calls an image becomes one RGB array at a time, lazily.

`as_images` takes X out of its container once, which leaves a list of items or an array with one image per row. From
there on everything is about a single item, and goes one way::

    path ──▶ bytes ──▶ PIL image ──┐
                array, tensor, row ┴──▶ grey levels, uint8 ──▶ RGB, uint8 (H, W, 3)

The functions along that way say only what is wrong; `Images` adds which image it was.
"""

from __future__ import annotations

import math
import operator
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from ._decoding import ValueRange, readable_formats, rgb_from_array, rgb_from_file, rgb_from_pil
from ._exceptions import BadImage, ImageError

Shape: TypeAlias = tuple[int, ...]


class Images(Sequence):
    """A sequence of images, each decoded whenever it is asked for; made by `as_images`.

    Files are read in the formats that `readable_formats` names, of at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (89
    million unless it was set; None lifts the limit). Truncated files are refused, unless another library has set
    ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True``: Pillow then fills in what is missing and tells nobody.
    """

    def __init__(self, items: Any, image_shape: Shape | None, value_range: ValueRange) -> None:
        self._items = items
        self._image_shape = image_shape
        self._value_range = value_range

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

        Pass it to `content` and `decode`, so that both are about the same bytes, and a file is read once.
        """
        with self._blamed_on(i) as item:
            return _file_content(item) if _is_path(item) else item

    def decode(self, i: int, least_side: int | None = None, item: Any = None) -> np.ndarray:
        """Return image `i`; with `least_side`, a large JPEG may be decoded at a fraction of its size.

        Parameters
        ----------
        i : int
        least_side : int or None
            Pixels that the shorter side keeps at least.
        item : object, default=None
            What `read` returned; None reads it now.
        """
        with self._blamed_on(i) as own:
            return self._decoded(own if item is None else item, least_side)

    def path(self, i: int) -> str | None:
        """Return the path of image `i`, or None if it is not a file."""
        item = self._item(i)
        return os.fsdecode(item) if _is_path(item) else None

    def describe(self, i: int) -> str:
        """Say which image this is, for messages: ``image 3 (/data/cat.jpg)``."""
        return f"image {range(len(self))[i]} ({_described(self._item(i))})"

    def content(self, i: int, item: Any = None) -> bytes | bytearray | memoryview:
        """Return what tells image `i` from any other one, undecoded where possible, to be hashed.

        That is the file itself, or the pixels behind their dtype and shape. `value_range`, on which the meaning of
        arrays and of 16-bit files depends, is no part of it. `item` is what `read` returned; None reads it now.
        """
        with self._blamed_on(i) as own:
            item = own if item is None else item
            if _is_path(item):
                return _file_content(item)
            if isinstance(item, (bytes, bytearray, memoryview)):
                return item
            # Palette, transparency and orientation are part of a PIL image; decoding accounts for them all.
            array = self._decoded(item) if isinstance(item, Image.Image) else self._channels_last(item)
            return f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()

    def _item(self, i: int) -> Any:
        return self._items[range(len(self))[operator.index(i)]]

    @contextmanager
    def _blamed_on(self, i: int) -> Iterator[Any]:
        item = self._item(i)  # outside the try: its IndexError ends for loops
        try:
            yield item
        except Exception as error:  # decoders raise whatever the parsing of a broken file runs into
            cause = None if isinstance(error, ImageError) else error
            bad = BadImage(range(len(self))[i], self.path(i), _reason(error))
            raise ImageError(f"Cannot read {self.describe(i)}: {bad.reason}", [bad]) from cause

    def _decoded(self, item: Any, least_side: int | None = None) -> np.ndarray:
        if _is_path(item):
            item = _file_content(item)
        if isinstance(item, (bytes, bytearray, memoryview)):
            return rgb_from_file(item, self._value_range, least_side)
        if isinstance(item, Image.Image):
            return rgb_from_pil(item, self._value_range)
        return rgb_from_array(self._channels_last(item), self._value_range)

    def _channels_last(self, item: Any) -> np.ndarray:
        """Return an array, a tensor or a flat row as an array of shape (H, W) or (H, W, C)."""
        array = _to_array(item)
        shape, channels_first = _layout(array.shape, self._image_shape)
        return np.moveaxis(array, 0, -1) if channels_first else array.reshape(shape)


def as_images(
    X: Any, *, image_shape: Sequence[int] | None = None, value_range: str | Sequence[float] = "auto"
) -> Images:
    """Return anything a user calls images as a sequence of RGB arrays, decoded on access.

    What is wrong with X as a whole is raised here, what is wrong with one image when that image is asked for.

    Parameters
    ----------
    X : collection of images
        A list, an array, a Series or a one-column DataFrame of paths, of the bytes of files, of PIL images, of arrays
        or of tensors, freely mixed; or a stack of shape (n, H, W), (n, H, W, C) or (n, C, H, W); or, with
        `image_shape`, flat rows of shape (n, n_features).
    image_shape : tuple of int, default=None
        (H, W) or (H, W, C) of one image, into which flat rows are reshaped as `numpy.reshape` would; one entry may be
        -1. Arrays of exactly this shape are taken to have their channels last.
    value_range : "auto" or tuple of float, default="auto"
        The values of black and white in arrays and in pictures of more than 8 bits. "auto" means 0 to 255 for uint8,
        0 to 65535 for uint16, False to True, and 0 to 1 for floats.
    """
    shape, limits = _checked_image_shape(image_shape), _checked_value_range(value_range)
    items = _unpacked(X)
    if len(items) == 0:
        raise ImageError("Found 0 image(s) in X while a minimum of 1 is required.")
    if not isinstance(items, list):
        _check_stack(tuple(items.shape), shape)
    return Images(items, shape, limits)


def is_flat(X: Any, image_shape: Sequence[int] | None) -> bool:
    """Tell whether X is flat rows to be reshaped, which scikit-learn should check first; never raises.

    With an `image_shape`, whatever is not recognisably a collection of images counts as flat rows.
    """
    if image_shape is None:
        return False
    try:
        items = _unpacked(X)
        if not isinstance(items, list):
            return len(items.shape) < 3
        return not (_is_encoded(items[0]) or _is_tensor(items[0]) or len(items[0].shape) >= 2)
    except Exception:  # it is for scikit-learn to say what is wrong with X
        return True


# The container


def _unpacked(X: Any) -> Any:
    """Take X out of its container: a list of items, or an array with one image per row."""
    if isinstance(X, Images):
        return list(X._items)
    _refuse_slips(X)
    if _is_tensor(X):
        X = _to_array(X)
    elif hasattr(X, "to_numpy"):  # pandas, polars and their kin
        X = X.to_numpy()
    elif isinstance(X, Sequence):
        if len(X) == 0 or not isinstance(X[0], (list, tuple)):
            return list(X)
        X = _table(X)
    if not (hasattr(X, "shape") and hasattr(X, "dtype") and len(X.shape) > 0):
        raise ImageError(
            f"Expected a list, an array, a Series or a DataFrame column of images; got {reprlib.repr(X)}, a "
            f"{type(X).__name__}. Pass a list."
        )
    if getattr(X.dtype, "kind", "") not in "OSUT":
        return X  # not np.asarray, which would read a memory map or an HDF5 dataset as a whole
    if len(X.shape) == 1 or (len(X.shape) == 2 and X.shape[1] == 1):
        return np.asarray(X).ravel().tolist()
    table = _table(X.tolist())
    if table.dtype.kind in "OSUT":
        raise ImageError(f"X is a table of shape {X.shape}. Pass only its column of images, for instance X['path'].")
    return table


def _table(rows: Sequence) -> np.ndarray:
    try:
        return np.asarray(rows)
    except ValueError as error:
        hint = "For images of several sizes pass [np.asarray(image) for image in X]."
        raise ImageError(f"X is a nested list whose rows differ in length. {hint}") from error


def _refuse_slips(X: Any) -> None:
    if _is_path(X) and os.path.isdir(X):
        fault = f"the directory {os.fsdecode(X)}. Pass the list of files in it: sorted(pathlib.Path(X).glob('*.jpg'))"
    elif _is_encoded(X):
        fault = f"a single one, {_described(X)}. Wrap it in a list: [X]"
    elif hasattr(X, "__next__"):
        fault = f"a {type(X).__name__}. Pass a list: list(X)"
    elif hasattr(X, "toarray"):
        fault = "a sparse matrix. Pass X.toarray()"
    else:
        return
    raise ImageError(f"Expected a collection of images; got {fault}.")


def _check_stack(shape: Shape, image_shape: Shape | None) -> None:
    """Refuse at once what is no stack of images, and what every single row would be refused for."""
    n_rows, *row = shape
    fault = ""
    if not row:
        fault = "numbers, not images. Pass one image or one flat row per entry"
    elif len(row) == 1 and image_shape is None:
        fault = f"rows of {row[0]} numbers. {_suggested_image_shape(row[0])} If it is one grey image, pass X[None]"
    elif len(row) == 2 and row[1] in (1, 3, 4) and not _settles(image_shape, row):
        fault = (
            f"which looks like one image with {row[1]} channels. Pass X[None] if it is, or image_shape={tuple(row)} if "
            f"these are {n_rows} grey images of width {row[1]}"
        )
    elif len(row) > 1 and image_shape is not None and not _settles(image_shape, row):
        fault = f"but image_shape={image_shape}. Leave image_shape out, or make it the shape of one image"
    if fault:
        raise ImageError(f"X has shape {shape}, {fault}.")
    try:
        _layout(tuple(row), image_shape)
    except ImageError as error:
        raise ImageError(f"X has shape {shape}: {error}") from None


def _checked_image_shape(image_shape: Sequence[int] | None) -> Shape | None:
    if image_shape is None:
        return None
    shape: Shape = ()
    with suppress(TypeError):
        shape = tuple(operator.index(side) for side in image_shape)
    if len(shape) not in (2, 3) or shape.count(-1) > 1 or any(side < 1 and side != -1 for side in shape):
        expected = "(H, W) or (H, W, C), positive integers of which one may be -1"
        raise ImageError(f"image_shape must be {expected}; got {image_shape!r}.")
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
    raise ImageError(f"value_range must be {expected}; got {value_range!r}.")


# One item


def _is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


def _is_encoded(item: Any) -> bool:
    return _is_path(item) or isinstance(item, (bytes, bytearray, memoryview, Image.Image))


def _is_tensor(item: Any) -> bool:
    # By its looks, since importing torch takes seconds.
    return hasattr(item, "detach") and any(base.__module__.startswith("torch") for base in type(item).__mro__)


def _described(item: Any) -> str:
    if _is_path(item):
        return os.fsdecode(item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return f"{len(item)} bytes"
    if isinstance(item, Image.Image):
        return f"PIL image of size {item.width}x{item.height}, mode {item.mode}"
    if hasattr(item, "shape") and hasattr(item, "dtype"):
        return f"{'tensor' if _is_tensor(item) else 'array'} of shape {tuple(item.shape)}, {item.dtype}"
    return reprlib.repr(item)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no such file. Relative paths start at {os.getcwd()}."
    if isinstance(error, UnidentifiedImageError):
        return f"it is in no format that is read here ({', '.join(readable_formats())}), or its header is broken."
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
    return str(error) or type(error).__name__


def _file_content(path: str | os.PathLike) -> bytes:
    name = os.fsdecode(path)
    if re.match("https?://", name):
        raise ImageError("it is a URL. Download it first, and pass the path of the file or its bytes.")
    if os.path.isdir(name):
        raise ImageError("it is a directory. Pass the files in it.")
    with open(name, "rb") as file:
        content = file.read()
    if not content:
        raise ImageError("the file is empty.")
    return content


def _to_array(item: Any) -> np.ndarray:
    if _is_tensor(item):
        tensor = item.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:
            return tensor.float().numpy()  # bfloat16 and float8 have no counterpart in numpy
    if isinstance(item, (list, tuple)) or (hasattr(item, "__array__") and not isinstance(item, np.generic)):
        return np.asarray(item)
    fault = "missing" if str(item) in ("None", "nan", "<NA>", "NaT") else f"a {type(item).__name__}"
    hint = " Pass the value that holds the image: [row['image'] for row in X]." if isinstance(item, dict) else ""
    raise ImageError(f"it is {fault}. Expected a path, the bytes of a file, a PIL image, an array or a tensor.{hint}")


def _layout(shape: Shape, image_shape: Shape | None) -> tuple[Shape, bool]:
    """Return the shape to give to an array of this shape, and whether its channels come first."""
    if 0 in shape:
        raise ImageError(f"an image of shape {shape} has no pixels.")
    if len(shape) == 1 and image_shape is None:
        raise ImageError(f"it is a row of {shape[0]} numbers. {_suggested_image_shape(shape[0])}")
    if len(shape) == 1:
        return _resolved(cast(Shape, image_shape), shape[0]), False
    if len(shape) == 2 or _settles(image_shape, shape):
        return shape, False
    first, last = (len(shape) == 3 and shape[0] in (1, 3)), (len(shape) == 3 and shape[2] in (1, 3, 4))
    if first and last:
        raise ImageError(
            f"the channels of shape {shape} could be first or last. If they are last, pass image_shape={shape}. If "
            "they are first, move them, by X.transpose(0, 2, 3, 1) in a stack or image.transpose(1, 2, 0) in a single "
            "image, and pass image_shape=(H, W, C)."
        )
    if not (first or last):
        expected = "(H, W), (H, W, C) with 1, 3 or 4 channels, or (C, H, W) with 1 or 3"
        raise ImageError(f"an image must have shape {expected}; got {shape}.")
    return shape, first


def _settles(image_shape: Shape | None, shape: Sequence[int]) -> bool:
    with suppress(ImageError):
        return image_shape is not None and _resolved(image_shape, math.prod(shape)) == tuple(shape)
    return False


def _resolved(image_shape: Shape, n_features: int) -> Shape:
    """Return the image shape without its -1."""
    known = math.prod(side for side in image_shape if side != -1)
    shape = tuple(n_features // known if side == -1 else side for side in image_shape)
    if math.prod(shape) != n_features or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f"cannot reshape rows of n_features={n_features} into images of image_shape={image_shape}.")
    return shape


def _suggested_image_shape(n_features: int) -> str:
    for channels in ((), (3,)):
        side = math.isqrt(n_features // math.prod(channels))
        if side > 1 and side * side * math.prod(channels) == n_features:
            return f"To reshape them into images pass image_shape, for instance image_shape={(side, side, *channels)}."
    return "To reshape them into images pass image_shape=(H, W) or (H, W, C)."
