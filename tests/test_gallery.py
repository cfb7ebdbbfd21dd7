"""Every example of the gallery is whole, names what it shows, and runs; the archives of photos hold what they say."""

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

import sktransfer
from sktransfer import datasets

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
EXAMPLES = sorted(path.name for path in GALLERY.glob("plot_*.py"))
PUBLIC = {*sktransfer.__all__, *(f"datasets.{name}" for name in datasets.__all__)}
ROLE = re.compile(r":(?:class|func):`~?sktransfer\.([\w.]+)`")
MOST_LINES = 160
ARCHIVES = {  # classes, and photos of each of them to train on and to test on
    "clothes": (8, 20, 12),
    "groceries": (8, 20, 12),
    "hand_signs": (10, 25, 15),
}
# As in pyproject.toml. Agg cannot show a window.
WARNINGS = ["error", "ignore::DeprecationWarning", "ignore:FigureCanvasAgg is non-interactive:UserWarning"]


def source(name):
    return (GALLERY / name).read_text(encoding="utf-8")


def test_order_names_every_example():
    order = (GALLERY / "order.txt").read_text(encoding="utf-8").split()
    assert order[0] == "plot_cats_and_dogs_to_wallpaper.py"
    assert sorted(order) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_has_a_title_and_text(name):
    tree = ast.parse(source(name))
    title, underline, empty, *text = ast.get_docstring(tree).splitlines()
    assert underline == "=" * len(title)
    assert empty == ""
    assert text
    assert source(name).count("\n# %%\n") >= 3
    headings = re.findall(r"^# (.+)\n# (-+)$", source(name), re.MULTILINE)
    assert [heading for heading, line in headings if len(heading) != len(line)] == []
    assert len(source(name).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_names_what_it_shows(name):
    named = ROLE.findall(source(name))
    assert named
    assert [each for each in named if each not in PUBLIC] == []


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_holds_its_classes(name):
    n_classes, n_train, n_test = ARCHIVES[name]
    path = GALLERY / "photos" / f"{name}.zip"
    assert path.stat().st_size < 1.3e6
    photos = {"train": {}, "test": {}}
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        for place in archive.namelist():
            top, part, label, file = place.split("/")
            assert top == name
            photos[part].setdefault(label, []).append(file)
            with Image.open(io.BytesIO(archive.read(place))) as image:
                assert min(image.size) == (100 if name == "hand_signs" else 160)
    assert photos["train"].keys() == photos["test"].keys()
    assert len(photos["train"]) == n_classes
    assert {len(files) for files in photos["train"].values()} == {n_train}
    assert {len(files) for files in photos["test"].values()} == {n_test}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name):
    options = [option for warning in WARNINGS for option in ("-W", warning)]
    run = subprocess.run(
        [sys.executable, *options, name],
        cwd=GALLERY,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
