"""Write the files that fuzzing starts from: python fuzz/seeds.py FOLDER makes FOLDER/front_door and FOLDER/loaders."""

from __future__ import annotations

import io
import json
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import FineTunedCNNClassifier, PretrainedCNNFeatures
from sktransfer._images._decoding import readable_formats
from sktransfer._persistence import _framed, _packed

REAL_FILES = Path(__file__).parents[2] / "shared" / "data" / "bad_images"
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")


def image_files() -> dict[str, bytes]:
    """Return small files of every format in every mode it can hold, and the smaller real ones if they are there."""
    files = {}
    noise = Image.effect_noise((24, 17), 90)
    for mode in MODES:
        image = (
            noise.convert("RGB").convert(mode) if mode not in ("I;16", "I", "F") else noise.convert("I").convert(mode)
        )
        for name in readable_formats():
            buffer = io.BytesIO()
            try:
                image.save(buffer, name)
            except (OSError, KeyError, ValueError):  # the format has no such mode, or cannot be written
                continue
            files[f"{name}-{mode.replace(';', '')}"] = buffer.getvalue()
    frames = [noise.convert("P"), noise.rotate(90).convert("P")]
    for name in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        buffer = io.BytesIO()
        frames[0].convert("RGB").save(buffer, name, save_all=True, append_images=[frames[1].convert("RGB")])
        files[f"{name}-frames"] = buffer.getvalue()
    if REAL_FILES.is_dir():
        files |= {path.name: path.read_bytes() for path in REAL_FILES.iterdir() if path.stat().st_size < 40_000}
    return files


def fitted_models() -> dict[str, bytes]:
    """Return the content of two small saved models."""
    X, y = load_digits(n_class=2, return_X_y=True)
    X, y = X[:20], y[:20]
    tiny = {"backbone": "shallow_cnn", "weights": None, "image_size": 16, "image_shape": (8, 8), "value_range": (0, 16)}
    classifier = FineTunedCNNClassifier(**tiny, freeze="all", max_epochs=1, random_state=0).fit(X, y)
    pipeline = make_pipeline(PretrainedCNNFeatures(**tiny, layer="stage1"), StandardScaler(), LogisticRegression())
    return {"classifier": _packed(classifier), "pipeline": _packed(pipeline.fit(X, y))}


def schema_of(packed: bytes) -> bytes:
    """Return the JSON within the content of a saved model, without its spaces."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        return json.dumps(json.loads(archive.read("schema.json")), separators=(",", ":")).encode()


def packed_with(packed: bytes, schema: bytes) -> bytes:
    """Return the content of a saved model with another JSON."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, schema if name == "schema.json" else old.read(name))
    return out.getvalue()


def loader_files() -> dict[str, bytes]:
    """Return one file of each kind in `loaders.KINDS`, which its first byte tells."""
    models = fitted_models()
    state = {"stages.0.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.zeros(2)}
    pth = io.BytesIO()
    torch.save({"state_dict": state}, pth)
    kinds = [
        _framed(models["pipeline"]),
        models["pipeline"],
        schema_of(models["classifier"]),
        schema_of(models["pipeline"]),
        safetensors_bytes(state),
        pth.getvalue(),
    ]
    return {str(kind): bytes([kind]) + content for kind, content in enumerate(kinds)}


def main(folder: Path) -> None:
    """Write the seeds of both targets."""
    for target, files in (("front_door", image_files()), ("loaders", loader_files())):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / target / f"seed-{name}").write_bytes(content)
        print(
            f"{len(files)} seeds, {np.sum([len(content) for content in files.values()]):,} bytes in {folder / target}"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
