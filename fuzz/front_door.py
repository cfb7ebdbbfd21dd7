"""Fuzz the front door: whatever the bytes, an RGB image or an ImageError that says which one.

    python fuzz/front_door.py CORPUS -runs=200000

Coverage is that of Pillow's Python code and of our own. Start it through `make fuzz`, which makes the seeds too.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["PIL", "sktransfer"]):
    import numpy as np
    from PIL import Image

    from sktransfer._exceptions import ImageError
    from sktransfer._images._collection import as_images

Image.MAX_IMAGE_PIXELS = 2**20  # a megapixel is enough to go wrong, and quick


def one_file(data: bytes) -> None:
    """Decode a file, as a whole and at a fraction, with and without a value range."""
    for value_range, least_side in (("auto", None), ((0, 1000), 64)):
        images = as_images([data], value_range=value_range)
        images.content(0)
        try:
            image = images.decode(0, least_side)
        except ImageError as error:
            assert str(error).startswith(f"Cannot read image 0 ({len(data)} bytes): ")
            assert [bad.index for bad in error.bad_images] == [0]
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_file)
    atheris.Fuzz()
