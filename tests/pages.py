"""The blocks of Python on the pages of docs/, to be run by tests and by docs/run_pages.py."""

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [DOCS / "start.md", *sorted((DOCS / "guide").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (.+?) -->\n)?```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


class Block(NamedTuple):
    """A block of code, with what the page says that it prints."""

    reason: str  # why it is not run; empty if it is
    code: str
    output: str | None


def blocks(page):
    """Return the blocks of a page, in their order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(reason, code, output or None) for reason, code, output in found]
