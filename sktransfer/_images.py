"""Anything that users call images → RGB uint8 arrays, one at a time, when asked for.

`as_images` settles once what kind of collection `X` is; `Images` decodes one item on each access.
Pillow is used here alone.
"""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ._exceptions import ImageError

Shape = tuple[int, ...]
ValueRange = str | tuple[float, float]

_CHANNELS = (1, 3, 4)
_UPRIGHT = {  # EXIF orientation → what turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {
    name.lower(): getattr(Image.Resampling, name)
    for name in ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")
}
_LOADING = threading.Lock()  # a user's lazy PIL image must not be loaded by two threads at once


class Images(Sequence):
    """A collection of images, each decoded to RGB uint8 (H, W, 3) when it is accessed.

    Made by `as_images`. May be pickled, and read by several threads at once.

    Parameters
    ----------
    items : sequence
        Paths, bytes, PIL images, arrays or tensors; or one stacked array, indexed row by row.
    row_shape : tuple of int or None
        Shape of one row of a stacked array, channels last or first; None where items differ.
    channels_first : bool
        The rows of a stacked array are (C, H, W).
    value_range : "auto" or (float, float)
        The values that mean black and white.
    """

    def __init__(
        self,
        items: Sequence[Any] | np.ndarray,
        row_shape: Shape | None = None,
        channels_first: bool = False,
        value_range: ValueRange = "auto",
    ) -> None:
        self.items = items
        self.row_shape = row_shape
        self.channels_first = channels_first
        self.value_range = value_range

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        try:
            return self._decode(self.items[index])
        except (
            Exception
        ) as error:  # a decoder may raise anything: OSError, SyntaxError, struct.error, MemoryError, …
            reason = str(error) or type(error).__name__
            raise ImageError(f"Cannot read {self.describe(index)}: {reason}") from error

    def describe(self, index: int) -> str:
        """Name an item for a message: its position, and its path or type."""
        item = self.items[index]
        if _is_path(item):
            return f"image {index} ({os.fspath(item)})"
        if _is_array(item):
            return f"image {index} (array of shape {tuple(item.shape)}, {item.dtype})"
        return f"image {index} ({type(item).__name__})"

    def content(self, index: int) -> bytes:
        """Return bytes that say all about the pixels: the file as it is, or the decoded image.

        Two images with the same content are decoded alike; the converse need not hold.
        """
        item = self.items[index]
        if _is_path(item) or isinstance(item, bytes):
            return f"file {self.value_range} ".encode() + (
                Path(item).read_bytes() if _is_path(item) else item
            )
        rgb = self[index]
        return f"rgb {rgb.shape} ".encode() + rgb.tobytes()

    def path(self, index: int) -> str | None:
        """Return the path of an item that is a file."""
        item = self.items[index]
        return os.fspath(item) if _is_path(item) else None

    def _decode(self, item: Any) -> np.ndarray:
        if _is_array(item):
            array = _to_numpy(item)
            if self.row_shape is not None:
                array = array.reshape(self.row_shape)
                return _rgb_from_array(array, self.channels_first, self.value_range)
            return _rgb_from_array(array, _is_channels_first(array.shape), self.value_range)
        if isinstance(item, Image.Image):
            with _LOADING:
                item.load()
            return _rgb_from_pil(item, self.value_range)
        if isinstance(item, (bytes, bytearray)):
            with Image.open(io.BytesIO(item)) as image:
                return _rgb_from_pil(image, self.value_range)
        if _is_path(item):
            return self._decode_file(os.fspath(item))
        raise ImageError(f"expected a path, bytes, a PIL image, an array or a tensor, got {item!r:.80}")

    def _decode_file(self, path: str) -> np.ndarray:
        if path.startswith(("http://", "https://")):
            raise ImageError("it is a URL; download the file first and pass its path")
        if os.path.isdir(path):
            raise ImageError("it is a folder; pass the paths of the files in it")
        with Image.open(path) as image:
            return _rgb_from_pil(image, self.value_range)


