"""Images per second of feature extraction, beside every peer, on the same files in the same run.

Peers: embetter's TimmEncoder, img2vec-pytorch, a plain timm loop with a DataLoader, and hand-written OpenVINO and ONNX
Runtime loops. All with EfficientNet-Lite0 at 224 pixels, but img2vec, which has no Lite0 (its ResNet-18).

    pip install embetter img2vec-pytorch openvino onnxruntime onnx onnxscript
    python benchmarks/extraction.py            # prints, writes docs/benchmarks/extraction.md

Photos: ../shared/data/clothing where present, else generated JPEGs of the same size; and 12-megapixel JPEGs made from
scikit-learn's sample photo. Finished cells are kept in benchmarks/results/ and not run twice (--again forgets them).
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from rows import forget_rows
from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures, set_cache_limits
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._engines import make_engine
from sktransfer._frozen._extraction import Extractor
from sktransfer._frozen._weights import embedded_lite_weights, read_weights
from sktransfer._images._collection import as_images

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "extraction.json"
REPORT = HERE.parent / "docs" / "benchmarks" / "extraction.md"
CLOTHING = HERE.parents[1] / "shared" / "data" / "clothing"
CPU = torch.device("cpu")
PRECISIONS = ("float32", "bfloat16")

Cell = dict[str, float]


def rate(n: int, work: Callable[[], object], repeats: int = 3) -> float:
    """Return images per second, the median of some runs after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return n / float(np.median(times))


def photos(n: int) -> list[str]:
    """Return n paths of ordinary photos."""
    if CLOTHING.is_dir():
        return sorted(str(path) for path in CLOTHING.glob("train/*/*.jpg"))[::2][:n]
    folder = Path(tempfile.mkdtemp())
    flower = Image.fromarray(load_sample_image("flower.jpg"))
    for i in range(n):
        flower.rotate(i).resize((400, 533)).save(folder / f"{i:04}.jpg", quality=60)
    return sorted(str(path) for path in folder.iterdir())


def large_photos(n: int) -> list[str]:
    """Return n paths of 12-megapixel JPEGs."""
    folder = Path(tempfile.mkdtemp())
    china = Image.fromarray(load_sample_image("china.jpg"))
    for i in range(n):
        china.rotate(i % 5).resize((4000, 3000), Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)
    return sorted(str(path) for path in folder.iterdir())


# --- the peers ----------------------------------------------------------------------------------------------


def published_lite0() -> torch.nn.Module:
    """Return timm's network with the embedded weights, and no classifier, as everyone has it."""
    network = timm.create_model("tf_efficientnet_lite0")
    network.reset_classifier(0)
    network.load_state_dict(read_weights(embedded_lite_weights(0)))
    return network.eval()


