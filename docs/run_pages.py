"""Run the code of the pages with the images and networks that they name, and write what it prints below each block.

``python docs/run_pages.py`` runs all pages, ``python docs/run_pages.py start few_images`` some. It needs the extras
``demo``, ``export``, ``openvino`` and ``plot``, and takes some minutes.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import matplotlib

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from pages import BLOCK, PAGES, blocks  # noqa: E402 - the line above says where it is

PHOTOS = ROOT / "docs" / "gallery" / "photos" / "clothes.zip"


def make_photos(folder: Path) -> None:
    """Put a folder per class of clothes into `folder`, as ``photos``."""
    with zipfile.ZipFile(PHOTOS) as archive:
        archive.extractall(folder)
    (folder / "clothes" / "train").rename(folder / "photos")


def printed(code: str, names: dict[str, Any]) -> str:
    """Run code and return what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "page", "exec"), names)
    return output.getvalue()


def run(page: Path) -> None:
    """Run a page and write it with its outputs."""
    names: dict[str, Any] = {}

    def with_output(match: Any) -> str:
        reason, code, _ = match.groups()
        if reason:
            return f"<!-- not run: {reason} -->\n```python\n{code}```\n"
        block = f"```python\n{code}```\n"
        text = "\n".join(line.rstrip() for line in printed(code, names).rstrip().splitlines())
        return f"{block}\n```text\n{text}\n```\n" if text else block

    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(with_output, text), encoding="utf-8")


def main(stems: list[str]) -> None:
    """Run the pages of these names; all by default."""
    matplotlib.use("Agg")
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder))
        os.chdir(folder)
        for page in PAGES:
            prints = any("print(" in block.code for block in blocks(page))
            if prints and (page.stem in stems or not stems):
                start = time.perf_counter()
                run(page)
                print(f"{page.stem}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
