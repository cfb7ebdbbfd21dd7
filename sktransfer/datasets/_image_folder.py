"""Photos in one folder per class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""Endings of the files that count as images."""


@validate_params({"path": [str, os.PathLike]}, prefer_skip_nested_validation=True)
def load_image_folder(path):
    """List the images of a folder that has one subfolder per class, the class's name being the subfolder's.

    The images are not read here: estimators read paths a batch at a time. Files within deeper subfolders belong to
    the class above them. Files and folders whose names start with a dot are left out, and so are files that do not
    end as images do (``.jpg``, ``.png``, ``.tif``, …).

    Parameters
    ----------
    path : path
        The folder.

    Returns
    -------
    bunch : Bunch
        ``data``, paths, ndarray of str (n,), sorted; ``target``, ndarray of int (n,), positions in ``target_names``;
        ``target_names``, the classes, sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If the folder has no subfolders, or one of them holds no images.

    Examples
    --------
    >>> from sktransfer import FineTunedCNNClassifier
    >>> from sktransfer.datasets import load_image_folder
    >>> photos = load_image_folder("photos")  # doctest: +SKIP
    >>> clf = FineTunedCNNClassifier().fit(photos.data, photos.target)  # doctest: +SKIP
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path)!r}. Pass a folder that holds one folder per class.")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{str(path)!r} has no subfolders. Put the images of each class into a subfolder of its own.")
    files = [images_within(folder / name) for name in classes]
    empty = [name for name, found in zip(classes, files, strict=True) if not found]
    if empty:
        raise ValueError(
            f"No images in {', '.join(repr(str(folder / name)) for name in empty)}. "
            f"Remove the empty class, or give its files an ending such as .jpg or .png."
        )
    return Bunch(
        data=np.array([file for found in files for file in found]),
        target=np.repeat(np.arange(len(classes)), [len(found) for found in files]),
        target_names=classes,
    )


def images_within(folder: Path) -> list[str]:
    """Return the paths of all images in a folder and its subfolders, sorted."""
    files = []
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        kept = (n for n in names if not n.startswith(".") and Path(n).suffix.lower() in IMAGE_SUFFIXES)
        files += [os.path.join(parent, name) for name in kept]
    return sorted(files)
