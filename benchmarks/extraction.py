"""Images per second of feature extraction, beside other packages, on the same files in the same run.

Needs: pip install embetter img2vec-pytorch openvino onnxruntime onnx onnxscript

The others are embetter's TimmEncoder, img2vec-pytorch, a plain timm loop with a DataLoader, and hand-written OpenVINO
and ONNX Runtime loops. All use EfficientNet-Lite0 at 224 pixels, except img2vec, which has no Lite0 (its ResNet-18).
The photos are those of clothes (see problems.py), or generated JPEGs of the same size if they are missing, and JPEGs of
12 megapixels made from scikit-learn's sample photo.
"""

import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV

from _cells import Benchmark, Cell, defaults_of, median_seconds, named_cells, seconds
from peers import Files, plain_training
from problems import forget_rows, large_photos, photos
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, set_cache_limits
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._cut_network import Outputs
from sktransfer._frozen._engines import make_engine
from sktransfer._frozen._extraction import Extractor
from sktransfer._frozen._weights import embedded_lite_weights, read_weights
from sktransfer._images._collection import as_images

CPU = torch.device("cpu")
PRECISIONS = ("float32", "bfloat16")
Compute = Callable[[torch.Tensor], np.ndarray]  # from a batch of normalised images to features


def rate(n: int, work: Callable[[], object], repeats: int = 3) -> float:
    """Return images per second."""
    return n / median_seconds(work, repeats)


def published_lite0() -> torch.nn.Module:
    """Return timm's network with the embedded weights, and no classifier, as everyone has it."""
    network = timm.create_model("tf_efficientnet_lite0")
    network.reset_classifier(0)
    network.load_state_dict(read_weights(embedded_lite_weights(0)))
    return network.eval()


def normalised(stack: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield batches of 32 from a uint8 array in memory."""
    for part in torch.from_numpy(stack).split(32):
        yield (part.permute(0, 3, 1, 2).contiguous() / 255 - 0.5) / 0.5


def loop(compute: Compute, batches: Callable[[], Iterable[torch.Tensor]]) -> Callable[[], np.ndarray]:
    """Return a loop over batches."""
    return lambda: np.concatenate([compute(batch) for batch in batches()])


def loop_over_files(make: Callable[[int], Compute], paths: list[str], workers: int = 0) -> Callable[[], np.ndarray]:
    """Return a loop over files; without workers it decodes between the batches."""
    config = timm.data.resolve_data_config(model=timm.create_model("tf_efficientnet_lite0"))
    files = Files(paths, np.zeros(len(paths)), timm.data.create_transform(**config))
    loader = torch.utils.data.DataLoader(files, batch_size=32, num_workers=workers)
    return loop(make(min(32, len(paths))), lambda: (images for images, _ in loader))


def timm_compute(n: int) -> Compute:
    """Return the network as timm's users call it, for batches of any size."""
    network = published_lite0().requires_grad_(False)
    return lambda batch: network(batch).numpy()


def embetter_encoder(paths: list[str]) -> Callable[[], np.ndarray]:
    """Return embetter's own encoder, given the same weights, since it cannot download any here."""
    from embetter.vision import TimmEncoder

    network = published_lite0()
    with mock.patch.object(timm, "create_model", lambda name, **options: network):
        encoder = TimmEncoder("tf_efficientnet_lite0")
    return lambda: np.asarray(encoder.transform([Image.open(path).convert("RGB") for path in paths]))


def img2vec(paths: list[str]) -> Callable[[], object]:
    """Return img2vec's own loop; its weights are random here, which costs the same."""
    from img2vec_pytorch import img_to_vec

    resnet18 = img_to_vec.resnet18
    with mock.patch.object(img_to_vec, "resnet18", lambda weights: resnet18(weights=None)):
        encoder = img_to_vec.Img2Vec(cuda=False, model="resnet18")
    batches = [paths[first : first + 32] for first in range(0, len(paths), 32)]
    return lambda: [encoder.get_vec([Image.open(path).convert("RGB") for path in batch]) for batch in batches]


@cache
def openvino_core() -> Any:
    """Return one core for all loops, for its plugin must not be unloaded while threads use it."""
    import openvino

    return openvino.Core()


def openvino_compute(precision: str, n: int) -> Compute:
    """Return a model compiled by hand for batches of n normalised images."""
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(published_lite0(), example_input=torch.zeros(n, 3, 224, 224))
    model.reshape([n, 3, 224, 224])
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
    request = openvino_core().compile_model(model, "CPU", hint).create_infer_request()
    return lambda batch: request.infer([batch.numpy()])[0].copy()


def onnx_compute(n: int) -> Compute:
    """Return a hand-made ONNX Runtime session for batches of n normalised images."""
    import onnxruntime

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        torch.onnx.export(published_lite0(), (torch.zeros(n, 3, 224, 224),), f"{folder}/lite0.onnx", verbose=False)
        session = onnxruntime.InferenceSession(f"{folder}/lite0.onnx", providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch.numpy()})[0]