def as_images(
    X: Any, *, image_shape: Sequence[int] | None = None, value_range: ValueRange = "auto"
) -> Images:
    """Return `X` as `Images`, whatever its kind. No image is decoded yet.

    Parameters
    ----------
    X : collection of images
        A list, tuple, object array, pandas or polars Series or single-column frame of paths, bytes, PIL
        images, arrays or tensors; or one array or tensor (n, H, W), (n, H, W, C), (n, C, H, W); or flat rows
        (n, n_features) with `image_shape`.
    image_shape : sequence of int or None
        (H, W) or (H, W, C); reshapes flat rows as `numpy.reshape` would, so one entry may be -1.
    value_range : "auto" or (float, float)
        The values that mean black and white, for arrays and for files of 16 and 32 bits. Files of 8 bits
        always mean 0 to 255.

    Raises
    ------
    ImageError
        If `X` is no collection of images, or its shape can be read in two ways.
    """
    value_range = _checked_value_range(value_range)
    items = _as_list_or_array(X)
    if len(items) == 0:
        raise ImageError("Found 0 image(s) while a minimum of 1 is required.")
    if isinstance(items, np.ndarray):
        row_shape, channels_first = _row_layout(items.shape, image_shape)
        return Images(items, row_shape, channels_first, value_range)
    return Images(items, value_range=value_range)


