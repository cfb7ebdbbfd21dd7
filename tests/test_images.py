"""Whatever holds the images, the images are the same; slips are named; what is doubtful counts as flat rows."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

from pictures import ALPHA, GREY, RGB, decode, encoded, exif_of, grey, noise, on_white, refuses, with_info
from sktransfer._images._collection import Images, as_images, is_flat

# ---- containers --------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "katze ü.png"
    Image.fromarray(RGB).save(path)
    return path


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "object array": lambda items: _objects(items),
    "object column": lambda items: _objects(items)[:, None],
    "pandas Series": lambda items: pd.Series(items, index=range(10, 10 + len(items)), dtype=object),
    "pandas DataFrame": lambda items: pd.DataFrame({"image": pd.Series(items, dtype=object)}),
    "polars Series": lambda items: pl.Series("image", items, dtype=pl.Object),
    "polars DataFrame": lambda items: pl.DataFrame({"image": pl.Series(items, dtype=pl.Object)}),
}


def _objects(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_mixed_kinds_and_sizes(container, path):
    small = GREY[:3, :4]
    items = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.fromarray(RGB), RGB]
    items += [torch.from_numpy(RGB), small]
    X = CONTAINERS[container](items)
    images = as_images(X)
    assert isinstance(images, Images) and len(images) == len(items)
    for image in list(images)[:-1]:
        np.testing.assert_array_equal(image, RGB)
    np.testing.assert_array_equal(images[-1], grey(small))
    assert not is_flat(X, (8, 8))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: np.array([p, p]),
        lambda p: np.array([[p], [p]]),
        lambda p: [[p], [p]],
        lambda p: pd.Series([p, p]),
        lambda p: pd.Series([p, p], dtype="category"),
        lambda p: pd.DataFrame({"path": [p, p]}),
        lambda p: pl.Series([p, p]),
        lambda p: pl.DataFrame({"path": [p, p]}),
    ],
)
def test_containers_of_paths(wrap, path):
    images = as_images(wrap(str(path)))
    assert len(images) == 2
    assert images.path(1) == str(path)
    np.testing.assert_array_equal(images[1], RGB)
    assert not is_flat(wrap(str(path)), (8, 8))


def test_polars_columns_of_bytes_and_of_arrays():
    content = encoded(RGB)
    np.testing.assert_array_equal(as_images(pl.DataFrame({"image": [content]}))[0], RGB)
    stack = pl.Series("image", np.stack([GREY, GREY]), dtype=pl.Array(pl.UInt8, GREY.shape))
    np.testing.assert_array_equal(as_images(stack)[1], grey(GREY))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, np.ndarray.tolist])
@pytest.mark.parametrize(
    "stack, expected, image_shape",
    [
        (np.stack([GREY, ALPHA]), grey(ALPHA), None),
        (np.stack([GREY, ALPHA])[..., None], grey(ALPHA), None),
        (np.stack([GREY, ALPHA])[:, None], grey(ALPHA), None),
        (np.stack([RGB, RGB[::-1]]), RGB[::-1], None),
        (np.stack([RGB, RGB[::-1]]).transpose(0, 3, 1, 2), RGB[::-1], None),
        (np.stack([np.dstack([RGB, ALPHA])] * 2), on_white(RGB, ALPHA), None),
        (np.stack([RGB[:3], RGB[3:6]]), RGB[3:6], (3, 5, 3)),
        (np.stack([RGB[:3], RGB[3:6]]), RGB[3:6], (-1, 5, 3)),
        (np.stack([GREY[:, :3], ALPHA[:, :3]]), grey(ALPHA[:, :3]), (7, 3)),
    ],
)
def test_stacks(convert, stack, expected, image_shape):
    X, limits = convert(stack), "auto" if convert is not np.ndarray.tolist else (0, 255)
    images = as_images(X, image_shape=image_shape, value_range=limits)
    assert len(images) == 2
    np.testing.assert_array_equal(images[1], expected)
    assert images[1].dtype == np.uint8 and images[1].flags.c_contiguous and images[1].flags.writeable
    assert not is_flat(stack, image_shape or (8, 8))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, np.ndarray.tolist, list, pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("image_shape", [(4, 6), (2, 4, 3), [4, -1], (-1, 4, 3), (1, -1), (np.int64(2), 3, 4)])
def test_flat_rows(convert, image_shape):
    flat = np.linspace(0, 1, 48).reshape(2, 24)
    X = convert(flat)
    assert is_flat(X, image_shape)
    expected = np.rint(flat[1] * 255).reshape(image_shape)
    image = as_images(X, image_shape=image_shape)[1]
    if expected.ndim == 2:
        expected = grey(expected)
    if expected.shape[2] == 4:
        expected = on_white(expected[..., :3], expected[..., 3])
    np.testing.assert_array_equal(image, expected)


def test_object_array_of_equal_arrays_is_a_stack():
    stack = np.array([GREY / 255, ALPHA / 255], dtype=object)
    assert stack.shape == (2, 7, 5)
    np.testing.assert_array_equal(as_images(stack)[1], grey(ALPHA))


def test_memory_map_is_read_row_by_row(tmp_path):
    name = tmp_path / "big.dat"
    rows = 10**6  # 150 GB on paper, nothing on disk
    with open(name, "wb") as f:
        f.truncate(rows * 150_528)
        f.seek(7 * 150_528)
        f.write(b"\xff")
    images = as_images(np.memmap(name, np.uint8, "r", shape=(rows, 224, 224, 3)))
    assert len(images) == rows
    assert images[7].sum() == 255 and images[-1].sum() == 0
    assert len(images.content(7)) < 151_000


def test_stack_that_is_no_numpy_array_is_indexed_row_by_row():
    class Dataset:  # as h5py and zarr have it
        shape, dtype = (3, 7, 5), np.dtype("u1")

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return GREY + np.uint8(i)

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("read as a whole")

    np.testing.assert_array_equal(as_images(Dataset())[2], grey(GREY + np.uint8(2)))


def test_as_images_of_images():
    images = as_images(np.stack([GREY, ALPHA]))
    np.testing.assert_array_equal(as_images(images)[1], images[1])


def test_negative_numpy_and_outside_indices():
    images = as_images(np.stack([GREY, ALPHA]))
    np.testing.assert_array_equal(images[-1], images[np.int64(1)])
    assert images.describe(-1) == "image 1 (array of shape (7, 5), uint8)"
    with pytest.raises(IndexError):
        images[2]
    with pytest.raises(TypeError):
        images[0:1]
    assert len(list(images)) == 2


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint16]
)
def test_tensors_of_any_dtype(dtype):
    tensor = torch.tensor([[0, 1], [1, 0]]).mul(65535 if dtype == torch.uint16 else 1).to(dtype)
    white = 1 if dtype == torch.uint8 else 255
    for X in (tensor[None], [tensor]):
        np.testing.assert_array_equal(as_images(X)[0][..., 0], [[0, white], [white, 0]])


def test_tensor_with_gradient():
    parameter = torch.nn.Parameter(torch.ones(3, 4, 5))
    assert (decode(parameter) == 255).all()


# ---- slips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "X, words",
    [
        ("cat.jpg", ["single one, cat.jpg", r"list: \[X\]"]),
        (Path("cat.jpg"), ["single one, cat.jpg", r"list: \[X\]"]),
        (b"\xff\xd8", ["single one, 2 bytes", r"list: \[X\]"]),
        (Image.new("P", (3, 2)), ["single one, PIL image of size 3x2, mode P", r"list: \[X\]"]),
        ("/", ["the directory /", "list of files"]),
        ([], [r"Found 0 image\(s\)"]),
        (np.empty((0, 8, 8)), [r"Found 0 image\(s\)"]),
        (pd.Series([], dtype=object), [r"Found 0 image\(s\)"]),
        ((i for i in [GREY]), ["got a generator", r"list\(X\)"]),
        (map(str, []), ["got a map", r"list\(X\)"]),
        (None, ["got None", "Pass a list"]),
        (3.5, ["got 3.5", "Pass a list"]),
        ({"a": 1}, ["a dict", "Pass a list"]),
        ({"a.png"}, ["a set", "Pass a list"]),
        (np.array(3.5), ["ndarray", "Pass a list"]),
        (np.zeros(64), [r"shape \(64,\)", "numbers"]),
        (pd.Series([1.0, 2.0]), [r"shape \(2,\)", "numbers"]),
        (np.zeros((5, 64)), [r"shape \(5, 64\)", r"image_shape=\(8, 8\)", r"X\[None\]"]),
        (np.zeros((5, 3072)), [r"image_shape=\(32, 32, 3\)"]),
        (torch.zeros(5, 784), [r"image_shape=\(28, 28\)"]),
        ([[0.0] * 65] * 2, [r"shape \(2, 65\)", r"image_shape=\(H, W\)"]),
        (pd.DataFrame(np.zeros((5, 64))), [r"image_shape=\(8, 8\)"]),
        (pl.DataFrame(np.zeros((5, 64))), [r"image_shape=\(8, 8\)"]),
        (RGB, [r"shape \(7, 5, 3\)", "one image with 3 channels", r"X\[None\]", r"image_shape=\(5, 3\)", "7 grey"]),
        (np.zeros((7, 5, 4)), ["one image with 4 channels", r"image_shape=\(5, 4\)"]),
        (np.zeros((7, 5, 1)), ["one image with 1 channels"]),
        (np.zeros((2, 3, 9, 3)), ["first or last", r"image_shape=\(3, 9, 3\)", r"X.transpose\(0, 2, 3, 1\)"]),
        (np.zeros((2, 1, 1, 1)), ["first or last"]),
        (np.zeros((2, 8, 9, 5)), [r"shape \(2, 8, 9, 5\)", r"\(H, W, C\) with 1, 3 or 4 channels"]),
        (np.zeros((2, 4, 9, 9)), [r"\(C, H, W\) with 1 or 3"]),
        (np.zeros((2, 2, 9, 9, 3)), [r"\(H, W, C\)"]),
        (np.zeros((2, 0, 9)), ["no pixels"]),
        ([[1, 2], [3]], ["differ in length", "np.asarray"]),
        (pd.DataFrame({"path": ["a.png"], "label": [1]}), ["table", r"X\['path'\]"]),
        (pd.DataFrame({"path": ["a.png"], "label": ["b"]}), ["table", r"X\['path'\]"]),
    ],
)
def test_slips_with_the_whole(X, words):
    with refuses(*words):
        as_images(X)


def test_sparse_matrix():
    sparse = pytest.importorskip("scipy.sparse")
    with refuses("sparse", r"X.toarray\(\)"):
        as_images(sparse.eye(3))


@pytest.mark.parametrize(
    "item, words",
    [
        ("no/such/cat.jpg", ["no/such/cat.jpg", "no such file", "Relative paths start"]),
        ("/", [r"\(/\)", "directory"]),
        ("https://example.com/cat.jpg", [r"example.com/cat.jpg", "URL", "Download it first"]),
        (b"", ["0 bytes", "no format"]),
        (b"not a picture", ["13 bytes", "no format that is read here"]),
        (None, [r"\(None\)", "missing"]),
        (float("nan"), [r"\(nan\)", "missing"]),
        (np.float64("nan"), ["missing"]),
        (pd.NA, ["<NA>", "missing"]),
        (pd.NaT, ["missing"]),
        (3, [r"\(3\)", "it is a int", "Expected a path"]),
        (np.float32(3), ["it is a float32", "Expected a path"]),
        ({"image": 1}, ["dict", "Pass the value", "for row in X"]),
        (object(), ["it is a object", "Expected a path"]),
        (np.zeros(64), [r"array of shape \(64,\), float64", r"image_shape=\(8, 8\)"]),
        (np.zeros(()), [r"shape \(\)", r"\(H, W\)"]),
        (np.zeros((3, 9, 3)), ["first or last", r"image_shape=\(3, 9, 3\)", r"image.transpose\(1, 2, 0\)"]),
        (np.zeros((2, 2, 2)), [r"\(H, W\)", r"got \(2, 2, 2\)"]),
        (np.zeros((0, 5)), ["no pixels"]),
        (torch.zeros(3, 0, 5), [r"tensor of shape \(3, 0, 5\), torch.float32", "no pixels"]),
        (np.zeros((2, 2), complex), ["complex128"]),
        (np.zeros((2, 2), "M8[s]"), ["datetime64"]),
        (np.array([["a", "b"]]), ["<U1"]),
        (np.array([["a", None]], dtype=object), ["object"]),
        (np.array([[0, np.nan]]), ["NaN", "nan_to_num"]),
        (np.array([[0, -np.inf]], dtype=np.float32), ["infinity"]),
        (torch.zeros(2, 2, dtype=torch.complex64), ["complex64"]),
        (Image.new("L", (3, 0)), ["PIL image of size 3x0"]),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else type(part).__name__,
)
def test_slips_with_one_image(item, words):
    images = as_images([RGB, item])
    assert len(images[0]) == 7
    with refuses(r"Cannot read image 1 \(", *words):
        images[1]


def test_empty_file(tmp_path):
    (tmp_path / "empty.png").touch()
    with refuses("empty.png", "the file is empty"):
        decode(tmp_path / "empty.png")


def test_nan_names_its_row():
    flat = np.zeros((4, 64))
    flat[2, 5] = np.nan
    with refuses("image 2 ", "NaN"):
        list(as_images(flat, image_shape=(8, 8)))


@pytest.mark.parametrize(
    "image_shape, words",
    [
        ((8,), [r"\(8,\)", r"\(H, W\)"]),
        ((2, 2, 4, 4), [r"\(2, 2, 4, 4\)"]),
        (64, ["got 64"]),
        ((8.0, 8), [r"\(8.0, 8\)"]),
        ((0, 64), [r"\(0, 64\)"]),
        ((-1, -1), [r"\(-1, -1\)", "one may be -1"]),
        ("88", ["got '88'"]),
        ((3, 4, 5), ["1, 3 or 4 channels", r"X.reshape\(-1, 3, 4, 5\)"]),
        ((8, 9), ["n_features=64", r"image_shape=\(8, 9\)"]),
        ((7, -1), ["n_features=64", r"image_shape=\(7, -1\)"]),
        ((4, 8, -1), ["n_features=64", r"image_shape=\(4, 8, -1\)"]),
    ],
)
def test_impossible_image_shape(image_shape, words):
    with refuses(*words):
        as_images(np.zeros((2, 64)), image_shape=image_shape)


@pytest.mark.parametrize("value_range", ["full", (0,), (1, 0), (0, 0), (0, np.inf), (np.nan, 1), 255, None, ("a", "b")])
def test_impossible_value_range(value_range):
    with refuses("value_range must be 'auto'", "low < high"):
        as_images([RGB], value_range=value_range)


# ---- is_flat -----------------------------------------------------------------------------------------------


def test_nothing_is_flat_without_image_shape():
    assert not is_flat(np.zeros((2, 64)), None)


@pytest.mark.parametrize(
    "X",
    [
        [],
        None,
        3,
        "abc",
        b"abc",
        {},
        iter([]),
        np.array(3),
        np.zeros(5),
        np.zeros((5, 1)),
        np.array([["a", "b"], ["c", "d"]]),
        np.array([[{}, 1]], dtype=object),
        [1, 2],
        [[1, 2], [3]],
        [["a", 1]],
        [None, "a.png"],
        [np.nan],
        [np.zeros(5), np.zeros(5)],
        pd.Series([1, 2]),
        pd.DataFrame({"a": [1.0]}),
        pd.DataFrame({"a": ["x"], "b": ["y"]}),
        pl.DataFrame({"a": [1.0]}),
        type("Broken", (), {"__getattr__": lambda self, name: 1 / 0})(),
    ],
    ids=lambda X: type(X).__name__,
)
def test_the_doubtful_counts_as_flat(X):
    assert is_flat(X, (8, 8))


def test_sparse_counts_as_flat():
    assert is_flat(pytest.importorskip("scipy.sparse").eye(3), (1, -1))


# ---- naming, hashing, workers --------------------------------------------------------------------------------


def test_describe_and_path(path):
    items = [path, path.read_bytes(), Image.new("LA", (4, 3)), GREY / 255, torch.zeros(3, 5, 6), None]
    images = as_images(items)
    assert [images.describe(i) for i in range(len(items))] == [
        f"image 0 ({path})",
        f"image 1 ({path.stat().st_size} bytes)",
        "image 2 (PIL image of size 4x3, mode LA)",
        "image 3 (array of shape (7, 5), float64)",
        "image 4 (tensor of shape (3, 5, 6), torch.float32)",
        "image 5 (None)",
    ]
    assert [images.path(i) for i in range(len(items))] == [str(path)] + [None] * 5


def test_content_is_the_file(path):
    images = as_images([path, path.read_bytes()])
    assert images.content(0) == images.content(1) == path.read_bytes()
    with refuses("image 0 ", "no such file"):
        as_images(["nowhere.png"]).content(0)


def test_different_images_have_different_content():
    zeros = np.zeros((4, 6), dtype=np.uint8)
    items = [zeros, zeros.T, zeros.reshape(2, 12), zeros > 0, zeros.view(np.int8), zeros + 0.0, np.dstack([zeros] * 3)]
    items += [zeros.astype(np.float16), zeros.astype("<u2"), zeros.astype(">u2")]
    items += [Image.fromarray(zeros + 1), Image.fromarray(RGB).quantize(4), Image.fromarray(RGB).convert("CMYK")]
    items += [with_info(Image.fromarray(RGB), exif=exif_of(3).tobytes())]
    images = as_images(items)
    assert len({bytes(images.content(i)) for i in range(len(items))}) == len(items)


def test_equal_images_have_equal_content():
    stack = np.stack([RGB, RGB[::-1]])
    images = as_images([RGB, np.asfortranarray(RGB), stack[0], RGB.transpose(2, 0, 1), torch.from_numpy(RGB)])
    assert len({images.content(i) for i in range(len(images))}) == 1
    assert as_images(stack).content(0) == images.content(0)
    flat = as_images(stack.reshape(2, -1), image_shape=RGB.shape)
    assert flat.content(0) == images.content(0)
    assert as_images(stack.reshape(2, -1), image_shape=(5, 7, 3)).content(0) != images.content(0)


def test_pickle(path):
    items = [path, path.read_bytes(), Image.open(path), RGB, torch.from_numpy(RGB)]
    images = pickle.loads(pickle.dumps(as_images(items)))
    for image in images:
        np.testing.assert_array_equal(image, RGB)
    items[2].close()
    stack = pickle.loads(pickle.dumps(as_images(RGB.reshape(1, -1), image_shape=(7, 5, 3), value_range=(0, 255))))
    np.testing.assert_array_equal(stack[0], RGB)


def test_threads_share_a_lazy_pil_image(tmp_path):
    content = noise(300, 300, 3)
    Image.fromarray(content).save(tmp_path / "noise.png")
    for _ in range(5):
        with Image.open(tmp_path / "noise.png") as image:
            images, start = as_images([image] * 8), threading.Barrier(8)

            def read(i, images=images, start=start):
                start.wait()
                return images[i]

            with ThreadPoolExecutor(8) as pool:
                for decoded in pool.map(read, range(8)):
                    np.testing.assert_array_equal(decoded, content)
