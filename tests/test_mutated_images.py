"""Image files, cut, flipped and spliced: the right image or the project's error, in little time and memory."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from odd_files import BROKEN, UNUSUAL
from pictures import CHINA, decode, encoded
from sktransfer import ImageError
from sktransfer._images._collection import as_images

SECONDS, MEGABYTES = 5, 1000  # that one file may take


def sources():
    """Return small files of every common format, a real photo, and files with faults and oddities."""
    picture = Image.effect_noise((60, 44), 90).convert("RGB")
    formats = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    files = {f"small.{name.lower()}": encoded(picture, name) for name in formats}
    files["photo.jpg"] = encoded(CHINA, "JPEG", quality=90)
    return files | {name: content for name, (content, *_) in {**BROKEN, **UNUSUAL}.items()}


def write_mutants(folder, n):
    """Write files made from others by cutting, flipping and splicing bytes, in turns."""
    rng, files = random.Random(0), list(sources().items())
    for i in range(n):
        name, content = files[i % len(files)]
        content, kind = bytearray(content), ("cut", "flip", "splice")[i // len(files) % 3]
        if kind == "cut":
            content = content[: rng.randrange(len(content))]
        elif kind == "flip":
            for _ in range(rng.randint(1, 8)):
                place = rng.randrange(min(len(content), 4096) if rng.random() < 0.7 else len(content))
                content[place] ^= rng.randrange(1, 256)
        else:
            other = rng.choice(files)[1]
            content = content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
        (folder / f"{i}-{kind}-{name}").write_bytes(content)


def is_right(path, image):
    """Compare with Pillow's own pixels, where a picture of eight bits without transparency leaves no choice."""
    with Image.open(path) as opened:
        if opened.mode not in ("L", "RGB") or "transparency" in opened.info:
            return image.ndim == 3 and image.shape[2] == 3
        try:
            opened = ImageOps.exif_transpose(opened)
        except Exception:  # broken EXIF, of which Pillow complains in many ways, counts as upright
            opened.load()
        return np.array_equal(image, np.asarray(opened.convert("RGB")))


def forget_peak():
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes():
    """Return the most memory that this process has had since; 0 where there is no such count."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return max([int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")], default=0)


def look_at(folder):
    """Decode every file, and tell what came of it. Runs in a process of its own, whose memory is measured."""
    found = {"images": 0, "refused": 0, "megabytes": 0, "wrong": [], "foreign": [], "unnamed": [], "slow": []}
    for path in sorted(Path(folder).iterdir()):
        forget_peak()
        start = time.process_time()  # the tests may share the machine
        try:
            image = as_images([path])[0]
        except ImageError as error:
            found["refused"] += 1
            found["unnamed"] += [str(error)] if path.name not in str(error) else []
            image = None
        except BaseException as error:  # whatever else: that is what is looked for
            found["foreign"].append(f"{path.name}: {error!r}")
            image = None
        if time.process_time() - start > SECONDS:
            found["slow"].append(path.name)
        found["megabytes"] = max(found["megabytes"], peak_megabytes())
        if image is not None:
            found["images"] += 1
            found["wrong"] += [] if is_right(path, image) else [path.name]
    return found


@pytest.mark.parametrize("n", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_right_image_or_our_error(n, tmp_path):
    write_mutants(tmp_path, n)
    for name, content in sources().items():
        (tmp_path / name).write_bytes(content)
    code = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_mutated_images as t\n"
    code += f"print(json.dumps(t.look_at({str(tmp_path)!r})))"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    found = json.loads(run.stdout.splitlines()[-1])
    print(found)
    assert found["foreign"] == found["wrong"] == found["unnamed"] == found["slow"] == []
    assert found["megabytes"] < MEGABYTES
    assert found["images"] + found["refused"] == n + len(sources())
    assert found["images"] > 0.05 * n and found["refused"] > 0.5 * n  # some of either, or nothing was tried


def jpeg_of_many_scans(side, n):
    """Return a progressive JPEG of one grey level in which a scan of few bytes comes n times."""
    jpeg = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=50)
    start, end = [place for place in range(len(jpeg)) if jpeg.startswith(b"\xff\xda", place)][3:5]
    return jpeg[:end] + n * jpeg[start:end] + jpeg[end:]


@pytest.mark.parametrize("least_side", [None, 224])
def test_small_jpeg_of_many_scans_is_refused_at_once(least_side, monkeypatch):
    """Its decoder goes over all pixels for each scan, and holds all of them at whatever fraction it decodes."""
    images = as_images([jpeg_of_many_scans(1000, 1000)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**7)
    forget_peak()
    start, before = time.process_time(), peak_megabytes()
    with pytest.raises(ImageError, match="goes over its 1000 x 1000 pixels 1006 times"):
        images.decode(0, least_side)
    assert time.process_time() - start < 0.5 and peak_megabytes() - before < 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999_999)
    with pytest.raises(ImageError, match="exceed the limit of 999999 pixels"):
        images.decode(0, least_side)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    assert as_images([jpeg_of_many_scans(1000, 5)]).decode(0, least_side).min() == 128


def test_large_baseline_jpeg_is_decoded_at_a_fraction(monkeypatch):
    content = encoded(Image.new("RGB", (1000, 1000)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600_000)
    assert as_images([content]).decode(0, 224).shape == (250, 250, 3)


@pytest.mark.parametrize("name, cost", [("JPEG2000", 3), ("WEBP", 1.6), ("AVIF", 1.2), ("PNG", 1)])
def test_pixels_that_cost_more_count_more(name, cost, monkeypatch):
    """At the limit of pixels for others, JPEG 2000 took 2.1 GB and WebP 1.4 GB."""
    if name == "AVIF":
        pytest.importorskip("PIL._avif")
    content = encoded(Image.new("RGB", (100, 100)), name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 * cost) + 5)
    decode(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 * cost) - 5)
    with pytest.raises(ImageError, match=f"pixels for {name}, it could be a decompression bomb"):
        decode(content)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pictures_take_little_more_memory_than_their_pixels(mode):
    content = encoded(Image.new(mode, (4000, 2500), 1), "TIFF", compression="tiff_adobe_deflate")
    images = as_images([content], value_range=(0, 2))
    images[0]
    forget_peak()
    before = peak_megabytes()
    images[0]
    assert peak_megabytes() - before < 120  # 10 megapixels; all values at once as float64 take 240 and more