class Photos(torch.utils.data.Dataset):
    """What tutorials write."""

    def __init__(self, paths: list[str], transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def timm_loop(paths: list[str], workers: int) -> Callable[[], np.ndarray]:
    """Return the plain loop over files."""
    network = published_lite0()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    loader = torch.utils.data.DataLoader(Photos(paths, transform), batch_size=32, num_workers=workers)

    def run() -> np.ndarray:
        with torch.no_grad():
            return torch.cat([network(batch) for batch in loader]).numpy()

    return run


def timm_loop_on_arrays(stack: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the plain loop over a uint8 array in memory."""
    network = published_lite0()

    def run() -> np.ndarray:
        out = []
        with torch.no_grad():
            for first in range(0, len(stack), 32):
                batch = torch.from_numpy(stack[first : first + 32]).permute(0, 3, 1, 2).contiguous() / 255
                out.append(network((batch - 0.5) / 0.5))
        return torch.cat(out).numpy()

    return run


def embetter_encoder(paths: list[str]) -> Callable[[], np.ndarray]:
    """Return embetter's own encoder, given the same weights, since it cannot download any here."""
    from embetter.vision import TimmEncoder

    original, network = timm.create_model, published_lite0()
    timm.create_model = lambda name, pretrained=True, num_classes=0, **options: network
    try:
        encoder = TimmEncoder("tf_efficientnet_lite0")
    finally:
        timm.create_model = original
    return lambda: np.asarray(encoder.transform([Image.open(path).convert("RGB") for path in paths]))


def img2vec(paths: list[str]) -> Callable[[], object]:
    """Return img2vec's own loop; its weights are random here, which costs the same."""
    from img2vec_pytorch import img_to_vec

    original = img_to_vec.resnet18
    img_to_vec.resnet18 = lambda weights: original(weights=None)
    try:
        encoder = img_to_vec.Img2Vec(cuda=False, model="resnet18")
    finally:
        img_to_vec.resnet18 = original

    def run() -> list:
        batches = [paths[first : first + 32] for first in range(0, len(paths), 32)]
        return [encoder.get_vec([Image.open(path).convert("RGB") for path in batch]) for batch in batches]

    return run


def openvino_compiled(precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a model compiled by hand for batches of 32 normalised images."""
    import openvino

    example = torch.zeros(32, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(published_lite0(), example_input=example)
    model.reshape([32, 3, 224, 224])
    hint = "bf16" if precision == "bfloat16" else "f32"
    request = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    return lambda batch: request.infer([batch])[0]


def loop_by_hand(paths: list[str], compute: Callable[[np.ndarray], np.ndarray]) -> Callable[[], np.ndarray]:
    """Return a loop that decodes in line and computes; paths are a multiple of 32."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=published_lite0()))

    def run() -> np.ndarray:
        out = []
        for first in range(0, len(paths), 32):
            batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[first : first + 32]])
            out.append(compute(batch.numpy()).copy())
        return np.concatenate(out)

    return run


def onnx_session() -> Callable[[np.ndarray], np.ndarray]:
    """Return a hand-made ONNX Runtime session."""
    import onnxruntime

    path = Path(tempfile.mkdtemp()) / "lite0.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(published_lite0(), (torch.zeros(32, 3, 224, 224),), str(path), verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


# --- the cells ----------------------------------------------------------------------------------------------


def ours(paths: list[str] | np.ndarray, **params) -> Callable[[], np.ndarray]:
    """Return our extraction with the store off."""
    model = PretrainedCNNFeatures(**params).fit(paths)
    return lambda: model.transform(paths)


def in_batches(engine: Callable[[np.ndarray], object], canvases: np.ndarray) -> None:
    """Run an engine over canvases, 32 at a time."""
    for first in range(0, len(canvases), 32):
        engine(canvases[first : first + 32])


def arrays_in_memory() -> Cell:
    """Compare on uint8 arrays of 224 pixels, where no resize is due."""
    stack = np.random.default_rng(0).integers(0, 256, (256, 224, 224, 3), dtype=np.uint8)
    out = {"plain timm loop": rate(256, timm_loop_on_arrays(stack), 2)}
    backbone = load_backbone()
    for precision in PRECISIONS:
        common = {"device": CPU, "precision": precision, "batch_size": 32}
        compute = openvino_compiled(precision)

        def by_hand(compute=compute) -> np.ndarray:
            parts = []
            for first in range(0, 256, 32):
                batch = stack[first : first + 32].transpose(0, 3, 1, 2).astype(np.float32) / 255
                parts.append(compute((batch - 0.5) / 0.5).copy())
            return np.concatenate(parts)

        for name in ("torch", "openvino"):
            engine = make_engine(backbone, [8], "avg", 0, engine=name, **common)
            out[f"{name} engine, {precision}"] = rate(256, functools.partial(in_batches, engine, stack))
        out[f"OpenVINO by hand, {precision}"] = rate(256, by_hand)
    out["torch engine / timm"] = out["torch engine, float32"] / out["plain timm loop"]
    for precision in PRECISIONS:
        ratio = out[f"openvino engine, {precision}"] / out[f"OpenVINO by hand, {precision}"]
        out[f"openvino engine / by hand, {precision}"] = ratio
    return out


def jpeg_files(paths: list[str], peers: bool = True) -> Cell:
    """Compare end to end on files."""
    n = len(paths)
    out = {f"ours, {precision}": rate(n, ours(paths, precision=precision)) for precision in PRECISIONS}
    images, extractor = as_images(paths), Extractor(load_backbone(), None, device=CPU)
    out["ours, decoding alone"] = rate(n, lambda: extractor.canvases(images, np.arange(n)))
    canvases = extractor.canvases(images, np.arange(n))
    for precision in PRECISIONS:
        engine = make_engine(
            load_backbone(), [8], "avg", 0, engine="openvino", device=CPU, precision=precision, batch_size=32
        )
        work = functools.partial(in_batches, engine, canvases)
        out[f"ours, computing alone, {precision}"] = rate(n, work)
        sum_of_times = 1 / out["ours, decoding alone"] + 1 / out[f"ours, computing alone, {precision}"]
        out[f"ours / (decoding + computing) in time, {precision}"] = 1 / out[f"ours, {precision}"] / sum_of_times
    out["plain timm loop, DataLoader(2)"] = rate(n, timm_loop(paths, 2), 1)
    out["plain timm loop, DataLoader(0)"] = rate(n, timm_loop(paths, 0), 1)
    if peers:
        out["embetter TimmEncoder"] = rate(n, embetter_encoder(paths), 1)
        out["img2vec (ResNet-18)"] = rate(n, img2vec(paths), 1)
        for precision in PRECISIONS:
            out[f"OpenVINO by hand, {precision}"] = rate(n, loop_by_hand(paths, openvino_compiled(precision)), 1)
        out["ONNX Runtime by hand"] = rate(n, loop_by_hand(paths, onnx_session()), 1)
    for peer in [name for name in out if not name.startswith("ours")]:
        for precision in PRECISIONS:
            out[f"ours, {precision} / {peer}"] = out[f"ours, {precision}"] / out[peer]
    return out


def training_step() -> Cell:
    """Compare a fit with nothing frozen with the plain loop, on images in memory."""
    n = 128
    stack = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    labels = np.arange(n) % 2
    clf = FineTunedCNNClassifier(freeze=0, max_epochs=4, random_state=0).fit(stack, labels)
    network = published_lite0()
    network.reset_classifier(2)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    targets = torch.from_numpy(labels)

    def epoch() -> None:
        for first in range(0, n, 32):
            batch = torch.from_numpy(stack[first : first + 32]).permute(0, 3, 1, 2).contiguous() / 255
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network((batch - 0.5) / 0.5), targets[first : first + 32])
            loss.backward()
            optimizer.step()

    plain = rate(n, epoch, 2)
    ours_rate = n / float(np.median([record["seconds"] for record in clf.history_[1:]]))
    return {"ours": ours_rate, "plain loop": plain, "ratio": ours_rate / plain}


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


