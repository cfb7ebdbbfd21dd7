"""Which decoder and which resizer, milliseconds per image on one core, and how far from Pillow's pixels they are.

Needs: pip install simplejpeg opencv-python-headless. The photos are those of clothes, or generated if they are missing,
see problems.py.
"""

import io
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from _cells import Benchmark, Cell, seconds, table
from problems import photos
from sktransfer._images._decoding import rgb_from_file


def resized_by_torch(image: np.ndarray) -> np.ndarray:
    """Resize as torchvision's v2 transforms do with tensors."""
    maps = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(maps, size=(341, 256), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def opencv() -> Any:
    """Import OpenCV for one thread."""
    cv2 = import_module("cv2")
    cv2.setNumThreads(1)
    return cv2


# The first of each is the reference.
FUNCTIONS: dict[str, dict[str, Callable]] = {
    "decoder": {
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        "Pillow with our checks": lambda data: rgb_from_file(data, "auto"),
        "simplejpeg": lambda data: import_module("simplejpeg").decode_jpeg(data),
        "OpenCV": lambda data: opencv().cvtColor(
            opencv().imdecode(np.frombuffer(data, np.uint8), 1), opencv().COLOR_BGR2RGB
        ),
        "torchvision.io": lambda data: (
            decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
        ),
    },
    "resizer": {
        "Pillow, bicubic": lambda image: np.asarray(
            Image.fromarray(image).resize((256, 341), Image.Resampling.BICUBIC)
        ),
        "torch, bicubic, antialias": resized_by_torch,
        "OpenCV, area": lambda image: opencv().resize(image, (256, 341), interpolation=opencv().INTER_AREA),
    },
}


def plan(tiny: bool) -> list[Cell]:
    return [{"part": part, "name": name, "n": 4 if tiny else 200} for part in FUNCTIONS for name in FUNCTIONS[part]]


def measure(part: str, name: str, n: int) -> dict[str, float]:
    """Time one function, and compare its pixels with those of the reference."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = [Path(path).read_bytes() for path in photos(n, Path(folder))]
    if part == "resizer":  # upright images
        images = map(FUNCTIONS["decoder"]["Pillow"], inputs)
        inputs = [np.array(image if len(image) >= image.shape[1] else image.transpose(1, 0, 2)) for image in images]
    function, reference, threads = FUNCTIONS[part][name], next(iter(FUNCTIONS[part].values())), torch.get_num_threads()
    outputs: list[np.ndarray] = [function(inputs[0])]
    torch.set_num_threads(1)
    took = seconds(lambda: outputs.extend(map(function, inputs)))
    torch.set_num_threads(threads)
    expected = map(reference, inputs)
    gaps = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(outputs[1:], expected, strict=True)]
    largest, mean = max(gap.max() for gap in gaps), np.mean([gap.mean() for gap in gaps])
    return {"milliseconds": 1e3 * took / n, "largest difference": int(largest), "mean difference": float(mean)}


def report(cells: list[Cell]) -> list[str]:
    lines = []
    for part in FUNCTIONS:
        columns = {part: "", "ms per image": ".2f", "largest difference in grey levels": "", "mean difference": ".3f"}
        keys = "name", "milliseconds", "largest difference", "mean difference"
        lines += table(columns, [[cell[key] for key in keys] for cell in cells if cell["part"] == part])
    return lines


BENCHMARK = Benchmark(__file__, __doc__, "Decoding and resizing", plan, measure, report)

if __name__ == "__main__":
    BENCHMARK.main()
