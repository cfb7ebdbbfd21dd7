"""One item of X: which kind of image it is, the content of its file, the layout of its array, what is wrong with it."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import re
import reprlib
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from .._exceptions import ImageError
from ._decoding import readable_formats

Shape: TypeAlias = tuple[int, ...]

# What the operating system may say of a file. Its other errors (too many open files, an input or output error, a
# network disk that is gone) are trouble of the machine, which says nothing about the picture.
_FAULTS_OF_A_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENXIO),
}


def is_path(item: Any) -> bool:
    """Tell whether it names a file. Bytes never do: they may come from strangers, who must not choose files to read."""
    return isinstance(item, (str, os.PathLike))


def is_encoded(item: Any) -> bool:
    """Tell whether it is an image that is to be decoded: a file, the content of one, or an image of Pillow."""
    return is_path(item) or isinstance(item, (bytes, bytearray, memoryview, Image.Image))


def is_tensor(item: Any) -> bool:
    """Tell whether it is a tensor of torch, by its looks, since importing torch takes seconds."""
    return hasattr(item, "detach") and any(base.__module__.startswith("torch") for base in type(item).__mro__)


def taken_out(item: Any) -> Any:
    """Return the bytes or the path that a row of a Hugging Face dataset holds, and any other item as it is."""
    if isinstance(item, dict) and item.keys() == {"bytes", "path"}:
        return item["bytes"] if item["bytes"] is not None else item["path"]
    return item


def described(item: Any) -> str:
    """Say what it is, for messages."""
    if is_path(item):
        return shortened(os.fsdecode(item))
    if isinstance(item, (bytes, bytearray, memoryview)):
        return f"{len(item)} bytes"
    if isinstance(item, Image.Image):
        return f"PIL image of size {item.width}x{item.height}, mode {item.mode}"
    if hasattr(item, "shape") and hasattr(item, "dtype"):
        return f"{'tensor' if is_tensor(item) else 'array'} of shape {tuple(item.shape)}, {item.dtype}"
    return reprlib.repr(item)


def shortened(text: str, most: int = 300) -> str:
    """Leave out the middle of a text that is too long for a message."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


# What is wrong


def is_trouble_of_the_machine(error: Exception) -> bool:
    """Tell whether an error says nothing about the image: not enough memory or open files, a disk that fails."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _FAULTS_OF_A_FILE
    return isinstance(error, MemoryError)


def reason(error: Exception, item: Any) -> str:
    """Say why an image cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return f"there is no such file.{_hint_for_relative_paths()}"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return (
            "it is too long for the path of a file. If it is the content of a picture as text, decode it, for "
            "instance with base64.b64decode."
        )
    if isinstance(error, UnidentifiedImageError):
        fault = f"it is in no format that is read here ({', '.join(readable_formats())}), or its header is broken."
        return fault + _hint_for_paths_as_bytes(item) + _hint_for_workers()
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS.{_hint_for_workers()}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}."
    text = shortened(str(error) or type(error).__name__, 1000)
    return text + _hint_for_workers() if "MAX_IMAGE_PIXELS" in text or "truncated" in text else text


def _hint_for_relative_paths() -> str:
    with suppress(OSError):  # that folder may be gone
        return f" Relative paths start at {os.getcwd()}."
    return ""


def _hint_for_paths_as_bytes(item: Any) -> str:
    if not isinstance(item, (bytes, bytearray)) or not 0 < len(item) < 4096:
        return ""
    with suppress(ValueError):
        name = os.fsdecode(bytes(item))
        if name.isprintable() and (os.path.exists(name) or re.search(r"[^ ]\.\w{2,4}$", name)):
            return " Bytes are taken for the content of a file. If they are its path, pass os.fsdecode(path)."
    return ""


def _hint_for_workers() -> str:
    if multiprocessing.parent_process() is None:
        return ""
    return (
        " This is a worker process, which may lack what the main process set on Pillow. Set it in the function that "
        "the worker runs."
    )


# Files and arrays


