"""Resizing is Pillow's, to the bit; a window of the result is what cutting it out afterwards would give."""

import numpy as np
import pytest
from PIL import Image

from pictures import noise
from sktransfer._images._decoding import resize

FILTERS = ["nearest", "box", "bilinear", "bicubic", "lanczos"]
PHOTO = noise(61, 97, 3)


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