OTHERS: dict[str, Callable[[list[str]], Callable[[], object]]] = {
    "embetter TimmEncoder": embetter_encoder,
    "img2vec (ResNet-18)": img2vec,
    "OpenVINO by hand, float32": partial(loop_over_files, partial(openvino_compute, "float32")),
    "OpenVINO by hand, bfloat16": partial(loop_over_files, partial(openvino_compute, "bfloat16")),
    "ONNX Runtime by hand": partial(loop_over_files, onnx_compute),
}


def engine_loop(name: str, precision: str, canvases: np.ndarray) -> Callable[[], object]:
    """Return a loop of one of our engines over canvases, 32 at a time."""
    common = {"engine": name, "device": CPU, "precision": precision}
    engine = make_engine(load_backbone(), Outputs((8,), "avg"), 0, **common)
    return lambda: [engine(canvases[first : first + 32]) for first in range(0, len(canvases), 32)]


def arrays_in_memory(tiny: bool) -> Cell:
    """Compare on uint8 arrays of 224 pixels, which need no resizing."""
    n = 2 if tiny else 256
    stack = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    out = {"plain timm loop": rate(n, loop(timm_compute(n), partial(normalised, stack)), 2)}
    for precision in PRECISIONS:
        for name in ("torch", "openvino"):
            out[f"{name} engine, {precision}"] = rate(n, engine_loop(name, precision, stack))
        by_hand = loop(openvino_compute(precision, min(32, n)), partial(normalised, stack))
        out[f"OpenVINO by hand, {precision}"] = rate(n, by_hand)
    out["torch engine / timm"] = out["torch engine, float32"] / out["plain timm loop"]
    for precision in PRECISIONS:
        ratio = out[f"openvino engine, {precision}"] / out[f"OpenVINO by hand, {precision}"]
        out[f"openvino engine / by hand, {precision}"] = ratio
    return out


def jpeg_files(write: Callable[[int, Path], list[str]], n: int, others: list[str], tiny: bool) -> Cell:
    """Compare end to end on files, with the store off."""
    set_cache_limits(memory_mb=0)
    out: Cell = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = write(2 if tiny else n, Path(folder))
        rate_of = partial(rate, len(paths))
        for precision in PRECISIONS:
            model = PretrainedCNNFeatures(precision=precision).fit(paths)
            out[f"ours, {precision}"] = rate_of(partial(model.transform, paths))
        extractor, everything = Extractor(load_backbone(), None, device=CPU), np.arange(len(paths))
        out["ours, decoding alone"] = rate_of(lambda: extractor.canvases(as_images(paths), everything))
        canvases = extractor.canvases(as_images(paths), everything)
        for precision in PRECISIONS:
            out[f"ours, computing alone, {precision}"] = rate_of(engine_loop("openvino", precision, canvases))
            sum_of_times = 1 / out["ours, decoding alone"] + 1 / out[f"ours, computing alone, {precision}"]
            out[f"ours / (decoding + computing) in time, {precision}"] = 1 / out[f"ours, {precision}"] / sum_of_times
        for workers in (2, 0):
            out[f"plain timm loop, DataLoader({workers})"] = rate_of(loop_over_files(timm_compute, paths, workers), 1)
        for other in others:
            try:
                out[other] = rate_of(OTHERS[other](paths), 1)
            except ModuleNotFoundError as error:
                out[other] = f"not measured, {error}"
                print(f"  {other}: {out[other]}", flush=True)
    for other in [name for name in out if not name.startswith("ours") and not isinstance(out[name], str)]:
        for precision in PRECISIONS:
            out[f"ours, {precision} / {other}"] = out[f"ours, {precision}"] / out[other]
    return out


