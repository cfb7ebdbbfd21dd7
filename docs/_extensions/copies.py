"""Each page as Markdown beside its HTML, and ``llms.txt``, which lists them: for programs that read text.

The copy of ``guide/few_images.html`` is ``guide/few_images.md``. Pages that are written in Markdown are copied as they
are. A page of the reference becomes the signature and the docstring.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from links import with_links_of_the_site
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
REFERENCE = "reference/generated/"
INCLUDE = re.compile(r"^```\{include\} (\S+)\n.*?^```\n", re.DOTALL | re.MULTILINE)

SUMMARY = """# sktransfer

> Pretrained convolutional networks for your own images, as scikit-learn estimators.
"""
# The parts of llms.txt, each with the beginnings of the names of its pages.
PARTS = {
    "Start": ("index", "start"),
    "Guide": ("guide/", "capabilities", "glossary"),
    "Gallery": ("auto_gallery/",),
    "Reference": ("reference/",),
    "Benchmarks": ("benchmarks/",),
    "Project": ("",),
}


def copy_of(app: Sphinx, docname: str) -> str:
    """Return a page as Markdown."""
    if docname.startswith(REFERENCE):
        return _reference(docname.removeprefix(REFERENCE))
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return path.read_text(encoding="utf-8")

    def read(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        return with_links_of_the_site(text, path.parent, docname, app.config.REPOSITORY)

    return INCLUDE.sub(lambda match: read((path.parent / match[1]).resolve()), read(path))


def _named(name: str) -> Any:
    import sktransfer

    thing: Any = sktransfer
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)
    return thing


def _reference(name: str) -> str:
    thing = _named(name)
    documented = {name: thing}
    if isinstance(thing, type):
        documented |= {
            f"{name}.{member}": value
            for member, value in vars(thing).items()
            if not member.startswith("_") and inspect.getdoc(value) and (callable(value) or isinstance(value, property))
        }
    return f"# {name}\n\n" + "\n".join(map(_documented, documented, documented.values()))


def _documented(name: str, thing: Any) -> str:
    try:
        signature = str(inspect.signature(thing))
    except (TypeError, ValueError):  # a property, or a class that is made by Python itself
        signature = ""
    return f"```text\n{name}{signature}\n\n{inspect.getdoc(thing)}\n```\n"


def first_sentence(app: Sphinx, docname: str) -> str:
    """Return the first sentence of a page, or of the docstring that it shows."""
    if docname.startswith(REFERENCE):
        return (inspect.getdoc(_named(docname.removeprefix(REFERENCE))) or "").partition("\n")[0]
    for paragraph in app.env.get_doctree(docname).findall(nodes.paragraph):
        if not isinstance(paragraph.parent, (nodes.section, nodes.document)):
            continue
        text = " ".join(paragraph.astext().split())
        return re.split(r"(?<=[.?!]) ", text, maxsplit=1)[0]
    return ""


def _write_all(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    root = Path(app.outdir)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for docname in sorted(app.env.found_docs):
        target = root / f"{docname}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(copy_of(app, docname), encoding="utf-8")
        part = next(part for part, beginnings in PARTS.items() if docname.startswith(beginnings))
        title = app.env.titles[docname].astext()
        about = first_sentence(app, docname)
        line = f"- [{title}]({app.config.html_baseurl}{docname}.md)"
        parts[part].append(f"{line}: {about}" if about else line)
    listed = [_part(name, lines) for name, lines in parts.items() if lines]
    (root / "llms.txt").write_text("\n".join([SUMMARY, *listed]), encoding="utf-8")


def _part(name: str, lines: list[str]) -> str:
    return f"## {name}\n\n" + "\n".join(lines) + "\n"


def _describe(app: Sphinx, doctree: nodes.document) -> None:
    """Describe pages of the reference to sites that show a link to them."""
    docname = app.env.docname
    if docname.startswith(REFERENCE):
        app.env.metadata[docname]["og:description"] = first_sentence(app, docname)


def _hide_edit_button(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Hide the button on pages that are made from other files."""
    if pagename.startswith((REFERENCE, "auto_gallery/")):
        context["theme_use_edit_page_button"] = False


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the copies when the pages are written."""
    app.connect("doctree-read", _describe)
    app.connect("build-finished", _write_all)
    app.connect("html-page-context", _hide_edit_button)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
