"""Each image once: order, bounds, early stops, and where the work starts from."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pictures import CHINA, exif_of, noise
from sktransfer import ImageError, cache_info, set_cache_limits
from sktransfer._frozen._augmentation import Views
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._cut_network import Outputs
from sktransfer._frozen._extraction import Extractor, _own_place
from sktransfer._frozen._store import resolve_store
from sktransfer._images._collection import as_images
from sktransfer._progress import map_ahead

LAST = Outputs((6,), "avg")  # the pooled features of the last stage of the tiny network


def extractor(memory=None, **options):
    backbone = load_backbone("timm/test_efficientnet", None).with_image_size(32)
    return Extractor(backbone, resolve_store(memory), device=torch.device("cpu"), **{"batch_size": 4, **options})


def pictures(n=10, seed=0):
    return as_images(noise(n, 40, 40, 3, seed=seed))


def reference(images, cuts, pooling):
    """The plain way: one image after the other through one network."""
    backbone = extractor().backbone
    rows = []
    for image in images:
        x = torch.from_numpy(backbone.preprocessing.canvas(image)).permute(2, 0, 1)[None] / 255
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std)
        )
        with torch.no_grad():
            maps = backbone.stages[: cuts[-1]]((x - mean) / std)
        rows.append(maps.mean(dim=(2, 3))[0] if pooling else maps[0].permute(1, 2, 0))
    return torch.stack(rows).numpy()


# --- decoding ahead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_order_is_kept_whatever_is_ready_first(workers):
    def slow_at_times(i):
        time.sleep(0.01 * (i % 3 == 0))
        return i

    assert list(map_ahead(slow_at_times, range(20), workers, depth=5)) == list(range(20))


def test_looks_ahead_but_not_far_and_stops_early():
    seen = []
    results = map_ahead(seen.append, range(1000), 2, depth=10)
    next(results)
    time.sleep(0.2)
    assert len(seen) == 11
    results.close()
    assert len(seen) == 11


def test_unreadable_image_stops_the_decoding_and_is_named():
    images = as_images([np.zeros((8, 8))] * 5 + ["missing.png"] + [np.zeros((8, 8))] * 500)
    with pytest.raises(ImageError, match="image 5 "):
        extractor(n_jobs=2).run(images, LAST)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


# --- right, whichever way -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuts", "pooling"), [([6], "avg"), ([3], None), ([2], "avg")])
@pytest.mark.parametrize("memory_mb", [0, 512])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_equals_the_plain_way(cuts, pooling, memory_mb, batch_size):
    set_cache_limits(memory_mb=memory_mb)
    got = extractor(batch_size=batch_size).run(pictures(), Outputs(tuple(cuts), pooling))
    expected = reference(pictures(), cuts, pooling)
    np.testing.assert_allclose(got, expected, atol=1e-5 * abs(expected).max())


def test_indices_choose_and_order():
    everything = extractor().run(pictures(), LAST)
    np.testing.assert_array_equal(extractor().run(pictures(), LAST, indices=[7, 2]), everything[[7, 2]])


def test_blocks_cover_everything_in_order(no_store):
    blocks = list(extractor(batch_size=1).blocks(pictures(19), LAST, "Predicting"))
    assert [len(block) for block in blocks] == [8, 8, 3]
    np.testing.assert_allclose(np.concatenate(blocks), extractor().run(pictures(19), LAST), atol=1e-4)


def test_large_results_spill_to_a_file(monkeypatch):
    expected = extractor().run(pictures(), Outputs((2,), None))
    monkeypatch.setattr("sktransfer._frozen._extraction.SPILL_BYTES", 1000)
    spilled = extractor().run(pictures(), Outputs((2,), None), spill=True)
    assert isinstance(spilled, np.memmap)
    np.testing.assert_array_equal(spilled, expected)
    assert not isinstance(extractor().run(pictures(), Outputs((2,), None)), np.memmap)


# --- once -----------------------------------------------------------------------------------------------------


def test_second_time_computes_nothing(computed):
    first = extractor().run(pictures(), LAST)
    assert computed == [(0, 4), (0, 4), (0, 2)]
    np.testing.assert_array_equal(extractor().run(pictures(), LAST), first)
    assert len(computed) == 3
    assert cache_info()[3:] == (10, 10)  # hits, misses


def test_only_what_is_new_is_computed(computed):
    extractor().run(pictures(), LAST, indices=[1, 3, 5])
    extractor().run(pictures(), LAST)
    assert sum(n for _, n in computed) == 10


def test_deeper_cut_goes_on_from_a_stored_map(computed):
    shallow = extractor().run(pictures(), Outputs((3,), None))
    deep = extractor().run(pictures(), Outputs((5,), None))
    pooled = extractor().run(pictures(), Outputs((3,), "avg"))
    every = extractor().run(pictures(), LAST)
    starts = sorted({start for start, _ in computed})
    assert starts == [0, 3, 5]
    assert sum(n for start, n in computed if start == 0) == 10
    np.testing.assert_allclose(pooled, shallow.mean(axis=(1, 2)), atol=1e-5)
    set_cache_limits(memory_mb=0)
    np.testing.assert_allclose(extractor().run(pictures(), Outputs((5,), None)), deep, atol=1e-4 * abs(deep).max())
    np.testing.assert_allclose(extractor().run(pictures(), LAST), every, atol=1e-4 * abs(every).max())


def test_features_of_every_stage_serve_for_some_of_them(computed):
    every = [1, 2, 3, 4, 5, 6]
    extractor().run(pictures(), Outputs(tuple(every), "avg"))
    for cuts in ([6], [2], [1, 4]):
        got = extractor().run(pictures(), Outputs(tuple(cuts), "avg"))
        np.testing.assert_allclose(got, reference_of(cuts), atol=1e-5 * abs(got).max())
    assert sum(n for _, n in computed) == 10
    extractor().run(pictures(), Outputs((6,), "max"))
    assert sum(n for _, n in computed) == 20


def reference_of(cuts):
    return np.concatenate([reference(pictures(), [cut], "avg") for cut in cuts], axis=1)


def test_store_that_is_off_computes_each_time(computed, no_store):
    for _ in range(2):
        extractor().run(pictures(), LAST)
    assert sum(n for _, n in computed) == 20
    assert cache_info().entries == 0


def test_folder_serves_a_process_with_an_empty_memory(computed, tmp_path, monkeypatch):
    set_cache_limits(memory_mb=0)
    first = extractor(tmp_path).run(pictures(), LAST)
    monkeypatch.setattr("sktransfer._frozen._extraction._own_place", lambda n: n // 2)
    np.testing.assert_array_equal(extractor(tmp_path).run(pictures(), LAST), first)
    assert sum(n for _, n in computed) == 10
    assert cache_info(tmp_path).entries == 10


def test_processes_start_apart(monkeypatch):
    places = []
    for pid in range(5000, 5004):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        places.append(_own_place(1000))
    assert all(0 <= place < 1000 for place in places)
    assert min(abs(a - b) for a in places for b in places if a != b) > 100


# --- views ----------------------------------------------------------------------------------------------------


def noisy(image, generator):
    return (image // 2 + torch.randint(0, 100, image.shape, generator=generator)).to(torch.uint8)


def test_views_are_the_same_whenever_asked_for(computed):
    views = Views(noisy, "noisy", 3, seed=0)
    state = torch.random.get_rng_state()
    first = extractor().run(pictures(), LAST, views=views)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.shape[:2] == (10, 3)
    assert len({row.tobytes() for row in first.reshape(30, -1)}) == 30
    assert sum(n for _, n in computed) == 30
    np.testing.assert_array_equal(extractor().run(pictures(), LAST, views=views, indices=[4]), first[[4]])
    assert sum(n for _, n in computed) == 30
    set_cache_limits(memory_mb=0)
    again = extractor(n_jobs=3, batch_size=32).run(pictures(), LAST, views=views)
    np.testing.assert_allclose(again, first, atol=1e-4 * abs(first).max())


def test_views_without_a_name_are_not_stored(computed):
    for _ in range(2):
        extractor().run(pictures(), LAST, views=Views(noisy, None, 2, seed=0))
    assert sum(n for _, n in computed) == 40


def test_views_of_another_seed_are_others():
    one, two = (extractor().run(pictures(3), LAST, views=Views(noisy, "noisy", 1, seed)) for seed in (0, 1))
    assert (one != two).any(axis=(1, 2)).all()


# --- large photos -----------------------------------------------------------------------------------------------


def test_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(tmp_path):
    photo = Image.fromarray(CHINA).resize((2560, 1708), Image.Resampling.LANCZOS)
    photo.save(tmp_path / "large.jpg", quality=92)
    images = as_images([tmp_path / "large.jpg"])
    preprocessing = load_backbone().preprocessing
    assert preprocessing.least_side == 512
    reduced = images.decode(0, preprocessing.least_side)
    assert reduced.shape == (854, 1280, 3)  # a half; a quarter would leave 427 pixels
    assert images[0].shape == (1708, 2560, 3)
    options = {"device": torch.device("cpu"), "batch_size": 4}
    quick = Extractor(load_backbone(), None, **options).run(images, Outputs((8,), "avg"))[0]
    whole = Extractor(load_backbone(), None, **options).run(as_images([images[0]]), Outputs((8,), "avg"))[0]
    cosine = quick @ whole / np.linalg.norm(quick) / np.linalg.norm(whole)
    assert cosine >= 0.999
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.jpg", quality=92, exif=exif_of(6))
    assert as_images([tmp_path / "turned.jpg"]).decode(0, 512).shape == (854, 1280, 3)


def test_small_jpeg_is_decoded_whole(tmp_path):
    Image.new("RGB", (700, 600)).save(tmp_path / "small.jpg")
    assert as_images([tmp_path / "small.jpg"]).decode(0, 512).shape == (600, 700, 3)
