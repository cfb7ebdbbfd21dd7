"""The servers of docs/examples answer as the model does, also when several threads ask at once."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pictures import CHINA, FLOWER, encoded
from sktransfer import make_feature_classifier, save
from tiny import TINY

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
PHOTOS = [encoded(np.ascontiguousarray(photo[i:, i:])) for i in range(4) for photo in (CHINA, FLOWER)]


@pytest.fixture(scope="module")
def model():
    return make_feature_classifier(**TINY, cv=2).fit(PHOTOS, ["china", "flower"] * 4)


@pytest.fixture
def example(model, tmp_path, monkeypatch):
    """Import an example as its server does, with the saved model."""
    save(model, tmp_path / "model")
    monkeypatch.setenv("MODEL", str(tmp_path / "model"))

    def run(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


def test_fastapi(example, model):
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    with testclient.TestClient(example("serve_fastapi").app) as client, ThreadPoolExecutor(4) as threads:

        def ask(photo):
            answer = client.post("/classify", files={"photo": photo})
            assert answer.status_code == 200, answer.text
            return answer.json()

        found = list(threads.map(ask, PHOTOS * 3))
        expected = model.predict_proba(PHOTOS * 3)
        assert list(found[0]) == ["china", "flower"]
        np.testing.assert_allclose([list(each.values()) for each in found], expected, atol=1e-6)
        assert np.ptp(expected[:, 0]) > 0.01
        refused = client.post("/classify", files={"photo": b"/etc/passwd"})
        assert refused.status_code == 422 and "Cannot read image 0" in refused.json()["detail"]
        assert client.post("/classify").status_code == 422


def test_gradio(example, model, tmp_path):
    gradio = pytest.importorskip("gradio")
    served = example("serve_gradio")
    assert isinstance(served.app, gradio.Interface)
    (tmp_path / "photo.png").write_bytes(PHOTOS[0])
    found = served.classify(str(tmp_path / "photo.png"))
    np.testing.assert_allclose(list(found.values()), model.predict_proba(PHOTOS[:1])[0], atol=1e-6)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(gradio.Error, match="Cannot read image 0"):
        served.classify(str(tmp_path / "text.png"))
