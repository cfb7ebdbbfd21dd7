"""The store keeps the activations of each image, so that frozen stages are computed once.

It has two levels. The level in memory is always on: one least-recently-used dictionary for the whole process. The
level on disk is used if ``memory=`` names a folder: one file per row, shared by processes and kept between sessions.
A file is written under another name and then renamed, so a killed process leaves no incomplete row. It carries a
checksum, so a damaged row is computed again instead of being used. Keys are built in `_keys`.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
import warnings
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from .._registry import forget_built
from .._whole_files import write_whole

MEMORY_MB = 512
DISK_MB = 10_000


class CacheInfo(NamedTuple):
    """What a cache holds, and how often this process has found rows in it.

    Attributes
    ----------
    entries : int
        Number of rows; one per image, cut and augmented view.
    megabytes : float
        Size of these rows.
    limit_megabytes : float
        Beyond this limit the least recently used rows are dropped.
    hits, misses : int
        Number of rows that this process looked up and found, or did not find and had to compute.

    See Also
    --------
    cache_info : Makes one.

    Examples
    --------
    >>> from sktransfer import cache_info
    >>> type(cache_info()).__name__
    'CacheInfo'
    """

    entries: int
    megabytes: float
    limit_megabytes: float
    hits: int
    misses: int


CacheInfo.__module__ = "sktransfer"


class MemoryLevel:
    """A thread-safe dictionary of arrays with a limit in bytes. The least recently used rows are dropped first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = self.hits = self.misses = 0
        self._rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> np.ndarray | None:
        """Return a row, which must not be changed, or None."""
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
        """Change the limit."""
        with self._lock:
            self.limit = limit
            self._shrink()

    def clear(self) -> None:
        """Drop all rows and counts."""
        with self._lock:
            self._rows.clear()
            self.size = self.hits = self.misses = 0

    def start_clean_after_fork(self) -> None:
        """Replace the lock. If another thread held it during the fork, drop the rows too: they may be inconsistent."""
        if self._lock.locked():
            self._rows, self.size = OrderedDict(), 0
        self._lock = threading.Lock()

    def info(self) -> CacheInfo:
        """Return the number and size of the rows, and the counts."""
        return CacheInfo(len(self._rows), self.size / 1e6, self.limit / 1e6, self.hits, self.misses)

    def _shrink(self) -> None:
        while self.size > self.limit:
            _, row = self._rows.popitem(last=False)
            self.size -= row.nbytes


class DiskLevel:
    """A folder with one file per row and a limit in bytes. The least recently used rows are deleted first.

    Any number of processes and threads may read and write at once. A process without permission to write can still
    read rows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limit = _limits["disk"]
        self.hits = self.misses = 0
        self._writable = True
        self._failures = 0  # number of consecutive failures to write
        self._there: set[bytes] = set()  # keys of rows that this process wrote or read
        self._unseen = self.limit  # bytes written since the size was last measured; the first row triggers this

    def get(self, key: bytes) -> np.ndarray | None:
        """Return a row, or None if it is missing or damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # only the owner of a file may set its time
            if time.time() - path.stat().st_mtime > 600:
                os.utime(path)  # records the last use, with an accuracy of ten minutes
        row = _row_from_bytes(key, content)
        if row is not None:
            self._note_there(key)
        return row

    def keep(self, key: bytes, row: np.ndarray) -> None:
        """Write a row that was found in memory, unless the folder has it already."""
        if key in self._there or not self._writable:
            return
        if self._path(key).exists():
            self._note_there(key)
        else:
            self.put(key, row)

    def look_again(self) -> None:
        """Forget which rows exist if the folder has been deleted."""
        if self._there and not self.folder.exists():
            self._there.clear()

    def put(self, key: bytes, row: np.ndarray) -> None:
        """Keep a row. If the disk is full or read-only, warn once and stop writing."""
        if not self._writable:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, _bytes_from_row(key, row))
        except OSError as error:
            self._note_failure(error)
            return
        self._failures = 0
        self._note_there(key)
        self._unseen += row.nbytes
        if self._unseen > self.limit // 20:
            self._evict()

    def clear(self) -> None:
        """Delete all rows and forget the counts; warn if some cannot be deleted."""
        left = [path for path, _ in self._files() if not _deleted(path)]
        self._there.clear()
        self.hits = self.misses = 0
        if left:
            warnings.warn(
                f"{len(left)} rows in {str(self.folder)!r} cannot be deleted, such as {left[0].name!r}. They belong to "
                "another user, or the folder is read-only: let its owner delete them.",
                RuntimeWarning,
                stacklevel=3,
            )

    def info(self) -> CacheInfo:
        """Return the number and size of the rows, and the counts."""
        sizes = [stat.st_size for path, stat in self._files() if path.suffix != ".tmp"]
        return CacheInfo(len(sizes), sum(sizes) / 1e6, self.limit / 1e6, self.hits, self.misses)

    def _note_failure(self, error: OSError) -> None:
        """Stop writing if the disk is full or read-only, or after the fifth failure in a row.

        Other failures may be temporary: another process has just cleared the folder, or (on Windows) reads the row.
        """
        self._failures += 1
        if error.errno not in _LASTING and self._failures < 5:
            return
        self._writable = False
        warnings.warn(
            f"Activations cannot be written to {str(self.folder)!r} ({error}); going on without writing there.",
            RuntimeWarning,
            stacklevel=4,
        )

    def _note_there(self, key: bytes) -> None:
        if len(self._there) >= _MOST_NOTED:
            self._there.clear()
        self._there.add(key)

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / name

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.folder.glob("??/*"):
            try:
                found.append((path, path.stat()))
            except OSError:  # another process has deleted the file or denies access to it
                continue
        return found

    def _evict(self) -> None:
        """Delete the least recently used rows down to 90 % of the limit, and old unfinished files of other writers."""
        self._unseen = 0
        self._there.clear()
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total = sum(stat.st_size for _, stat in files)
        target = self.limit if total <= self.limit else 0.9 * self.limit
        for path, stat in files:
            abandoned = path.suffix == ".tmp" and time.time() - stat.st_mtime > 3600
            if (total > target or abandoned) and _deleted(path):
                total -= stat.st_size


