"""The container of X: a list, an array, a Series, a DataFrame column, a tensor; and the slips that are made with it."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._exceptions import ImageError
from ._items import (
    Shape,
    described,
    is_encoded,
    is_path,
    is_tensor,
    is_trouble_of_the_machine,
    layout,
    refuse_rows_of_images,
    settles,
    shortened,
    suggested_image_shape,
    taken_out,
    to_array,
)


def unpacked(X: Any) -> Any:
    """Take X out of its container: a list of items, or an array with one image per row."""
    try:
        return _unpacked(X)
    except ImageError:
        raise
    except Exception as error:  # containers that are broken, or have no values, raise whatever they like
        if is_trouble_of_the_machine(error):
            raise
        fault = shortened(str(error) or type(error).__name__)
        raise ImageError(f"X, a {type(X).__name__}, cannot be read: {fault}. Pass a list of images.") from error


def _unpacked(X: Any) -> Any:
    _refuse_slips(X)
    if is_tensor(X):
        X = to_array(X)
    elif hasattr(X, "to_numpy"):  # pandas, polars and their kin
        X = X.to_numpy()
    elif isinstance(X, Sequence):
        if len(X) == 0 or not isinstance(X[0], (list, tuple)):
            return [taken_out(item) for item in X]
        if len(X[0]) > 1:
            refuse_rows_of_images(X[0], "the first entry of X")
        X = _table(X)
    if not (hasattr(X, "shape") and hasattr(X, "dtype") and len(X.shape) > 0):
        raise ImageError(
            f"Expected a list, an array, a Series or a DataFrame column of images; got {reprlib.repr(X)}, a "
            f"{type(X).__name__}. Pass a list."
        )
    if getattr(X.dtype, "kind", "") not in "OSUT":
        return X  # not np.asarray, which would read a memory map or an HDF5 dataset as a whole
    if len(X.shape) == 1 or (len(X.shape) == 2 and X.shape[1] == 1):
        return [taken_out(item) for item in np.asarray(X).ravel().tolist()]
    table = _table(X.tolist())
    if table.dtype.kind in "OSUT":
        raise ImageError(f"X is a table of shape {X.shape}. Pass only its column of images, for instance X['path'].")
    return table


def _table(rows: Sequence[Any]) -> np.ndarray:
    try:
        return np.asarray(rows)
    except ValueError as error:
        hint = "For images of several sizes pass [np.asarray(image) for image in X]."
        raise ImageError(f"X is a nested list whose rows differ in length. {hint}") from error


def _refuse_slips(X: Any) -> None:
    if is_path(X) and os.path.isdir(X):
        fault = f"the directory {os.fsdecode(X)}. Pass the list of files in it: sorted(pathlib.Path(X).glob('*.jpg'))"
    elif is_encoded(X):
        fault = f"a single one, {described(X)}. Wrap it in a list: [X]"
    elif np.ma.is_masked(X):
        fault = f"a masked array, {np.ma.count_masked(X)} of whose values are masked. Fill them: X.filled(0)"
    elif hasattr(X, "column_names") and hasattr(X, "features"):  # of Hugging Face
        fault = f"a {type(X).__name__} with the columns {reprlib.repr(X.column_names)}. Pass the images: X['image']"
    elif any(base.__module__.startswith("torch.utils.data") for base in type(X).__mro__):
        fault = (
            f"a {type(X).__name__} of torch. Take its images and labels out, for instance with images, labels = "
            "zip(*dataset). Pass list(images) as X and list(labels) as y"
        )
    elif hasattr(X, "__next__"):
        fault = f"a {type(X).__name__}. Pass a list: list(X)"
    elif hasattr(X, "toarray"):
        fault = "a sparse matrix. Pass X.toarray()"
    else:
        return
    raise ImageError(f"Expected a collection of images; got {fault}.")


def check_stack(shape: Shape, image_shape: Shape | None, channels_first: bool) -> None:
    """Refuse at once what is no stack of images, and what every single row would be refused for.

    Tensors hold their channels first, which tells three grey images from the one that lacks its batch dimension.
    """
    n_rows, *row = shape
    fault = ""
    if not row:
        fault = "numbers, not images. Pass one image or one flat row per entry"
    elif len(row) == 1 and image_shape is None:
        fault = f"rows of {row[0]} numbers. {suggested_image_shape(row[0])} If it is one grey image, pass X[None]"
    elif len(row) == 2 and row[1] in (1, 3, 4) and not settles(image_shape, row):
        fault = (
            f"which looks like one image with {row[1]} channels. Pass X[None] if it is, or image_shape={tuple(row)} if "
            f"these are {n_rows} grey images of width {row[1]}"
        )
    elif channels_first and len(row) == 2 and n_rows == 3 and not settles(image_shape, row):
        fault = (
            f"which looks like one tensor with its 3 channels first. Pass X[None] if it is, or "
            f"image_shape={tuple(row)} if these are 3 grey images"
        )
    elif len(row) > 1 and image_shape is not None and not settles(image_shape, row):
        fault = f"but image_shape={image_shape}. Leave image_shape out, or make it the shape of one image"
    if fault:
        raise ImageError(f"X has shape {shape}, {fault}.")
    try:
        layout(tuple(row), image_shape)
    except ImageError as error:
        raise ImageError(f"X has shape {shape}: {error}") from None