def is_flat(X: Any, image_shape: Sequence[int] | None) -> bool:
    """Tell whether `X` is to be checked as a table of numbers: an `image_shape` is set and `X` shows no images."""
    if image_shape is None:
        return False
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if hasattr(X, "shape") and hasattr(X, "dtype"):
        if len(X.shape) >= 3:
            return False
        if str(X.dtype) != "object" and getattr(X.dtype, "kind", "f") != "U":
            return True
        X = X.ravel() if len(X.shape) == 2 and X.shape[1] == 1 else X
    try:
        first = X[0]
    except (TypeError, IndexError, KeyError):
        return True
    return not (
        _is_path(first) or isinstance(first, (bytes, bytearray, Image.Image)) or _dimensions(first) >= 2
    )


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str,
    crop: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Resize a uint8 image (H, W, 3) with Pillow's antialiased filters.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
    size : (int, int)
        Height and width of the whole resized image.
    interpolation : {"nearest", "box", "bilinear", "bicubic", "lanczos"}
    crop : (int, int, int, int) or None
        Top, left, height and width of the part of the resized image to return.
    """
    whole = Image.fromarray(image).resize((size[1], size[0]), _FILTERS[interpolation])
    if crop is None:
        return np.asarray(whole)
    top, left, height, width = crop
    return np.ascontiguousarray(np.asarray(whole)[top : top + height, left : left + width])


# --- what kind of collection ------------------------------------------------------------------------------


def _as_list_or_array(X: Any) -> list | np.ndarray:
    """Unwrap every container to a list of items, or to one array of numbers that stacks them."""
    if _is_path(X) or isinstance(X, (bytes, bytearray, Image.Image)):
        what = (
            f"the folder {X!r}: pass a list of the files in it" if _is_folder(X) else f"{X!r:.80}: pass [X]"
        )
        raise ImageError(f"Expected a collection of images, got {what}.")
    if hasattr(X, "toarray"):
        raise ImageError(
            "Expected a collection of images, got a sparse matrix. Pass X.toarray() and an image_shape."
        )
    if hasattr(X, "to_numpy"):  # pandas and polars
        X = X.to_numpy()
    if _is_array(X):
        return _from_array(_to_numpy(X))
    if not isinstance(X, (list, tuple)):
        raise ImageError(f"Expected a list or an array of images, got {type(X).__name__}. Pass list(X).")
    if len(X) and _dimensions(X[0]) in (0, 1) and not isinstance(X[0], (dict, set)):
        return _from_nested_numbers(X)
    return list(X)


def _from_array(X: np.ndarray) -> list | np.ndarray:
    if X.dtype.kind in "buif":
        return X
    if X.dtype.kind in "OU" and (X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1)):
        return X.ravel().tolist()
    raise ImageError(f"Expected images, got an array of shape {X.shape} and dtype {X.dtype}.")


def _from_nested_numbers(X: Sequence) -> np.ndarray:
    try:
        rows = np.asarray(X)
    except ValueError as error:
        raise ImageError(f"Expected images or rows of equal length, got a ragged list: {error}") from error
    if rows.dtype.kind not in "buif":
        raise ImageError(f"Expected images, got a list that begins with {X[0]!r:.80}.")
    return rows


def _row_layout(shape: Shape, image_shape: Sequence[int] | None) -> tuple[Shape, bool]:
    """Return the shape of one row of a stacked array, and whether its channels come first."""
    rows = tuple(shape[1:])
    if len(rows) == 1:
        return _resolved_image_shape(rows[0], image_shape), False
    if image_shape is not None:
        if tuple(image_shape) != rows:
            raise ImageError(
                f"image_shape={tuple(image_shape)} differs from the shape of one image in X, {rows}."
            )
        return rows, False
    if len(rows) == 2:
        if rows[1] in (3, 4):
            raise ImageError(
                f"X has shape {shape}, which looks like one colour image. Pass X[None] for a single image, or "
                f"image_shape={rows} if these are {shape[0]} grey images."
            )
        return rows, False
    if len(rows) == 3:
        return rows, _is_channels_first(rows)
    raise ImageError(f"Expected an array (n, H, W), (n, H, W, C) or (n, C, H, W), got shape {shape}.")


def _resolved_image_shape(n_features: int, image_shape: Sequence[int] | None) -> Shape:
    """Return the shape of one flat row as an image."""
    if image_shape is None:
        side, colour_side = math.isqrt(n_features), math.isqrt(n_features // 3)
        example = f"({side}, {side})" if side**2 == n_features else "(height, width)"
        if 3 * colour_side**2 == n_features:
            example = f"({colour_side}, {colour_side}, 3)"
        raise ImageError(
            f"X is flat, {n_features} numbers per row. Say how to read a row: image_shape={example}."
        )
    shape = tuple(int(side) for side in image_shape)
    if len(shape) not in (2, 3):
        raise ImageError(f"image_shape={shape} must have 2 or 3 entries: (H, W) or (H, W, C).")
    try:
        shape = np.empty(n_features, dtype=bool).reshape(shape).shape
    except ValueError:
        raise ImageError(f"Rows of {n_features} numbers cannot be reshaped to image_shape={shape}.") from None
    if len(shape) == 3 and shape[2] not in _CHANNELS:
        raise ImageError(f"image_shape={shape} must end in 1, 3 or 4 channels.")
    return shape


def _is_channels_first(shape: Shape) -> bool:
    """Read (H, W, C) or (C, H, W) from the shape of one image, if only one of them fits."""
    if len(shape) == 2:
        return False
    if len(shape) != 3:
        raise ImageError(f"expected an array (H, W), (H, W, C) or (C, H, W), got shape {shape}")
    first, last = shape[0] in (1, 3), shape[2] in _CHANNELS
    if first and last:
        raise ImageError(
            f"The shape of an image, {shape}, may be read as channels first or as channels last. Stack the images in "
            f"one array (n, H, W, C) and pass image_shape={shape} if the last dimension holds the channels; otherwise "
            f"pass X.transpose(0, 2, 3, 1) and image_shape=({shape[1]}, {shape[2]}, {shape[0]})."
        )
    if not first and not last:
        raise ImageError(
            f"The shape of an image, {shape}, has no dimension of 1, 3 or 4 channels first or last."
        )
    return first


def _is_path(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike))


def _is_folder(item: Any) -> bool:
    return _is_path(item) and os.path.isdir(item)


def _is_array(item: Any) -> bool:
    """Tell whether an item is a numpy array or a torch tensor, without importing torch."""
    return isinstance(item, np.ndarray) or type(item).__module__.split(".")[0] == "torch"


def _dimensions(item: Any) -> int:
    """Return the dimensions of an array, 0 for a number, 1 for a list of numbers, -1 for anything else."""
    if _is_array(item):
        return item.ndim
    if isinstance(item, (list, tuple)):
        return 1 + (_dimensions(item[0]) if len(item) else 0)
    return 0 if isinstance(item, (Number, np.generic)) and not isinstance(item, np.str_) else -1


def _to_numpy(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    tensor = array.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


# --- pixels -----------------------------------------------------------------------------------------------


def _checked_value_range(value_range: Any) -> ValueRange:
    if isinstance(value_range, str) and value_range == "auto":
        return "auto"
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ImageError(
            f"value_range must be 'auto' or two numbers (low, high) with low < high, got {value_range!r}."
        )
    return low, high


def _rgb_from_array(array: np.ndarray, channels_first: bool, value_range: ValueRange) -> np.ndarray:
    if array.size == 0:
        raise ImageError(f"it has no pixels, its shape is {array.shape}")
    if array.ndim == 3 and channels_first:
        array = array.transpose(1, 2, 0)
    return _three_channels(_to_uint8(array, value_range))


def _to_uint8(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Map `value_range` to 0 … 255; a value outside is an error, never clipped in silence."""
    if value_range == "auto" and values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "buif":
        raise ImageError(f"its dtype {values.dtype} is not numeric")
    if not np.isfinite(values).all():
        raise ImageError("it contains NaN or infinity")
    observed_low, observed_high = values.min().item(), values.max().item()
    low, high = (
        _natural_range(values.dtype, observed_low, observed_high) if value_range == "auto" else value_range
    )
    tolerance = 1e-6 * (high - low)  # rounding, not range
    if observed_low < low - tolerance or observed_high > high + tolerance:
        observed = (
            f"its values lie between {observed_low:g} and {observed_high:g}, outside of {low:g} to {high:g}"
        )
        if value_range == "auto":
            raise ImageError(f"{observed}. Pass value_range={_suggested_range(observed_low, observed_high)}")
        raise ImageError(f"{observed} (value_range). Widen value_range, or clip the values with np.clip")
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _natural_range(dtype: np.dtype, observed_low: float, observed_high: float) -> tuple[float, float]:
    if dtype.kind in "bf":
        return 0.0, 1.0
    if dtype == np.uint16:
        return 0.0, 65535.0
    if dtype == np.uint8:
        return 0.0, 255.0
    raise ImageError(
        f"integers of type {dtype} have no natural range; its values lie between {observed_low:g} and "
        f"{observed_high:g}. Pass value_range={_suggested_range(observed_low, observed_high)}"
    )