_MOST_NOTED = 200_000  # largest number of keys remembered; beyond it they are forgotten and looked up again
_LASTING = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR}


def _deleted(path: Path) -> bool:
    """Delete a file if that is allowed, and tell whether it is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the file belongs to another user, or (on Windows) another process reads it
        return False
    return True


class ActivationStore:
    """Finds rows by their keys, first in memory and then on disk."""

    counting = threading.Lock()  # of hits and misses

    def __init__(self, memory: MemoryLevel, disk: DiskLevel | None) -> None:
        self.memory = memory
        self.disk = disk

    def get(self, key: bytes) -> np.ndarray | None:
        """Return a row, which must not be changed, or None."""
        row = self.memory.get(key)
        if self.disk is None:
            return row
        if row is not None:
            self.disk.keep(key, row)
            return row
        row = self.disk.get(key)
        if row is not None:
            self.memory.put(key, row)
        return row

    def count(self, *, found: bool) -> None:
        """Count one row that was looked up."""
        with self.counting:
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
_listing = threading.Lock()


def resolve_store(memory: Any) -> ActivationStore | None:
    """Return the store for an estimator's ``memory`` parameter, or None if both levels are off."""
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
    with _listing:
        for known in [known for known in _disks if known != folder and not known.parent.exists()]:
            del _disks[known]  # a temporary folder that has been deleted
        disk = _disks.setdefault(folder, DiskLevel(folder))
    disk.look_again()
    return disk


def set_cache_limits(*, memory_mb: float | None = None, disk_mb: float | None = None) -> None:
    """Set how much space stored activations may take.

    Parameters
    ----------
    memory_mb : float, default=None
        Limit in MB for the memory of this process (initially 512). 0 turns this level off. None keeps the limit.
    disk_mb : float, default=None
        Limit in MB for each folder that an estimator's ``memory`` names (initially 10,000). None keeps the limit.

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
        for disk in list(_disks.values()):
            disk.limit = _limits["disk"]


def cache_info(memory: Any = None) -> CacheInfo:
    """Tell what a cache of activations holds.

    Parameters
    ----------
    memory : None, path or joblib.Memory, default=None
        None means the memory of this process. Otherwise the folder, given as in an estimator's ``memory``.

    Returns
    -------
    info : CacheInfo
        Named tuple of ``entries``, ``megabytes``, ``limit_megabytes``, and this process's ``hits`` and ``misses``.

    See Also
    --------
    set_cache_limits : Change the limits.
    clear_cache : Delete what is stored.

    Examples
    --------
    >>> from sktransfer import cache_info, clear_cache
    >>> clear_cache()
    >>> cache_info().entries
    0
    """
    level = _disk(memory) or _memory
    return level.info()


def clear_cache(memory: Any = None) -> None:
    """Delete stored activations and, if `memory` is None, the networks and engines of this process.

    Parameters
    ----------
    memory : None, path or joblib.Memory, default=None
        None clears the memory of this process: activations, networks and engines, which are built again when needed.
        Otherwise the activations in the folder are deleted, which is given as in an estimator's ``memory``.

    Warns
    -----
    RuntimeWarning
        If activations in the folder cannot be deleted, for instance because they belong to another user.

    See Also
    --------
    cache_info : What is stored.

    Examples
    --------
    >>> from sktransfer import clear_cache
    >>> clear_cache("~/.cache/sktransfer")  # doctest: +SKIP
    """
    disk = _disk(memory)
    if disk is not None:
        disk.clear()
    else:
        _memory.clear()
        forget_built()


def _start_clean_after_fork() -> None:
    """Replace the locks, because a thread of the parent process may have held them during the fork."""
    global _listing
    _listing = threading.Lock()
    _memory.start_clean_after_fork()
    ActivationStore.counting = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_clean_after_fork)


# --- rows -------------------------------------------------------------------------------------------------


def _bytes_from_row(key: bytes, row: np.ndarray) -> bytes:
    header = struct.pack("<4sB", row.dtype.str[1:].encode(), row.ndim) + struct.pack(f"<{row.ndim}I", *row.shape)
    body = header + row.tobytes()
    return xxhash.xxh3_128_digest(key + body) + body


def _row_from_bytes(key: bytes, content: bytes) -> np.ndarray | None:
    """Return the row, or None if the checksum does not match this key and these bytes."""
    digest, body = content[:16], content[16:]
    if len(body) < 5 or xxhash.xxh3_128_digest(key + body) != digest:
        return None
    dtype, ndim = struct.unpack_from("<4sB", body)
    shape = struct.unpack_from(f"<{ndim}I", body, 5)
    values = np.frombuffer(body, dtype=dtype.rstrip(b"\0").decode(), offset=5 + 4 * ndim)
    return values.reshape(shape)
