"""What the extensions of docs/ make: links, the table of capabilities, the notebook."""

import json
import sys
from pathlib import Path

import pytest

import sktransfer

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def extensions(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.setattr(sys, "path", [str(DOCS / "_extensions"), *sys.path])


def test_reference_shows_every_public_name():
    lines = {line.strip() for line in (DOCS / "reference" / "index.rst").read_text(encoding="utf-8").splitlines()}
    names = {*sktransfer.__all__, *(f"datasets.{name}" for name in sktransfer.datasets.__all__)} - {"datasets"}
    assert names - lines == set()


def test_table_of_capabilities():
    import generated

    rows = [line.strip("|").split("|") for line in generated.capabilities_table().splitlines()]
    assert rows[0][1:] == [" features ", " linear ", " fine-tuned "]
    marks = {row[0].strip(): ["✓" in mark for mark in row[1:]] for row in rows[2:]}
    assert marks["features (`transform`)"] == [True, False, False]
    assert marks["training in parts (`partial_fit`)"] == [False, False, True]
    assert marks["stored activations (`memory`)"] == [True, True, True]


def test_page_of_the_command_line_has_every_command():
    import generated

    from sktransfer.__main__ import cli

    page = generated.command_line()
    assert all(f"## `sktransfer {name}`" in page for name in cli.commands) and "--augment" in page


def test_notebook_holds_the_code_and_no_outputs():
    pytest.importorskip("jupytext")
    import generated

    page = (DOCS / "start.md").read_text(encoding="utf-8")
    cells = json.loads(generated.notebook_of(page))["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) == page.count("```python")
    text = "".join("".join(cell["source"]) for cell in cells)
    assert "```text" not in text and "{download}" not in text and "{doc}" not in text


@pytest.mark.parametrize(
    ("code", "address"),
    [
        ("sklearn.svm.SVC", "https://scikit-learn.org/stable/modules/generated/sklearn.svm.SVC.html"),
        ("sklearn.linear_model", None),
        ("numpy.ndarray", None),
    ],
)
def test_names_of_scikit_learn_lead_to_its_site(code, address):
    import links

    page = links.foreign_page(code)
    assert page == address


def test_links_to_files_become_links_of_the_site():
    import links

    text = "[a](../SECURITY.md) [b](../benchmarks/elpv.py) [c](glossary.md#stage) [d](https://x.org/a.md) [e](none.md)"
    changed = links.with_links_of_the_site(text, DOCS, "guide/index", "https://github.com/o/r")
    assert changed.split() == [
        "[a](security.md)",
        "[b](https://github.com/o/r/blob/main/benchmarks/elpv.py)",
        "[c](../glossary.md#stage)",
        "[d](https://x.org/a.md)",
        "[e](none.md)",
    ]


def test_order_of_the_gallery_can_be_made_without_a_folder():
    """sphinx-gallery does so before it reads the examples."""
    from gallery_order import InOrder

    InOrder("")
    assert InOrder(str(DOCS / "gallery"))("plot_cats_and_dogs_to_wallpaper.py") == 0
