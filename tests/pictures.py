"""Pictures of known pixels, as arrays and as files, and what they must become."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from sktransfer import ImageError
from sktransfer._images._collection import as_images

CHINA, FLOWER = load_sample_images().images  # real photos, 427 × 640
_rng = np.random.default_rng(0)
RGB = _rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
GREY = _rng.integers(0, 256, (7, 5), dtype=np.uint8)
ALPHA = _rng.integers(0, 256, (7, 5), dtype=np.uint8)
_y, _x = np.mgrid[:32, :48]
SMOOTH = np.stack([_x * 5, _y * 7, 255 - _x * 4], axis=2).astype(np.uint8)  # survives a JPEG of good quality


def noise(*shape, seed=0):
    """Return an array of random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ---- files -------------------------------------------------------------------------------------------------


def encoded(image, format="PNG", **options):
    """Return the content of a file of an array or of a PIL image."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def written(images, folder, suffix=".png"):
    """Write arrays to 0.png, 1.png, … in a folder, which need not exist, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}{suffix}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_info(image, **info):
    """Return a PIL image that is said to come from a file with such metadata."""
    image.info.update(info)
    return image


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, depth, colour_type, *rows, transparent=b"", palette=b""):
    """Return a PNG of depths that Pillow itself cannot write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = {b"IHDR": header, b"PLTE": palette, b"tRNS": transparent, b"IDAT": pixels}
    parts = [png_chunk(name, data) for name, data in chunks.items() if data]
    return PNG_SIGNATURE + b"".join(parts) + png_chunk(b"IEND", b"")


# ---- what they must become ---------------------------------------------------------------------------------


def decode(item, **options):
    return as_images([item], **options)[0]


def grey(levels):
    return np.repeat(np.asarray(levels)[..., None], 3, axis=2)


def on_white(colour, alpha):
    opacity = alpha[..., None] / 255
    return np.floor(colour * opacity + 255 * (1 - opacity) + 0.5)


def lab_to_srgb(lightness, a, b):
    """CIE L*a*b* under D50 to sRGB, by the textbook."""
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array([0.9642, 1, 0.8249])[:, None, None]
    to_linear = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.tensordot(np.array(to_linear), xyz, 1).clip(0, 1)
    return np.moveaxis(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055), 0, -1) * 255


def refuses(*words, **kwargs):
    """ImageError whose message has all the words."""
    return pytest.raises(ImageError, match="".join(f"(?=[\\s\\S]*{word})" for word in words), **kwargs)
