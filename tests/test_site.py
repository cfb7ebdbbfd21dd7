"""The site as a browser shows it: ten pages on a wide screen and on a phone."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import browsers

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "_build" / "html"
PAGES = [
    "index",
    "start",
    "guide/index",
    "guide/fine_tune",
    "guide/which_tool",
    "capabilities",
    "reference/index",
    "reference/generated/sktransfer.FineTunedCNNClassifier",
    "benchmarks/accuracy",
    "auto_gallery/index",
]
WIDTHS = {"wide": 1280, "phone": 375}

pytestmark = [pytest.mark.slow, browsers.needs_driver]


@pytest.fixture(scope="module")
def address():
    """Serve the site, which is built without running the gallery if it is missing, and return its address."""
    if not (SITE / "index.html").exists():
        pytest.importorskip("sphinx_gallery")
        build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-D", "plot_gallery=0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*build, str(ROOT / "docs"), str(SITE)], check=True, env=environment)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with browsers.browser() as driver:
        yield driver


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("page", PAGES)
def test_page_is_whole(page, width, address, browser):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{address}/{page}.html")
    broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth && i.src).map(i => i.src)"
    assert browser.execute_script(broken) == []
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    requested = {url for entry in browser.get_log("performance") for url in urls_of(entry["message"])}
    assert len(requested) > 3
    assert {url for url in requested if urlsplit(url).netloc != urlsplit(address).netloc} == set()
    for part in ("document.documentElement", "document.querySelector('.bd-article')"):  # the latter may be cut off
        assert browser.execute_script(f"return {part}.scrollWidth - {part}.clientWidth") <= 1, part


def urls_of(message):
    """Return the address in a message about a request."""
    content = json.loads(message)["message"]
    if content["method"] == "Network.requestWillBeSent":
        url = content["params"]["request"]["url"]
        if urlsplit(url).scheme in ("http", "https", "ws", "wss"):
            yield url
