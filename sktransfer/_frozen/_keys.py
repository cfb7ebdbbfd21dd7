"""Build the keys of stored rows from the content of the image and from everything else that the values depend on.

A file is read once, and the bytes that are hashed are also decoded. So a row is never stored under the content of
another file, even if the file changes in the meantime.
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
from ._cut_network import Outputs
from ._preprocessing import Preprocessing

KEY_VERSION = 4  # version of the keys; changing it invalidates every stored row


@dataclass(frozen=True)
class Origin:
    """Everything that a row of activations depends on, except for the image and its view."""

    backbone: str  # the architecture, the package that builds it with its version, and the checksum of the weights
    preprocessing: Preprocessing
    value_range: ValueRange
    decoder: str  # the decoder with its version, and its settings
    engine: str  # the engine with its version, the kind of device, the precision, and switches that affect the values
    outputs: Outputs

    @functools.cached_property
    def text(self) -> str:
        """The whole record as text, which is equal only for equal records."""
        return f"{KEY_VERSION}|{self!r}"


def row_key(origin: Origin, content: bytes, view: str = "") -> bytes:
    """Return the key of the row of an image with this fingerprint, or of its view. Keys are built only here."""
    return xxhash.xxh3_128_digest(f"{origin.text}|{view}|".encode() + content)


_known_files: dict[str, tuple[tuple[int, ...], bytes]] = {}


def fingerprint(images: Images, index: int, *, anew: bool = False) -> tuple[bytes, Any]:
    """Return a hash of an image's content, and the item that was read to compute it, for `Images.decode`.

    The item is None for a known file, which is not read again unless `anew` says so. A file is recognised by its
    device, inode, size, and times of modification and of status change (ctime). Programs cannot set the ctime, so it
    shows when another file is copied over this one. A file changed within the last two seconds is read again, because
    its times may not show the next change.
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
    """Return values that change whenever the file changes; None if no such values are reliable."""
    if os.name == "nt":  # on Windows, st_ctime is the time of creation
        return None
    try:
        stat = os.stat(path)
    except (OSError, ValueError):  # reading the file then raises an error that names the image
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
