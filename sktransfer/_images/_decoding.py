"""Turn decoded files and arrays into RGB images, uint8 (H, W, 3).

The mode of a file or PIL image decides how it becomes grey levels; for an array, the value range decides. Both then
become RGB in the same way. The functions report only what is wrong; their caller adds which image it was.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import PIL
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from .._exceptions import ImageError
from .._warnings import warnings_ignored

ValueRange: TypeAlias = Literal["auto"] | tuple[float, float]

DECODING_VERSION = 1  # version of this module's results; changing it invalidates every stored row

# Black and white for dtypes whose range is obvious. Integers of any other dtype could mean anything.
_NATURAL_RANGE = {"b1": (0, 1), "u1": (0, 255), "u2": (0, 65535), "f2": (0, 1), "f4": (0, 1), "f8": (0, 1)}

# Pillow reads more formats. Left out are formats that start other programs (EPS runs Ghostscript), that contain images
# of other formats, or that are rarely tested. Formats that the user has registered with Pillow, such as HEIF, are read.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO"),
    *("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)

_FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")}

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # the function that undoes each EXIF orientation
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1),
    8: lambda rgb: np.rot90(rgb),
}

_STRIP_PIXELS = 2**20  # number of pixels converted at a time

# Time and memory per pixel, relative to the other formats. They were measured on images with the most pixels allowed.
_COST_OF_A_PIXEL = {"JPEG2000": 3.0, "WEBP": 1.6, "AVIF": 1.2}

_MOST_PASSES = 20  # scans allowed for a JPEG with the most pixels allowed; encoders write about ten

# A PIL image that the user opened reads its file on first use. Two threads must not do that at the same time.
_first_use = threading.Lock()


def rgb_from_file(
    content: bytes | bytearray | memoryview, value_range: ValueRange, least_side: int | None = None
) -> np.ndarray:
    """Decode the content of a picture file.

    With `least_side`, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as its shorter side
    keeps at least `least_side` pixels. This is several times faster for a large photo.
    """
    with warnings_ignored("PIL"), Image.open(io.BytesIO(content), formats=readable_formats()) as opened:
        if opened.format in ("JPEG", "MPO"):
            _refuse_many_scans(opened, content)
        if least_side is not None and opened.format == "JPEG":
            shrink = max(1.0, min(opened.size) / least_side)
            opened.draft(None, (math.ceil(opened.width / shrink), math.ceil(opened.height / shrink)))
        _refuse_bombs(opened)
        return _rgb_from_pillow(opened, value_range)


def rgb_from_pil(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    """Decode a PIL image without changing it."""
    with warnings_ignored("PIL"):
        with _first_use:
            copy = image.copy()
        return _rgb_from_pillow(copy, value_range)


def rgb_from_array(array: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Convert an array of shape (H, W), or (H, W, C) with 1, 3 or 4 channels."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"values of dtype {array.dtype} are no grey levels. Expected real numbers.")
    if array.dtype == np.uint8 and value_range in ("auto", (0, 255)):
        return _rgb(array)
    with np.errstate(invalid="ignore"):  # `_limits` refuses NaN
        lowest, highest = float(array.min()), float(array.max())
    return _rgb(_scaled(array, _limits(array.dtype, lowest, highest, value_range)))


class UsedValues(NamedTuple):
    """How much of its range an image of more than 8 bits uses, and the complaint if that is little."""

    share: float
    is_little: bool
    complaint: str


def values_used(image: bytes | bytearray | memoryview | Image.Image | np.ndarray) -> UsedValues | None:
    """Return which values an image uses if `value_range` is "auto"; None for an image of at most 8 bits."""
    if isinstance(image, np.ndarray):
        return _used(image.dtype, float(image.max())) if image.dtype.kind in "uf" else None
    if isinstance(image, Image.Image):
        return _used(*_extremes_of_deep(image)[::2]) if _is_deep(image) else None
    with warnings_ignored("PIL"), Image.open(io.BytesIO(image), formats=readable_formats()) as opened:
        has_deep_colours = ";16" in _stored_as(opened)
        if _is_deep(opened):
            return values_used(opened)
        if not has_deep_colours:
            return None
        bands = np.atleast_2d(opened.getextrema())[: 1 if opened.mode == "LA" else 3]
        return UsedValues(
            (bands.max() + 0.5) / 256,
            bool(bands.max() < 64),
            "holds colours of 16 bits, of which Pillow keeps the upper 8, and comes out nearly black. Read such files "
            "with another library, and pass arrays together with their value_range.",
        )


def _used(dtype: np.dtype, highest: float) -> UsedValues | None:
    if dtype == np.uint8 or dtype.str[1:] not in _NATURAL_RANGE:
        return None
    white = _NATURAL_RANGE[dtype.str[1:]][1]
    top = 2.0 ** math.frexp(highest)[1] - (dtype.kind == "u")  # the largest value of that number of bits
    return UsedValues(
        highest / white,
        highest < white * (0.25 if dtype.kind == "u" else 0.0625),  # 14 of 16 bits; night photos in floats are darker
        f"has values up to {highest:g}, where {white} is white, and comes out nearly black. If {top:g} is white, pass "
        f"value_range=(0, {top:g}). If it is meant to be so dark, pass value_range=(0, {white}).",
    )


def resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str, crop: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Resize an RGB image to (height, width) as Pillow does, antialiased, and keep a window of the result.

    The window (top, left, height, width) is cut from the whole resized image, so it equals Pillow's result bit for bit.
    Pillow's ``box=`` computes only the window, in about half the time. But Pillow 13 orders its two passes by their
    cost, which differs for a window. Over 60 central crops of scikit-learn's sample photos, pixels changed by up to 1
    (bilinear), 6 (bicubic) or 9 (lanczos) grey levels, the mean of a crop by up to 0.2, and "nearest" and "box" picked
    other source pixels. So ``box=`` serves only if the whole (of a long strip) has over 16 times the window's pixels
    and could fill the memory.
    """
    if interpolation not in _FILTERS:
        raise ValueError(f"interpolation must be one of {', '.join(_FILTERS)}; got {interpolation!r}.")
    source, resample, (height, width) = Image.fromarray(image), _FILTERS[interpolation], size
    top, left, h, w = crop or (0, 0, height, width)
    if min(top, left) < 0 or min(h, w) < 1 or top + h > height or left + w > width:
        raise ValueError(f"The window crop=(top, left, height, width)={crop} is not within the resized image, {size}.")
    if height * width <= 16 * h * w:
        return np.array(source.resize((width, height), resample))[top : top + h, left : left + w].copy()
    y, x = source.height / height, source.width / width
    box = (left * x, top * y, min((left + w) * x, source.width), min((top + h) * y, source.height))
    return np.array(source.resize((w, h), resample, box))