def _suggested_range(low: float, high: float) -> tuple[float, float]:
    for usual in ((0, 1), (-1, 1), (0, 255), (0, 65535)):
        if usual[0] <= low and high <= usual[1]:
            return usual
    return low, high


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 (H, W), or (H, W, 1), (H, W, 3), (H, W, 4) into RGB; transparency is laid on white."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 4:
        colour, alpha = pixels[:, :, :3].astype(np.uint32), pixels[:, :, 3:].astype(np.uint32)
        pixels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _rgb_from_pil(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    image.load()
    if 0 in image.size:
        raise ImageError(f"it has no pixels, its size is {image.size}")
    orientation = _orientation(image)
    pixels = _pil_pixels(image, value_range)
    if orientation in _UPRIGHT:
        pixels = np.asarray(Image.fromarray(pixels).transpose(_UPRIGHT[orientation]))
    return np.ascontiguousarray(pixels)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # EXIF is often damaged in an image that is fine; it counts as upright then
        return 1


def _pil_pixels(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    """Return the RGB pixels of a loaded image of any mode."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_pixels(image, value_range)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    elif image.mode in ("La", "RGBa"):  # premultiplied; Pillow converts them to their plain sisters alone
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _three_channels(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _deep_pixels(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    """Return the RGB pixels of a grey image of 16 or 32 bits. Pillow itself would clip them to 255."""
    values = np.asarray(image)
    values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype == np.int32 and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16)  # how Pillow reads some files of 16 bits
    pixels = _to_uint8(values, value_range)
    if "transparency" in image.info:
        pixels = np.where(values == image.info["transparency"], np.uint8(255), pixels)
    return _three_channels(pixels)
