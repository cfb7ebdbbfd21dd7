"""One item of X: trouble of the machine passes through, slips are named, long texts are cut."""

import base64
import errno
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pictures import RGB, encoded
from sktransfer import ImageError, PretrainedCNNFeatures, find_bad_images
from sktransfer._images._collection import as_images
from tiny import TINY

PNG = encoded(RGB)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    return path


def refusal(item, **options):
    with pytest.raises(ImageError, match="^Cannot read image 0 ") as caught:
        as_images([item], **options)[0]
    return str(caught.value)


# ---- trouble of the machine ----------------------------------------------------------------------------------

TROUBLE = ["EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "ENOSPC", "ETIMEDOUT", "ECONNRESET", "ENOTCONN", "EAGAIN"]


@pytest.fixture
def opening_fails(monkeypatch):
    """Let the opening of every picture fail in the same way."""

    def fail(number, words):
        def broken(*arguments, **options):
            raise OSError(number, words)

        monkeypatch.setattr("sktransfer._images._items.open", broken, raising=False)

    return fail


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_of_the_machine_is_no_bad_image(name, path, opening_fails):
    opening_fails(getattr(errno, name), "trouble")
    images = as_images([path])
    for read in (images.decode, images.content):
        with pytest.raises(OSError, match=r"trouble: '.*cat\.png'") as caught:
            read(0)
        assert caught.value.errno == getattr(errno, name)
        assert caught.value.__notes__ == [f"While reading image 0 ({path})."]
    with pytest.raises(OSError, match="trouble"):
        find_bad_images([path, path])


def test_no_rows_of_nan_for_trouble_of_the_machine(path, opening_fails):
    model = PretrainedCNNFeatures(**TINY, on_error="nan").fit([path])
    opening_fails(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        model.transform([path])


def test_too_many_open_files(path):
    """Not simulated: this process may open no further file."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    images = as_images([path])
    images.decode(0)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with pytest.raises(OSError, match="Too many open files"):
            images.decode(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_error_is_no_bad_image(monkeypatch):
    monkeypatch.setattr("sktransfer._images._decoding._pillow_levels", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError) as caught:
        as_images([RGB, Image.fromarray(RGB)])[1]
    assert caught.value.__notes__ == ["While reading image 1 (PIL image of size 5x7, mode RGB)."]


@pytest.mark.parametrize("name", ["ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "EINVAL"])
def test_what_is_wrong_with_a_file_is_a_bad_image(name, path, opening_fails):
    opening_fails(getattr(errno, name), "fault")
    assert [bad.path for bad in find_bad_images([path])] == [str(path)]


def test_rows_of_an_array_on_disk_that_cannot_be_read():
    class Dataset:
        shape, dtype = (3, 7, 5), np.dtype("u1")

        def __len__(self):
            return 3

        def __getitem__(self, i):
            raise KeyError("chunk is damaged")

    assert [bad.index for bad in find_bad_images(Dataset())] == [0, 1, 2]


# ---- files that are no files ---------------------------------------------------------------------------------


def test_named_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "no regular file" in refusal(tmp_path / "pipe.png")
    assert "no regular file" in refusal("/dev/zero")


def test_relative_path_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refusal("cat.png").endswith("there is no such file.")


# ---- slips ---------------------------------------------------------------------------------------------------


def test_pictures_as_base64():
    text = base64.b64encode(bytes(100_000)).decode()
    message = refusal(text)
    assert "base64.b64decode" in message and len(message) < 1000
    assert "data URI" in refusal("data:image/png;base64," + text)
    with pytest.raises(ImageError, match="base64.b64decode") as caught:
        PretrainedCNNFeatures(**TINY).fit_transform([text, text])
    assert len(str(caught.value)) < 3000


def test_paths_as_bytes(path):
    for X in ([os.fsencode(path)], np.array([os.fsencode(path)]), [b"x.jpg"]):
        with pytest.raises(ImageError, match=r"If they are its path, pass os\.fsdecode\(path\)"):
            as_images(X)[0]


def test_pictures_are_not_taken_for_paths():
    assert "fsdecode" not in refusal(PNG[:100]) and "fsdecode" not in refusal(b"no picture at all")


def test_rows_of_hugging_face(path):
    rows = [{"bytes": PNG, "path": None}, {"bytes": None, "path": str(path)}, {"bytes": PNG, "path": "gone.png"}]
    for X in (rows, pd.Series(rows), pd.DataFrame({"image": rows})):
        images = as_images(X)
        for image in images:
            np.testing.assert_array_equal(image, RGB)
        assert images.path(1) == str(path)
    assert "missing" in refusal({"bytes": None, "path": None})


def test_masked_arrays():
    image = np.ma.masked_greater(RGB, 200)
    n_masked = int(image.mask.sum())
    assert f"masked array with {n_masked} masked values. Fill them: image.filled(0)" in refusal(image)
    np.testing.assert_array_equal(as_images([np.ma.array(RGB)])[0], RGB)


@pytest.mark.parametrize("wrap", [pd.Series, lambda rows: rows])
def test_several_paths_for_each_row(wrap):
    with pytest.raises(ImageError, match="a list of 2 entries, including paths or images. Pass one image for each"):
        as_images(wrap([["a.png", "b.png"], ["c.png", "d.png"]]))[0]


@pytest.mark.parametrize("label", [3, "cat", np.int64(3), None, 0.5], ids=repr)
@pytest.mark.parametrize("image", [RGB, PNG, Image.fromarray(RGB)], ids=["array", "bytes", "PIL"])
@pytest.mark.parametrize("wrap", [pd.Series, lambda rows: rows, lambda rows: [RGB, *rows]])
def test_pairs_of_an_image_and_its_label(wrap, image, label):
    with pytest.raises(ImageError, match=r"tuple of 2: an image and .*images, labels = zip\(\*pairs\)"):
        as_images(wrap([(image, label), (image, label)]))[1]
