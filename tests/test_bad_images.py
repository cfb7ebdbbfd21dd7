"""Every bad image is named at once, or its row is NaN; nothing of it is stored."""

import numpy as np
import pytest

from pictures import noise, written
from sktransfer import (
    BadImage,
    FineTunedCNNClassifier,
    ImageError,
    PretrainedCNNFeatures,
    cache_info,
    find_bad_images,
)
from sktransfer._images import _bad_images
from tiny import TINY


@pytest.fixture
def files(tmp_path):
    """Thirty pictures; number 3 is cut, number 17 missing, number 20 no picture."""
    paths = written(noise(30, 40, 40, 3), tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:1000])
    paths[17].unlink()
    paths[20].write_text("no picture")
    return paths


BAD = [3, 17, 20]
LABELS = np.arange(30) % 2


def good(files):
    return [path for i, path in enumerate(files) if i not in BAD]


@pytest.mark.parametrize("n_jobs", [1, -1])
def test_find_bad_images(files, n_jobs, computed):
    found = find_bad_images(files, n_jobs=n_jobs)
    assert [bad.index for bad in found] == BAD
    assert [bad.path for bad in found] == [str(files[i]) for i in BAD]
    reasons = [bad.reason for bad in found]
    assert "truncated" in reasons[0] and "no such file" in reasons[1] and "no format" in reasons[2]
    assert find_bad_images(good(files)) == [] == computed
    assert find_bad_images([b"", np.zeros((4, 4))])[0] == BadImage(0, None, found[2].reason)


def test_find_bad_images_takes_what_images_take():
    rows = np.zeros((4, 64))
    rows[2, 5] = np.nan
    assert [bad.index for bad in find_bad_images(rows, image_shape=(8, 8))] == [2]
    assert find_bad_images(rows[:2] + 9, image_shape=(8, 8), value_range=(0, 16)) == []
    with pytest.raises(ImageError, match="rows of 64 numbers"):
        find_bad_images(rows)


def lists_them(files):
    lines = "".join(rf"[\s\S]*image {i} \(.*{files[i].name}\): " for i in BAD)
    return pytest.raises(ImageError, match=rf"Cannot read 3 of 30 images:{lines}[\s\S]*find_bad_images")


def test_transform_lists_every_bad_image(files):
    with lists_them(files) as caught:
        PretrainedCNNFeatures(**TINY, batch_size=4).fit_transform(files)
    assert [bad.index for bad in caught.value.bad_images] == BAD


@pytest.mark.parametrize("params", [{"freeze": 2}, {"freeze": 0}, {"freeze": 0, "augment": "photo"}])
def test_classifier_lists_every_bad_image(files, params):
    clf = FineTunedCNNClassifier(**TINY, max_epochs=1, **params)
    with lists_them(files):
        clf.fit(files, LABELS)
    assert not hasattr(clf, "net_")
    clf.fit(good(files), np.delete(LABELS, BAD))
    with lists_them(files):
        clf.predict(files)


def test_one_bad_image_is_named_by_itself(files):
    with pytest.raises(ImageError, match=r"^Cannot read image 3 \(.*3\.png\): .*truncated") as caught:
        PretrainedCNNFeatures(**TINY).fit_transform(files[:10])
    assert len(caught.value.bad_images) == 1


def test_list_is_capped(files):
    with pytest.raises(ImageError) as caught:
        PretrainedCNNFeatures(**TINY).fit_transform([f"missing{i}.png" for i in range(1000)])
    assert len(caught.value.bad_images) == 1000
    assert "Cannot read 1000 of 1000" in str(caught.value) and "and 980 more" in str(caught.value)
    assert len(str(caught.value)) < 6000


def test_looking_for_the_others_is_bounded_in_time(files, monkeypatch):
    monkeypatch.setattr(_bad_images, "LOOK_SECONDS", -1)
    monkeypatch.setattr(_bad_images, "_BLOCK", 4)
    with pytest.raises(ImageError, match=r"^Cannot read image \d+ "):
        PretrainedCNNFeatures(**TINY).fit_transform(files)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_nan_rows_and_a_warning(files, tmp_path, memory, normalize):
    options = {**TINY, "normalize": normalize, "memory": tmp_path / "cache" if memory else None}
    model = PretrainedCNNFeatures(**options, on_error="nan", batch_size=4)
    with pytest.warns(RuntimeWarning, match=r"Cannot read 3 of 30 .* NaN:\nimage 3 [\s\S]*image 17 [\s\S]*image 20 "):
        features = model.fit_transform(files)
    assert np.isnan(features[BAD]).all()
    assert cache_info().entries == 27
    if memory:
        assert cache_info(tmp_path / "cache").entries == 27
    np.testing.assert_array_equal(np.delete(features, BAD, axis=0), model.transform(good(files)))


def test_nothing_but_nan():
    model = PretrainedCNNFeatures(**TINY, on_error="nan", layer=["stage1", "stage2"]).fit(["x.png"])
    with pytest.warns(RuntimeWarning, match="Cannot read 2 of 2 images"):
        features = model.transform(["x.png", b""])
    assert features.shape == (2, model.n_features_out_) and features.dtype == np.float32 and np.isnan(features).all()


def test_unknown_way_to_handle_errors():
    with pytest.raises(ValueError, match="'on_error' parameter"):
        PretrainedCNNFeatures(**TINY, on_error="ignore").fit(["x.png"])