def training_step(tiny: bool) -> Cell:
    """Compare a fit with nothing frozen with the plain loop, on images in memory and with the store off."""
    set_cache_limits(memory_mb=0)
    n = 4 if tiny else 128
    stack = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    labels = np.arange(n) % 2
    clf = FineTunedCNNClassifier(freeze=0, crop=True, max_epochs=2 if tiny else 4, random_state=0).fit(stack, labels)
    network = published_lite0()
    network.reset_classifier(2)
    times = plain_training(network, lambda: zip(normalised(stack), torch.from_numpy(labels).split(32), strict=True), 3)
    ours = n / statistics.median(record["seconds"] for record in clf.history_[1:])
    plain = n / statistics.median(times[1:])
    return {"ours": ours, "plain loop": plain, "ratio": ours / plain}


MEMORY = """
import re, sys, numpy as np
from pathlib import Path
from sktransfer import PretrainedCNNFeatures, set_cache_limits
set_cache_limits(memory_mb=0)
paths = (sys.argv[2:] * 100_000)[: int(sys.argv[1])]
model = PretrainedCNNFeatures("timm/test_efficientnet", weights=None, image_size=32).fit(paths)
out = model.transform(paths)
# VmHWM, since ru_maxrss of a child begins with its parent's
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024 - out.nbytes / 2**20)
"""


def memory_of_many_images(tiny: bool) -> Cell:
    """Return the peak memory beyond the output for a thousand and for a hundred thousand images."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{i}.png" for i in range(20)]
        for i, path in enumerate(paths):
            Image.fromarray(np.full((32, 32), i, dtype=np.uint8)).save(path)
        out = {}
        for n in (100, 200) if tiny else (1_000, 100_000):
            command = [sys.executable, "-c", MEMORY, str(n), *paths]
            out[f"{n} images, peak MB beyond the output"] = float(subprocess.check_output(command, text=True))
    low, high = out.values()
    return {**out, "growth MB": high - low}


def grid_with_workers(tiny: bool) -> Cell:
    """Time a grid search over fine-tuning with one worker and with two."""
    params, out = {"freeze": [4, 5], "lr": [1e-3, 3e-4]}, {}
    clf = FineTunedCNNClassifier(max_epochs=1 if tiny else 5, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        paths = photos(12 if tiny else 160, Path(folder))
        for n_jobs in (1, 2):
            search = GridSearchCV(clf, params, cv=3, n_jobs=n_jobs)
            forget_rows()
            out[f"n_jobs={n_jobs}, seconds"] = seconds(partial(search.fit, paths, np.arange(len(paths)) % 2))
    return {**out, "two workers / one": out["n_jobs=2, seconds"] / out["n_jobs=1, seconds"]}


CELLS = {
    "arrays in memory": ("wanted: torch ≥ 2.2 × timm, OpenVINO ≥ 0.95 × by hand", arrays_in_memory),
    "photos (JPEG, about 400 × 533)": (
        "wanted: ≤ 1.10 × the sum of times; float32 ≥ 3.7 × embetter, ≥ 3.5 × timm; bfloat16 ≥ 6 × embetter",
        partial(jpeg_files, photos, 320, list(OTHERS)),
    ),
    "photos of 12 megapixels": ("wanted: ≥ 3 × timm", partial(jpeg_files, large_photos, 64, [])),
    "training, nothing frozen": ("wanted: ≥ 2", training_step),
    "memory": ("wanted: growth < 300 MB", memory_of_many_images),
    "grid search with two workers": ("wanted: ≤ 1", grid_with_workers),
}

DEFAULTS = defaults_of(PretrainedCNNFeatures(), FineTunedCNNClassifier())
NOTE = "EfficientNet-Lite0 at 224 pixels, batches of 32. Images per second unless said otherwise."
BENCHMARK = Benchmark(__file__, __doc__, "Extraction", *named_cells(CELLS, digits=3), NOTE, DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()