def file_content(path: str | os.PathLike[Any]) -> bytes:
    """Return the content of a file."""
    name = os.fsdecode(path)
    if re.match("https?://", name):
        raise ImageError("it is a URL. Download it first, and pass the path of the file or its bytes.")
    if name.startswith("data:"):
        raise ImageError("it is a data URI. Pass its bytes: base64.b64decode(uri.partition(',')[2]).")
    mode = os.stat(name).st_mode
    if stat.S_ISDIR(mode):
        raise ImageError("it is a directory. Pass the files in it.")
    if not stat.S_ISREG(mode):  # a named pipe would be waited for, a device read for ever
        raise ImageError("it is no regular file.")
    with open(name, "rb") as file:
        content = file.read()
    if not content:
        raise ImageError("the file is empty.")
    return content


def to_array(item: Any) -> np.ndarray:
    """Return an array, a tensor or a nested list of numbers as an array."""
    if np.ma.is_masked(item):
        n_masked = np.ma.count_masked(item)
        raise ImageError(f"it is a masked array, {n_masked} of whose values are masked. Fill them: image.filled(0).")
    if is_tensor(item):
        tensor = item.detach().cpu()
        try:
            return np.asarray(tensor.numpy())
        except TypeError:
            return np.asarray(tensor.float().numpy())  # bfloat16 and float8 have no counterpart in numpy
    if isinstance(item, (list, tuple)):
        refuse_rows_of_images(item, "it")
    if isinstance(item, (list, tuple)) or (hasattr(item, "__array__") and not isinstance(item, np.generic)):
        return np.asarray(item)
    fault = "missing" if str(item) in ("None", "nan", "<NA>", "NaT") else f"a {type(item).__name__}"
    hint = " Pass the value that holds the image: [row['image'] for row in X]." if isinstance(item, dict) else ""
    raise ImageError(f"it is {fault}. Expected a path, the bytes of a file, a PIL image, an array or a tensor.{hint}")


def refuse_rows_of_images(row: Sequence[Any], name: str) -> None:
    """Refuse a list that holds images, alone or beside a label, where one image is expected."""
    what = f"{name} is a {type(row).__name__} of {len(row)}"
    if len(row) == 2 and _is_image(row[0]) and not (_is_image(row[1]) and is_path(row[0]) >= is_path(row[1])):
        raise ImageError(
            f"{what}: an image and {reprlib.repr(row[1])}. Separate images and labels: images, labels = zip(*pairs). "
            "Pass list(images) as X and list(labels) as y."
        )
    if any(is_encoded(entry) for entry in row):
        raise ImageError(f"{what} entries, paths or pictures among them. Pass one image for each row of X.")


def _is_image(item: Any) -> bool:
    return is_encoded(item) or len(getattr(item, "shape", ())) >= 2


def layout(shape: Shape, image_shape: Shape | None) -> tuple[Shape, bool]:
    """Return the shape to give to an array of this shape, and whether its channels come first."""
    if 0 in shape:
        raise ImageError(f"an image of shape {shape} has no pixels.")
    if len(shape) == 1 and image_shape is None:
        raise ImageError(f"it is a row of {shape[0]} numbers. {suggested_image_shape(shape[0])}")
    if len(shape) == 1:
        return _resolved(cast(Shape, image_shape), shape[0]), False
    if len(shape) == 2 or settles(image_shape, shape):
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


def settles(image_shape: Shape | None, shape: Sequence[int]) -> bool:
    """Tell whether `image_shape` says that an array of this shape is one image with its channels last."""
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


def suggested_image_shape(n_features: int) -> str:
    """Name an `image_shape` that would do for rows of so many numbers."""
    for channels in ((), (3,)):
        side = math.isqrt(n_features // math.prod(channels))
        if side > 1 and side * side * math.prod(channels) == n_features:
            return f"To reshape them into images pass image_shape, for instance image_shape={(side, side, *channels)}."
    return "To reshape them into images pass image_shape=(H, W) or (H, W, C)."
