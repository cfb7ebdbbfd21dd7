"""Activations kept per image, so that whatever is frozen is computed once.

Two levels. In memory, always on: one least-recently-used dictionary for the whole process. On disk, where
``memory=`` names a folder: one file per row, shared by processes and by days. A file is written aside and renamed,
so a killed writer leaves no half row, and it carries a checksum, so a damaged row is computed anew and never served.

A key is a hash of all that a row depends on: the image's content, the weights, the cut, the pooling, the
preprocessing, the engine, the augmented view, and the format of the row.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ._images import Images

FORMAT = 1  # of rows and keys; a change makes every older row unknown
MEMORY_MB = 512
DISK_MB = 10_000


class CacheInfo(NamedTuple):
    """What a cache holds, and how often it was of use to this process.

    Attributes
    ----------
    entries : int
        Number of rows; one per image, cut and augmented view.
    megabytes : float
    limit_megabytes : float
        Beyond it the least recently used rows are dropped.
    hits, misses : int
        Rows that this process asked for and that were found, or had to be computed.
    """

    entries: int
    megabytes: float
    limit_megabytes: float
    hits: int
    misses: int


class MemoryLevel:
    """A dictionary of arrays bounded in bytes; the least recently used go first. Safe for threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = self.hits = self.misses = 0
        self._rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> np.ndarray | None:
        """Return a row, which must not be written to, or None."""
        with self._lock:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            return row

    def put(self, key: bytes, row: np.ndarray) -> None:
        """Keep a row, which must not be changed afterwards."""
        if row.nbytes > self.limit:
            return
        with self._lock:
            old = self._rows.pop(key, None)
            self.size += row.nbytes - (old.nbytes if old is not None else 0)
            self._rows[key] = row
            self._shrink()

    def set_limit(self, limit: int) -> None:
        """Change the bound."""
        with self._lock:
            self.limit = limit
            self._shrink()

    def clear(self) -> None:
        """Drop all rows and counts."""
        with self._lock:
            self._rows.clear()
            self.size = self.hits = self.misses = 0

    def info(self) -> CacheInfo:
        """Count what is there."""
        return CacheInfo(len(self._rows), self.size / 1e6, self.limit / 1e6, self.hits, self.misses)

    def _shrink(self) -> None:
        while self.size > self.limit:
            _, row = self._rows.popitem(last=False)
            self.size -= row.nbytes


