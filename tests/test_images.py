"""The front door: every kind of image, every mode of file, every slip."""

import csv
import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sktransfer import ImageError
from sktransfer._images import as_images, is_flat, resize

BAD_IMAGES = Path(__file__).parents[2] / "shared" / "data" / "bad_images"
rng = np.random.default_rng(0)


def rgb(height=5, width=7):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(rgb()))
    return path


# --- containers -------------------------------------------------------------------------------------------


def test_every_kind_of_item_yields_the_same_pixels(file):
    tensor = torch.from_numpy(rgb())
    items = [
        str(file),
        file,
        file.read_bytes(),
        bytearray(file.read_bytes()),
        Image.open(file),
        Image.fromarray(rgb()),
        rgb(),
        rgb() / 255,
        (rgb() / 255).astype(np.float32),
        rgb().astype(np.uint16) * 257,
        tensor,
        tensor.permute(2, 0, 1),
        np.dstack([rgb(), np.full((5, 7), 255, dtype=np.uint8)]),
    ]
    images = as_images(items)
    assert len(images) == len(items)
    for index in range(len(items)):
        decoded = images[index]
        assert decoded.dtype == np.uint8
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, rgb(), err_msg=images.describe(index))


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        tuple,
        lambda paths: np.array(paths, dtype=object),
        np.array,
        lambda paths: np.array(paths)[:, None],
        pd.Series,
        lambda paths: pd.Series(paths, index=[7, 3]),
        lambda paths: pd.DataFrame({"image": paths}),
        lambda paths: pl.Series(paths),
        lambda paths: pl.DataFrame({"image": paths}),
    ],
)
def test_every_container(file, wrap):
    images = as_images(wrap([str(file), str(file)]))
    assert len(images) == 2
    np.testing.assert_array_equal(images[1], rgb())


@pytest.mark.parametrize(
    "stack",
    [
        lambda x: x,
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2),
        lambda x: x / 255,
        lambda x: torch.from_numpy(x / 255).to(torch.bfloat16).float(),
        np.asfortranarray,
        lambda x: x[:, ::-1][:, ::-1],
    ],
)
def test_stacked_arrays(stack):
    x = np.stack([rgb(), rgb()[::-1]])
    images = as_images(stack(x))
    assert len(images) == 2
    np.testing.assert_allclose(images[1].astype(int), rgb()[::-1], atol=1)


def test_bfloat16_tensor_is_read():
    assert as_images(torch.ones(2, 6, 6, dtype=torch.bfloat16))[0].min() == 255


def test_grey_stacks_repeat_their_channel():
    grey = rng.integers(0, 256, (3, 6, 9), dtype=np.uint8)
    for stack in (grey, grey[..., None], grey[:, None]):
        np.testing.assert_array_equal(as_images(stack)[2], np.repeat(grey[2][..., None], 3, axis=2))


def test_images_of_different_sizes_mix():
    images = as_images([rgb(5, 7), rgb(9, 8)[:, :, 0]])
    assert [images[i].shape for i in range(2)] == [(5, 7, 3), (9, 8, 3)]


def test_memory_mapped_array_is_read_row_by_row(tmp_path):
    shape = (200_000, 128, 128, 3)  # 9.8 GB of a sparse file; reading it all would take minutes
    x = np.memmap(tmp_path / "sparse", dtype=np.uint8, mode="w+", shape=shape)
    x[123_456, 1, 2] = (1, 2, 3)
    images = as_images(x)
    assert isinstance(images.items, np.memmap)
    assert images[123_456][1, 2].tolist() == [1, 2, 3]


def test_flat_rows():
    rows = rng.integers(0, 17, (4, 64)).astype(float)
    images = as_images(rows, image_shape=(8, 8), value_range=(0, 16))
    expected = np.rint(rows[3].reshape(8, 8) * 255 / 16)
    np.testing.assert_array_equal(images[3][:, :, 1], expected)
    assert as_images(rows, image_shape=(1, -1), value_range=(0, 16))[0].shape == (1, 64, 3)
    assert as_images(rows[:, :48], image_shape=(4, -1, 3), value_range=(0, 16))[0].shape == (4, 4, 3)
    frame = pd.DataFrame(rows)
    np.testing.assert_array_equal(as_images(frame, image_shape=(8, 8), value_range=(0, 16))[3], images[3])
    nested = rows.tolist()
    np.testing.assert_array_equal(as_images(nested, image_shape=(8, 8), value_range=(0, 16))[3], images[3])


