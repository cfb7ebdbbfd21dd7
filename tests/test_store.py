"""The store: bounds, damage, killed writers, many writers, a full disk, and what makes a new key."""

import multiprocessing
import os
import shutil
import signal
import threading
import time

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pictures import noise
from processes import fresh
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, cache_info, clear_cache, set_cache_limits
from sktransfer._frozen._store import (
    ActivationStore,
    DiskLevel,
    MemoryLevel,
    _bytes_from_row,
    _disks,
    _row_from_bytes,
    resolve_store,
)
from tiny import TINY

KEYS = [bytes([i % 256, i // 256] * 8) for i in range(400)]


def row(i):
    return np.random.default_rng(i).normal(size=(3, 5, 7)).astype(np.float32)


# --- properties ---------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(hnp.floating_dtypes(sizes=(16, 32, 64), endianness="<"), hnp.array_shapes(min_dims=1, max_dims=4)),
    st.data(),
)
def test_any_row_comes_back_and_any_change_is_refused(values, data):
    content = _bytes_from_row(KEYS[0], values)
    np.testing.assert_array_equal(_row_from_bytes(KEYS[0], content), values)
    assert _row_from_bytes(KEYS[1], content) is None
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    assert _row_from_bytes(KEYS[0], damaged) is None
    assert _row_from_bytes(KEYS[0], content[:place]) is None


# --- rows and keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [np.arange(6, dtype=np.float32), row(0), np.zeros((2, 0, 3), np.uint8), np.float16([1])]
)
def test_row_round_trip(values):
    back = _row_from_bytes(KEYS[0], _bytes_from_row(KEYS[0], values))
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(back, values)


def test_every_damaged_byte_is_noticed():
    content = _bytes_from_row(KEYS[0], np.arange(4, dtype=np.float32))
    for i in range(len(content)):
        damaged = bytearray(content)
        damaged[i] ^= 1
        assert _row_from_bytes(KEYS[0], bytes(damaged)) is None
        assert _row_from_bytes(KEYS[0], content[:i]) is None
    assert _row_from_bytes(KEYS[1], content) is None  # a row under another one's name


# --- memory -------------------------------------------------------------------------------------------------


def test_memory_drops_the_least_recently_used():
    level = MemoryLevel(3 * row(0).nbytes)
    for i in range(3):
        level.put(KEYS[i], row(i))
    level.get(KEYS[0])
    level.put(KEYS[3], row(3))
    assert [level.get(KEYS[i]) is not None for i in range(4)] == [True, False, True, True]
    level.put(KEYS[3], row(3))
    assert level.info().entries == 3
    assert level.info().megabytes == pytest.approx(3 * row(0).nbytes / 1e6)
    level.put(KEYS[9], np.zeros(10_000))  # larger than the whole: not worth emptying it
    assert level.info().entries == 3
    level.set_limit(0)
    assert level.info().entries == level.size == 0


def test_memory_serves_threads():
    level = MemoryLevel(50 * row(0).nbytes)
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, 100, 500):
            found = level.get(KEYS[i])
            if found is not None and not np.array_equal(found, row(i)):
                wrong.append(i)
            level.put(KEYS[i], row(i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert level.size == sum(kept.nbytes for kept in level._rows.values()) <= level.limit


# --- disk ---------------------------------------------------------------------------------------------------


def test_disk_round_trip_and_clear(tmp_path):
    level = DiskLevel(tmp_path / "deep" / "folder")
    assert level.get(KEYS[0]) is None
    for i in range(20):
        level.put(KEYS[i], row(i))
    assert all(np.array_equal(DiskLevel(level.folder).get(KEYS[i]), row(i)) for i in range(20))
    assert level.info().entries == 20
    level.clear()
    assert level.info().entries == 0


def test_disk_is_bounded_and_drops_the_oldest(tmp_path):
    level = DiskLevel(tmp_path)
    size = len(_bytes_from_row(KEYS[0], row(0)))
    level.limit = 40 * size
    now = time.time()
    for i in range(100):
        level.put(KEYS[i], row(i))
        os.utime(level._path(KEYS[i]), (now - 500 + i, now - 500 + i))
        assert level.info().megabytes * 1e6 <= 43 * size
    assert level.get(KEYS[99]) is not None
    assert level.get(KEYS[0]) is None


def test_use_counts_against_eviction(tmp_path):
    level = DiskLevel(tmp_path)
    for i in range(4):
        level.put(KEYS[i], row(i))
        os.utime(level._path(KEYS[i]), (1e9 + i, 1e9 + i))
    level.get(KEYS[0])
    level.limit = 3 * len(_bytes_from_row(KEYS[0], row(0)))
    level._evict()
    assert level.get(KEYS[0]) is not None
    assert level.get(KEYS[1]) is None


def test_joblib_memory_and_paths_name_the_same_folder(tmp_path):
    assert (
        resolve_store(joblib.Memory(tmp_path)).disk is resolve_store(str(tmp_path)).disk is resolve_store(tmp_path).disk
    )
    assert resolve_store(joblib.Memory(None)).disk is None
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file. Pass a folder"):
        resolve_store(tmp_path / "file")


def test_limits_are_checked():
    with pytest.raises(ValueError, match="memory_mb must be 0 or more"):
        set_cache_limits(memory_mb=-1)
    set_cache_limits(memory_mb=0)
    assert resolve_store(None) is None


def test_clear_cache_clears_what_it_is_told(tmp_path):
    store = resolve_store(tmp_path)
    store.put(KEYS[0], row(0))
    clear_cache()
    assert cache_info().entries == 0
    assert cache_info(tmp_path).entries == 1
    np.testing.assert_array_equal(store.get(KEYS[0]), row(0))
    clear_cache(tmp_path)
    assert cache_info(tmp_path).entries == 0


# --- what goes wrong on disks -------------------------------------------------------------------------------


def put_forever(folder):
    level = DiskLevel(folder)
    for i in range(10**9):
        level.put(KEYS[i % len(KEYS)], row(i % len(KEYS)))


def nothing_wrong(folder):
    level = DiskLevel(folder)
    for i, key in enumerate(KEYS):
        found = level.get(key)
        assert found is None or np.array_equal(found, row(i))
    return level


def test_killed_writers_leave_no_half_row(tmp_path):
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    for _ in range(50):
        writer = context.Process(target=put_forever, args=(tmp_path,))
        writer.start()
        time.sleep(rng.uniform(0.002, 0.06))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        level = nothing_wrong(tmp_path)
    assert level.info().entries > 0
    # Every file under a row's name is whole.
    assert all(level.get(KEYS[i]) is not None for i in range(len(KEYS)) if level._path(KEYS[i]).exists())
    for aside in tmp_path.glob("??/.*.tmp"):
        os.utime(aside, (1e9, 1e9))
    level._evict()
    assert not list(tmp_path.glob("??/.*.tmp"))


def put_all(folder, order):
    level = DiskLevel(folder)
    for i in order:
        level.put(KEYS[i], row(i))
        found = level.get(KEYS[i])
        assert found is None or np.array_equal(found, row(i))


def test_four_processes_write_the_same_keys(tmp_path):
    context = multiprocessing.get_context("fork")
    orders = [np.random.default_rng(seed).permutation(len(KEYS)) for seed in range(4)]
    writers = [context.Process(target=put_all, args=(tmp_path, order)) for order in orders]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert all(np.array_equal(DiskLevel(tmp_path).get(key), row(i)) for i, key in enumerate(KEYS))
    assert not list(tmp_path.glob("??/.*.tmp"))


def test_flipped_bytes_damage_only_their_own_rows(tmp_path):
    level = DiskLevel(tmp_path)
    for i, key in enumerate(KEYS):
        level.put(key, row(i))
    rng = np.random.default_rng(0)
    hit = set()
    for _ in range(1000):
        i = int(rng.integers(len(KEYS)))
        content = bytearray(level._path(KEYS[i]).read_bytes())
        content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        level._path(KEYS[i]).write_bytes(content)
        hit.add(i)
    lost = {i for i, key in enumerate(KEYS) if level.get(key) is None}
    nothing_wrong(tmp_path)
    assert lost <= hit
    assert len(lost) > 0.95 * len(hit)  # two flips may undo each other


def test_damaged_rows_alone_are_computed_again(tmp_path, computed):
    images = noise(12, 40, 40, 3)
    model = PretrainedCNNFeatures(**TINY, memory=tmp_path)
    expected = model.fit_transform(images)
    files = sorted(tmp_path.glob("sktransfer-activations/??/*"))
    for path in files[:3]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    clear_cache()
    computed.clear()
    np.testing.assert_allclose(model.transform(images), expected, atol=1e-5)
    assert sum(n for _, n in computed) == 3


FULL_DISK = """
import resource, signal, sys, warnings, numpy as np
from sktransfer import PretrainedCNNFeatures
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = PretrainedCNNFeatures("timm/test_efficientnet", weights=None, image_size=32, memory=sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
model.fit(images)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(model.transform(images).shape, [str(w.message)[:32] for w in caught if w.category is RuntimeWarning])
"""


def test_full_disk_is_a_warning_and_no_cache(tmp_path):
    """No file may grow beyond 100 bytes: to the writer the same as a full disk."""
    resource = pytest.importorskip("resource")
    out = fresh(FULL_DISK, tmp_path).stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # here, for the other tests
    assert out.strip() == "(6, 256) ['Activations cannot be written to']"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_row_that_cannot_be_written_costs_that_row_alone(tmp_path):
    level = DiskLevel(tmp_path)
    level._path(KEYS[0]).mkdir(parents=True)  # a folder where the row should be
    assert level.get(KEYS[0]) is None
    level.put(KEYS[0], row(0))
    level.put(KEYS[1], row(1))
    assert level.get(KEYS[0]) is None
    np.testing.assert_array_equal(level.get(KEYS[1]), row(1))


def test_writing_ends_when_it_fails_again_and_again(tmp_path):
    level = DiskLevel(tmp_path)
    for key in KEYS[:5]:
        level._path(key).mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        for i, key in enumerate(KEYS[:5]):
            level.put(key, row(i))
    level.put(KEYS[6], row(6))
    assert level.get(KEYS[6]) is None


# --- folders of others --------------------------------------------------------------------------------------


@pytest.fixture
def another_user(monkeypatch):
    """What belongs to another user can be read, but neither changed nor deleted."""

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)


@pytest.mark.parametrize("age", [60, 3600, 10**6])
def test_old_rows_of_a_folder_that_one_may_only_read_are_served(age, tmp_path, another_user, monkeypatch):
    DiskLevel(tmp_path).put(KEYS[0], row(0))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + age)
    np.testing.assert_array_equal(DiskLevel(tmp_path).get(KEYS[0]), row(0))


