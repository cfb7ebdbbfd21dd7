"""What is read is right: known pixels of every type of array, every mode of Pillow and every container format."""

import colorsys
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from odd_files import UNUSUAL
from pictures import (
    ALPHA,
    GREY,
    RGB,
    SMOOTH,
    decode,
    encoded,
    exif_of,
    grey,
    lab_to_srgb,
    noise,
    on_white,
    png,
    refuses,
    with_info,
)
from sktransfer import ImageError
from sktransfer._images import _decoding

rng = np.random.default_rng(1)


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


def hsv_expectation():
    h, s, v = (RGB[..., c] / 255 for c in range(3))
    return np.array([[colorsys.hsv_to_rgb(*p) for p in row] for row in np.stack([h, s, v], 2)]) * 255


def ycbcr_expectation():
    y, cb, cr = (RGB[..., c].astype(float) for c in range(3))
    cb, cr = cb - 128, cr - 128
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 2).clip(0, 255)


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
        image = with_info(image.copy(), exif=exif_of(6).tobytes())
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
    content = encoded(image, format, **CONTAINER_FILES[format][0], **info)
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
    assert np.abs(decode(encoded(SMOOTH, format, **options)).astype(int) - SMOOTH).max() <= 8
    if format == "JPEG":
        cmyk = Image.fromarray(SMOOTH).convert("CMYK")
        assert np.abs(decode(encoded(cmyk, format, **options)).astype(int) - SMOOTH).max() <= 8


@pytest.mark.parametrize(
    "content, expected",
    [
        (png(4, 2, 0, b"\x1b", transparent=struct.pack(">H", 2)), [0, 85, 255, 255]),
        (png(4, 4, 0, b"\x05\xaf", transparent=struct.pack(">H", 5)), [0, 255, 170, 255]),
        (png(2, 1, 0, b"\x40", transparent=struct.pack(">H", 0)), [255, 255]),
        (png(3, 16, 0, struct.pack(">3H", 1000, 2000, 65535), transparent=struct.pack(">H", 2000)), [4, 255, 255]),
        (
            png(2, 16, 2, struct.pack(">6H", *[2570] * 3, *[5140] * 3), transparent=struct.pack(">3H", *[5140] * 3)),
            [10, 255],
        ),
        (png(2, 16, 4, struct.pack(">4H", 0, 65535, 0, 0)), [0, 255]),
        (png(2, 16, 6, struct.pack(">8H", 0, 0, 0, 65535, 0, 0, 0, 0)), [0, 255]),
    ],
)
def test_transparency_of_every_depth(content, expected):
    np.testing.assert_array_equal(decode(content), grey([expected]))


@pytest.mark.filterwarnings("ignore:image 0 .* has values up to 2[0-9]{3}, .* comes out nearly black")
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_files(name):
    content, expected, tolerance = UNUSUAL[name]
    actual = decode(content)
    assert actual.shape == expected.shape and actual.dtype == np.uint8
    assert np.abs(actual - expected.astype(float)).max() <= tolerance


def test_first_frame_of_animations():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        content = encoded(
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
    for item in (Image.fromarray(values), encoded(values, "TIFF")):
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
    for item in (Image.fromarray(RGB), encoded(RGB), encoded(GREY)):
        np.testing.assert_array_equal(decode(item, value_range=(0, 16)), decode(item))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_strips_are_seamless(mode, orientation, monkeypatch):
    image = Image.fromarray(noise(23, 11))
    image = image.convert("I").convert(mode) if mode in ("I;16", "I", "F") else image.convert("RGB").convert(mode)
    image.info["exif"] = exif_of(orientation).tobytes()
    options = {"value_range": (0, 255)} if mode in ("I;16", "I", "F") else {}
    whole = decode(image, **options)
    monkeypatch.setattr(_decoding, "_STRIP_PIXELS", 50)
    np.testing.assert_array_equal(decode(image, **options), whole)
    assert whole.shape == ((11, 23, 3) if orientation == 6 else (23, 11, 3))
    assert len(np.unique(whole)) > 1
