"""Which decoder and which resizer, milliseconds per image on one core, and how far from Pillow's pixels they are.

pip install simplejpeg opencv-python-headless
python benchmarks/decoding.py     # prints a table, writes docs/benchmarks/decoding.md
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from extraction import photos
from PIL import Image
from torchvision.io import decode_jpeg

from sktransfer._images._decoding import rgb_from_file

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "decoding.md"

DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {
    "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
    "Pillow with our checks": lambda data: rgb_from_file(data, "auto"),
    "simplejpeg": simplejpeg.decode_jpeg,
    "OpenCV": lambda data: cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB),
    "torchvision.io": lambda data: (
        decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    ),
}


def resize_by_torch(image: np.ndarray) -> np.ndarray:
    """Resize as torchvision's v2 transforms do with tensors."""
    maps = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(maps, size=(341, 256), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


RESIZERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Pillow, bicubic": lambda image: np.asarray(Image.fromarray(image).resize((256, 341), Image.Resampling.BICUBIC)),
    "torch, bicubic, antialias": resize_by_torch,
    "OpenCV, area": lambda image: cv2.resize(image, (256, 341), interpolation=cv2.INTER_AREA),
}


def rows(functions: dict[str, Callable], inputs: list) -> list[str]:
    """Return a line of the table for each function; the first is the reference."""
    lines, reference = [], None
    for name, function in functions.items():
        function(inputs[0])
        start = time.perf_counter()
        outputs = [function(value) for value in inputs]
        milliseconds = 1e3 * (time.perf_counter() - start) / len(inputs)
        reference = reference or outputs
        gaps = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(outputs, reference, strict=True)]
        largest, mean = max(gap.max() for gap in gaps), np.mean([gap.mean() for gap in gaps])
        lines.append(f"| {name} | {milliseconds:.2f} | {largest} | {mean:.3f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and write the report."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    contents = [Path(path).read_bytes() for path in photos(200)]
    header = ["| {} | ms per image | largest difference in grey levels | mean difference |", "|---|---|---|---|"]
    lines = [header[0].format("decoder"), header[1], *rows(DECODERS, contents), ""]
    images = [np.ascontiguousarray(DECODERS["Pillow"](content)) for content in contents]
    images = [image if image.shape[0] >= image.shape[1] else image.transpose(1, 0, 2).copy() for image in images]
    lines += [header[0].format("resizer"), header[1], *rows(RESIZERS, images)]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("# Decoding and resizing\n\n`python benchmarks/decoding.py`\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
