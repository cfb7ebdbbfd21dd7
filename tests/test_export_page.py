"""The page that `export` writes: it predicts as the model does, in a real browser, and talks to nobody."""

import base64
import hashlib
import io
import json
import os
import tarfile
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

import browsers
from pictures import CHINA, FLOWER, encoded, exif_of, noise
from sktransfer import ExportError, export, make_feature_classifier
from sktransfer._export import _runtime
from sktransfer._frozen._preprocessing import Preprocessing
from tiny import TINY

CLASSES = np.array(["china", "</script><img src=x onerror=document.title='broken'>"])


@pytest.fixture(scope="module")
def runtime():
    """The archive of onnxruntime-web, from the cache or from the npm registry."""
    try:
        return _runtime._cached()
    except ExportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model():
    params = {**TINY, "image_size": None}
    return make_feature_classifier(**params, cv=2).fit([CHINA, FLOWER] * 4, CLASSES[np.arange(8) % 2])


@pytest.fixture(scope="module")
def page(runtime, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "runtime.tgz").write_bytes(runtime)
    export(model, folder / "Buildings & <flowers>.html", runtime=folder / "runtime.tgz", images=[CHINA])
    return folder / "Buildings & <flowers>.html"


@pytest.fixture(scope="module")
def browser(page):
    with browsers.browser() as driver:
        driver.set_script_timeout(120)
        driver.get(page.as_uri())
        ready = "sktransfer.session.then(() => arguments[0]('ready'), (error) => arguments[0](String(error)))"
        assert driver.execute_async_script(ready) == "ready"
        yield driver


def answers(browser, paths):
    """Choose files as a user does, and return what the page answers."""
    before = browser.execute_script("return sktransfer.history.length")
    browser.find_element("id", "files").send_keys("\n".join(map(str, paths)))
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = browser.execute_script("return sktransfer.history")[before:]
        if len(found) == len(paths):
            return found
        time.sleep(0.05)
    raise AssertionError(browser.find_element("id", "status").text)


@browsers.needs_driver
def test_page_predicts_as_the_model(browser, model, tmp_path):
    small = np.ascontiguousarray(CHINA[:150, :200])
    files = {
        "photo.jpg": encoded(FLOWER, "JPEG", quality=90),
        "photo.png": encoded(CHINA),
        "tall.webp": encoded(np.ascontiguousarray(CHINA[:, 100:180]), "WEBP", lossless=True),
        "grey.png": encoded(FLOWER[..., 1]),
        "turned.jpg": encoded(small, "JPEG", quality=95, exif=exif_of(6)),
        "mirrored.png": encoded(small, exif=exif_of(2)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    found = answers(browser, [tmp_path / name for name in files])
    assert [each["name"] for each in found] == list(files)
    expected = model.predict_proba(list(files.values()))
    np.testing.assert_allclose([each["values"] for each in found], expected, atol=1e-4)
    assert [each["label"] for each in found] == model.predict(list(files.values())).tolist()
    assert np.ptp(expected[:, 0]) > 0.01


@browsers.needs_driver
def test_transparent_images_lie_on_white(browser, model, tmp_path):
    rgba = np.dstack([FLOWER, np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8), (427, 640))])
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(rgba)))
    (found,) = answers(browser, [tmp_path / "a.png"])
    np.testing.assert_allclose([found["values"]], model.predict_proba([tmp_path / "a.png"]), atol=2e-3)


