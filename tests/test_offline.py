"""The embedded default never reaches for the network, nor does anything that it runs on."""

import subprocess
import sys

import pytest

from processes import fresh

NO_NETWORK = """
import sys

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("network:", event, arguments[:2], flush=True)  # a thread may swallow the error
        raise OSError("no network")

sys.addaudithook(no_network)
import sktransfer
"""

USE = """
import numpy as np
X = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
features = sktransfer.PretrainedCNNFeatures(image_size=64).fit_transform(X)
clf = sktransfer.FineTunedCNNClassifier(image_size=64, max_epochs=1, random_state=0).fit(X, [0, 1] * 4)
sktransfer.save(clf, sys.argv[1])
assert np.array_equal(sktransfer.load(sys.argv[1]).predict_proba(X), clf.predict_proba(X))
print(features.shape)
"""


def test_nothing_reaches_for_the_network(tmp_path):
    """OpenVINO's telemetry, where it is installed, would report to Google at its first import."""
    command = [sys.executable, "-c", NO_NETWORK + USE, tmp_path / "model"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "(8, 1280)"


EXPORT = """
import numpy as np
X = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
tiny = {"backbone": "timm/test_efficientnet", "weights": None, "image_size": 32}
clf = sktransfer.FineTunedCNNClassifier(**tiny, max_epochs=1, random_state=0).fit(X, [0, 1] * 4)
sktransfer.export(clf, sys.argv[1])
print(sktransfer.card(clf).render().count("Apache"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_export_and_card_do_not_reach_for_the_network(suffix, tmp_path):
    command = [sys.executable, "-c", NO_NETWORK + EXPORT, tmp_path / f"model{suffix}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "0" and (tmp_path / f"model{suffix}").stat().st_size > 1000


def test_the_network_is_really_off():
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError as e: print(e)"
    out = fresh(NO_NETWORK + code).stdout
    assert out.startswith("network: ") and out.endswith("no network\n")


@pytest.mark.parametrize("photos", [40, pytest.param(None, marks=pytest.mark.slow)])
def test_demo(photos, tmp_path):
    """The whole of it, and on few photos."""
    few = f"_demo.N_CELLS, _demo.IMAGE_SIZE, _demo.FREEZE_GRID = {photos}, 32, [7]\n" if photos else ""
    code = f"{NO_NETWORK}from sktransfer import __main__, _demo\n{few}sys.exit(__main__.main(['demo']))"
    out = fresh(code, cwd=tmp_path, timeout=1200).stdout
    assert "network" not in out
    assert "features + scaling + SVM" in out and "fine-tuned, freeze=" in out and "Figure:" in out
    assert (tmp_path / "sktransfer-demo.png").stat().st_size > 10_000