# Pillow


def decoder_identity() -> str:
    """Return the decoder, its version and its settings, on which the pixels of a file depend."""
    return f"decoding {DECODING_VERSION}, Pillow {PIL.__version__}, truncated={ImageFile.LOAD_TRUNCATED_IMAGES}"


def readable_formats() -> list[str]:
    """Return the names of the formats that are read and that the installed Pillow supports."""
    Image.init()
    return [name for name, (opener, _) in Image.OPEN.items() if name in FORMATS or not is_pillows(opener)]


def is_pillows(opener: Callable[..., Any]) -> bool:
    """Tell whether an opener is part of Pillow rather than registered by the user."""
    return opener.__module__.startswith("PIL.")


def _refuse_many_scans(image: Image.Image, content: bytes | bytearray | memoryview) -> None:
    """Refuse a JPEG whose several scans would take too much time or memory, even if its file is small.

    For every scan, which may be only a few bytes long, the decoder goes through the whole image. It also keeps the
    image in memory at full size, even when it decodes at a fraction of it.
    """
    assert isinstance(image, JpegImageFile) and image.fp is not None
    n_channels_of_first_scan = content[image.fp.tell() + 2] if image.format == "JPEG" else 0
    if n_channels_of_first_scan >= image.layers and not image.info.get("progressive"):
        return
    _refuse_bombs(image, cost=max(1.0, image.layers / 3))
    n_scans, limit = bytes(content).count(b"\xff\xda"), Image.MAX_IMAGE_PIXELS
    if limit is not None and n_scans * image.width * image.height > _MOST_PASSES * limit:
        raise ImageError(
            f"this JPEG goes over its {image.width} x {image.height} pixels {n_scans} times, it could be a "
            "decompression bomb. If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def _refuse_bombs(image: Image.Image, cost: float = 1.0) -> None:
    """Refuse an image that would take gigabytes before it is decoded; Pillow only warns up to twice its limit."""
    if Image.MAX_IMAGE_PIXELS is None:
        return
    pixels = image.width * image.height
    limit = int(Image.MAX_IMAGE_PIXELS / _COST_OF_A_PIXEL.get(image.format or "", cost))
    if pixels > limit:
        raise ImageError(
            f"its {image.width} x {image.height} = {pixels} pixels exceed the limit of {limit} pixels for "
            f"{image.format}, it could be a decompression bomb. If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def _rgb_from_pillow(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    """Return the upright RGB pixels of a PIL image. Converting in strips keeps the memory below 1 GB."""
    if 0 in image.size:
        raise ImageError("it has no pixels.")
    transparent = _transparent_value(image)
    image.load()
    upright = _turn_upright(image)
    limits = _limits(*_extremes_of_deep(image), value_range) if _is_deep(image) else (0.0, 255.0)
    rgb = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows, strip in _strips(image):
        rgb[rows] = _rgb(_pillow_levels(strip, transparent, limits))
    return np.ascontiguousarray(upright(rgb))


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    height = max(1, _STRIP_PIXELS // image.width)
    if height >= image.height:
        yield slice(image.height), image
        return
    for top in range(0, image.height, height):
        end = min(top + height, image.height)
        yield slice(top, end), image.crop((0, top, image.width, end))


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _extremes_of_deep(image: Image.Image) -> tuple[np.dtype, float, float]:
    """Return the type of the pixels, and their smallest and largest value."""
    ends = [(values.dtype, values.min(), values.max()) for values in (np.asarray(strip) for _, strip in _strips(image))]
    dtype = ends[0][0]
    lowest, highest = (float(np.min([end[1] for end in ends])), float(np.max([end[2] for end in ends])))
    if dtype.kind == "i" and lowest >= 0 and highest <= 65535:
        dtype = np.dtype(np.uint16)  # Pillow often stores images of 16 bits in 32 bits
    return dtype, lowest, highest


def _pillow_levels(
    image: Image.Image, transparent: int | tuple[int, ...] | None, limits: tuple[float, float]
) -> np.ndarray:
    """Return the pixels of a PIL image, uint8: grey, RGB, or RGBA if it has an alpha channel or palette."""
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        if image.mode == "La":
            image = image.convert("LA")  # Pillow cannot convert La to RGBA directly
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    # In the other modes at most one value is transparent. Pillow's conversions would lose or round it.
    if _is_deep(image):
        values = np.asarray(image)
        levels = _scaled(values, limits)
    else:
        values = levels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    if transparent is None:
        return levels
    see_through = (np.atleast_3d(values) == transparent).all(axis=2, keepdims=True)
    return np.where(see_through, np.uint8(255), np.atleast_3d(levels))


def _transparent_value(image: Image.Image) -> int | tuple[int, ...] | None:
    """Return the transparent value. PNG files state it in the file's bit depth, not in that of the decoded pixels."""
    value = image.info.get("transparency")
    stored_as = _stored_as(image)
    if isinstance(value, int):
        return value * {"L;2": 85, "L;4": 17}.get(stored_as, 1)
    if isinstance(value, tuple):
        return tuple(v >> 8 for v in value) if stored_as == "RGB;16B" or max(value) > 255 else value
    return None


def _turn_upright(image: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that turns the pixels upright, according to EXIF."""
    try:
        return _UPRIGHT[image.getexif()[0x0112]]
    except Exception:  # EXIF is missing or broken, which is common and no reason to refuse the image
        return _UPRIGHT[1]


def _stored_as(image: Image.Image) -> str:
    """Return how the file of an image stores its pixels. This is known only until they are loaded."""
    return str(image.tile[0][3]) if isinstance(image, ImageFile.ImageFile) and image.tile else ""


# Values


def _limits(dtype: np.dtype, lowest: float, highest: float, value_range: ValueRange) -> tuple[float, float]:
    """Return the values of black and white; refuse an image with values outside, rather than clip them silently."""
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ImageError("it holds NaN or infinity. Replace them, for instance with np.nan_to_num.")
    limits = _NATURAL_RANGE.get(dtype.str[1:]) if value_range == "auto" else value_range
    observed = f"its values run from {lowest:g} to {highest:g}"
    advice = f"Pass the values of black and white, for instance value_range={_suggested_range(lowest, highest)}"
    if limits is None:
        raise ImageError(f"{dtype} has no natural range; {observed}. {advice}.")
    low, high = limits
    tolerance = 1e-6 * (high - low)  # for rounding errors
    if lowest < low - tolerance or highest > high + tolerance:
        raise ImageError(f"{observed}, beyond {low:g} (black) to {high:g} (white). {advice}, or use np.clip.")
    return low, high


def _scaled(array: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Return values as grey levels. A few rows are converted at a time, because float64 takes much memory."""
    low, high = limits
    levels = np.empty(array.shape, dtype=np.uint8)
    height = max(1, _STRIP_PIXELS // max(1, math.prod(array.shape[1:])))
    for top in range(0, len(array), height):
        values = np.asarray(array[top : top + height], dtype=np.float64)
        levels[top : top + height] = np.rint((values - low) * 255 / (high - low)).clip(0, 255)
    return levels


def _suggested_range(lowest: float, highest: float) -> tuple[float, float]:
    for low, high in ((-1, 1), (0, 255)):
        if low <= lowest and highest <= high:
            return low, high
    # An image with a single value gives no range, so 0 is included.
    return (lowest, highest) if lowest < highest else (min(lowest, 0.0), max(highest, 0.0))


def _rgb(levels: np.ndarray) -> np.ndarray:
    """Return uint8 pixels (H, W) or (H, W, C) with 1, 3 or 4 channels as a new RGB array on a white background."""
    levels = np.atleast_3d(levels)
    if levels.shape[2] == 4:
        colour, alpha = levels[..., :3].astype(np.uint16), levels[..., 3:].astype(np.uint16)
        levels = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    if levels.shape[2] == 1:
        return np.repeat(levels, 3, axis=2)  # three times as fast as broadcasting
    return np.array(levels, dtype=np.uint8, order="C")
