"""What the documents and the code refer to exists: design entries by their ids, and files by their links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DESIGN = ROOT / "docs" / "design"
PAGES = sorted(path for path in DESIGN.glob("*.md") if path.name != "README.md")
MADE = {"_build", "_generated", "auto_gallery", "generated"}  # folders of docs/ that a build fills
DOCUMENTS = [*ROOT.glob("*.md"), *(path for path in (ROOT / "docs").rglob("*.md") if not MADE & set(path.parts))]
ENTRY = re.compile(r"^## ([A-Z]+-\d\d): (.+)\n\n(.+)$", re.MULTILINE)
PREFIXES = "ARCH|DATA|DISP|DUP|ENG|FILE|INPUT|PROC|STORE|STRAT|TRAIN"
CITED = re.compile(rf"\b(?:{PREFIXES})-\d+\b")


def entries():
    return [entry for page in PAGES for entry in ENTRY.findall(page.read_text(encoding="utf-8"))]


def test_ids_are_unique_and_consecutive():
    ids = [identifier for identifier, _, _ in entries()]
    assert len(ids) == len(set(ids)) > 80
    for prefix in PREFIXES.split("|"):
        numbers = sorted(int(identifier.partition("-")[2]) for identifier in ids if identifier.startswith(f"{prefix}-"))
        assert numbers == list(range(1, len(numbers) + 1)), prefix


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_entry_has_a_date_and_a_status(page):
    text = page.read_text(encoding="utf-8")
    found = ENTRY.findall(text)
    assert len(found) == text.count("\n## ")
    dated = re.compile(r"\d{4}-\d\d-\d\d(, revised \d{4}-\d\d-\d\d)? · (accepted|superseded)")
    assert [identifier for identifier, _, line in found if not dated.match(line)] == []


def test_table_of_contents_lists_every_entry():
    contents = (DESIGN / "README.md").read_text(encoding="utf-8")
    expected = []
    for identifier, title, status in entries():
        expected.append(f"- {identifier}: {title}" + " *(superseded)*" * ("superseded" in status))
    listed = [line for line in contents.splitlines() if CITED.match(line[2:])]
    assert sorted(listed) == sorted(expected)


def test_every_id_that_is_cited_exists():
    code = [path for folder in ("sktransfer", "benchmarks", "fuzz") for path in (ROOT / folder).rglob("*.py")]
    known = {identifier for identifier, _, _ in entries()}
    cited = {
        (path.name, identifier)
        for path in [*code, *DOCUMENTS]
        for identifier in CITED.findall(path.read_text(encoding="utf-8"))
    }
    assert len(cited) > len(known)
    assert [citation for citation in cited if citation[1] not in known] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document):
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []
