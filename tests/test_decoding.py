import colorsys
import csv
import io
import pickle
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sktransfer._exceptions import ImageError
from sktransfer._images import _decoding
from sktransfer._images._collection import as_images
from sktransfer._images._decoding import resize
from sktransfer._warnings import warnings_ignored

BAD_IMAGES = Path(__file__).parents[2] / "shared" / "data" / "bad_images"
rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
GREY = rng.integers(0, 256, (7, 5), dtype=np.uint8)
ALPHA = rng.integers(0, 256, (7, 5), dtype=np.uint8)


def decode(item, **options):
    return as_images([item], **options)[0]


def grey(levels):
    return np.repeat(np.asarray(levels)[..., None], 3, axis=2)


def on_white(colour, alpha):
    opacity = alpha[..., None] / 255
    return np.floor(colour * opacity + 255 * (1 - opacity) + 0.5)


def file(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width, depth, colour_type, row, transparent=b""):
    """A PNG of one row, of depths that Pillow itself cannot write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0))
    key = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def refuses(*words, **kwargs):
    """ImageError whose message has all the words."""
    return pytest.raises(ImageError, match="".join(f"(?=[\\s\\S]*{word})" for word in words), **kwargs)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "katze ü.png"
    Image.fromarray(RGB).save(path)
    return path


# ---- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array, value_range, expected",
    [
        (np.array([0, 7, 255], np.uint8), "auto", [0, 7, 255]),
        (np.array([0, 128, 129, 65535], np.uint16), "auto", [0, 0, 1, 255]),
        (np.array([0, 128, 129, 65535], ">u2"), "auto", [0, 0, 1, 255]),
        (np.array([False, True]), "auto", [0, 255]),
        (np.array([0, 0.5, 0.251, 1]), "auto", [0, 128, 64, 255]),
        (np.array([0, 0.25, 1], np.float16), "auto", [0, 64, 255]),
        (np.array([-1e-7, 1 + 1e-7]), "auto", [0, 255]),
        (np.array([0, 8, 16]), (0, 16), [0, 128, 255]),
        (np.array([0, 8, 16], np.uint8), (0, 16), [0, 128, 255]),
        (np.array([0, 7, 255], np.uint8), (0, 255), [0, 7, 255]),
        (np.array([-1, 0, 1], np.float32), (-1, 1), [0, 128, 255]),
        (np.array([-1000, 3000], np.int16), (-1000, 3000), [0, 255]),
        (np.array([False, True]), (0, 2), [0, 128]),
        (np.array([0, 2**40]), (0, 2**40), [0, 255]),
    ],
)
def test_values(array, value_range, expected):
    image = decode(array[None], value_range=value_range)
    np.testing.assert_array_equal(image, grey([expected]))


@pytest.mark.parametrize(
    "array, value_range, words",
    [
        (np.array([0, 200.5]), "auto", ["from 0 to 200.5", r"value_range=\(0, 255\)"]),
        (np.array([-0.5, 0.5]), "auto", ["from -0.5 to 0.5", r"value_range=\(-1, 1\)", "np.clip"]),
        (np.array([-0.5, 3.25]), "auto", [r"value_range=\(-0.5, 3.25\)"]),
        (np.array([0.0, 1.01]), "auto", ["from 0 to 1.01"]),
        (np.array([0.0, 1.00001]), "auto", ["from 0 to 1.00001"]),
        (np.array([0, 255]), "auto", ["int64 has no natural range", r"value_range=\(0, 255\)"]),
        (np.array([-5, 300], np.int16), "auto", ["int16", "from -5 to 300", r"value_range=\(-5.0, 300.0\)"]),
        (np.array([0, 17], np.uint8), (0, 16), ["from 0 to 17", r"0 \(black\) to 16 \(white\)", "np.clip"]),
        (np.array([-0.1, 1.0]), (0, 1), ["from -0.1 to 1"]),
    ],
)
def test_values_out_of_range(array, value_range, words):
    with refuses("image 0 ", "array of shape", *words):
        decode(array[None], value_range=value_range)


@pytest.mark.filterwarnings("ignore:.* comes out nearly black")
@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)))
@settings(max_examples=30, deadline=None)
def test_the_suggested_value_range_is_accepted(array):
    try:
        decode(array)
    except ImageError as error:
        suggestion = str(error).split("value_range=")[1].split(")")[0] + ")"
        decode(array, value_range=tuple(float(v) for v in suggestion.strip("()").split(",")))


@pytest.mark.filterwarnings("ignore:.* comes out nearly black")
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)), st.sampled_from(["HW", "HWC", "CHW"])
)
@settings(max_examples=30, deadline=None)
def test_dtypes_and_layouts_agree(array, layout):
    if layout == "HWC":
        array = np.stack([array] * 3, axis=2)
    elif layout == "CHW":
        array = np.stack([array] * 3)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] in (1, 3, 4):
        with refuses("first or last"):
            decode(array)
        return
    reference = decode(array)
    np.testing.assert_array_equal(decode(array / 255), reference)
    np.testing.assert_array_equal(decode((array / 255).astype(np.float32)), reference)
    np.testing.assert_array_equal(decode(array.astype(np.uint16) * 257), reference)
    np.testing.assert_array_equal(decode(array.astype(int), value_range=(0, 255)), reference)
    np.testing.assert_array_equal(decode(torch.from_numpy(array)), reference)


def test_rgba_of_floats():
    rgba = np.dstack([RGB, ALPHA])
    np.testing.assert_array_equal(decode(rgba / 255), on_white(RGB, ALPHA))


def test_arrays_are_copied():
    image = decode(RGB)
    image[:] = 0
    assert RGB.any()


# ---- modes of Pillow -----------------------------------------------------------------------------------------


def palette_image(transparency=None):
    image = Image.frombytes("P", (5, 7), (GREY // 64).tobytes())
    image.putpalette(sum(PALETTE, []))
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


PALETTE = [[255, 0, 0], [0, 200, 10], [3, 4, 5], [120, 130, 240]]
INDICES = GREY // 64
COLOURS = np.array(PALETTE, dtype=np.uint8)[INDICES]


def with_info(image, **info):
    image.info.update(info)
    return image


def hsv_expectation():
    h, s, v = (RGB[..., c] / 255 for c in range(3))
    return np.array([[colorsys.hsv_to_rgb(*p) for p in row] for row in np.stack([h, s, v], 2)]) * 255


def ycbcr_expectation():
    y, cb, cr = (RGB[..., c].astype(float) for c in range(3))
    cb, cr = cb - 128, cr - 128
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 2).clip(0, 255)


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


# a and b are signed bytes, outside of Pillow at least
LAB = np.stack([v.reshape(3, 6) for v in np.meshgrid([100, 120, 127], [-10, 0, 10], [-8, 8])], axis=2).astype(np.int8)
WIDE = rng.integers(0, 65536, (7, 5), dtype=np.uint16)
WIDE[0, :2] = 0, 65535
UNIT = rng.random((7, 5), dtype=np.float32)
CMYK = np.dstack([RGB, ALPHA])

MODES = {  # name: (image, expected RGB, tolerance in grey levels)
    "1": (Image.fromarray(GREY > 99), grey((GREY > 99) * 255), 0),
    "1 transparent": (with_info(Image.fromarray(GREY > 99), transparency=0), grey(GREY * 0 + 255), 0),
    "L": (Image.fromarray(GREY), grey(GREY), 0),
    "L transparent": (
        with_info(Image.fromarray(GREY), transparency=int(GREY[2, 3])),
        grey(np.where(GREY[2, 3] == GREY, 255, GREY)),
        0,
    ),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), on_white(grey(GREY), ALPHA), 0),
    "La": (
        Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).convert("La"),
        on_white(grey(GREY), ALPHA),
        2,
    ),
    "P": (palette_image(), COLOURS, 0),
    "P index": (palette_image(1), np.where((INDICES == 1)[..., None], 255, COLOURS), 0),
    "P bytes": (
        palette_image(bytes([255, 128, 0, 30])),
        on_white(COLOURS, np.array([255, 128, 0, 30])[INDICES]),
        0,
    ),
    "PA": (Image.merge("PA", [palette_image(), Image.fromarray(ALPHA)]), on_white(COLOURS, ALPHA), 0),
    "RGB": (Image.fromarray(RGB), RGB, 0),
    "RGB transparent": (
        with_info(Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[1, 1])),
        np.where((RGB[1, 1] == RGB).all(2, keepdims=True), 255, RGB),
        0,
    ),
    "RGBA": (Image.frombytes("RGBA", (5, 7), CMYK.tobytes()), on_white(RGB, ALPHA), 0),
    "RGBa": (Image.frombytes("RGBA", (5, 7), CMYK.tobytes()).convert("RGBa"), on_white(RGB, ALPHA), 2),
    "RGBX": (Image.frombytes("RGBX", (5, 7), CMYK.tobytes()), RGB, 0),
    "CMYK": (
        Image.frombytes("CMYK", (5, 7), CMYK.tobytes()),
        (255.0 - RGB) * (255 - ALPHA[..., None].astype(float)) / 255,
        1,
    ),
    "YCbCr": (Image.frombytes("YCbCr", (5, 7), RGB.tobytes()), ycbcr_expectation(), 1),
    "HSV": (Image.frombytes("HSV", (5, 7), RGB.tobytes()), hsv_expectation(), 2),
    "LAB": (
        Image.frombytes("LAB", (6, 3), LAB.tobytes()),
        lab_to_srgb(LAB[..., 0] / 2.55, LAB[..., 1], LAB[..., 2]),
        2,
    ),
    "I;16": (Image.fromarray(WIDE), grey(np.rint(WIDE / 257)), 0),
    "I;16B": (Image.frombytes("I;16B", (5, 7), WIDE.astype(">u2").tobytes()), grey(np.rint(WIDE / 257)), 0),
    "I;16L": (Image.frombytes("I;16L", (5, 7), WIDE.astype("<u2").tobytes()), grey(np.rint(WIDE / 257)), 0),
    "I;16 transparent": (
        with_info(Image.fromarray(WIDE), transparency=int(WIDE[3, 3])),
        grey(np.where(WIDE[3, 3] == WIDE, 255, np.rint(WIDE / 257))),
        0,
    ),
    "I": (Image.fromarray(WIDE.astype(np.int32)), grey(np.rint(WIDE / 257)), 0),
    "F": (Image.fromarray(UNIT), grey(np.rint(UNIT * 255)), 0),
}
MODES["PA"][0].putpalette(sum(PALETTE, []))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_modes(mode, orientation):
    image, expected, tolerance = MODES[mode]
    assert image.mode == mode.split()[0]
    expected = np.asarray(expected, dtype=float)
    if orientation == 6:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = with_info(image.copy(), exif=exif.tobytes())
        expected = np.rot90(expected, -1)
    before = image.tobytes(), dict(image.info)
    actual = decode(image)
    assert actual.shape == expected.shape and actual.dtype == np.uint8
    assert np.abs(actual - expected).max() <= tolerance + 0.5 * (tolerance > 0)
    assert (image.tobytes(), image.info) == before, "the user's image was changed"
    np.testing.assert_array_equal(actual, decode(pickle.loads(pickle.dumps(image))))


CONTAINER_FILES = {  # format: (options, modes that it can hold)
    "PNG": ({}, ["1", "L", "L transparent", "LA", "P", "P index", "P bytes", "RGB", "RGB transparent", "RGBA", "I;16"]),
    "TIFF": ({}, ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F"]),
    "BMP": ({}, ["1", "L", "P", "RGB"]),
    "GIF": ({}, ["1", "L", "P", "P index"]),
    "WEBP": ({"lossless": True, "exact": True}, ["RGB", "RGBA"]),
    "TGA": ({}, ["1", "L", "LA", "P", "RGB", "RGBA"]),
    "PPM": ({}, ["1", "L", "RGB", "I;16"]),
    "JPEG2000": ({"irreversible": False}, ["L", "RGB", "RGBA"]),
    "ICO": ({"sizes": [(5, 7)]}, ["RGBA"]),
    "PCX": ({}, ["1", "L", "P", "RGB"]),
    "SGI": ({}, ["L", "RGB", "RGBA"]),
    "QOI": ({}, ["RGB", "RGBA"]),
}
FILES = [(format, mode) for format, (_, modes) in CONTAINER_FILES.items() for mode in modes]


@pytest.mark.parametrize("format, mode", FILES, ids="-".join)
def test_container_formats(format, mode, tmp_path):
    image, expected, tolerance = MODES[mode]
    info = {"transparency": image.info["transparency"]} if format == "GIF" and "transparency" in image.info else {}
    content = file(image, format, **CONTAINER_FILES[format][0], **info)
    actual = decode(content)
    assert np.abs(actual - np.asarray(expected, dtype=float)).max() <= tolerance + 0.5 * (tolerance > 0)
    path = tmp_path / "image"
    path.write_bytes(content)
    np.testing.assert_array_equal(decode(path), actual)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(decode(opened), actual)
        assert opened.size == image.size


@pytest.mark.parametrize("format, options", [("JPEG", {"quality": 100, "subsampling": 0}), ("AVIF", {"quality": 100})])
def test_lossy_formats(format, options):
    if format == "AVIF":
        pytest.importorskip("PIL._avif")
    y, x = np.mgrid[:32, :48]
    smooth = np.stack([x * 5, y * 7, 255 - x * 4], 2).astype(np.uint8)
    assert np.abs(decode(file(Image.fromarray(smooth), format, **options)).astype(int) - smooth).max() <= 8
    if format == "JPEG":
        cmyk = Image.fromarray(smooth).convert("CMYK")
        assert np.abs(decode(file(cmyk, format, **options)).astype(int) - smooth).max() <= 8


@pytest.mark.parametrize(
    "content, expected",
    [
        (png(4, 2, 0, b"\x1b", struct.pack(">H", 2)), [0, 85, 255, 255]),
        (png(4, 4, 0, b"\x05\xaf", struct.pack(">H", 5)), [0, 255, 170, 255]),
        (png(2, 1, 0, b"\x40", struct.pack(">H", 0)), [255, 255]),
        (png(3, 16, 0, struct.pack(">3H", 1000, 2000, 65535), struct.pack(">H", 2000)), [4, 255, 255]),
        (png(2, 16, 2, struct.pack(">6H", *[2570] * 3, *[5140] * 3), struct.pack(">3H", *[5140] * 3)), [10, 255]),
        (png(2, 16, 4, struct.pack(">4H", 0, 65535, 0, 0)), [0, 255]),
        (png(2, 16, 6, struct.pack(">8H", 0, 0, 0, 65535, 0, 0, 0, 0)), [0, 255]),
    ],
)
def test_transparency_of_every_depth(content, expected):
    np.testing.assert_array_equal(decode(content), grey([expected]))


def test_first_frame_of_animations():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        content = file(
            frames[0],
            format,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if format == "WEBP" else {}),
        )
        np.testing.assert_array_equal(decode(content), np.full((4, 6, 3), [255, 0, 0]), err_msg=format)


@pytest.mark.parametrize("mode, dtype", [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)])
def test_value_range_of_deep_files(mode, dtype):
    values = (GREY.astype(int) * 16).astype(dtype)
    for item in (Image.fromarray(values), file(Image.fromarray(values), "TIFF")):
        expected = np.rint(GREY * 16.0 * 255 / 4095)
        np.testing.assert_array_equal(decode(item, value_range=(0, 4095)), grey(expected))
    with refuses("image 0", "0 .black. to 10"):
        decode(Image.fromarray(values), value_range=(0, 10))


@pytest.mark.parametrize("values", [[-1, 5], [0, 65536]])
def test_32_bits_beyond_16(values):
    image = Image.fromarray(np.array([values], dtype=np.int32))
    with refuses("int32 has no natural range", f"from {values[0]} to {values[1]}", "value_range="):
        decode(image)


def test_value_range_does_not_concern_8_bits():
    for item in (Image.fromarray(RGB), file(Image.fromarray(RGB)), file(Image.fromarray(GREY))):
        np.testing.assert_array_equal(decode(item, value_range=(0, 16)), decode(item))


# ---- EXIF ----------------------------------------------------------------------------------------------------

STORED = {  # how a picture must be stored to be shown as RGB
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: np.rot90(RGB, 1),
    7: RGB[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(RGB, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation, format, tmp_path):
    image, exif = Image.fromarray(np.ascontiguousarray(STORED[orientation])), Image.Exif()
    exif[0x0112] = orientation
    content = file(image, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(decode(content), RGB)
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_array_equal(decode(opened), RGB)
        np.testing.assert_array_equal(decode(opened), RGB)  # looking at it did not turn it


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12", b"Exif\0\0rubbish", b"", b"\xff" * 40])
def test_broken_exif_counts_as_upright(exif):
    np.testing.assert_array_equal(decode(with_info(Image.fromarray(RGB), exif=exif)), RGB)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_strips_are_seamless(mode, orientation, monkeypatch):
    image = Image.fromarray(rng.integers(0, 256, (23, 11), dtype=np.uint8))
    image = image.convert("I").convert(mode) if mode in ("I;16", "I", "F") else image.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    options = {"value_range": (0, 255)} if mode in ("I;16", "I", "F") else {}
    whole = decode(image, **options)
    monkeypatch.setattr(_decoding, "_STRIP_PIXELS", 50)
    np.testing.assert_array_equal(decode(image, **options), whole)
    assert whole.shape == ((11, 23, 3) if orientation == 6 else (23, 11, 3))
    assert len(np.unique(whole)) > 1


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_impossible_orientation_counts_as_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(file(Image.fromarray(RGB), exif=exif)), RGB)


# ---- broken files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_refused(format, tmp_path):
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = tmp_path / "half.img"
    content = file(noise, format)
    path.write_bytes(content[: len(content) // 2])
    for item in (path, path.read_bytes()):
        with refuses("Cannot read image 1 ", "half.img" if item is path else "bytes"):
            as_images([RGB, item])[1]


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP"]), st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_raise_nothing_but_image_error(format, data):
    content = bytearray(file(Image.fromarray(GREY), format))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**5)  # damaged headers may ask for gigabytes
        try:
            image = decode(bytes(content))
        except ImageError as error:
            assert "Cannot read image 0" in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3


@pytest.mark.parametrize("error", [OSError, SyntaxError, TypeError, KeyError, EOFError, StopIteration, zlib.error])
def test_whatever_a_decoder_throws(error, monkeypatch):
    def broken(*args, **kwargs):
        raise error("oh no")

    monkeypatch.setattr(_decoding.Image, "open", broken)
    with refuses("Cannot read image 0", "oh no") as caught:
        decode(b"...")
    assert isinstance(caught.value.__cause__, error)


def test_error_without_a_message(monkeypatch):
    monkeypatch.setattr(_decoding, "_pillow_levels", lambda *arguments: (_ for _ in ()).throw(AssertionError))
    with refuses("Cannot read image 0", "AssertionError"):
        decode(Image.fromarray(RGB))


def test_closed_and_truncated_pil_images(path):
    image = Image.open(path)
    image.close()
    with refuses("image 0", "PIL image of size 5x7"):
        decode(image)
    with Image.open(io.BytesIO(path.read_bytes()[:80])) as image, refuses("image 0", "PIL image"):
        decode(image)


def test_decompression_bomb(monkeypatch):
    content = file(Image.fromarray(GREY))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with refuses("35 pixels", "limit of 20 pixels", "MAX_IMAGE_PIXELS"):
        decode(content)


def test_pixel_limit_counts_what_is_decoded(monkeypatch):
    content = file(Image.new("RGB", (64, 48)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with refuses(
        "image 0", "64 x 48 = 3072 pixels exceed the limit of 2000 pixels for JPEG", "raise PIL.Image.MAX_IMAGE_PIXELS"
    ):
        decode(content)
    assert as_images([content]).decode(0, least_side=24).shape == (24, 32, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(content).shape == (48, 64, 3)


@pytest.mark.parametrize("format", ["EPS", "PDF", "SPIDER", "MSP", "XBM"])
def test_formats_that_are_not_read(format):
    mode = {"SPIDER": "F", "MSP": "1", "XBM": "1"}.get(format, "L")
    with refuses("image 0", r"no format that is read here \(.*PNG", "TIFF"):
        decode(file(Image.new(mode, (8, 8)), format))


def test_formats_that_the_user_registers_are_read(monkeypatch):
    def opener(fp, filename):
        return Image.new("RGB", (3, 2), "red")

    monkeypatch.setitem(Image.OPEN, "MINE", (opener, lambda prefix: prefix.startswith(b"MINE")))
    assert decode(b"MINE...")[0, 0].tolist() == [255, 0, 0]


def test_warnings_as_errors_change_nothing(monkeypatch):
    content = file(Image.new("L", (64, 48), 99), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # 3072 pixels: Pillow warns; decoded at a half they are few
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(content))
        assert [w.category for w in caught] == [Image.DecompressionBombWarning]

    def decode_half(content):
        return as_images([content]).decode(0, least_side=24)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            images = list(pool.map(decode_half, [content] * 50))
        assert list(warnings.filters) == before
        with pytest.raises(UserWarning):
            warnings.warn("others still are errors", stacklevel=1)
    assert np.shape(images) == (50, 24, 32, 3) and abs(np.array(images, int) - 99).max() <= 1


def test_overlapping_threads_restore_the_warning_filters():
    before, inside, leave = list(warnings.filters), threading.Event(), threading.Event()

    def hold():
        with warnings_ignored("PIL"):
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=hold)
    with warnings_ignored("PIL"):
        thread.start()
        assert inside.wait(5)
    assert len(warnings.filters) == len(before) + 1
    leave.set()
    thread.join()
    assert list(warnings.filters) == before


@pytest.mark.filterwarnings("ignore:image 17 .*12in16bit.tif. has values up to 30")
def test_real_bad_files():
    if not BAD_IMAGES.is_dir():
        pytest.skip(f"{BAD_IMAGES} is not there")
    with open(BAD_IMAGES / "index.csv", newline="") as index:
        rows = list(csv.DictReader(index))
    assert len(rows) == 39
    images = as_images([BAD_IMAGES / row["file"] for row in rows])
    pictures = {}
    for i, row in enumerate(rows):
        if row["pillow_open"] == row["pillow_load"] == "ok":
            pictures[row["file"]] = images[i]
            assert images[i].ndim == 3 and images[i].shape[2] == 3 and images[i].dtype == np.uint8
        else:
            with refuses(f"Cannot read image {i} ", row["file"]):
                images[i]
    _check_real_pictures(pictures)


def _check_real_pictures(pictures):
    def raw(name, mode=None):
        with Image.open(BAD_IMAGES / name) as image:
            return np.asarray(image.convert(mode) if mode else image)

    # Three photos of one scene, stored in different orientations, of different quality.
    a, b, c = (pictures[f"exif8__Landscape_{n}.jpg"].astype(int) for n in (2, 4, 6))
    assert a.shape == b.shape == c.shape == (1200, 1800, 3)
    assert max(np.abs(a - b).mean(), np.abs(a - c).mean()) < 4 < np.abs(a - a[::-1]).mean()
    # 1 is a rectangle, 6 a quarter turn.
    stored = raw("pillow__hopper_orientation_6.webp", "RGB")
    np.testing.assert_array_equal(pictures["pillow__hopper_orientation_6.webp"], np.rot90(stored, -1))
    rectangle = raw("pillow__orientation_rectangle.jpg", "RGB")
    assert pictures["pillow__orientation_rectangle.jpg"].shape == (*rectangle.shape[1::-1], 3)
    # Broken EXIF: as stored.
    for name in (
        "pillow__invalid-exif.jpg",
        "exif_samples__jpg__invalid__image00971.jpg",
        "pillow__hopper_bad_exif.jpg",
    ):
        np.testing.assert_array_equal(pictures[name], raw(name, "RGB"))
    # Depths and transparency.
    deep = raw("pillow__12in16bit.tif")
    np.testing.assert_array_equal(pictures["pillow__12in16bit.tif"], grey(np.rint(deep / 257)))
    deep = raw("pillow__i_trns.png")
    with Image.open(BAD_IMAGES / "pillow__i_trns.png") as image:
        key = image.info["transparency"]
    assert (deep == key).any()
    expected = np.where(deep == key, 255, np.rint(deep / 257))
    np.testing.assert_array_equal(pictures["pillow__i_trns.png"], grey(expected))
    rgba = raw("pillow__transparent.png", "RGBA")
    np.testing.assert_array_equal(pictures["pillow__transparent.png"], on_white(rgba[..., :3], rgba[..., 3]))
    la = raw("pngsuite__basn4a08.png")
    np.testing.assert_array_equal(pictures["pngsuite__basn4a08.png"], on_white(grey(la[..., 0]), la[..., 1]))
    with Image.open(BAD_IMAGES / "pngsuite__tm3n3p02.png") as image:
        alphas = np.frombuffer(image.info["transparency"].ljust(256, b"\xff"), np.uint8)
        colours, indices = np.reshape(image.getpalette(), (-1, 3)), np.asarray(image)
    expected = on_white(colours[indices], alphas[indices])
    np.testing.assert_array_equal(pictures["pngsuite__tm3n3p02.png"], expected)
    # PngSuite draws the same known ramps in every file: blue falls from corner to corner in basn2c16.
    assert pictures["pngsuite__basn2c16.png"][0, 0].tolist() == [255, 255, 0]
    assert pictures["pngsuite__s01n3p01.png"].tolist() == [[[0, 0, 255]]]
    # CMYK and LAB.
    c, m, y, k = np.moveaxis(255.0 - raw("pillow__pil_sample_cmyk.jpg"), -1, 0)
    expected = np.stack([c, m, y], axis=2) * k[..., None] / 255
    assert np.abs(pictures["pillow__pil_sample_cmyk.jpg"] - expected).max() <= 1
    lab = raw("pillow__lab.tif")
    expected = lab_to_srgb(lab[..., 0] / 2.55, *np.moveaxis(lab[..., 1:].view(np.int8), -1, 0))
    assert np.abs(pictures["pillow__lab.tif"] - expected).max() <= 2
    # Two containers of one animation begin with the same frame.
    np.testing.assert_allclose(pictures["pillow__iss634.apng"].mean(), pictures["pillow__iss634.webp"].mean(), atol=1)


# ---- resize ------------------------------------------------------------------------------------------------

FILTERS = ["nearest", "box", "bilinear", "bicubic", "lanczos"]
PHOTO = rng.integers(0, 256, (61, 97, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(61, 97), (1, 1), (13, 200), (30, 48), (122, 31)])
def test_resize_is_pillows(interpolation, size):
    expected = Image.fromarray(PHOTO).resize(size[::-1], getattr(Image.Resampling, interpolation.upper()))
    actual = resize(PHOTO, size, interpolation)
    np.testing.assert_array_equal(actual, np.asarray(expected))
    assert actual.flags.writeable and actual.flags.c_contiguous


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    "size, crop",
    [
        ((37, 59), (5, 16, 27, 27)),
        ((37, 59), (0, 0, 37, 59)),
        ((123, 195), (10, 40, 101, 99)),
        ((32, 51), (2, 11, 28, 28)),
        ((33, 77), (30, 0, 3, 77)),
    ],
)
def test_crop_equals_resize_then_crop(interpolation, size, crop):
    top, left, h, w = crop
    whole = resize(PHOTO, size, interpolation)
    window = resize(PHOTO, size, interpolation, crop=crop)
    assert window.shape == (h, w, 3) and window.flags.c_contiguous and window.flags.writeable
    np.testing.assert_array_equal(window, whole[top : top + h, left : left + w])


def test_crop_of_a_long_strip_computes_the_window_alone():
    strip = np.repeat(np.repeat(np.arange(4, dtype=np.uint8)[:, None, None], 65_000, axis=1), 3, axis=2)
    strip = np.ascontiguousarray(strip * 60)
    window = resize(strip, (224, 3_640_000), "bicubic", crop=(0, 1_800_000, 224, 224))  # the whole: 2.4 GB
    expected = resize(np.ascontiguousarray(strip[:, :50]), (224, 2800), "bicubic")[:, 1000:1224]
    assert np.abs(window.astype(int) - expected).max() <= 1
    smooth = np.ascontiguousarray(np.broadcast_to(np.linspace(0, 255, 2000)[:, None, None], (2000, 8, 3))).astype(
        np.uint8
    )
    whole = resize(smooth, (1751, 7), "bilinear")
    window = resize(smooth, (1751, 7), "bilinear", crop=(801, 0, 7, 7))
    difference = np.abs(window.astype(int) - whole[801:808])
    assert difference.max() <= 1


@pytest.mark.parametrize("crop", [(-1, 0, 5, 5), (0, 0, 11, 5), (6, 0, 5, 5), (0, 6, 5, 5), (0, 0, 0, 5)])
def test_window_beyond_the_image(crop):
    with pytest.raises(ValueError, match=r"not within the resized image, \(10, 10\)"):
        resize(PHOTO, (10, 10), "bilinear", crop=crop)


def test_unknown_interpolation():
    with pytest.raises(ValueError, match="nearest, box, bilinear, bicubic, lanczos; got 'cubic'"):
        resize(PHOTO, (10, 10), "cubic")