def test_image_shape_settles_what_is_ambiguous():
    x = np.zeros((2, 3, 5, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match=r"channels first or as channels last.*image_shape=\(3, 5, 3\).*transpose"):
        as_images(x)
    assert as_images(x, image_shape=(3, 5, 3))[0].shape == (3, 5, 3)
    y = x.transpose(0, 2, 3, 1)
    assert as_images(y, image_shape=(5, 3, 3))[0].shape == (5, 3, 3)


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (np.zeros((2, 4)), True),
        ([[0.0, 1.0], [1.0, 0.0]], True),
        (pd.DataFrame(np.zeros((2, 4))), True),
        (np.zeros((2, 4, 4)), False),
        (["a.png"], False),
        (np.array(["a.png"]), False),
        (pd.DataFrame({"image": ["a.png"]}), False),
        ([np.zeros((4, 4))], False),
        ([Image.new("L", (2, 2))], False),
        (torch.zeros(2, 3, 8, 8), False),
        (torch.zeros(2, 16), True),
        (None, True),
        ([], True),
        (3, True),
    ],
)
def test_is_flat(X, expected):
    assert is_flat(X, (1, -1)) is expected
    assert is_flat(X, None) is False


def test_images_pickle(file):
    images = pickle.loads(pickle.dumps(as_images([str(file)])))
    np.testing.assert_array_equal(images[0], rgb())


def test_content_tells_images_apart(file):
    other = rgb()
    other[0, 0, 0] ^= 1
    images = as_images([str(file), file.read_bytes(), rgb(), other, rgb().reshape(7, 5, 3), Image.fromarray(rgb())])
    contents = [images.content(i) for i in range(6)]
    assert contents[0] == contents[1]
    assert contents[2] == contents[5]
    assert len(set(contents)) == 4
    assert images.path(0) == str(file)
    assert images.path(1) is None


# --- values -----------------------------------------------------------------------------------------------


def test_value_ranges():
    unit = np.linspace(0, 1, 12).reshape(1, 3, 4)
    expected = np.rint(unit[0] * 255)
    for x, value_range in [
        (unit, "auto"),
        (unit.astype(np.float32), (0, 1)),
        (unit * 2 - 1, (-1, 1)),
        (unit * 255, (0, 255)),
        (np.rint(unit * 65535).astype(np.uint16), "auto"),
        (unit - 1e-9, "auto"),
    ]:
        np.testing.assert_array_equal(as_images([x[0]], value_range=value_range)[0][:, :, 0], expected)
    assert as_images([np.eye(3, dtype=bool)])[0][:, :, 0].tolist() == (np.eye(3) * 255).tolist()
    assert as_images([np.eye(3, dtype=np.int64)], value_range=(0, 1))[0].max() == 255
    assert as_images([np.full((2, 2), 4095, dtype=np.uint16)], value_range=(0, 4095))[0].min() == 255


@pytest.mark.parametrize(
    ("x", "value_range", "message"),
    [
        (np.full((3, 3), 255.0), "auto", r"255.*value_range=\(0, 255\)"),
        (np.full((3, 3), -0.5), "auto", r"value_range=\(-1, 1\)"),
        (np.full((3, 3), 1e6), "auto", r"value_range=\(1000000.0, 1000000.0\)|value_range="),
        (np.full((3, 3), 7, dtype=np.int64), "auto", r"int64 have no natural range.*value_range=\(0, 255\)"),
        (np.full((3, 3), 9.0), (0, 8), r"between 9 and 9.*0 to 8.*np.clip"),
        (np.full((3, 3), np.nan), "auto", "image 1 .*NaN or infinity"),
        (np.full((3, 3), np.inf), (0, 1), "image 1 .*NaN or infinity"),
        (np.zeros((3, 3), dtype=complex), "auto", "complex128 is not numeric"),
        (np.zeros((0, 3)), "auto", "no pixels"),
        (np.zeros((4, 5, 6)), "auto", r"\(4, 5, 6\).*no dimension of 1, 3 or 4"),
        (np.zeros((2, 2, 2, 2)), "auto", r"got shape \(2, 2, 2, 2\)"),
    ],
)
def test_values_that_make_no_image(x, value_range, message):
    images = as_images([np.zeros((2, 2)), x], value_range=value_range)
    with pytest.raises(ImageError, match=message) as caught:
        images[1]
    assert "image 1" in str(caught.value)


@pytest.mark.parametrize("value_range", ["full", (1, 0), (0, np.inf), 3, (0, 1, 2), (None, 1)])
def test_impossible_value_range(value_range):
    with pytest.raises(ImageError, match="value_range must be"):
        as_images([rgb()], value_range=value_range)


