"""Fuzz the containers of X: whatever X is, images or an ImageError.

    python fuzz/containers.py CORPUS -runs=200000

Start it through `make fuzz`.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import atheris

with atheris.instrument_imports(include=["sktransfer"]):
    import numpy as np
    import pandas as pd
    import torch
    from PIL import Image

    from sktransfer._exceptions import ImageError
    from sktransfer._images._collection import as_images, is_flat

warnings.simplefilter("ignore")
Image.MAX_IMAGE_PIXELS = 2**20

DTYPES = [*"?bBhHiIlLqQefdgFD", "S3", "U3", "M8[s]", "m8[s]", "V4", "O", ">u2", ">f4", "u1,f4"]
TENSORS = [torch.uint8, torch.uint16, torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.complex64]
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]


def png(mode: str = "RGB") -> bytes:
    """Return the content of a small file."""
    buffer = io.BytesIO()
    Image.new(mode, (3, 4)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = [png(mode) for mode in ("L", "RGB", "P", "I;16")]


def shape(data: atheris.FuzzedDataProvider) -> tuple[int, ...]:
    """Draw a shape of few entries."""
    return tuple(data.ConsumeIntInRange(0, 5) for _ in range(data.ConsumeIntInRange(0, 5)))


def array(data: atheris.FuzzedDataProvider) -> np.ndarray:
    """Draw an array, perhaps masked, of any type."""
    sides, dtype = shape(data), np.dtype(data.PickValueInList(DTYPES))
    n_bytes = int(np.prod(sides)) * dtype.itemsize
    if dtype.kind == "O":
        values = np.empty(sides, dtype=object)
        for place in np.ndindex(*sides):
            values[place] = scalar(data)
    else:
        values = np.frombuffer(data.ConsumeBytes(n_bytes).ljust(n_bytes, b"\1"), dtype).reshape(sides)
    return np.ma.array(values, mask=data.ConsumeBool()) if data.ConsumeIntInRange(0, 7) == 0 else values


def scalar(data: atheris.FuzzedDataProvider) -> Any:
    """Draw what may stand for an image, or for none."""
    kind = data.ConsumeIntInRange(0, 13)
    text = data.ConsumeUnicode(data.ConsumeIntInRange(0, 12)) if kind < 3 else ""
    simple = [None, 3, data.ConsumeFloat(), float("nan"), pd.NA, pd.NaT, object(), True, np.float32(2), 10**30]
    return {
        0: text,
        1: f"/tmp/{text}",
        2: text.encode(errors="surrogatepass"),
        3: data.PickValueInList(FILES),
        4: bytearray(data.PickValueInList(FILES)),
        5: memoryview(data.ConsumeBytes(4)),
        6: {"bytes": data.PickValueInList([None, *FILES]), "path": data.PickValueInList([None, "x.png", 3])},
        7: {"image": None},
        8: slice(None),
    }.get(kind, data.PickValueInList(simple))


def item(data: atheris.FuzzedDataProvider, depth: int = 0) -> Any:
    """Draw one entry of X, or X itself."""
    kind = data.ConsumeIntInRange(0, 13 if depth < 3 else 5)
    if kind < 3:
        return scalar(data)
    if kind == 3:
        return array(data)
    if kind == 4:
        tensor = torch.ones(shape(data), dtype=data.PickValueInList(TENSORS))
        return tensor.to_sparse() if data.ConsumeIntInRange(0, 7) == 0 and tensor.ndim else tensor
    if kind == 5:
        return Image.new(data.PickValueInList(MODES), (data.ConsumeIntInRange(0, 4), data.ConsumeIntInRange(0, 4)))
    entries = [item(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 3))]
    if kind == 10 and data.ConsumeBool():
        entries *= 2
    makers = {
        6: list,
        7: tuple,
        8: lambda entries: pd.Series(entries, dtype=object),
        9: lambda entries: pd.DataFrame({"a": pd.Series(entries, dtype=object), "b": pd.Series(range(len(entries)))}),
        10: iter,
        11: lambda entries: dict(enumerate(entries)),
        12: lambda entries: pd.DataFrame({"image": pd.Series(entries, dtype=object)}),
    }
    if kind in makers:
        return makers[kind](entries)
    objects = np.empty((len(entries), 1), dtype=object)
    for i, entry in enumerate(entries):
        objects[i, 0] = entry
    return objects


def one_container(content: bytes) -> None:
    """Take X for images, and decode each of them."""
    data = atheris.FuzzedDataProvider(content)
    image_shape = data.PickValueInList([None, None, (2, 2), (1, -1), (2, 2, 3), (0,), "x", 3, (2, 2.5)])
    value_range = data.PickValueInList(["auto", "auto", (0, 255), (-1e9, 1e9), None, "full", (1, 0)])
    try:
        X = item(data)
    except Exception:  # pandas and numpy cannot hold everything
        return
    assert is_flat(X, image_shape) in (True, False)
    try:
        images = as_images(X, image_shape=image_shape, value_range=value_range)
    except ImageError as error:
        assert 0 < len(str(error)) < 3000
        return
    assert len(images) > 0
    for i in range(len(images)):
        for read in (images.decode, images.content):
            try:
                read(i)
            except ImageError as error:
                assert [bad.index for bad in error.bad_images] == [i] and len(str(error)) < 3000
    try:
        images[len(images)]
    except IndexError:
        return
    raise AssertionError("an image beyond the last one")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_container)
    atheris.Fuzz()
