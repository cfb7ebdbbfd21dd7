"""The container of X: what is wrong with the whole is said at once, and says what to pass instead."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pictures import noise
from sktransfer import ImageError, PretrainedCNNFeatures
from sktransfer._images._collection import as_images, is_flat
from tiny import TINY

STACK = noise(3, 7, 5)


class Pairs(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i >= 4:
            raise IndexError
        return torch.zeros(3, 8, 8), i % 2


def name(thing):
    return type(thing).__name__


@pytest.mark.parametrize("X", [Pairs(), DataLoader(Pairs()), TensorDataset(torch.zeros(4, 3, 8, 8))], ids=name)
def test_dataset_of_torch(X):
    with pytest.raises(ImageError, match=r"of torch. Take its images and labels out.*zip\(\*dataset\)"):
        as_images(X)


def test_dataset_of_torch_as_a_list():
    with pytest.raises(ImageError, match=r"an image and 0. Separate images and labels: .*zip\(\*pairs\)"):
        as_images(list(Pairs()))
    images, _ = zip(*Pairs(), strict=True)
    assert len(as_images(list(images))) == 4


def test_dataset_of_hugging_face():
    class Dataset:
        column_names, features, shape = ["image", "label"], {}, (4, 2)

    with pytest.raises(ImageError, match=r"Dataset with the columns \['image', 'label'\].*X\['image'\]"):
        as_images(Dataset())


def test_one_tensor_without_its_batch_dimension():
    X = torch.from_numpy(STACK)
    with pytest.raises(ImageError, match=r"one tensor with its 3 channels first. Pass X\[None\].*image_shape=\(7, 5\)"):
        as_images(X)
    np.testing.assert_array_equal(as_images(X[None])[0], STACK.transpose(1, 2, 0))
    assert len(as_images(X, image_shape=(7, 5))) == 3
    assert len(as_images(X[:2])) == 2 and len(as_images(STACK)) == 3


def test_masked_stack_and_masked_rows():
    stack = np.ma.masked_greater(STACK, 200)
    n_masked = int(stack.mask.sum())
    with pytest.raises(ImageError, match=rf"a masked array with {n_masked} masked values.*X.filled\(0\)"):
        as_images(stack)
    flat = stack.reshape(3, -1)
    assert not is_flat(flat, (7, 5))
    with pytest.raises(ImageError, match="a masked array"):  # the checks of scikit-learn would drop the mask
        PretrainedCNNFeatures(**TINY, image_shape=(7, 5)).fit_transform(flat)
    assert len(as_images(np.ma.array(STACK))) == 3


@pytest.mark.parametrize(
    "X",
    [
        torch.zeros(2, 8, 8).to_sparse(),
        torch.zeros(2, 8, 8, device="meta"),
        type("Broken", (list,), {"__getitem__": lambda self, i: 1 / 0})([1, 2]),
        type("Frame", (), {"to_numpy": lambda self: 1 / 0})(),
    ],
    ids=["sparse tensor", "meta tensor", "list", "frame"],
)
def test_containers_that_cannot_be_read(X):
    with pytest.raises(ImageError, match="cannot be read"):
        as_images(X)


@pytest.mark.parametrize("parameter", ["image_shape", "value_range"])
def test_long_parameters_are_cut(parameter):
    with pytest.raises(ImageError) as caught:
        as_images(STACK, **{parameter: "x" * 10_000})
    assert len(str(caught.value)) < 300
