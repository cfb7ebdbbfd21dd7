"""Pixels: what a decoder or an array holds becomes RGB, uint8 (H, W, 3). Pillow is used here alone.

A file or a PIL image becomes grey levels as its mode has it, an array as its value range has it; both become RGB in
the same way. The functions say only what is wrong; who calls them adds which image it was.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import PIL
from PIL import Image, ImageFile

from ._exceptions import ImageError
from ._warnings import warnings_ignored

ValueRange: TypeAlias = Literal["auto"] | tuple[float, float]

DECODING_VERSION = 1  # of what is done here; a change makes every stored row unknown

# Black and white where nobody needs to be told. Integers of any other dtype could mean anything.
_NATURAL_RANGE = {"b1": (0, 1), "u1": (0, 255), "u2": (0, 65535), "f2": (0, 1), "f4": (0, 1), "f8": (0, 1)}

# Pillow knows more: formats that start other programs (EPS runs Ghostscript), that hold images of other formats, that
# few tests have ever met. Formats of packages that the user has registered with Pillow, such as HEIF, are read too.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO"),
    *("PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)

_FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "bicubic", "lanczos")}

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what undoes each EXIF orientation
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.swapaxes(0, 1),
    6: lambda rgb: np.rot90(rgb, -1),
    7: lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1),
    8: lambda rgb: np.rot90(rgb),
}

_STRIP_PIXELS = 2**20  # converted at a time

# A PIL image that the user opened reads its file on first use, which two threads must not do at once.
_first_use = threading.Lock()


def rgb_from_file(
    content: bytes | bytearray | memoryview, value_range: ValueRange, least_side: int | None = None
) -> np.ndarray:
    """Decode the content of a picture file.

    With `least_side`, a JPEG may come out at a half, a quarter or an eighth of its size, as long as its shorter side
    keeps so many pixels. Its decoder leaves out what would be averaged away, several times faster for a large photo.
    """
    with warnings_ignored("PIL"), Image.open(io.BytesIO(content), formats=readable_formats()) as opened:
        if least_side is not None and opened.format == "JPEG":
            shrink = max(1.0, min(opened.size) / least_side)
            opened.draft(None, (math.ceil(opened.width / shrink), math.ceil(opened.height / shrink)))
        _refuse_bombs(opened)
        return _rgb_from_pillow(opened, value_range)


def rgb_from_pil(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    """Decode a PIL image, which is left as it was."""
    with warnings_ignored("PIL"):
        with _first_use:
            copy = image.copy()
        return _rgb_from_pillow(copy, value_range)


def rgb_from_array(array: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Convert an array of shape (H, W), or (H, W, C) with 1, 3 or 4 channels."""
    return _rgb(_levels(array, value_range))


def resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str, crop: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Resize an RGB image as Pillow does, antialiased, and keep a window of the result.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
    size : tuple of int
        Height and width of the whole resized image.
    interpolation : {"nearest", "box", "bilinear", "bicubic", "lanczos"}
    crop : tuple of int, default=None
        The window (top, left, height, width) of the resized image; None keeps the whole.

    Notes
    -----
    The window is cut from the whole resized image, so it is Pillow's result to the bit. Pillow's ``box=`` computes the
    window alone in about half the time, but Pillow 13 orders its two passes by their cost, which differs for a window:
    over 60 central crops of scikit-learn's sample photos, pixels moved by up to 1 (bilinear), 6 (bicubic) or 9
    (lanczos) grey levels, in the mean of a crop by up to 0.2, and "nearest" and "box" picked other source pixels. It
    serves where the whole has over 16 times the window's pixels, as of a long strip, and could exhaust the memory.
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
    """Name the decoder, its version and its settings: all that the pixels of a file depend on."""
    return f"decoding {DECODING_VERSION}, Pillow {PIL.__version__}, truncated={ImageFile.LOAD_TRUNCATED_IMAGES}"


def readable_formats() -> list[str]:
    """Name the formats that are read, as this machine's Pillow has them."""
    Image.init()
    return [name for name, (opener, _) in Image.OPEN.items() if name in FORMATS or not _is_pillows(opener)]


def _is_pillows(opener: Callable) -> bool:
    return opener.__module__.startswith("PIL.")