# --- slips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("cat.png", r"got 'cat.png': pass \[X\]"),
        (Path("cat.png"), r"pass \[X\]"),
        (b"\x89PNG", r"pass \[X\]"),
        (Image.new("L", (2, 2)), r"pass \[X\]"),
        ([], "Found 0 image"),
        (np.zeros((0, 4, 4)), "Found 0 image"),
        ((path for path in ["a.png"]), "got generator. Pass list"),
        (None, "got NoneType"),
        (3, "got int"),
        (np.zeros((5, 64)), r"image_shape=\(8, 8\)"),
        (np.zeros((5, 3072)), r"image_shape=\(32, 32, 3\)"),
        (np.zeros((5, 10)), r"image_shape=\(height, width\)"),
        (np.zeros((10, 12, 3)), r"one colour image. Pass X\[None\]"),
        (np.zeros((1, 2, 3, 4, 5)), "got shape"),
        (np.zeros((2, 5, 6, 7)), "no dimension of 1, 3 or 4"),
        (np.array(["2020"], dtype="datetime64[Y]"), "datetime64"),
        ([[1, 2], [3]], "ragged"),
    ],
)
def test_slips(X, message):
    with pytest.raises(ImageError, match=message):
        as_images(X)


def test_folder_instead_of_files(tmp_path):
    with pytest.raises(ImageError, match="folder.*pass a list of the files in it"):
        as_images(str(tmp_path))
    with pytest.raises(ImageError, match="it is a folder"):
        as_images([str(tmp_path)])[0]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("missing.png", r"image 1 \(missing.png\).*No such file"),
        ("https://example.org/cat.png", "URL; download"),
        (None, r"image 1 \(NoneType\)"),
        (float("nan"), r"image 1 \(float\)"),
        ({"a": 1}, r"image 1 \(dict\)"),
        (b"no image", "cannot identify"),
    ],
)
def test_one_bad_item_is_named(file, item, message):
    images = as_images([str(file), item])
    images[0]
    with pytest.raises(ImageError, match=message):
        images[1]


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [((7, 7), "64 numbers cannot be reshaped"), ((64,), "2 or 3 entries"), ((4, 8, 2), "1, 3 or 4 channels")],
)
def test_impossible_image_shape(image_shape, message):
    with pytest.raises(ImageError, match=message):
        as_images(np.zeros((2, 64)), image_shape=image_shape)


def test_image_shape_that_differs_from_the_stack():
    with pytest.raises(ImageError, match=r"image_shape=\(9, 9\) differs"):
        as_images(np.zeros((2, 8, 8)), image_shape=(9, 9))


# --- files ------------------------------------------------------------------------------------------------


