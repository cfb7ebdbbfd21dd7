"""What the user set on Pillow in the main process holds in joblib's workers, and nowhere else."""

import io
import pickle
from multiprocessing.reduction import ForkingPickler

import joblib
import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from pictures import encoded, noise
from sktransfer import FineTunedCNNClassifier, ImageError, PretrainedCNNFeatures, find_bad_images, save
from tiny import TINY

y = np.arange(4) % 2


def jpeg(seed=0):
    return encoded(noise(48, 48, 3, seed=seed), "JPEG")


def model(memory=None):
    return make_pipeline(PretrainedCNNFeatures(**TINY, engine="torch", memory=memory), LogisticRegression())


def open_mine(fp, filename):
    return Image.open(io.BytesIO(fp.read()[4:]))


def accept_mine(prefix):
    return prefix.startswith(b"MINE")


@pytest.fixture(autouse=True, scope="module")
def fresh_workers():
    """Not those of other tests, which may have got settings before."""
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    yield
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


def _bad_in_worker(X):
    return [bad.reason for bad in find_bad_images(X)]


def test_workers_without_estimators_say_what_to_do(monkeypatch):
    X = [jpeg()[:1500], b"no picture"]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (reasons,) = joblib.Parallel(n_jobs=2)([joblib.delayed(_bad_in_worker)(X)])
    assert len(reasons) == 2 and all("This is a worker process" in reason for reason in reasons)
    assert len(_bad_in_worker(X)) == 1 and "worker" not in _bad_in_worker(X)[0]


def test_pixel_limit_holds_in_workers(monkeypatch):
    X = [jpeg(seed) for seed in range(4)]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ImageError, match="48 x 48 = 2304 pixels exceed the limit of 2000"):
        cross_val_score(model(), X, y, cv=2, n_jobs=2, error_score="raise")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # raised later; the workers live on
    assert np.isfinite(cross_val_score(model(), X, y, cv=2, n_jobs=2, error_score="raise")).all()


def test_truncated_images_are_read_in_workers(monkeypatch):
    X = [jpeg(seed)[:1500] for seed in range(4)]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    search = GridSearchCV(model(), {"logisticregression__C": [0.1, 1]}, cv=2, n_jobs=2, error_score="raise")
    assert search.fit(X, y).best_score_ >= 0


def test_registered_formats_are_read_in_workers(monkeypatch):
    monkeypatch.setitem(Image.OPEN, "MINE", (open_mine, accept_mine))
    X = [b"MINE" + jpeg(seed) for seed in range(4)]
    classifier = FineTunedCNNClassifier(**TINY, max_epochs=1)
    assert np.isfinite(cross_val_score(classifier, X, y, cv=2, n_jobs=2, error_score="raise")).all()


def test_formats_that_cannot_be_sent_are_named(monkeypatch):
    monkeypatch.setitem(
        Image.OPEN, "OURS", (lambda fp, name: open_mine(fp, name), lambda prefix: prefix[:4] == b"OURS")
    )
    with pytest.raises(ImageError, match="This is a worker process.*Change them in the function"):
        cross_val_score(model(), [b"OURS" + jpeg(seed) for seed in range(4)], y, cv=2, n_jobs=2, error_score="raise")


def _limit(_):
    return Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK


def test_other_settings_and_subclasses(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4321)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 99)
    assert b"_settings" in ForkingPickler.dumps(PretrainedCNNFeatures()).tobytes()  # for multiprocessing

    class Mine(PretrainedCNNFeatures):
        pass

    assert joblib.Parallel(n_jobs=2)([joblib.delayed(_limit)(Mine())]) == [(4321, 99)]


@pytest.mark.parametrize(
    "estimator", [PretrainedCNNFeatures(), FineTunedCNNClassifier()], ids=lambda e: type(e).__name__
)
def test_files_copies_and_hashes_do_not_carry_settings(estimator, monkeypatch, tmp_path):
    plain, digest = pickle.dumps(estimator), joblib.hash(estimator)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4321)
    assert pickle.dumps(estimator) == plain and joblib.hash(estimator) == digest
    joblib.dump(estimator, tmp_path / "estimator.joblib")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)
    loaded = joblib.load(tmp_path / "estimator.joblib")
    assert loaded.get_params() == estimator.get_params() == clone(estimator).get_params()
    assert Image.MAX_IMAGE_PIXELS == 1234
    # What comes back from a worker changes nothing here.
    (back,) = joblib.Parallel(n_jobs=2)([joblib.delayed(clone)(estimator)])
    assert back.get_params() == estimator.get_params() and Image.MAX_IMAGE_PIXELS == 1234
    save(estimator, tmp_path / "model")
    assert b"1234" not in (tmp_path / "model").read_bytes() and b"_settings" not in (tmp_path / "model").read_bytes()
