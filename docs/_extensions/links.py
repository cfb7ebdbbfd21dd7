"""Links that the pages need not spell out, so that they can be read on GitHub and in an editor too.

- Code that is a public name, such as ```find_duplicates`` or ``load_elpv()``, links to the reference.
- Code that is a name of scikit-learn or skorch, such as ``sklearn.svm.SVC``, links to their sites. Their inventories
  are not fetched.
- The id of a design decision, such as TRAIN-02, links to it.
- Links to files of the repository that are no pages lead to GitHub.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent

# Files outside docs/ that a page includes as a whole.
PAGES = {
    ROOT / "README.md": "index",
    ROOT / "CHANGELOG.md": "changelog",
    ROOT / "CONTRIBUTING.md": "contributing/index",
    ROOT / "SECURITY.md": "guide/security",
    ROOT / "benchmarks" / "README.md": "benchmarks/index",
}
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
DECISION = re.compile(r"\b(?:ARCH|DATA|DISP|DUP|ENG|FILE|INPUT|PROC|STORE|STRAT|TRAIN)-\d\d\b")
HEADING_OF_DECISION = re.compile(rf"^## ({DECISION.pattern}):", re.MULTILINE)
CODE = re.compile(r"(?:sktransfer\.)?((?:datasets\.)?\w+)((?:\.\w+)?)(?:\(.*\))?", re.DOTALL)


def public_names() -> dict[str, str]:
    """Return the full name of each public name, by its short name."""
    import sktransfer

    names = {name: f"sktransfer.{name}" for name in sktransfer.__all__ if name != "datasets"}
    own = {name: f"sktransfer.datasets.{name}" for name in sktransfer.datasets.__all__}
    return {**names, **own, **{f"datasets.{name}": full for name, full in own.items()}}


def foreign_page(name: str) -> str | None:
    """Return the address of the page about a name of another package."""
    parts = name.split(".")
    if parts[0] == "sklearn" and len(parts) > 2:
        kept = parts[: next((i for i, part in enumerate(parts) if part[:1].isupper()), len(parts)) + 1]
        return f"https://scikit-learn.org/stable/modules/generated/{'.'.join(kept)}.html"
    if name == "skorch.NeuralNetClassifier":
        return "https://skorch.readthedocs.io/en/stable/classifier.html"
    return None


def with_links_of_the_site(text: str, folder: Path, docname: str, repository: str) -> str:
    """Return Markdown whose links to files, relative to `folder`, hold on the page `docname`."""
    here = (DOCS / docname).parent

    def replaced(match: re.Match[str]) -> str:
        target, fragment = match[1], match[2] or ""
        path = (folder / target).resolve()
        if "://" in target or not path.exists():
            return match[0]
        if path in PAGES:
            path = DOCS / f"{PAGES[path]}.md"
        if path.is_dir() and (path / "index.md").exists():
            path /= "index.md"
        if path.is_relative_to(DOCS) and path.is_file():
            return os.path.relpath(path, here) + fragment
        if path.is_relative_to(ROOT):
            kind = "tree" if path.is_dir() else "blob"
            return f"{repository}/{kind}/main/{path.relative_to(ROOT)}{fragment}"
        return match[0]

    return LINK.sub(replaced, text)


def _on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return
    text = with_links_of_the_site(source[0], path.parent, docname, app.config.REPOSITORY)
    source[0] = HEADING_OF_DECISION.sub(r"(\1)=\n\g<0>", text)


def _on_include_read(app: Sphinx, relative_path: Path, parent: str, content: list[str]) -> None:
    path = (DOCS / relative_path).resolve()
    if path.suffix == ".md":
        # MyST names the parent without its folder.
        content[0] = with_links_of_the_site(content[0], path.parent, app.env.docname, app.config.REPOSITORY)


class LinkNames(SphinxTransform):
    """Link names and ids of decisions."""

    default_priority = 450

    def apply(self, **kwargs: Any) -> None:
        """Replace nodes of the document in place."""
        for code in list(self.document.findall(nodes.literal)):
            if not _stands_in(code, nodes.reference, nodes.title, pending_xref):
                self._link_name(code)
        for text in list(self.document.findall(nodes.Text)):
            kept = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.comment, pending_xref)
            if DECISION.search(text) and not _stands_in(text, *kept):
                self._link_decisions(text)

    def _link_name(self, code: nodes.literal) -> None:
        name = code.astext()
        page = foreign_page(name.removesuffix("()"))
        if page is not None:
            code.parent.replace(code, nodes.reference("", "", code.deepcopy(), refuri=page))
            return
        match = CODE.fullmatch(name)
        full = match and public_names().get(match[1])
        if full and self.env.docname != f"reference/generated/{full}":
            reference = pending_xref(
                "", refdomain="py", reftype="obj", reftarget=full, refexplicit=True, refwarn=True,
                refdoc=self.env.docname,
            )  # fmt: skip
            code.parent.replace(code, reference)
            reference += code

    def _link_decisions(self, text: nodes.Text) -> None:
        whole, parts, end = text.astext(), [], 0
        for match in DECISION.finditer(whole):
            parts.append(nodes.Text(whole[end : match.start()]))
            reference = pending_xref(
                "", refdomain="std", reftype="ref", reftarget=match[0].lower(), refexplicit=True, refwarn=True,
                refdoc=self.env.docname,
            )  # fmt: skip
            parts.append(reference)
            reference += nodes.inline("", match[0])
            end = match.end()
        parts.append(nodes.Text(whole[end:]))
        text.parent.replace(text, [part for part in parts if part.astext()])


def _stands_in(node: nodes.Node, *kinds: type[nodes.Node]) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def _resolve_foreign(app: Sphinx, env: Any, node: pending_xref, content: nodes.Element) -> nodes.reference | None:
    """Lead references of docstrings to scikit-learn's and skorch's sites."""
    target = node.get("reftarget", "")
    if node.get("refdomain") == "py":
        page = foreign_page(target)
        return None if page is None else nodes.reference("", "", content, refuri=page)
    return None


# scikit-learn's own members, whose docstrings refer to labels of its site; the pages of classes name that site.
FROM_SKLEARN = re.compile(r"set_\w+_request|get_metadata_routing|set_output|score|get_params|set_params|fit_transform")


def _skip_foreign(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn gives to every estimator, and the fields of named tuples, which are attributes."""
    is_field = (getattr(thing, "__doc__", None) or "").startswith("Alias for field number")
    return True if is_field or FROM_SKLEARN.fullmatch(name) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the functions of this file."""
    app.connect("autodoc-skip-member", _skip_foreign)
    app.add_config_value("REPOSITORY", "", "env", types=[str])
    app.connect("source-read", _on_source_read)
    app.connect("include-read", _on_include_read)
    app.connect("missing-reference", _resolve_foreign)
    app.add_transform(LinkNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
