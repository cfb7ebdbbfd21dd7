"""`find_duplicates` on generated images."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pictures import encoded
from sktransfer import ImageError, find_duplicates
from sktransfer.datasets import make_wallpaper_groups
from tiny import digits

PATTERNS = list(make_wallpaper_groups(2, random_state=0).data)


def poor_jpeg(image):
    return encoded(image, "JPEG", quality=50)


def resized(image):
    return Image.fromarray(image).resize((80, 80), Image.Resampling.BICUBIC)


def brightened(image):
    return ImageEnhance.Brightness(Image.fromarray(image)).enhance(1.2)


@pytest.mark.parametrize("change", [poor_jpeg, resized, brightened])
@pytest.mark.parametrize("n", [2, len(PATTERNS)])
def test_copies_share_the_group_of_their_original_alone(change, n):
    groups = find_duplicates([*PATTERNS[:n], *(change(image) for image in PATTERNS[:n])])
    assert groups.tolist() == [*range(n), *range(n)]


def test_images_without_contrast_are_copies_only_if_equal():
    flat = [np.full((60, 60), level, dtype=np.uint8) for level in (0, 255, 128, 130, 128)]
    assert find_duplicates(flat).tolist() == [0, 1, 2, 3, 2]


def test_many_equal_images_are_one_group():
    assert find_duplicates([PATTERNS[0]] * 40 + PATTERNS[1:]).tolist() == [0] * 40 + list(range(1, len(PATTERNS)))


def test_mirrored_and_inverted_images_are_no_copies():
    assert find_duplicates([PATTERNS[0], PATTERNS[0][:, ::-1], 255 - PATTERNS[0]]).tolist() == [0, 1, 2]


def test_no_gain_makes_a_dark_image_a_white_one():
    shirt = np.zeros((64, 64), dtype=np.uint8)
    shirt[16:48, 16:48] = 255
    pattern = shirt // 3
    pattern[24:40, 24:40] = 60
    assert find_duplicates([shirt, pattern]).tolist() == [0, 1]


@pytest.mark.parametrize("side", [40, 64])
def test_small_copies_are_compared_at_their_size(side):
    small = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in PATTERNS[:3]]
    smaller = [image.resize((side * 2 // 3,) * 2, Image.Resampling.BICUBIC) for image in small]
    assert find_duplicates([*small, *smaller]).tolist() == [0, 1, 2, 0, 1, 2]


def test_the_smallest_images_are_copies_only_if_equal():
    images = np.rint(digits(400, 10)[0] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    groups = find_duplicates([*images, *images])
    assert groups.tolist() == [*range(400), *range(400)]


def test_no_tolerance_leaves_equal_images():
    assert find_duplicates([PATTERNS[0], PATTERNS[0], poor_jpeg(PATTERNS[0])], tolerance=0).tolist() == [0, 0, 1]


def test_one_image_and_threads():
    assert find_duplicates(PATTERNS[:1]).tolist() == [0]
    assert (find_duplicates(PATTERNS, n_jobs=2) == find_duplicates(PATTERNS)).all()


def test_unreadable_image_is_named():
    with pytest.raises(ImageError, match="image 1"):
        find_duplicates([PATTERNS[0], b"no image"])


def test_what_is_white_in_both_is_no_likeness():
    wave = np.sin(np.arange(64) / 10)
    plain, crossed = (np.full((192, 192), 255, dtype=np.uint8) for _ in range(2))
    plain[64:128, 64:128] = 100 + 12 * wave
    crossed[64:128, 64:128] = 100 + 12 * wave + 10 * wave[:, None]
    assert find_duplicates([plain, crossed, poor_jpeg(plain)]).tolist() == [0, 1, 0]
