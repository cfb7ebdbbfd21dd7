"""Photos in one folder per class."""

from __future__ import annotations

import itertools
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._validated import validated

if TYPE_CHECKING:
    from sklearn.utils import Bunch

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""Endings of the files that count as images."""


@validated(lambda sk: {"path": [str, os.PathLike]})
def load_image_folder(path: str | os.PathLike[str]) -> Bunch:
    """List the images of a folder that has one subfolder per class, the class's name being the subfolder's.

    The images are not read here: estimators read paths a batch at a time. Files within deeper subfolders belong to
    the class above them. Links are followed, except for links to a folder above them, which give a warning. Left out
    are files and folders whose names start with a dot, and files that do not end as images do (``.jpg``, ``.png``,
    ``.tif``, …).

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
        If the folder has no subfolders, one of them holds no images, or a link puts a folder into two classes.

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
    folders = [_images_by_folder(folder / name) for name in classes]
    _refuse_shared_folders(classes, folders)
    files = [sorted(itertools.chain(*found.values())) for found in folders]
    empty = [name for name, found in zip(classes, files, strict=True) if not found]
    if empty:
        raise ValueError(
            f"No images in {', '.join(repr(str(folder / name)) for name in empty)}. "
            f"Remove the empty class, or give its files an ending such as .jpg or .png."
        )
    from sklearn.utils import Bunch

    return Bunch(
        data=np.array([file for found in files for file in found]),
        target=np.repeat(np.arange(len(classes)), [len(found) for found in files]),
        target_names=classes,
    )


def images_within(folder: Path) -> list[str]:
    """Return the paths of all images in a folder and its subfolders, sorted; links to folders are followed."""
    return sorted(itertools.chain(*_images_by_folder(folder).values()))


def _images_by_folder(folder: Path) -> dict[str, list[str]]:
    """Return the images of a folder and of each of its subfolders, under the real path of that subfolder.

    Each is entered once, by the first of its names. A link to a folder above it would lead round in a circle, and to
    images of other classes; these are found without it.
    """
    found: dict[str, list[str]] = {}
    for parent, subfolders, names in os.walk(folder, onerror=_raise, followlinks=True):
        here = os.path.realpath(parent)
        if here in found:
            subfolders.clear()
            continue
        subfolders[:] = sorted(n for n in subfolders if not n.startswith(".") and not _leads_up(parent, n, here))
        kept = (n for n in names if not n.startswith(".") and Path(n).suffix.lower() in IMAGE_SUFFIXES)
        found[here] = [os.path.join(parent, name) for name in kept]
    return found


def _leads_up(parent: str, name: str, here: str) -> bool:
    link = os.path.join(parent, name)
    target = os.path.realpath(link)
    if not Path(here).is_relative_to(target):
        return False
    warnings.warn(f"{link!r} is a link to {target!r}, a folder above it. It was not followed.", stacklevel=5)
    return True


def _raise(error: OSError) -> None:
    raise error


def _refuse_shared_folders(classes: list[str], folders: list[dict[str, list[str]]]) -> None:
    """Refuse a folder whose images belong to two classes: nobody could say which label is right."""
    owners: dict[str, str] = {}
    for name, found in zip(classes, folders, strict=True):
        for real in found:
            if found[real] and owners.setdefault(real, name) != name:
                raise ValueError(
                    f"The images in {real!r} belong to the classes {owners[real]!r} and {name!r}, by a link. Remove "
                    "the link."
                )
