"""Make the archives beside this file from three public data sets, which SOURCE.md names.

``python make_photos.py FOLDER``, where FOLDER holds ``clothing`` and ``groceries``, each with the folders ``train`` and
``test`` of one folder per class, and ``signdigits`` with one folder per sign. The seed is fixed, so the same photos are
taken each time.
"""

from __future__ import annotations

import io
import random
import re
import sys
from bisect import bisect_right
from collections import defaultdict
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from PIL import Image

HERE = Path(__file__).parent
SIDE = 160  # pixels of the shorter side of clothes and groceries; the hand signs have 100 and stay as they are
CLOTHES = ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "t-shirt"]
GROCERIES = ["Apple", "Lemon", "Milk", "Orange", "Pepper", "Satsumas", "Tomato", "Yoghurt"]
N_OF_A_CLASS = {"train": 20, "test": 12}
N_PERSONS = {"train": 25, "test": 15}  # each of them shows all ten signs


def small(path: Path, suffix: str, quality: int) -> bytes:
    """Return a photo as a small file without metadata, which is written upright."""
    image = Image.open(path)
    turned = image.getexif().get(0x0112, 1)
    if turned != 1:
        raise ValueError(f"{path} has the orientation {turned}; this script expects upright photos.")
    image = image.convert("RGB")
    shrink = SIDE / min(image.size)
    if shrink < 1:
        image = image.resize((round(shrink * image.width), round(shrink * image.height)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, suffix, quality=quality)
    return file.getvalue()


def write(name: str, photos: dict[str, bytes]) -> None:
    """Write an archive, with a fixed date, so that the same photos give the same file."""
    path = HERE / f"{name}.zip"
    with ZipFile(path, "w", ZIP_STORED) as archive:
        for place, content in sorted(photos.items()):
            archive.writestr(ZipInfo(f"{name}/{place}"), content)
    print(f"{path.name}: {len(photos)} photos, {path.stat().st_size / 1e6:.2f} MB")


def some_of_each_class(folder: Path, classes: list[str]) -> dict[str, bytes]:
    """Draw photos of each class from the training part and from the test part of a data set."""
    draw = random.Random(0)
    photos = {}
    for part, n in N_OF_A_CLASS.items():
        for name in classes:
            found = sorted(path for path in (folder / part / name).iterdir() if path.suffix.lower() == ".jpg")
            for i, path in enumerate(sorted(draw.sample(found, n)), start=1):
                photos[f"{part}/{name.lower()}/{i:02}.webp"] = small(path, "webp", 62)
    return photos


def some_persons(folder: Path) -> dict[str, bytes]:
    """Draw persons who show all ten signs. Their photos were taken in a row, so the numbers of the files tell them."""
    numbered = {int(re.sub(r"\D", "", path.stem)): path for path in folder.glob("[0-9]/*") if path.suffix}
    starts = sorted(number for number, path in numbered.items() if path.parent.name == "0")
    shown: dict[int, dict[str, Path]] = defaultdict(dict)
    for number, path in sorted(numbered.items()):
        shown[bisect_right(starts, number)].setdefault(path.parent.name, path)
    complete = [signs for person, signs in sorted(shown.items()) if person and len(signs) == 10]
    drawn = random.Random(0).sample(complete, sum(N_PERSONS.values()))
    parts = [part for part, n in N_PERSONS.items() for _ in range(n)]
    return {
        f"{part}/{sign}/person{i:02}.jpg": small(path, "jpeg", 80)
        for i, (part, signs) in enumerate(zip(parts, drawn, strict=True), start=1)
        for sign, path in signs.items()
    }


if __name__ == "__main__":
    source = Path(sys.argv[1])
    write("clothes", some_of_each_class(source / "clothing", CLOTHES))
    write("groceries", some_of_each_class(source / "groceries", GROCERIES))
    write("hand_signs", some_persons(source / "signdigits"))