def _refuse_bombs(image: Image.Image) -> None:
    """Refuse, before it is decoded, what would take gigabytes; Pillow itself only warns up to twice its limit."""
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise ImageError(
            f"its {image.width} x {image.height} = {pixels} pixels exceed the limit of {limit} pixels, it could be a "
            "decompression bomb. If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def _rgb_from_pillow(image: Image.Image, value_range: ValueRange) -> np.ndarray:
    """Return the upright pixels of a PIL image, RGB, converted in strips: the largest images take less than 1 GB."""
    if 0 in image.size:
        raise ImageError("it has no pixels.")
    transparent = _transparent_value(image)
    image.load()
    upright = _turn_upright(image)
    # What deep pixels mean may depend on all of them.
    rows = image.height if _is_deep(image) else max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        return np.ascontiguousarray(upright(_rgb(_pillow_levels(image, transparent, value_range))))
    rgb = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb[top : top + rows] = _rgb(_pillow_levels(strip, transparent, value_range))
    return np.ascontiguousarray(upright(rgb))


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _pillow_levels(
    image: Image.Image, transparent: int | tuple[int, ...] | None, value_range: ValueRange
) -> np.ndarray:
    """Return the pixels of a PIL image, uint8: grey, RGB, or RGBA if it has an alpha channel or palette."""
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        if image.mode == "La":
            image = image.convert("LA")  # it knows no other way to RGBA
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    # In the other modes at most one value is transparent, which Pillow's conversions would lose or round.
    if _is_deep(image):
        values = np.asarray(image)
        levels = _levels(_narrowed(values) if value_range == "auto" else values, value_range)
    else:
        values = levels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    if transparent is None:
        return levels
    see_through = (np.atleast_3d(values) == transparent).all(axis=2, keepdims=True)
    return np.where(see_through, np.uint8(255), np.atleast_3d(levels))


def _transparent_value(image: Image.Image) -> int | tuple[int, ...] | None:
    """Return the value that counts as transparent; PNG files state it in their own depth, not that of the pixels."""
    value = image.info.get("transparency")
    stored_as = str(image.tile[0][3]) if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    if isinstance(value, int):
        return value * {"L;2": 85, "L;4": 17}.get(stored_as, 1)
    if isinstance(value, tuple):
        return tuple(v >> 8 for v in value) if stored_as == "RGB;16B" or max(value) > 255 else value
    return None


def _turn_upright(image: Image.Image) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns the pixels as EXIF wants it."""
    try:
        return _UPRIGHT[image.getexif()[0x0112]]
    except Exception:  # no EXIF, or a broken one, which is common and no reason to lose the image
        return _UPRIGHT[1]


def _narrowed(values: np.ndarray) -> np.ndarray:
    """Return integers as uint16 if they fit: what Pillow holds in 32 bits is mostly a picture of 16."""
    fits = values.dtype.kind == "i" and values.min() >= 0 and values.max() <= 65535
    return values.astype(np.uint16) if fits else values


# Values


def _levels(array: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Map values to grey levels, uint8; what lies outside the range is refused, never cut off in silence."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"values of dtype {array.dtype} are no grey levels. Expected real numbers.")
    limits = _NATURAL_RANGE.get(array.dtype.str[1:]) if value_range == "auto" else value_range
    if array.dtype == np.uint8 and limits == (0, 255):
        return array
    with np.errstate(invalid="ignore"):  # NaN is refused below
        values = np.asarray(array, dtype=np.float64)
    lowest, highest = float(values.min()), float(values.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ImageError("it holds NaN or infinity. Replace them, for instance with np.nan_to_num.")
    observed = f"its values run from {lowest:g} to {highest:g}"
    advice = f"Pass the values of black and white, for instance value_range={_suggested_range(lowest, highest)}"
    if limits is None:
        raise ImageError(f"{array.dtype} has no natural range; {observed}. {advice}.")
    low, high = limits
    tolerance = 1e-6 * (high - low)  # for rounding errors
    if lowest < low - tolerance or highest > high + tolerance:
        raise ImageError(f"{observed}, beyond {low:g} (black) to {high:g} (white). {advice}, or use np.clip.")
    return np.rint((values - low) * 255 / (high - low)).clip(0, 255).astype(np.uint8)


def _suggested_range(lowest: float, highest: float) -> tuple[float, float]:
    for low, high in ((-1, 1), (0, 255)):
        if low <= lowest and highest <= high:
            return low, high
    # The values of an image of one single colour make no range by themselves.
    return (lowest, highest) if lowest < highest else (min(lowest, 0.0), max(highest, 0.0))


def _rgb(levels: np.ndarray) -> np.ndarray:
    """Return uint8 pixels of 1, 3 or 4 channels, or of none, as a new RGB array; transparency shows white."""
    levels = np.atleast_3d(levels)
    if levels.shape[2] == 4:
        colour, alpha = levels[..., :3].astype(np.uint16), levels[..., 3:].astype(np.uint16)
        levels = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    if levels.shape[2] == 1:
        return np.repeat(levels, 3, axis=2)  # three times as fast as broadcasting
    return np.array(levels, dtype=np.uint8, order="C")
