"""The README's blocks that are no doctests run as they stand, on few images and for one epoch."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pictures import noise, written
from sktransfer import PretrainedCNNFeatures, clear_cache
from sktransfer._finetuning import _training
from sktransfer._finetuning._recipe import Recipe
from sktransfer._frozen import _backbones
from sktransfer._frozen._backbones import load_backbone

README = Path(__file__).parents[1] / "README.md"
BLOCKS = [
    block
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    if ">>>" not in block
]


@pytest.fixture(params=["tiny", pytest.param("published", marks=pytest.mark.slow)])
def network(request, monkeypatch):
    """Let every name of a backbone mean a tiny one, or what it means."""
    if request.param == "tiny":
        tiny = replace(load_backbone("timm/test_efficientnet", None), pretrained=True)
        monkeypatch.setattr(_backbones, "_build", lambda name, *_: replace(tiny, name=name))
    clear_cache()
    yield
    clear_cache()


def test_blocks_run_in_order(tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_training, "resolve_recipe", lambda *_, **__: Recipe(1e-3, 1))
    for label in range(2):
        written(noise(6, 32, 32, 3, seed=label), tmp_path / "photos" / f"class{label}")
    # What the five lines at its top, a doctest, leave to the blocks below.
    images = sorted((tmp_path / "photos").rglob("*.png"))
    names = {"PretrainedCNNFeatures": PretrainedCNNFeatures, "X": images, "y": [0] * 6 + [1] * 6}
    for block in BLOCKS:
        exec(block, names)
    assert len(names["photos"].data) == 12 and names["model"].classes_.tolist() == [0, 1]
    assert names["search"].best_params_["freeze"] in (4, 6, "all")


def test_every_test_that_the_docs_name_is_there():
    tests = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    promises = (README.parent / "docs" / "trust.md").read_text(encoding="utf-8")
    files, functions = set(re.findall(r"tests/(\w+\.py)", promises)), set(re.findall(r"`(test_\w+)`", promises))
    assert files <= set(tests) and len(files) > 8
    assert [name for name in functions if not any(f"def {name}(" in text for text in tests.values())] == []
