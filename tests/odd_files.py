"""Files with the faults and the oddities that real files have been seen with, made here, each of a few kilobytes.

Most are made by hand after files of Pillow's tests, PngSuite, libvips and image-rs, since Pillow writes no broken
files, no interlaced PNG and no colours of 16 bits.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, features

from pictures import (
    ALPHA,
    CHINA,
    GREY,
    PNG_SIGNATURE,
    RGB,
    SMOOTH,
    encoded,
    exif_of,
    grey,
    noise,
    on_white,
    png,
    png_chunk,
)

PALETTE = np.array([[255, 0, 0], [0, 200, 10], [3, 4, 5], [120, 130, 240]], dtype=np.uint8)
INDICES, SEE_THROUGH = GREY // 64, np.array([255, 128, 0, 30], dtype=np.uint8)
DEEP = noise(7, 5).astype(np.uint16) * 11  # 12 of 16 bits
PHOTO = encoded(CHINA[:120, :160])


def bmp(width, height, depth, pixels, compression=0):
    palette = b"".join(bytes([*colour, 0]) for colour in PALETTE[:, ::-1]) if depth > 1 else bytes(4) + b"\xff" * 4
    start = 54 + len(palette)
    header = struct.pack("<2sIII", b"BM", start + len(pixels), 0, start)
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 2835, 2835, len(palette) // 4, 0)
    return header + palette + pixels


def replaced(content, old, new):
    """Put other bytes in the place of those that are there once."""
    assert content.count(old) == 1 and len(old) == len(new)
    return content.replace(old, new)


def in_chunks(*chunks, size=(5, 7), depth=8, colour_type=2, compression=0):
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, compression, 0, 0)
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def gif(width, height):
    palette, pixels = bytes(3) + b"\xff" * 3, b"\x02\x02\x4c\x01\0"
    screen, frame = struct.pack("<HHBBB", width, height, 0x80, 0, 0), struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + palette + b"," + frame + pixels + b";"


ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))

BROKEN = {  # name: (content, what the error says)
    "PNG cut behind its pixels": (
        in_chunks((b"IDAT", ROWS), (b"tEXt", b"Comment\0" + bytes(99)))[:-50],
        "Truncated File Read",
    ),
    "PNG cut in its pixels": (PHOTO[: len(PHOTO) // 2], "truncated"),
    "PNG of damaged pixels": (in_chunks((b"IDAT", ROWS[:20] + bytes(20) + ROWS[40:])), "broken data stream"),
    "PNG without pixels": (in_chunks(), "cannot load this image"),
    "PNG of text compressed in no known way": (in_chunks((b"zTXt", b"key\0\x01abc"), (b"IDAT", ROWS)), "no format"),
    "PNG sent as text": (PHOTO.replace(b"\r\n", b"\n"), "no format"),
    "PNG with a wrong checksum": (replaced(PHOTO, PHOTO[29:33], b"\0\0\0\0"), "no format"),
    "animated PNG without frames": (
        in_chunks((b"acTL", struct.pack(">II", 2, 0)), (b"IDAT", ROWS), (b"fdAT", struct.pack(">I", 0) + ROWS)),
        "frame sequence",
    ),
    "BMP cut in its last row": (bmp(33, 5, 1, bytes(8 * 5 - 6)), "truncated"),
    "BMP of trillions of pixels": (bmp(3_000_000, 2_000_000, 4, b""), "decompression bomb"),
    "BMP of negative width": (bmp(-2, 3, 4, bytes(12)), "decompression bomb"),
    "BMP of few bytes for many pixels": (bmp(3_158_064, 48, 1, b""), "decompression bomb"),
    "BMP cut in its runs of 4 bits": (bmp(33, 5, 4, b"\x21\x10" * 3, compression=2), "not enough image data"),
    "BMP cut in its runs of 8 bits": (bmp(2554, 18_803, 8, b"\xff\x01" * 9, compression=1), "not enough image data"),
    "GIF without width": (gif(0, 1), "no format"),
}
if features.check("avif"):
    size = struct.pack(">II", 48, 32)
    BROKEN["AVIF of too many pixels"] = (
        replaced(encoded(SMOOTH, "AVIF"), size, struct.pack(">II", 17_000, 17_000)),
        "no format",
    )


def interlaced():
    """A PNG with a palette and transparency in the seven passes of Adam7."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row.tobytes() for x, y, dx, dy in passes for row in INDICES[y::dy, x::dx] if len(row)]
    header = struct.pack(">IIBBBBB", 5, 7, 8, 3, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"PLTE", PALETTE.tobytes()), (b"tRNS", SEE_THROUGH.tobytes())]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def two_bits(indices):
    """Pack numbers below 4 into bytes, four into each, the first in the highest bits."""
    padded = np.pad(indices, ((0, 0), (0, -indices.shape[1] % 4)))
    return [(row.reshape(-1, 4) @ np.array([64, 16, 4, 1])).astype(np.uint8).tobytes() for row in padded]


