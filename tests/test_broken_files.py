"""A file that cannot be read raises an `ImageError` that names it, whatever is wrong with it; no other error."""

import io
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from odd_files import BROKEN
from pictures import GREY, RGB, decode, encoded, noise, refuses
from sktransfer import ImageError
from sktransfer._images import _decoding
from sktransfer._images._collection import as_images
from sktransfer._warnings import warnings_ignored


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_refused(format, tmp_path):
    path = tmp_path / "half.img"
    content = encoded(noise(64, 64, 3), format)
    path.write_bytes(content[: len(content) // 2])
    for item in (path, path.read_bytes()):
        with refuses("Cannot read image 1 ", "half.img" if item is path else "bytes"):
            as_images([RGB, item])[1]


@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP"]), st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_raise_nothing_but_image_error(format, data):
    content = bytearray(encoded(GREY, format))
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


@pytest.mark.parametrize("name", BROKEN)
def test_faults_that_real_files_have_had(name, tmp_path):
    content, words = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    images = as_images([tmp_path / name, content])
    with refuses("Cannot read image 0 ", name, words):
        images[0]
    with refuses("Cannot read image 1 ", f"{len(content)} bytes", words):
        images[1]


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


def test_closed_and_truncated_pil_images(tmp_path):
    content = encoded(RGB)
    (tmp_path / "closed.png").write_bytes(content)
    image = Image.open(tmp_path / "closed.png")
    image.close()
    with refuses("image 0", "PIL image of size 5x7"):
        decode(image)
    with Image.open(io.BytesIO(content[:80])) as image, refuses("image 0", "PIL image"):
        decode(image)


def test_decompression_bomb(monkeypatch):
    content = encoded(GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with refuses("35 pixels", "limit of 20 pixels", "MAX_IMAGE_PIXELS"):
        decode(content)


def test_pixel_limit_counts_what_is_decoded(monkeypatch):
    content = encoded(Image.new("RGB", (64, 48)), "JPEG")
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
        decode(encoded(Image.new(mode, (8, 8)), format))


def test_formats_that_the_user_registers_are_read(monkeypatch):
    def opener(fp, filename):
        return Image.new("RGB", (3, 2), "red")

    monkeypatch.setitem(Image.OPEN, "MINE", (opener, lambda prefix: prefix.startswith(b"MINE")))
    assert decode(b"MINE...")[0, 0].tolist() == [255, 0, 0]


def test_warnings_as_errors_change_nothing(monkeypatch):
    content = encoded(Image.new("L", (64, 48), 99), "JPEG")
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