def test_rows_of_another_user_do_not_end_a_computation(tmp_path, another_user):
    level = DiskLevel(tmp_path)
    level.limit = row(0).nbytes  # so that each row is one too many
    for i in range(4):
        level.put(KEYS[i], row(i))
    np.testing.assert_array_equal(level.get(KEYS[3]), row(3))


def test_rows_that_cannot_be_cleared_are_told(tmp_path, another_user):
    resolve_store(tmp_path).disk.put(KEYS[0], row(0))
    with pytest.warns(RuntimeWarning, match=r"1 rows in .* cannot be deleted"):
        clear_cache(tmp_path)


def test_containers_with_the_same_pid_share_a_folder(tmp_path, monkeypatch):
    """Both are process 1 in their container, and write their first row at the same time."""
    names = []
    replace = type(tmp_path).replace

    def noting(path, target):
        names.append(path.name)
        return replace(path, target)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr("pathlib.Path.replace", noting)
    writer = f"""
import os
from pathlib import Path
os.getpid = lambda: 1
replace = Path.replace
Path.replace = lambda path, target: (print(path.name), replace(path, target))
import numpy as np
from sktransfer._frozen._store import DiskLevel
DiskLevel(Path({str(tmp_path)!r})).put(bytes(16), np.ones(3))
"""
    other = fresh(writer).stdout.strip()
    DiskLevel(tmp_path).put(KEYS[0], row(0))
    assert len(names) == 1 and other and names != [other]