def on_white(colour, alpha):
    return np.rint((colour * alpha + 255.0 * (255 - alpha)) / 255)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (Image.new("L", (1, 1), 77), (77, 77, 77)),
        (Image.new("LA", (1, 1), (77, 100)), (on_white(77, 100),) * 3),
        (Image.new("RGB", (1, 1), (10, 20, 30)), (10, 20, 30)),
        (Image.new("RGBA", (1, 1), (10, 20, 30, 100)), tuple(on_white(c, 100) for c in (10, 20, 30))),
        (Image.new("RGBA", (1, 1), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), (0, 255, 255)),
        (Image.new("YCbCr", (1, 1), (128, 128, 128)), (128, 128, 128)),
        (Image.new("HSV", (1, 1), (0, 255, 255)), (255, 0, 0)),
        (Image.fromarray(np.full((1, 1), 32896, dtype=np.uint16)), (128, 128, 128)),
        (Image.fromarray(np.full((1, 1), 32896, dtype=np.int32)), (128, 128, 128)),
        (Image.fromarray(np.full((1, 1), 0.5, dtype=np.float32)), (128, 128, 128)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_modes(image, expected):
    np.testing.assert_array_equal(as_images([image])[0][0, 0], expected)


def test_premultiplied_modes():
    plain = Image.new("RGBA", (2, 2), (200, 100, 50, 128))
    got = as_images([plain.convert("RGBa")])[0]
    np.testing.assert_allclose(got[0, 0], on_white(np.array([200, 100, 50]), 128), atol=2)


def test_lab_mode():
    grey = as_images([Image.new("LAB", (1, 1), (128, 128, 128))])[0][0, 0]
    assert np.ptp(grey.astype(int)) <= 4  # a* = b* = 0 is neutral
    assert 100 < grey[0] < 140  # L* = 50 is sRGB 119


def test_palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert as_images([image])[0].tolist() == [[[255, 0, 0], [0, 0, 255]]]
    transparent = as_images([png(image, transparency=0)])[0]
    assert transparent.tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_grey_and_rgb_with_a_transparent_colour():
    image = Image.fromarray(np.array([[5, 9]], dtype=np.uint8))
    assert as_images([png(image, transparency=9)])[0][0, :, 0].tolist() == [5, 255]
    deep = Image.fromarray(np.array([[257, 2570]], dtype=np.uint16))
    assert as_images([png(deep)])[0][0, :, 0].tolist() == [1, 10]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert as_images([png(colour, transparency=(4, 5, 6))])[0][0, 1].tolist() == [255, 255, 255]


def test_sixteen_bit_files_take_value_range():
    deep = Image.fromarray(np.array([[0, 4095]], dtype=np.uint16))
    assert as_images([png(deep)], value_range=(0, 4095))[0][0, :, 0].tolist() == [0, 255]
    assert as_images([png(rgb())], value_range=(0, 4095))[0].tolist() == rgb().tolist()  # 8 bits are 0 … 255
    with pytest.raises(ImageError, match="image 0.*outside of 0 to 4000"):
        as_images([png(deep)], value_range=(0, 4000))[0]


def test_float_image_out_of_range():
    with pytest.raises(ImageError, match=r"value_range=\(0, 255\)"):
        as_images([Image.fromarray(np.full((2, 2), 200, dtype=np.float32))])[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = rgb(4, 6)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tiff", "webp"):
        path = tmp_path / f"photo.{suffix}"
        stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        np.testing.assert_array_equal(as_images([path])[0], upright, err_msg=suffix)
        np.testing.assert_array_equal(as_images([Image.open(path)])[0], upright, err_msg=suffix)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tiff"):
        path = tmp_path / f"film.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {}))
        assert as_images([path])[0][0, 0].tolist() == [255, 0, 0]


def test_users_image_is_left_as_it_was():
    image = Image.new("P", (3, 2), 0)
    before = image.tobytes(), image.mode, image.size
    as_images([image])[0]
    assert (image.tobytes(), image.mode, image.size) == before
    as_images([image])[0]  # still open


def test_no_pixel_of_a_truncated_file_is_invented(file):
    whole = file.read_bytes()
    refused = 0
    for length in range(len(whole)):
        try:
            got = as_images([whole[:length]])[0]
        except ImageError:
            refused += 1
        else:  # only checksums and the end mark were cut off
            np.testing.assert_array_equal(got, rgb())
    assert refused >= len(whole) - 24


@pytest.mark.skipif(not BAD_IMAGES.is_dir(), reason="the collection of broken files is not on this machine")
def test_real_broken_and_unusual_files():
    with (BAD_IMAGES / "index.csv").open() as index:
        rows = list(csv.DictReader(index))
    assert len(rows) == 39
    for row in rows:
        path = BAD_IMAGES / row["file"]
        readable = row["category"] not in ("truncated", "unreadable", "bomb", "odd_exception")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of some of these files before it refuses them
            if not readable:
                with pytest.raises(ImageError, match=row["file"]):
                    as_images([path])[0]
                continue
            got = as_images([path])[0]
        assert got.dtype == np.uint8
        assert got.ndim == 3
    landscapes = [as_images([BAD_IMAGES / f"exif8__Landscape_{k}.jpg"])[0].astype(int) for k in (2, 4, 6)]
    for other in landscapes[1:]:  # the same scene, however it is stored; JPEG leaves small differences
        assert other.shape == landscapes[0].shape == (1200, 1800, 3)
        assert abs(other - landscapes[0]).mean() < 4
    assert as_images([BAD_IMAGES / "pillow__orientation_rectangle.jpg"])[0].shape == (2, 1, 3)


# --- resizing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("shape", "size"), [((37, 53), (24, 30)), ((20, 20), (41, 33)), ((300, 200), (33, 22))])
def test_resize_crops_what_pillow_resizes(shape, size, interpolation):
    image = rgb(*shape)
    filters = {name.lower(): value for name, value in Image.Resampling.__members__.items()}
    whole = np.asarray(Image.fromarray(image).resize(size[::-1], filters[interpolation]))
    np.testing.assert_array_equal(resize(image, size, interpolation), whole)
    cropped = resize(image, size, interpolation, crop=(3, 5, 17, 16))
    np.testing.assert_array_equal(cropped, whole[3:20, 5:21])


# --- properties -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3),
    height=st.integers(5, 9),
    width=st.integers(5, 9),
    channels=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from(["uint8", "float32", "float64", "uint16", "bool"]),
    order=st.sampled_from("CF"),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_stack_equals_the_list_of_its_images(n, height, width, channels, dtype, order, seed):
    shape = (n, height, width) if channels is None else (n, height, width, channels)
    unit = np.random.default_rng(seed).random(shape)
    scale = {"uint8": 255, "uint16": 65535, "bool": 1.99}.get(dtype, 1)
    x = np.asarray(unit * scale, dtype=dtype, order=order)
    stacked, listed = as_images(x), as_images(list(x))
    for i in range(n):
        np.testing.assert_array_equal(stacked[i], listed[i])
        assert stacked[i].shape == (height, width, 3)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_random_bytes_never_escape_as_another_error(content):
    try:
        image = as_images([content])[0]
    except ImageError:
        return
    assert image.dtype == np.uint8