class DiskLevel:
    """A folder with one file per row, bounded in bytes; the least recently used go first.

    Any number of processes and threads may read and write at once.
    """

    _serial = itertools.count()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limit = _limits["disk"]
        self.hits = self.misses = 0
        self._writable = True
        self._unseen = self.limit  # bytes written since the folder was last measured; the first row measures it

    def get(self, key: bytes) -> np.ndarray | None:
        """Return a row, or None if it is not there or damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            if time.time() - path.stat().st_mtime > 600:
                os.utime(path)  # its last use, to the ten minutes
        except OSError:
            return None
        return _row_from_bytes(key, content)

    def put(self, key: bytes, row: np.ndarray) -> None:
        """Keep a row. On a full or read-only disk, warn once and write no more."""
        if not self._writable:
            return
        path = self._path(key)
        aside = path.with_name(f".{os.getpid()}-{next(self._serial)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(_bytes_from_row(key, row))
            aside.replace(path)
        except OSError as error:
            self._writable = False
            aside.unlink(missing_ok=True)
            warnings.warn(
                f"Activations cannot be written to {str(self.folder)!r} ({error}); going on without writing there.",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self._unseen += row.nbytes
        if self._unseen > self.limit // 20:
            self._evict()

    def clear(self) -> None:
        """Delete all rows and forget the counts."""
        for path, _ in self._files():
            path.unlink(missing_ok=True)
        self.hits = self.misses = 0

    def info(self) -> CacheInfo:
        """Count what is there."""
        sizes = [stat.st_size for path, stat in self._files() if path.suffix != ".tmp"]
        return CacheInfo(len(sizes), sum(sizes) / 1e6, self.limit / 1e6, self.hits, self.misses)

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / name

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.folder.glob("??/*"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process was faster to delete it
                continue
        return found

    def _evict(self) -> None:
        """Delete the rows used longest ago until nine tenths of the limit are left, and what killed writers left."""
        self._unseen = 0
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total = sum(stat.st_size for _, stat in files)
        target = self.limit if total <= self.limit else 0.9 * self.limit
        for path, stat in files:
            abandoned = path.suffix == ".tmp" and time.time() - stat.st_mtime > 3600
            if total > target or abandoned:
                path.unlink(missing_ok=True)
                total -= stat.st_size


class ActivationStore:
    """Rows by key, from memory or else from disk.

    Parameters
    ----------
    memory : MemoryLevel
    disk : DiskLevel or None
    """

    _counting = threading.Lock()

    def __init__(self, memory: MemoryLevel, disk: DiskLevel | None) -> None:
        self.memory = memory
        self.disk = disk

    def get(self, key: bytes) -> np.ndarray | None:
        """Return a row, which must not be written to, or None."""
        row = self.memory.get(key)
        if row is None and self.disk is not None:
            row = self.disk.get(key)
            if row is not None:
                self.memory.put(key, row)
        return row

    def count(self, *, found: bool) -> None:
        """Count one row that was asked for."""
        with self._counting:
            for level in (self.memory, self.disk):
                if level is not None:
                    level.hits += found
                    level.misses += not found

    def put(self, key: bytes, row: np.ndarray) -> None:
        """Keep a row, which must not be changed afterwards."""
        self.memory.put(key, row)
        if self.disk is not None:
            self.disk.put(key, row)


_memory = MemoryLevel(MEMORY_MB * 10**6)
_limits = {"disk": DISK_MB * 10**6}
_disks: dict[Path, DiskLevel] = {}


def resolve_store(memory: Any) -> ActivationStore | None:
    """Return the store for an estimator's ``memory`` parameter, or None where both levels are off.

    Parameters
    ----------
    memory : None, path or joblib.Memory
    """
    disk = _disk(memory)
    return ActivationStore(_memory, disk) if disk is not None or _memory.limit > 0 else None


def _disk(memory: Any) -> DiskLevel | None:
    location = getattr(memory, "location", memory)
    if location is None:
        return None
    folder = Path(location).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"memory={str(location)!r} is a file. Pass a folder to keep activations in, or None.")
    folder = folder / "sktransfer-activations"
    return _disks.setdefault(folder, DiskLevel(folder))


def set_cache_limits(*, memory_mb: float | None = None, disk_mb: float | None = None) -> None:
    """Set how much room stored activations may take.

    Parameters
    ----------
    memory_mb : float, default=None
        Megabytes in the memory of this process (512 at the start). 0 turns this level off. None leaves it.
    disk_mb : float, default=None
        Megabytes in each folder that an estimator's ``memory`` names (10,000 at the start). None leaves it.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.set_cache_limits(memory_mb=1024)
    >>> sktransfer.cache_info().limit_megabytes
    1024.0
    >>> sktransfer.set_cache_limits(memory_mb=512)
    """
    for name, value in (("memory_mb", memory_mb), ("disk_mb", disk_mb)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be 0 or more megabytes, got {value!r}.")
    if memory_mb is not None:
        _memory.set_limit(int(memory_mb * 10**6))
    if disk_mb is not None:
        _limits["disk"] = int(disk_mb * 10**6)
        for disk in _disks.values():
            disk.limit = _limits["disk"]


def cache_info(memory: Any = None) -> CacheInfo:
    """Tell what a cache of activations holds.

    Parameters
    ----------
    memory : None, path or joblib.Memory, default=None
        None tells of the memory of this process; otherwise as an estimator's ``memory``.

    Returns
    -------
    info : CacheInfo
        Named tuple of ``entries``, ``megabytes``, ``limit_megabytes``, and this process's ``hits``, ``misses``.
    """
    level = _disk(memory) or _memory
    return level.info()


def clear_cache(memory: Any = None) -> None:
    """Forget stored activations.

    Parameters
    ----------
    memory : None, path or joblib.Memory, default=None
        None clears the memory of this process; otherwise the folder, as an estimator's ``memory``.
    """
    level = _disk(memory) or _memory
    level.clear()


# --- keys -------------------------------------------------------------------------------------------------

_known_files: dict[str, tuple[tuple[int, ...], bytes]] = {}


def fingerprint(images: Images, index: int) -> bytes:
    """Return a hash of an image's content.

    A file whose size, time and inode are as they were is not read again; a file changed within the last two
    seconds is not trusted to show the next change in its time.
    """
    path = images.path(index)
    if path is None:
        return xxhash.xxh3_128_digest(images.content(index))
    path = os.path.abspath(path)
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return xxhash.xxh3_128_digest(images.content(index))  # raises the error that names the image
    stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    known = _known_files.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    digest = xxhash.xxh3_128_digest(images.content(index))
    if time.time_ns() - stat.st_mtime_ns > 2 * 10**9:
        if len(_known_files) >= 500_000:
            _known_files.clear()
        _known_files[path] = (stamp, digest)
    return digest


def row_key(namespace: str, content: bytes, view: str = "") -> bytes:
    """Return the key of one row.

    Parameters
    ----------
    namespace : str
        All that a row depends on beside the image.
    content : bytes
        The image's fingerprint.
    view : str
        Which augmented view of the image; empty for the image itself.
    """
    return xxhash.xxh3_128_digest(f"{FORMAT}|{namespace}|{view}|".encode() + content)


# --- rows -------------------------------------------------------------------------------------------------


def _bytes_from_row(key: bytes, row: np.ndarray) -> bytes:
    header = struct.pack("<4sB", row.dtype.str[1:].encode(), row.ndim) + struct.pack(f"<{row.ndim}I", *row.shape)
    body = header + row.tobytes()
    return xxhash.xxh3_128_digest(key + body) + body


def _row_from_bytes(key: bytes, content: bytes) -> np.ndarray | None:
    """Return the row, or None if the checksum is not that of this key and these bytes."""
    digest, body = content[:16], content[16:]
    if len(body) < 5 or xxhash.xxh3_128_digest(key + body) != digest:
        return None
    dtype, ndim = struct.unpack_from("<4sB", body)
    shape = struct.unpack_from(f"<{ndim}I", body, 5)
    values = np.frombuffer(body, dtype=dtype.rstrip(b"\0").decode(), offset=5 + 4 * ndim)
    return values.reshape(shape)
