"""Pictures are turned upright as their EXIF says; a broken EXIF counts as upright."""

import io

import numpy as np
import pytest
from PIL import Image

from pictures import CHINA, RGB, decode, encoded, exif_of, with_info

STORED = {  # how a picture must be stored to be shown as it is
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, 1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: lambda picture: np.rot90(picture, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation, format):
    options = {"exif": exif_of(orientation), **({"lossless": True} if format == "WEBP" else {})}
    content = encoded(np.ascontiguousarray(STORED[orientation](RGB)), format, **options)
    np.testing.assert_array_equal(decode(content), RGB)
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_array_equal(decode(opened), RGB)
        np.testing.assert_array_equal(decode(opened), RGB)  # looking at it did not turn it


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12", b"Exif\0\0rubbish", b"", b"\xff" * 40])
def test_broken_exif_counts_as_upright(exif):
    np.testing.assert_array_equal(decode(with_info(Image.fromarray(RGB), exif=exif)), RGB)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_impossible_orientation_counts_as_upright(orientation):
    np.testing.assert_array_equal(decode(encoded(RGB, exif=exif_of(orientation))), RGB)


def test_photos_of_one_scene_look_alike_however_they_are_stored():
    photo = CHINA[:300, :400].astype(int)
    for orientation, turned in STORED.items():
        stored = np.ascontiguousarray(turned(CHINA[:300, :400]))
        content = encoded(stored, "JPEG", quality=87 + orientation, exif=exif_of(orientation))
        assert np.abs(decode(content) - photo).mean() < 4 < np.abs(decode(content)[::-1] - photo).mean()