def rows_of_16_bits(values):
    return [row.astype(">u2").tobytes() for row in values]


def of_cmyk(cyan_to_black):
    """Return what four inks leave of white."""
    levels = 255.0 - np.asarray(cyan_to_black)
    return levels[..., :3] * levels[..., 3:] / 255


def stored(content):
    """Return the pixels as they are stored."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def frames(format, **options):
    pictures = [Image.fromarray(noise(169, 13, 3, seed=seed)) for seed in range(3)]
    return encoded(pictures[0], format, save_all=True, append_images=pictures[1:], **options)


CMYK = Image.frombytes("CMYK", (48, 32), np.dstack([SMOOTH, SMOOTH[..., 0]]).tobytes())
PER_CM = replaced(encoded(GREY[:1, :1], "JPEG", dpi=(7, 9)), b"JFIF\0\1\1\1", b"JFIF\0\1\1\2")
UPSIDE_DOWN = encoded(SMOOTH[::-1], "JPEG", quality=95, subsampling=0, exif=exif_of(4))
CLOCKWISE = encoded(np.rot90(SMOOTH).copy(), "WEBP", lossless=True, exif=exif_of(6))
WIDE = encoded(RGB[:1, :2], "JPEG", exif=exif_of(6))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="1"/></x:xmpmeta>'
BAD_EXIF = {
    "JPEG whose EXIF has no byte order": encoded(SMOOTH, "JPEG", exif=b"Exif\0\0" + b"\xff" * 4 + bytes(40)),
    "JPEG whose EXIF is cut": encoded(SMOOTH, "JPEG", exif=exif_of(6).tobytes()[:17]),
    "JPEG whose EXIF is text": encoded(SMOOTH, "JPEG", exif=b"Exif\0\0<x:xmpmeta>"),
    "JPEG whose EXIF points beyond itself": encoded(
        SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\xff\xff\x7f\xff\xff\xff"
    ),
}

UNUSUAL = {  # name: (content, the right pixels, how many grey levels they may be off)
    "JPEG of greys": (encoded(SMOOTH[..., 0], "JPEG", quality=95), grey(SMOOTH[..., 0]), 8),
    "JPEG of CMYK": (encoded(CMYK, "JPEG", quality=100, subsampling=0), of_cmyk(CMYK), 8),
    "JPEG with its dots per centimetre": (PER_CM, stored(PER_CM), 0),
    "JPEG with XMP and no EXIF": (encoded(SMOOTH, "JPEG", quality=95, subsampling=0, xmp=XMP), SMOOTH, 8),
    "JPEG upside down": (UPSIDE_DOWN, SMOOTH, 8),
    "JPEG of two pixels, turned": (WIDE, stored(WIDE).swapaxes(0, 1), 0),
    "WebP turned": (CLOCKWISE, SMOOTH, 0),
    "TIFF of 12 bits in 16": (encoded(DEEP, "TIFF"), grey(np.rint(DEEP / 257)), 0),
    "PNG of colours of 16 bits": (png(5, 16, 2, *rows_of_16_bits(RGB.reshape(7, 15) * np.uint16(257))), RGB, 0),
    "PNG of grey with alpha": (png(5, 8, 4, *map(bytes, np.dstack([GREY, ALPHA]))), on_white(grey(GREY), ALPHA), 0),
    "PNG of colours with alpha": (encoded(np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA), 0),
    "PNG of 16 bits with a transparent value": (
        png(5, 16, 0, *rows_of_16_bits(DEEP * 16), transparent=struct.pack(">H", DEEP[2, 3] * 16)),
        grey(np.where(DEEP[2, 3] == DEEP, 255, np.rint(DEEP * 16 / 257))),
        0,
    ),
    "PNG of 2 bits with transparent colours": (
        png(5, 2, 3, *two_bits(INDICES), palette=PALETTE.tobytes(), transparent=SEE_THROUGH[:3].tobytes()),
        on_white(PALETTE[INDICES], np.array([255, 128, 0, 255])[INDICES]),
        0,
    ),
    "PNG of one blue pixel": (png(1, 1, 3, b"\0", palette=b"\0\0\xff"), np.array([[[0, 0, 255]]]), 0),
    "interlaced PNG": (interlaced(), on_white(PALETTE[INDICES], SEE_THROUGH[INDICES]), 0),
    "animated PNG": (frames("PNG"), noise(169, 13, 3), 0),
    "animated WebP": (frames("WEBP", lossless=True), noise(169, 13, 3), 0),
    **{name: (content, SMOOTH, 20) for name, content in BAD_EXIF.items()},
}
