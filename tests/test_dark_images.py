"""Pictures of more than 8 bits that use little of their range come out nearly black, which is said once."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from pictures import encoded, png
from sktransfer import PretrainedCNNFeatures, find_bad_images, find_duplicates
from sktransfer._images._collection import as_images
from tiny import TINY

rng = np.random.default_rng(0)


def deep(bits, n=20):
    stack = rng.integers(0, 2**bits, (n, 16, 12), dtype=np.uint16)
    stack[:, 0, 0] = 2**bits - 1
    return stack


def says(top, highest=None):
    highest = top if highest is None else highest
    return pytest.warns(
        UserWarning, match=rf"^image 0 .*up to {highest:g}, .*nearly black.*value_range=\(0, {top:g}\)\."
    )


KINDS = {
    "stack": lambda stack: stack,
    "arrays": list,
    "tensor": torch.from_numpy,
    "flat rows": lambda stack: stack.reshape(len(stack), -1),
    "PIL I;16": lambda stack: [Image.fromarray(image) for image in stack],
    "PIL I": lambda stack: [Image.fromarray(image.astype(np.int32)) for image in stack],
    "PNG": lambda stack: [encoded(image) for image in stack],
    "TIFF": lambda stack: [encoded(image, "TIFF") for image in stack],
    "TIFF of 32 bits": lambda stack: [encoded(image.astype(np.int32), "TIFF") for image in stack],
}


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14])
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_bits_than_the_file_are_said_once(kind, bits):
    X, options = KINDS[kind](deep(bits)), {"image_shape": (16, 12)} if kind == "flat rows" else {}
    with says(2**bits - 1) as caught:
        list(as_images(X, **options))
    assert len(caught) == 1
    decoded = list(as_images(X, **options, value_range=(0, 2**bits - 1)))  # the advice, which says nothing more
    assert np.max(decoded) == 255


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_use_their_range_say_nothing(kind):
    options = {"image_shape": (16, 12)} if kind == "flat rows" else {}
    list(as_images(KINDS[kind](deep(15)), **options))


@pytest.mark.parametrize("highest, top", [(3000, 4095), (200, 255), (1, 1)])
def test_the_range_is_what_so_many_bits_hold(highest, top):
    with says(top, highest):
        as_images([np.full((4, 4), highest, np.uint16)])[0]


def test_one_dark_frame_among_others_is_what_it_is():
    stack = deep(16)
    stack[0] //= 100
    list(as_images(stack))
    stack[:] = 0
    list(as_images(stack))  # all black: no range would help


def test_a_first_frame_darker_than_others_does_not_set_the_range():
    stack = deep(12)
    stack[0] //= 10
    with pytest.warns(UserWarning, match=r"^image [1-9]\d* .*up to 4095.*value_range=\(0, 4095\)"):
        list(as_images(stack))


def test_dark_floats():
    twelve_bits = deep(12) / 65535  # as skimage.img_as_float makes them
    with pytest.warns(UserWarning, match=r"up to 0.0624857, where 1 is white.*value_range=\(0, 0.0625\)"):
        list(as_images(twelve_bits))
    list(as_images(np.full((4, 8, 8), 0.1)))  # a night, as floats


def test_dark_pictures_of_8_bits_say_nothing():
    night = rng.integers(0, 9, (5, 8, 8), dtype=np.uint8)
    list(as_images(night))
    list(as_images([encoded(image) for image in night]))


def test_colours_of_16_bits():
    """Pillow keeps the upper half of each, so no value_range can help."""

    def picture(values):
        return png(16, 16, 2, *(row.astype(">u2").tobytes() for row in values))

    colours = rng.integers(0, 4096, (20, 3 * 16), dtype=np.uint16)
    with pytest.warns(UserWarning, match="image 0 .* colours of 16 bits.*another library"):
        as_images([picture(colours)])[0]
    as_images([picture(colours * 16)])[0]


def test_threads_say_it_once():
    for find in (find_bad_images, find_duplicates):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            find(list(deep(12, 300)), n_jobs=4)
        assert len([w for w in caught if "nearly black" in str(w.message)]) == 1


def test_warnings_as_errors_are_no_bad_images():
    with pytest.raises(UserWarning, match="nearly black"):
        find_bad_images(deep(12))


def test_features_warn_and_are_what_they_were():
    X = deep(12)
    with says(4095):
        features = PretrainedCNNFeatures(**TINY).fit_transform(X)
    np.testing.assert_array_equal(features, PretrainedCNNFeatures(**TINY, value_range=(0, 65535)).fit_transform(X))


def _warned(images):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(images)
    return [str(w.message) for w in caught]


def test_workers_say_it_too():
    images = as_images(deep(12))
    assert len(_warned(pickle.loads(pickle.dumps(images)))) == 1
    (said,) = joblib.Parallel(n_jobs=2)([joblib.delayed(_warned)(images)])
    assert len(said) == 1 and "nearly black" in said[0]
