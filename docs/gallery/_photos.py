"""The photos of the gallery: they are unpacked into a temporary folder, and listed by `load_image_folder`."""

from __future__ import annotations

import atexit
import functools
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from sklearn.utils import Bunch

from sktransfer.datasets import load_image_folder

ARCHIVES = Path(__file__).parent / "photos"


@functools.cache
def unpacked(name: str) -> Path:
    """Unpack an archive of photos once, and return its folder, which is deleted when the process ends."""
    folder = TemporaryDirectory(prefix="sktransfer-gallery-")
    atexit.register(folder.cleanup)
    with ZipFile(ARCHIVES / f"{name}.zip") as archive:
        archive.extractall(folder.name)
    return Path(folder.name) / name


def load_photos(name: str, part: str) -> Bunch:
    """Return the ``"train"`` or the ``"test"`` part of ``"clothes"``, ``"groceries"`` or ``"hand_signs"``.

    ``data`` holds paths, ``target`` positions in ``target_names``, as `load_image_folder` returns them.
    """
    return load_image_folder(unpacked(name) / part)