# --- levels -------------------------------------------------------------------------------------------------


PHOTOS = noise(5, 40, 40, 3)


def test_folder_is_filled_though_the_process_has_the_features(tmp_path, computed):
    PretrainedCNNFeatures(**TINY).fit_transform(PHOTOS)
    for folder in (tmp_path / "one", tmp_path / "two"):
        PretrainedCNNFeatures(**TINY, memory=folder).fit_transform(PHOTOS)
        assert cache_info(folder).entries == len(PHOTOS)
    assert sum(n for _, n in computed) == len(PHOTOS)


def test_deleted_folder_is_filled_again(tmp_path):
    for _ in range(2):
        PretrainedCNNFeatures(**TINY, memory=tmp_path).fit_transform(PHOTOS)
        assert cache_info(tmp_path).entries == len(PHOTOS)
        shutil.rmtree(tmp_path)


def test_folders_that_are_gone_are_forgotten(tmp_path):
    for i in range(20):
        folder = tmp_path / str(i)
        resolve_store(folder).disk.put(KEYS[0], row(0))
        shutil.rmtree(folder)
    resolve_store(tmp_path)
    assert not [folder for folder in _disks if folder.parent.name.isdigit() and tmp_path in folder.parents]


def test_full_disk_under_large_activations_is_an_error(monkeypatch):
    """Not the end of the process, as when a sparse file meets a full disk."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("sktransfer._frozen._extraction.SPILL_BYTES", 10)
    classifier = FineTunedCNNClassifier(**TINY, freeze=1, max_epochs=1)
    with pytest.raises(OSError, match=r"activations of 5 images need 0.0 GB.*TMPDIR"):
        classifier.fit(PHOTOS, [0, 1, 0, 1, 0])


def test_large_activations_take_their_room_beforehand(monkeypatch):
    monkeypatch.setattr("sktransfer._frozen._extraction.SPILL_BYTES", 10)
    asked = []
    allocate = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *args: (asked.append(args[2]), allocate(*args)))
    FineTunedCNNClassifier(**TINY, freeze=1, max_epochs=1).fit(PHOTOS, [0, 1, 0, 1, 0])
    assert asked and min(asked) > 0


def test_memory_level_serves_before_disk(tmp_path):
    store = ActivationStore(MemoryLevel(10**6), DiskLevel(tmp_path))
    store.put(KEYS[0], row(0))
    store.disk.clear()
    np.testing.assert_array_equal(store.get(KEYS[0]), row(0))
