"""Where to keep activations: one file per row, SQLite, LMDB or diskcache.

Writes and reads rows of 5 KB (pooled features) and of 125 KB (feature maps), each with a checksum, as the store does.
Then flips random bytes of what lies on disk and counts, in a process of its own, the rows that can still be read.
Needs: pip install lmdb diskcache.
"""

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import xxhash

from _cells import Benchmark, Cell, seconds, table

Store = tuple[Callable[[dict[bytes, bytes]], None], Callable[[bytes], bytes]]  # write a batch, read a row that is there
SIZES = {"5 KB": (5_120, 5_000), "125 KB": (128_000, 1_000)}  # bytes of a row, and number of rows


@contextmanager
def files(folder: Path) -> Iterator[Store]:
    """Write one file per row aside and rename it."""

    def path_of(key: bytes) -> Path:
        return folder / key[:1].hex() / key.hex()

    def put(rows: dict[bytes, bytes]) -> None:
        for key, content in rows.items():
            path = path_of(key)
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".tmp").write_bytes(content)
            path.with_suffix(".tmp").replace(path)

    yield put, lambda key: path_of(key).read_bytes()


@contextmanager
def sqlite(folder: Path) -> Iterator[Store]:
    """Keep one table with a write-ahead log; a transaction per batch."""
    with closing(sqlite3.connect(folder / "rows.sqlite")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID")

        def put(rows: dict[bytes, bytes]) -> None:
            with db:
                db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", rows.items())

        yield put, lambda key: db.execute("SELECT content FROM rows WHERE key = ?", (key,)).fetchone()[0]


@contextmanager
def lmdb(folder: Path) -> Iterator[Store]:
    """Keep one B-tree in a memory map; a transaction per batch."""
    with import_module("lmdb").open(str(folder), map_size=2**32, metasync=False) as env:

        def put(rows: dict[bytes, bytes]) -> None:
            with env.begin(write=True) as transaction:
                for key, content in rows.items():
                    transaction.put(key, content)

        def get(key: bytes) -> bytes:
            with env.begin() as transaction:
                return transaction.get(key)

        yield put, get


@contextmanager
def diskcache(folder: Path) -> Iterator[Store]:
    """Use the library diskcache: SQLite for the index, files for large values."""
    with import_module("diskcache").Cache(str(folder), size_limit=2**32) as cache:

        def put(rows: dict[bytes, bytes]) -> None:
            with cache.transact():
                for key, content in rows.items():
                    cache[key] = content

        yield put, cache.get


STORES = {"Files": files, "SQLite": sqlite, "LMDB": lmdb, "DiskCache": diskcache}


def is_sound(content: bytes) -> bool:
    """Return whether the checksum in front is right."""
    return xxhash.xxh3_128_digest(content[16:]) == content[:16]


def keys_of(n: int) -> list[bytes]:
    """Return the keys of the rows, the same ones in each process."""
    return [xxhash.xxh3_128_digest(f"row {i}".encode()) for i in range(n)]


def flip_bytes(folder: Path, n_flips: int = 1000) -> None:
    """Flip random bytes, each byte of the folder as likely as any other."""
    rng = np.random.default_rng(1)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes = np.array([path.stat().st_size for path in files], dtype=float)
    for file in rng.choice(len(files), size=n_flips, p=sizes / sizes.sum()):
        content = np.memmap(files[file], mode="r+")
        content[rng.integers(len(content))] ^= np.uint8(rng.integers(1, 256))


def plan(tiny: bool) -> list[Cell]:
    effort = {"n": 40} if tiny else {}
    return [{"store": store, "row": row, **effort} for row in SIZES for store in STORES]


def measure(store: str, row: str, n: int | None = None) -> Cell:
    """Return microseconds per row for writing in batches of 32 and for reading one by one, and what damage leaves."""
    size, n = SIZES[row][0], n or SIZES[row][1]
    keys, payload = keys_of(n), np.random.default_rng(0).bytes(size)
    with tempfile.TemporaryDirectory() as folder:
        with STORES[store](Path(folder)) as (put, get):

            def write() -> None:
                for first in range(0, n, 32):
                    put({key: xxhash.xxh3_128_digest(payload) + payload for key in keys[first : first + 32]})

            def read() -> None:
                assert all(is_sound(get(key)) for key in keys)

            times = {"write": 1e6 * seconds(write) / n, "read": 1e6 * seconds(read) / n}
        flip_bytes(Path(folder))
        command = [sys.executable, "-c", f"import storage; print(storage.readable({store!r}, {folder!r}, {n}))"]
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    return {**times, "readable": result.stdout.strip() or f"process ended with {result.returncode}", "rows": n}


def readable(store: str, folder: str, n: int) -> int | str:
    """Return the number of rows that can be read after the damage."""
    good = 0
    try:
        with STORES[store](Path(folder)) as (_, get):
            for key in keys_of(n):
                with suppress(Exception):  # a damaged row makes each library raise another kind
                    good += is_sound(get(key))
    except Exception as error:  # whatever the library raises on a damaged file
        return good or f"none ({type(error).__name__})"
    return good


def report(cells: list[Cell]) -> list[str]:
    columns = {"store": "", "row": "", "write µs/row": ".0f", "read µs/row": ".0f"}
    rows = [[c["store"], c["row"], c["write"], c["read"], f"{c['readable']} of {c['rows']}"] for c in cells]
    return table({**columns, "readable after 1,000 flipped bytes": ""}, rows)


BENCHMARK = Benchmark(__file__, __doc__, "Storage of activations", plan, measure, report)

if __name__ == "__main__":
    BENCHMARK.main()
