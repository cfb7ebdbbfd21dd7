"""What the examples share: photos from the archives beside this file, and the kept results of the benchmarks."""

from __future__ import annotations

import atexit
import functools
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from sklearn.utils import Bunch

from sktransfer.datasets import load_image_folder

HERE = Path(__file__).parent
ACCURACIES = HERE.parents[1] / "benchmarks" / "results" / "accuracy.jsonl"


@functools.cache
def unpacked(name: str) -> Path:
    """Unpack an archive of photos once, and return its folder, which is deleted when the process ends."""
    folder = TemporaryDirectory(prefix="sktransfer-gallery-")
    atexit.register(folder.cleanup)
    with ZipFile(HERE / "photos" / f"{name}.zip") as archive:
        archive.extractall(folder.name)
    return Path(folder.name) / name


def load_photos(name: str, part: str) -> Bunch:
    """Return the ``"train"`` or the ``"test"`` part of ``"clothes"``, ``"groceries"`` or ``"hand_signs"``.

    ``data`` holds paths, ``target`` positions in ``target_names``, as `load_image_folder` returns them.
    """
    return load_image_folder(unpacked(name) / part)


def kept_accuracies(problem: str, strategy: str) -> list[float]:
    """Return the accuracies of ``benchmarks/accuracy.py`` that are kept in the repository, one per split."""
    kept = {}
    for line in ACCURACIES.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if (record["settings"]["problem"], record["settings"]["strategy"]) == (problem, strategy):
            kept[record["settings"]["seed"]] = record["results"]["accuracy"]  # later lines are newer
    return list(kept.values())
