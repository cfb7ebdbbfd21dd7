"""The embedded default never reaches for the network, nor does anything that it runs on."""

import subprocess
import sys

OFFLINE = """
import sys, numpy as np

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("network:", event, arguments[:2], flush=True)  # a thread may swallow the error
        raise OSError("no network")

sys.addaudithook(no_network)
import sktransfer

X = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
features = sktransfer.PretrainedCNNFeatures(image_size=64).fit_transform(X)
clf = sktransfer.FineTunedCNNClassifier(image_size=64, max_epochs=1, random_state=0).fit(X, [0, 1] * 4)
sktransfer.save(clf, sys.argv[1])
assert np.array_equal(sktransfer.load(sys.argv[1]).predict_proba(X), clf.predict_proba(X))
print(features.shape)
"""


def test_nothing_reaches_for_the_network(tmp_path):
    """OpenVINO's telemetry, where it is installed, would report to Google at its first import."""
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "model")]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "(8, 1280)"
