"""Compare exported models with the Python models: probabilities and labels on photos, and images per second.

Needs: pip install onnx onnxscript onnxruntime skl2onnx openvino selenium, and Chromium with its driver for the page.

The photos are those of clothes (see problems.py). ResNet-18 and ConvNeXt-Tiny have random weights, because the machine
of these results cannot download published ones. Speeds are those of ONNX Runtime and of the Python model in the same
run. Both begin with images that are resized already.
"""

import functools
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from _cells import Benchmark, Cell, defaults_of, in_turn, seconds, table
from problems import CLOTHING, forget_rows, load
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, export, make_feature_classifier, set_cache_limits
from sktransfer._fitted_parts import parts_of
from sktransfer._linear import OneThreadLogisticRegression
from sktransfer._parameters import make_extractor
from sktransfer._validation import check_images
from sktransfer.datasets import load_image_folder

N_TRAIN, N_COMPARED = 200, 500
PAGE, TINY = "page, fine-tuned efficientnet_lite0", {"backbone": "timm/test_efficientnet", "weights": None}
BACKBONES: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": {},
    "resnet18": {"weights": None},
    "convnext_tiny": {"weights": None},
}
KINDS = ("feature classifier", "features + logistic", "features + SVM", "fine-tuned")


def plan(tiny: bool) -> list[Cell]:
    if tiny:
        return [{"model": f"{kind}, tiny"} for kind in KINDS]
    cells = [f"{kind}, efficientnet_lite0" for kind in KINDS] + [PAGE]
    cells += [f"{kind}, {backbone}" for backbone in ("resnet18", "convnext_tiny") for kind in KINDS[1:]]
    return [{"model": cell} for cell in cells]


def estimator(kind: str, backbone: str) -> Any:
    params = TINY | {"image_size": 32} if backbone == "tiny" else {"backbone": backbone, **BACKBONES[backbone]}
    if kind == "feature classifier":
        return make_feature_classifier(**params)
    if kind == "fine-tuned":
        return FineTunedCNNClassifier(
            **params, freeze="all" if "weights" in params else 6, max_epochs=2, random_state=0
        )
    features = PretrainedCNNFeatures(**params)
    last = OneThreadLogisticRegression() if kind == "features + logistic" else SVC()
    return make_pipeline(features, StandardScaler(), last)


