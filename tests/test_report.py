"""The report of a comparison: its words, and how it looks in a browser, with the network cut off."""

import json
import re
import subprocess

import numpy as np
import pytest

import browsers
from sktransfer import StrategyComparison
from sktransfer._report import write_report

WIDTHS = {"desktop": 1280, "phone": 375}


@pytest.fixture
def comparison():
    comparison = StrategyComparison("accuracy", [400] * 3, [200] * 3)
    comparison.scores_ = {
        "features + linear": np.array([0.81, 0.83, 0.80]),
        "<mine> & 'yours'": np.array([0.91, 0.93, 0.92]),
        "a strategy of a name that is much too long for the screen of a phone": np.array([0.5, 0.4, 0.6]),
    }
    comparison.seconds_ = dict(zip(comparison.scores_, (3.2, 610.0, 12.0), strict=True))
    comparison.left_out_ = {"from scratch": "needs about 40 min, and 2 min were left"}
    return comparison


@pytest.fixture
def page(comparison, tmp_path):
    return write_report(comparison, tmp_path / "out" / "report", title="Strategies for <cells>", facts="600 images.")


def test_files_and_words(comparison, page):
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "scores.csv", "scores.png"]
    text = page.read_text()
    assert "<h1>Strategies for &lt;cells&gt;</h1>" in text and "600 images." in text
    assert "<td>&lt;mine&gt; &amp; &#x27;yours&#x27;</td><td>0.920</td><td>0.010</td><td>610</td>" in text
    assert '<tr class="best"><td>&lt;mine&gt;' in text
    assert "left out: needs about 40 min" in text and "it is better" in text
    assert len((page.parent / "scores.csv").read_text().splitlines()) == 4


def test_needs_nothing_from_elsewhere(page):
    text = page.read_text()
    assert re.findall(r"""(?:src|href)=["']?(?!data:)[^"'>]+|url\(|@import|https?://""", text) == []


# A page that shows the report in a frame of a given width, and writes down what it measures there.
MEASURE = """<!doctype html>
<iframe id="frame" width="{width}" height="900" style="border:0"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("frame");
frame.onload = () => {{
  const page = frame.contentDocument, image = page.querySelector("img");
  const box = element => element.getBoundingClientRect().toJSON();
  document.getElementById("found").textContent = JSON.stringify({{
    width: frame.contentWindow.innerWidth,
    scroll: page.documentElement.scrollWidth,
    table: box(page.querySelector(".wide")),
    rows: page.querySelectorAll("tbody tr").length,
    image: box(image), natural: image.naturalWidth, complete: image.complete,
    text: page.body.innerText,
    size: getComputedStyle(page.querySelector("td")).fontSize,
  }});
}};
frame.srcdoc = {page};
</script>"""


@browsers.needs_chromium
@pytest.mark.parametrize("screen", WIDTHS)
def test_in_a_browser(screen, page, tmp_path):
    source = json.dumps(page.read_text()).replace("</", "<\\/")
    (tmp_path / "measure.html").write_text(MEASURE.format(width=WIDTHS[screen], page=source))
    command = [
        browsers.CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,1000", "--virtual-time-budget=5000"]
    command += ["--dump-dom", (tmp_path / "measure.html").as_uri()]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = json.loads(
        re.search(r'<pre id="found">(.*)</pre>', out, re.DOTALL)[1]
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
    )
    assert found["width"] == WIDTHS[screen]
    assert found["scroll"] <= found["width"], "the page itself never scrolls sideways"
    assert found["rows"] == 4 and found["table"]["height"] > 100
    assert found["complete"] and found["natural"] > 800
    assert 300 < found["image"]["width"] <= found["width"]
    assert "0.920" in found["text"] and "left out" in found["text"]
    assert float(found["size"].removesuffix("px")) >= 14
