"""The store: bounds, damage, killed writers, many writers, a full disk, and what makes a new key."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sktransfer import PretrainedCNNFeatures, cache_info, clear_cache, set_cache_limits
from sktransfer._activation_store import (
    ActivationStore,
    DiskLevel,
    MemoryLevel,
    _bytes_from_row,
    _known_files,
    _row_from_bytes,
    fingerprint,
    resolve_store,
    row_key,
)
from sktransfer._images import as_images

KEYS = [row_key("test", bytes([i % 256, i // 256])) for i in range(400)]


def row(i):
    return np.random.default_rng(i).normal(size=(3, 5, 7)).astype(np.float32)


# --- properties ---------------------------------------------------------------------------------------------

parts = st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="|")), st.text(), st.binary())


@given(parts, parts)
def test_different_parts_make_different_keys(one, other):
    """A namespace holds what a view may not, and the other way round; `Views` names no bar."""
    keys = [row_key(namespace, content, view) for view, namespace, content in (one, other)]
    assert (keys[0] == keys[1]) == (one == other) or "|" in one[1] + other[1]


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


def test_one_change_makes_a_new_key():
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    pixel = photo.copy()
    pixel[3, 3, 0] ^= 1
    tiny = {"backbone": "timm/test_efficientnet", "weights": None, "image_size": 32}
    PretrainedCNNFeatures(**tiny).fit_transform(photo[None])
    known = cache_info().misses
    changes = [
        (pixel, {}),
        (photo, {"image_size": 64}),
        (photo, {"pooling": "max"}),
        (photo, {"layer": "stage2"}),
        (photo, {"layer": ["stage2", "stage3"]}),
        (photo, {"precision": "bfloat16"}),
        (photo, {"backbone": "timm/test_resnet"}),
        (photo, {"value_range": (0, 255)}),
    ]
    for image, change in changes:
        PretrainedCNNFeatures(**{**tiny, **change}).fit_transform(image[None])
        known += 1
        assert cache_info().misses == known, change
    for image, change in changes:  # and each is found again
        PretrainedCNNFeatures(**{**tiny, **change}).fit_transform(image[None])
    assert cache_info().misses == known


def test_one_weight_makes_a_new_key(tmp_path):
    import timm

    network = timm.create_model("test_efficientnet")
    photo = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    for misses in (1, 2):
        torch.save(network.state_dict(), tmp_path / f"{misses}.pth")
        PretrainedCNNFeatures(
            "timm/test_efficientnet", weights=tmp_path / f"{misses}.pth", image_size=32
        ).fit_transform(photo)
        assert cache_info().misses == misses
        with torch.no_grad():
            network.conv_stem.weight[0, 0, 0, 0] += 1e-3


def test_fingerprint_rereads_a_file_that_changed(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    images = as_images([path])
    first = fingerprint(images, 0)
    assert str(path) not in _known_files  # too young to be trusted
    path.write_bytes(b"two")  # within the same tick of the clock, of the same size
    second = fingerprint(images, 0)
    assert second != first
    os.utime(path, (1e9, 1e9))
    assert fingerprint(images, 0) == second
    assert str(path) in _known_files
    path.write_bytes(b"six")
    assert fingerprint(images, 0) not in (first, second)


def test_known_file_is_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    images = as_images([path])
    first = fingerprint(images, 0)
    monkeypatch.setattr(images, "content", None)
    assert fingerprint(images, 0) == first


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
    images = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    model = PretrainedCNNFeatures("timm/test_efficientnet", weights=None, image_size=32, memory=tmp_path)
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
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "(6, 256) ['Activations cannot be written to']"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_unreadable_row_is_a_miss(tmp_path):
    level = DiskLevel(tmp_path)
    level._path(KEYS[0]).mkdir(parents=True)  # a folder where the row should be
    assert level.get(KEYS[0]) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        level.put(KEYS[0], row(0))
        level.put(KEYS[1], row(1))
    assert len(caught) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_memory_level_serves_before_disk(tmp_path):
    store = ActivationStore(MemoryLevel(10**6), DiskLevel(tmp_path))
    store.put(KEYS[0], row(0))
    store.disk.clear()
    np.testing.assert_array_equal(store.get(KEYS[0]), row(0))