@browsers.needs_driver
def test_files_that_are_no_images_get_a_message(browser, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes(encoded(noise(40, 40, 3))[:60])
    found = answers(browser, [tmp_path / "notes.txt", tmp_path / "cut.png"])
    assert [each["error"] for each in found] == [
        f"{name} is not an image that this browser can read." for name in ("notes.txt", "cut.png")
    ]
    newest = browser.find_element("css selector", "#results .fault").text
    assert newest == "cut.png is not an image that this browser can read."
    assert "2 files could not be read." in browser.find_element("css selector", "[role=status]").text


@browsers.needs_driver
@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_images_are_prepared_as_pillow_does(browser, interpolation):
    cases = []
    for size, shape, fraction, resize in [
        ((28, 28), (97, 61), 0.875, "crop"),
        ((28, 28), (33, 400), 0.9, "crop"),
        ((24, 40), (130, 77), 1.0, "crop"),
        ((32, 32), (300, 35), 1.0, "pad"),
        ((33, 20), (35, 300), 1.0, "pad"),
        ((20, 32), (77, 61), 1.0, "pad"),
        (
            (32, 32),
            (300, 35),
            0.95,
            "squash",
        ),  # more than twice as much is lost in height: Pillow turns its passes
        ((40, 40), (20, 23), 1.0, "crop"),
        ((31, 31), (31, 44), 1.0, "crop"),
    ]:
        cases.append((Preprocessing(size, fraction, interpolation, resize=resize), noise(*shape, 3, seed=shape[0])))
    asked = [
        {
            "data": base64.b64encode(image.tobytes()).decode(),
            "width": image.shape[1],
            "height": image.shape[0],
            "how": {
                "resize": how.resized_to,
                "crop": how.size,
                "resize_mode": how.resize_mode,
                "fill": how.fill,
                "interpolation": interpolation,
            },
        }
        for how, image in cases
    ]
    script = """
        return arguments[0].map(({ data, width, height, how }) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          return Array.from(sktransfer.prepared({ data: bytes, width, height }, how));
        });
    """
    for (how, image), found in zip(cases, browser.execute_script(script, asked), strict=True):
        canvas = how.canvas(image)
        np.testing.assert_array_equal(np.array(found, dtype=np.uint8).reshape(canvas.shape), canvas)


@browsers.needs_driver
def test_names_of_classes_cannot_break_out(browser, page):
    assert browser.title == "Buildings & <flowers>"
    assert browser.execute_script("return sktransfer.description.classes") == sorted(CLASSES.tolist())
    assert browser.find_elements("css selector", "img:not([src^='blob:'])") == []


@browsers.needs_driver
def test_page_can_be_used_on_a_phone_and_in_the_dark(browser):
    browser.set_window_size(375, 800)
    narrow = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    colours = set()
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        colours.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


@browsers.needs_driver
def test_keyboard_reaches_the_button(browser):
    from selenium.webdriver.common.keys import Keys

    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.execute_script("return document.activeElement.id") == "files"


@browsers.needs_driver
def test_page_talks_to_nobody(browser, model, tmp_path):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert urls and all(url.startswith(("file:", "blob:")) for url in urls)
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert complaints == []  # its own policy forbids nothing that it needs
    refused = """
        const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
        fetch("http://127.0.0.1:9/").catch(() => {});
    """
    assert browser.execute_async_script(refused) == "connect-src"


# --- the runtime ----------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)


def archive_of(**members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_without_a_network_the_error_says_how_to_get_it(offline, model, tmp_path):
    with pytest.raises(ExportError, match=r"no network.*npm pack onnxruntime-web@.*runtime='onnxruntime-web-"):
        export(model, tmp_path / "m.html")
    assert not (tmp_path / "m.html").exists()


def test_other_files_are_refused(offline, tmp_path):
    other = archive_of(**{f"package/dist/{name}": b"other" for name in (_runtime.SCRIPT, _runtime.WASM)})
    (tmp_path / "other.tgz").write_bytes(other)
    with pytest.raises(ExportError, match=f"is not that of onnxruntime-web {_runtime.VERSION}"):
        _runtime.load_runtime(tmp_path / "other.tgz")
    (tmp_path / "text.tgz").write_bytes(b"no archive")
    with pytest.raises(ExportError, match="is not the package onnxruntime-web"):
        _runtime.load_runtime(tmp_path / "text.tgz")
    with pytest.raises(ExportError, match="does not hold dist/"):
        _runtime.load_runtime(tmp_path)


def test_download_is_checked_and_kept(monkeypatch, tmp_path):
    content = archive_of(**{f"package/dist/{name}": name.encode() for name in (_runtime.SCRIPT, _runtime.WASM)})
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(ExportError, match="does not have the expected SHA-512"):
        _runtime._cached()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(_runtime, "SHA512_OF_ARCHIVE", hashlib.sha512(content).hexdigest())
    assert _runtime._cached() == _runtime._cached() == content
    assert asked == [_runtime.URL] * 2
    (kept,) = (tmp_path / "sktransfer").iterdir()
    kept.write_bytes(b"damaged")
    assert _runtime._cached() == content and len(asked) == 3


def test_runtime_of_a_folder(runtime, offline, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(runtime)) as archive:
        for name in (_runtime.SCRIPT, _runtime.WASM):
            target = tmp_path / "node_modules" / "onnxruntime-web" / "dist" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.extractfile(f"package/dist/{name}").read())
    found = _runtime.load_runtime(os.fspath(tmp_path / "node_modules" / "onnxruntime-web"))
    assert "globalThis.ort={" in found.script and "InferenceSession:" in found.script
    assert found.wasm.startswith(b"\0asm")
