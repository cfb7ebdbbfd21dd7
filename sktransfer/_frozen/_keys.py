"""Which row is which: an image is known by its content, and its row by everything else that the values depend on.

A file is read once. The bytes that are hashed are the bytes that are decoded, so a row can never be kept under the
content of another file, whatever happens to the file meanwhile.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from typing import Any

import xxhash

from .._images._collection import Images
from .._images._decoding import ValueRange
from ._preprocessing import Preprocessing

KEY_VERSION = 2  # of the keys; a change makes every older row unknown


@dataclass(frozen=True)
class Origin:
    """All that a row of activations depends on, beside the image and which view of it is seen.

    Parameters
    ----------
    backbone : str
        The architecture, the package that builds it with its version, and the checksum of the weights.
    preprocessing : Preprocessing
    value_range : "auto" or tuple of float
    decoder : str
        The decoder with its version, and its settings.
    engine : str
        The engine with its version, the kind of device, the precision, and the switches that bear on it.
    cuts : tuple of int
        How many stages lie before each cut.
    pooling : str or None
    """

    backbone: str
    preprocessing: Preprocessing
    value_range: ValueRange
    decoder: str
    engine: str
    cuts: tuple[int, ...]
    pooling: str | None

    @functools.cached_property
    def text(self) -> str:
        """The whole record in words; equal for equal records alone."""
        return f"{KEY_VERSION}|{self!r}"


def row_key(origin: Origin, content: bytes, view: str = "") -> bytes:
    """Return the key of one row; no key is built anywhere else.

    Parameters
    ----------
    origin : Origin
    content : bytes
        The image's fingerprint.
    view : str
        Which augmented view of the image; empty for the image itself.
    """
    return xxhash.xxh3_128_digest(f"{origin.text}|{view}|".encode() + content)


_known_files: dict[str, tuple[tuple[int, ...], bytes]] = {}


def fingerprint(images: Images, index: int, *, anew: bool = False) -> tuple[bytes, Any]:
    """Return a hash of an image's content, and what was read for it.

    Parameters
    ----------
    images : Images
    index : int
    anew : bool
        Read the file even if it is known.

    Returns
    -------
    content : bytes
    item : object
        For `Images.decode`: the bytes of the file. None for a file that is known and was not read again.

    Notes
    -----
    A file is known by its device, inode, size, and times of modification and of change. The last cannot be set from
    outside, so a copy onto the same name shows. A file changed within the last two seconds is read again, since its
    time may not show the next change.
    """
    path = images.path(index)
    if path is None:
        item = images.read(index)
        return xxhash.xxh3_128_digest(images.content(index, item)), item
    path = os.path.abspath(path)
    stamp = _stamp(path)
    known = None if anew else _known_files.get(path)
    if known is not None and known[0] == stamp:
        return known[1], None
    item = images.read(index)
    digest = xxhash.xxh3_128_digest(images.content(index, item))
    if stamp is not None and stamp == _stamp(path) and time.time_ns() - max(stamp[-2:]) > 2 * 10**9:
        if len(_known_files) >= 500_000:
            _known_files.clear()
        _known_files[path] = (stamp, digest)
    return digest, item


def _stamp(path: str) -> tuple[int, ...] | None:
    """Return what tells one state of a file from the next; None where nothing can be relied on."""
    if os.name == "nt":  # whose "time of change" is that of creation
        return None
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # reading it raises the error that names the image
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