def memory_of_many_images() -> Cell:
    """Return the peak memory beyond the output for a thousand and for a hundred thousand images."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(20):
            paths.append(f"{folder}/{i}.png")
            Image.fromarray(np.full((32, 32), i, dtype=np.uint8)).save(paths[-1])
        out = {}
        for n in (1_000, 100_000):
            run = subprocess.run(
                [sys.executable, "-c", MEMORY, str(n), *paths], check=True, capture_output=True, text=True
            )
            out[f"{n} images, peak MB beyond the output"] = float(run.stdout)
    low, high = out.values()
    return {**out, "growth MB": high - low}


def grid_with_workers() -> Cell:
    """Time a grid search over fine-tuning with one worker and with two."""
    from sklearn.model_selection import GridSearchCV

    paths = photos(160)
    labels = np.arange(len(paths)) % 2
    out = {}
    for n_jobs in (1, 2):
        params = {"freeze": [4, 5], "lr": [1e-3, 3e-4]}
        clf = FineTunedCNNClassifier(max_epochs=5, random_state=0)
        search = GridSearchCV(clf, params, cv=3, n_jobs=n_jobs)
        set_cache_limits(memory_mb=512)
        forget_rows()
        start = time.perf_counter()
        search.fit(paths, labels)
        out[f"n_jobs={n_jobs}, seconds"] = time.perf_counter() - start
    set_cache_limits(memory_mb=0)
    return {**out, "two workers / one": out["n_jobs=2, seconds"] / out["n_jobs=1, seconds"]}


CELLS: dict[str, tuple[str, Callable[[], Cell]]] = {
    "arrays in memory": ("wanted: torch ≥ 2.2 × timm, OpenVINO ≥ 0.95 × by hand", arrays_in_memory),
    "photos (JPEG, about 400 × 533)": (
        "wanted: ≤ 1.10 × the sum of times; float32 ≥ 3.7 × embetter, ≥ 3.5 × timm; bfloat16 ≥ 6 × embetter",
        lambda: jpeg_files(photos(320)),
    ),
    "photos of 12 megapixels": ("wanted: ≥ 3 × timm", lambda: jpeg_files(large_photos(64), peers=False)),
    "training, nothing frozen": ("wanted: ≥ 2", training_step),
    "memory": ("wanted: growth < 300 MB", memory_of_many_images),
    "grid search with two workers": ("wanted: ≤ 1", grid_with_workers),
}


def main() -> None:
    """Run the cells that are not finished, print all, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="run finished cells again")
    parser.add_argument("--only", help="run cells whose name contains this")
    arguments = parser.parse_args()
    set_cache_limits(memory_mb=0)
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, (_, work) in CELLS.items():
        chosen = arguments.only is None or arguments.only in name
        if chosen and (arguments.again or name not in done):
            print(f"{name} …", flush=True)
            done[name] = work()
            RESULTS.write_text(json.dumps(done, indent=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = ["# Extraction", "", "`python benchmarks/extraction.py`", ""]
    machine = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, peak memory {peak:.0f} MB"
    )
    lines += [
        f"{machine}. EfficientNet-Lite0 at 224 pixels, batches of 32. Images per second unless said otherwise.",
        "",
    ]
    for name, (note, _) in CELLS.items():
        if name in done:
            lines += [f"**{name}** ({note})", "", *(f"- {key}: {value:.3g}" for key, value in done[name].items()), ""]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