@functools.cache
def photos(tiny: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return photos to train on with their labels, and photos to compare on."""
    if tiny:
        problem = load("tiny", 0)
        return problem.X_train, problem.y_train, problem.X_test
    problem = load(f"clothing-{N_TRAIN}", 0)
    others = np.concatenate([load_image_folder(CLOTHING / part).data for part in ("test", "train")])
    return problem.X_train, problem.y_train, others[:N_COMPARED]


def measure(model: str) -> Cell:
    with tempfile.TemporaryDirectory() as folder:
        if model == PAGE:
            return measure_page(Path(folder))
        kind, _, backbone = model.partition(", ")
        X, y, others = photos(backbone == "tiny")
        fitted = estimator(kind, backbone).fit(X, y)
        started = time.perf_counter()
        export(fitted, Path(folder) / "m.onnx", images=others[:8])
        found: Cell = {"export, s": time.perf_counter() - started}
        found["MB"] = (Path(folder) / "m.onnx").stat().st_size / 1e6
        return found | compared(fitted, Path(folder) / "m.onnx", others)


def compared(fitted: Any, path: Path, images: np.ndarray) -> Cell:
    """Return the largest difference, the share of equal labels, and speeds for one image and for 32 at a time."""
    (reader,) = parts_of(fitted).readers
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    items = check_images(reader.estimator, images, reset=False)
    canvases = np.array(make_extractor(reader.estimator, reader.backbone).canvases(items, np.arange(len(items))))
    parts = [session.run(None, {"images": canvases[i : i + 32]}) for i in range(0, len(canvases), 32)]
    values, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    expected = fitted.predict_proba(images) if hasattr(fitted, "predict_proba") else fitted.decision_function(images)
    expected = np.stack([-expected, expected], axis=1) if expected.ndim == 1 else expected
    scale = max(1.0, float(np.abs(expected).max()))
    found: Cell = {
        "photos": len(images),
        "largest difference": float(np.abs(values - expected).max()) / scale,
        "equal labels": float((labels == fitted.predict(images)).mean()),
    }
    forget_rows()
    set_cache_limits(memory_mb=0)
    seen = whole_canvases(fitted, canvases)
    for n in (1, 32):
        repeats, batch, theirs = 8 if n == 1 else 3, canvases[:n], seen[:n]
        pairs = in_turn(
            functools.partial(seconds, functools.partial(session.run, None, {"images": batch})),
            functools.partial(seconds, functools.partial(fitted.predict, theirs)),
            repeats + 1,
        )[1:]
        found[f"ONNX Runtime, images/s by {n}"] = len(batch) / float(np.median([pair[0] for pair in pairs]))
        found[f"Python, images/s by {n}"] = len(batch) / float(np.median([pair[1] for pair in pairs]))
    set_cache_limits(memory_mb=512)
    return found


def whole_canvases(fitted: Any, canvases: np.ndarray) -> list[np.ndarray]:
    """Return arrays that the Python model resizes to the canvases' size, so that it has little to prepare."""
    (reader,) = parts_of(fitted).readers
    height, width = reader.backbone.preprocessing.resized_to
    top, left = (height - canvases.shape[1]) // 2, (width - canvases.shape[2]) // 2
    around = ((0, 0), (top, height - canvases.shape[1] - top), (left, width - canvases.shape[2] - left), (0, 0))
    return list(np.pad(canvases[:32], around))


def measure_page(folder: Path) -> Cell:
    """Let Chromium classify all test photos with the page, and count what it asks the network for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    if not shutil.which("chromium"):
        raise ModuleNotFoundError("No program named 'chromium'")
    X, y, _ = photos(False)
    fitted = estimator("fine-tuned", "efficientnet_lite0").fit(X, y)
    export(fitted, folder / "m.html", images=X[:8])
    paths = load_image_folder(CLOTHING / "test").data
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(600)
        started = time.perf_counter()
        driver.get((folder / "m.html").as_uri())
        driver.execute_async_script("sktransfer.session.then(arguments[0])")
        loaded = time.perf_counter() - started
        driver.find_element("id", "files").send_keys("\n".join(paths))
        while len(answers := driver.execute_script("return sktransfer.history")) < len(paths):
            time.sleep(1)
        total = time.perf_counter() - started - loaded
        events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    finally:
        driver.quit()
    urls = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    values = np.array([answer["values"] for answer in answers])
    return {
        "photos": len(paths),
        "MB": (folder / "m.html").stat().st_size / 1e6,
        "largest difference": float(np.abs(values - fitted.predict_proba(paths)).max()),
        "equal labels": float(np.mean([answer["label"] for answer in answers] == fitted.predict(paths).astype(str))),
        "requests that left the page": sum(not url.startswith(("file:", "blob:", "data:")) for url in urls),
        "seconds to load": loaded,
        "photos/s": len(paths) / total,
    }


def report(cells: list[Cell]) -> list[str]:
    pages, files = [[c for c in cells if (c["model"] == PAGE) is of_page] for of_page in (True, False)]
    columns = {"model": "", "export, s": ".0f", "MB": ".1f", "photos": "", "largest difference": ".1e"}
    columns |= {"equal labels": ".4f"}
    for n in (1, 32):
        columns |= {f"ONNX Runtime, images/s by {n}": ".1f", f"Python, images/s by {n}": ".1f"}
    lines = table(columns, [[cell[name] for name in columns] for cell in files])
    lines += ["Wanted: differences of at most 1e-4, and equal labels. Differences of scores (SVM) are divided by the"]
    lines += [
        "largest score. Python's times include preparing the images, which are arrays of the right size. While other"
    ]
    lines += ["programs run, compare speeds only within a row.", ""]
    columns = {"page": "", "photos": "", "MB, wanted ≤ 40": ".1f", "largest difference": ".1e"}
    columns |= {"equal labels, wanted ≥ 0.99": ".4f", "requests that left the page, wanted 0": ""}
    columns |= {"seconds to load": ".1f", "photos/s": ".1f"}
    rows = [[cell["model" if name == "page" else name.partition(", wanted")[0]] for name in columns] for cell in pages]
    return lines + table(columns, rows)


NOTE = (
    "Trained on 200 photos of clothes. ResNet-18 and ConvNeXt-Tiny have random weights. The Python model uses OpenVINO "
    "for frozen stages, and torch for the others."
)
DEFAULTS = defaults_of(FineTunedCNNClassifier(), PretrainedCNNFeatures(), make_feature_classifier())
BENCHMARK = Benchmark(__file__, __doc__, "Exported models", plan, measure, report, NOTE, DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()
