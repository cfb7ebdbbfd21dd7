"""The same pixels give the same features, whatever holds them and however they are computed; at full size."""

import io
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pictures import CHINA, FLOWER, encoded
from processes import fresh
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
PHOTOS = [CHINA, FLOWER, FLOWER[100:420, 200:500], CHINA[:333, :250], CHINA[:, ::-1], FLOWER[::2, ::2]]


@pytest.fixture(scope="module", params=["PNG", "JPEG"])
def files(request, tmp_path_factory):
    """The photos as files; those of JPEG differ a little from the originals, but all containers hold the same."""
    folder = tmp_path_factory.mktemp(request.param)
    options = {"quality": 95} if request.param == "JPEG" else {}
    for i, photo in enumerate(PHOTOS[:4]):  # engines take four photos of this size at once
        (folder / f"{i}.{request.param.lower()}").write_bytes(encoded(photo, request.param, **options))
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def features(files):
    return PretrainedCNNFeatures(engine="torch", layer=["stage3", "penultimate"]).fit_transform(files)


def arrays(files):
    return [np.array(Image.open(path)) for path in files]


CONTAINERS = {
    "bytes": lambda files: [Path(path).read_bytes() for path in files],
    "PIL, opened": lambda files: [Image.open(path) for path in files],
    "PIL, of arrays": lambda files: [Image.fromarray(array) for array in arrays(files)],
    "uint8": arrays,
    "uint8, channels first": lambda files: [array.transpose(2, 0, 1) for array in arrays(files)],
    "uint16": lambda files: [array.astype(np.uint16) * 257 for array in arrays(files)],
    "float32": lambda files: [(array / 255).astype(np.float32) for array in arrays(files)],
    "float64": lambda files: [array / 255 for array in arrays(files)],
    "tensor, uint8": lambda files: [torch.from_numpy(array).permute(2, 0, 1) for array in arrays(files)],
    "tensor, float": lambda files: [torch.from_numpy(array).permute(2, 0, 1) / 255 for array in arrays(files)],
    "DataFrame of paths": lambda files: pd.DataFrame({"file": files}),
    "DataFrame of bytes": lambda files: pd.DataFrame({"content": [Path(path).read_bytes() for path in files]}),
    "Series": lambda files: pd.Series(files, index=list("dcba")),
    "mixed": lambda files: [files[0], *arrays(files)[1:3], Image.open(files[3])],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name, files, features, no_store):
    model = PretrainedCNNFeatures(engine="torch", layer=["stage3", "penultimate"])
    np.testing.assert_allclose(model.fit_transform(CONTAINERS[name](files)), features, **TOLERANCE)


def test_stacks(no_store):
    """One array of all images, in either order of axes, with values of either range."""
    stack = np.stack([CHINA, FLOWER])[:, ::4, ::4]  # a frame of the whole would have 820,000 columns
    model = PretrainedCNNFeatures(engine="torch")
    expected = model.fit_transform(list(stack))
    frame = pd.DataFrame(stack.reshape(2, -1))
    flat = PretrainedCNNFeatures(engine="torch", image_shape=stack.shape[1:])
    for one, X in (
        (model, stack),
        (model, stack.transpose(0, 3, 1, 2)),
        (model, torch.from_numpy(stack)),
        (model, stack / 255),
        (flat, frame),
    ):
        np.testing.assert_allclose(one.fit_transform(X), expected, **TOLERANCE)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 4}, {"n_jobs": 1}, {"n_jobs": 3}])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_batches_and_threads(engine, options, no_store):
    if engine == "openvino":
        pytest.importorskip("openvino")
    expected = PretrainedCNNFeatures(engine=engine).fit_transform(PHOTOS)
    np.testing.assert_allclose(
        PretrainedCNNFeatures(engine=engine, **options).fit_transform(PHOTOS), expected, **TOLERANCE
    )


def test_order_and_company_do_not_matter(no_store):
    model = PretrainedCNNFeatures(engine="torch")
    expected = model.fit_transform(PHOTOS)
    np.testing.assert_allclose(model.transform(PHOTOS[::-1])[::-1], expected, **TOLERANCE)
    np.testing.assert_allclose(model.transform([PHOTOS[3]])[0], expected[3], **TOLERANCE)


def test_engines_agree(no_store):
    pytest.importorskip("openvino")
    torch_, openvino = (PretrainedCNNFeatures(engine=name).fit_transform(PHOTOS) for name in ("torch", "openvino"))
    np.testing.assert_allclose(openvino, torch_, atol=1e-4, rtol=1e-3)


TRANSFORM = """
import sys, numpy as np
from sklearn.datasets import load_sample_images
from sktransfer import PretrainedCNNFeatures
np.save(sys.argv[1], PretrainedCNNFeatures(engine="torch").fit_transform(load_sample_images().images))
"""


def transform(images):
    return PretrainedCNNFeatures(engine="torch").fit_transform(images)


@pytest.mark.slow
def test_processes(tmp_path, no_store):
    expected = transform([CHINA, FLOWER])
    fresh(TRANSFORM, tmp_path / "X.npy")
    np.testing.assert_allclose(np.load(tmp_path / "X.npy"), expected, **TOLERANCE)
    parts = joblib.Parallel(n_jobs=2)(joblib.delayed(transform)([photo]) for photo in (CHINA, FLOWER))
    np.testing.assert_allclose(np.concatenate(parts), expected, **TOLERANCE)


def test_classifier_agrees_too(files, no_store):
    clf = FineTunedCNNClassifier(freeze=6, max_epochs=1, random_state=0).fit(PHOTOS, [0, 1, 0, 1, 0, 1])
    expected = clf.predict_proba(files)
    for name in ("bytes", "PIL, opened", "uint8", "float32", "DataFrame of paths"):
        np.testing.assert_allclose(clf.predict_proba(CONTAINERS[name](files)), expected, **TOLERANCE)
    np.testing.assert_allclose(clf.set_params(batch_size=2).predict_proba(files), expected, **TOLERANCE)


def test_large_jpegs_are_decoded_at_a_fraction(no_store):
    """From files of many times the network's size; so close that it makes no difference, and documented."""
    large = Image.fromarray(CHINA).resize((2560, 1708), Image.Resampling.BICUBIC)
    content = encoded(large, "JPEG", quality=95)
    model = PretrainedCNNFeatures(engine="torch")
    at_a_fraction = model.fit_transform([content])
    whole = model.transform([np.array(Image.open(io.BytesIO(content)))])
    other = model.transform([FLOWER])
    assert np.linalg.norm(at_a_fraction - whole) < 0.1 * np.linalg.norm(other - whole)
