"""Loaders of class folders and of Fashion-MNIST."""

import gzip
import os
import struct

import numpy as np
import pytest
from PIL import Image

from sktransfer.datasets import load_fashion_mnist, load_image_folder
from sktransfer.datasets._fashion_mnist import DEBIAN_FOLDER
from sktransfer.datasets._image_folder import images_within


@pytest.fixture
def photos(tmp_path):
    """Two classes; one image in a deeper folder, and things that are not images."""
    for name in ("cat/b.PNG", "cat/a.jpg", "dog/deeper/c.webp", "dog/.hidden.png", ".cache/d.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "cat/notes.txt").write_text("not an image")
    (tmp_path / "labels.csv").write_text("not a class")
    return tmp_path


class TestImageFolder:
    def test_paths_and_classes(self, photos):
        bunch = load_image_folder(photos)
        assert bunch.data.tolist() == [str(photos / p) for p in ("cat/a.jpg", "cat/b.PNG", "dog/deeper/c.webp")]
        assert bunch.target.tolist() == [0, 0, 1]
        assert bunch.target_names == ["cat", "dog"]

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_image_folder(tmp_path / "nowhere")

    def test_no_classes(self, tmp_path):
        with pytest.raises(ValueError, match="no subfolders"):
            load_image_folder(tmp_path)

    def test_empty_class(self, photos):
        (photos / "eel").mkdir()
        with pytest.raises(ValueError, match="eel"):
            load_image_folder(str(photos))

    def test_link_to_a_folder_above(self, photos):
        """Images are neither counted twice nor under another class, and the search ends."""
        names = load_image_folder(photos).data.tolist()
        (photos / "dog/latest").symlink_to("..")
        (photos / "dog/deeper/up").symlink_to("..")
        with pytest.warns(UserWarning, match="a link to .*, a folder above it. It was not followed") as caught:
            bunch = load_image_folder(photos)
        assert bunch.data.tolist() == names and bunch.target.tolist() == [0, 0, 1]
        assert len(caught) == 2
        with pytest.warns(UserWarning, match="not followed"):
            assert images_within(photos) == names

    @pytest.mark.parametrize("link", ["cat/more", "kitty"])
    def test_folder_in_two_classes(self, photos, link):
        (photos / link).symlink_to(photos / "dog")
        with pytest.raises(ValueError, match=r"The images in '.*' belong to the classes '\w+' and '\w+', by a link"):
            load_image_folder(photos)
        assert len(images_within(photos)) == 3

    def test_links_in_a_circle_end(self, photos):
        (photos / "cat/x").symlink_to(photos / "dog")
        (photos / "dog/y").symlink_to(photos / "cat")
        assert len(images_within(photos / "cat")) == 3

    def test_links_within_a_class_and_to_elsewhere_are_followed(self, photos, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        Image.new("RGB", (4, 4)).save(elsewhere / "e.png")
        (photos / "eel").symlink_to(elsewhere)
        (photos / "dog/more").mkdir()
        (photos / "dog/more/latest").symlink_to(photos / "dog/deeper")
        bunch = load_image_folder(photos)
        assert bunch.target_names == ["cat", "dog", "eel"] and bunch.target.tolist() == [0, 0, 1, 2]

    def test_folders_that_cannot_be_read_are_not_left_out(self, photos, monkeypatch):
        real = os.scandir

        def scandir(path):
            if str(path).endswith("deeper"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(PermissionError, match="deeper"):
            load_image_folder(photos)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 28 * 28).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([9, 0, 5], dtype=np.uint8)


class TestFashionMNIST:
    @pytest.mark.parametrize(
        ("folder", "suffix", "pack"), [("FashionMNIST/raw", "", bytes), ("", ".gz", gzip.compress)]
    )
    def test_reads_idx_files_wherever_they_lie(self, tmp_path, folder, suffix, pack):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for prefix, n in (("train", 3), ("t10k", 2)):
            for kind, array in (("images-idx3", IMAGES[:n]), ("labels-idx1", LABELS[:n])):
                (tmp_path / folder / f"{prefix}-{kind}-ubyte{suffix}").write_bytes(pack(idx(array)))
        train, test = load_fashion_mnist(tmp_path), load_fashion_mnist(tmp_path, subset="test")
        assert np.array_equal(train.data, IMAGES) and train.target.tolist() == [9, 0, 5]
        assert test.data.shape == (2, 28, 28) and test.target_names[test.target[0]] == "Ankle boot"
        train.data[0] = 0  # a writable copy

    def test_missing_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
            load_fashion_mnist(tmp_path)

    @pytest.mark.parametrize(
        "content", [b"", b"\x00\x00", b"text, not IDX", idx(IMAGES)[:-1], gzip.compress(idx(IMAGES))[:-20]]
    )
    def test_damaged_files(self, tmp_path, content):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / f"train-{kind}-ubyte").write_bytes(content)
        with pytest.raises(ValueError, match="train-images-idx3"):
            load_fashion_mnist(tmp_path)

    @pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
    def test_debians_files(self):
        train = load_fashion_mnist()
        assert train.data.shape == (60_000, 28, 28)
        assert np.bincount(train.target).tolist() == [6000] * 10
        assert load_fashion_mnist(subset="test").data.shape == (10_000, 28, 28)
