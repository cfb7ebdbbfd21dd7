"""Where to keep activations: one file per row, SQLite, LMDB or diskcache.

Writes and reads rows of 5 KB (pooled features) and of 125 KB (feature maps), each with a checksum, as the store
does. Then flips random bytes of what lies on disk and counts, in a process of its own, the rows that can still
be read.

    pip install lmdb diskcache
    python benchmarks/storage.py     # prints a table, writes docs/benchmarks/storage.md
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xxhash

SIZES = {"5 KB": (5_120, 5_000), "125 KB": (128_000, 1_000)}
REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "storage.md"


def sealed(payload: bytes) -> bytes:
    """Put the checksum in front."""
    return xxhash.xxh3_128_digest(payload) + payload


def opened(content: bytes | None) -> bytes | None:
    """Return the payload if its checksum is right."""
    if content is None or xxhash.xxh3_128_digest(content[16:]) != content[:16]:
        return None
    return content[16:]


class Files:
    """One file per row, written aside and renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, key: bytes) -> Path:
        return self.folder / key[:1].hex() / key.hex()

    def put_batch(self, rows: dict[bytes, bytes]) -> None:
        """Write rows."""
        for key, payload in rows.items():
            path = self._path(key)
            path.parent.mkdir(exist_ok=True)
            aside = path.with_suffix(".tmp")
            aside.write_bytes(sealed(payload))
            aside.replace(path)

    def get(self, key: bytes) -> bytes | None:
        """Read a row."""
        try:
            return opened(self._path(key).read_bytes())
        except FileNotFoundError:
            return None


class SQLite:
    """One table, write-ahead log, a transaction per batch."""

    def __init__(self, folder: Path) -> None:
        self.db = sqlite3.connect(folder / "rows.sqlite")
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID")

    def put_batch(self, rows: dict[bytes, bytes]) -> None:
        """Write rows."""
        with self.db:
            self.db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", [(k, sealed(v)) for k, v in rows.items()])

    def get(self, key: bytes) -> bytes | None:
        """Read a row."""
        row = self.db.execute("SELECT content FROM rows WHERE key = ?", (key,)).fetchone()
        return opened(row[0]) if row else None


class LMDB:
    """One B-tree in a memory map, a transaction per batch."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        self.env = lmdb.open(str(folder), map_size=2**32, metasync=False)

    def put_batch(self, rows: dict[bytes, bytes]) -> None:
        """Write rows."""
        with self.env.begin(write=True) as transaction:
            for key, payload in rows.items():
                transaction.put(key, sealed(payload))

    def get(self, key: bytes) -> bytes | None:
        """Read a row."""
        with self.env.begin() as transaction:
            return opened(transaction.get(key))


class DiskCache:
    """The library diskcache: SQLite for the index, files for large values."""

    def __init__(self, folder: Path) -> None:
        import diskcache

        self.cache = diskcache.Cache(str(folder), size_limit=2**32)

    def put_batch(self, rows: dict[bytes, bytes]) -> None:
        """Write rows."""
        with self.cache.transact():
            for key, payload in rows.items():
                self.cache[key] = sealed(payload)

    def get(self, key: bytes) -> bytes | None:
        """Read a row."""
        return opened(self.cache.get(key))


STORES = {cls.__name__: cls for cls in (Files, SQLite, LMDB, DiskCache)}


def keys_of(n: int) -> list[bytes]:
    """Return the keys of the rows, the same ones in each process."""
    return [xxhash.xxh3_128_digest(f"row {i}".encode()) for i in range(n)]


def measure(name: str, size: int, n: int, folder: Path) -> tuple[float, float]:
    """Return microseconds per row for writing in batches of 32 and for reading one by one."""
    rng = np.random.default_rng(0)
    keys, payload = keys_of(n), rng.bytes(size)
    store = STORES[name](folder)
    start = time.perf_counter()
    for first in range(0, n, 32):
        store.put_batch(dict.fromkeys(keys[first : first + 32], payload))
    wrote = time.perf_counter() - start
    start = time.perf_counter()
    assert all(store.get(key) == payload for key in keys)
    return 1e6 * wrote / n, 1e6 * (time.perf_counter() - start) / n


def flip_bytes(folder: Path, n_flips: int = 1000) -> None:
    """Flip random bytes, each byte of the folder as likely as any other."""
    rng = np.random.default_rng(1)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes = np.array([path.stat().st_size for path in files], dtype=float)
    for file in rng.choice(len(files), size=n_flips, p=sizes / sizes.sum()):
        with files[file].open("r+b") as handle:
            handle.seek(int(rng.integers(sizes[file])))
            byte = handle.read(1)[0]
            handle.seek(-1, 1)
            handle.write(bytes([byte ^ int(rng.integers(1, 256))]))


def survivors(name: str, folder: Path, n: int) -> str:
    """Return how many rows can be read after the damage, or how the reading process ended."""
    command = [sys.executable, __file__, "--count", name, str(folder), str(n)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return result.stdout.strip() or f"process ended with {result.returncode}"


def count(name: str, folder: Path, n: int) -> None:
    """Print the number of rows that can be read."""
    good = 0
    try:
        store = STORES[name](folder)
    except Exception as error:  # whatever the library raises on a damaged file
        print(f"none ({type(error).__name__})")
        return
    for key in keys_of(n):
        try:
            good += store.get(key) is not None
        except Exception:  # a damaged row makes each library raise another kind
            continue
    print(good)


def main() -> None:
    """Run all and write the report."""
    if sys.argv[1:2] == ["--count"]:
        count(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    lines = [
        "| store | row | write µs/row | read µs/row | readable after 1,000 flipped bytes |",
        "|---|---|---|---|---|",
    ]
    for label, (size, n) in SIZES.items():
        for name in STORES:
            folder = Path(tempfile.mkdtemp())
            wrote, read = measure(name, size, n, folder)
            flip_bytes(folder)
            left = survivors(name, folder, n)
            lines.append(f"| {name} | {label} | {wrote:.0f} | {read:.0f} | {left} of {n} |")
            print(lines[-1], flush=True)
            shutil.rmtree(folder)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("# Storage of activations\n\n`python benchmarks/storage.py`\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
