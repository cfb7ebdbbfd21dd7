"""The embedded default never reaches for the network, nor does anything that it runs on."""

import subprocess
import sys

import pytest

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
    assert offline(USE, tmp_path / "model").strip() == "(8, 1280)"


def test_the_network_is_really_off():
    out = offline("import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError as e: print(e)")
    assert out.startswith("network: ") and out.endswith("no network\n")


@pytest.mark.parametrize("photos", [40, pytest.param(None, marks=pytest.mark.slow)])
def test_demo(photos, tmp_path, monkeypatch):
    """The whole of it, and on few photos."""
    monkeypatch.chdir(tmp_path)
    few = f"_demo.N_CELLS, _demo.IMAGE_SIZE, _demo.FREEZE_GRID = {photos}, 32, [7]\n" if photos else ""
    out = offline(f"from sktransfer import _demo\n{few}_demo.run()")
    assert "network" not in out
    assert "features + scaling + SVM" in out and "fine-tuned, freeze=" in out and "Figure:" in out


def offline(code, *arguments):
    """Run code in a process where every reach for the network is printed and refused."""
    command = [sys.executable, "-c", NO_NETWORK + code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
