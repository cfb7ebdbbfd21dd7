"""The code on the pages of docs/ runs as it stands, on few images, with a tiny network and for one epoch.

``docs/run_pages.py`` runs the pages with the images and the network that they name.
"""

import re
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.utils import Bunch, shuffle
from threadpoolctl import threadpool_limits
from torch import nn

from pages import PAGES, blocks
from pictures import noise, written
from sktransfer import _feature_classifier, clear_cache
from sktransfer._finetuning import _training
from sktransfer._finetuning._recipe import Recipe
from sktransfer._frozen import _backbones
from sktransfer._frozen._backbones import load_backbone
from sktransfer._stage_search import choose
from sktransfer.datasets import _elpv

N_CELLS = 42  # enough for what `with_fewer_images` leaves of [300:500]
WITH_CODE = [page for page in PAGES if any(not block.reason for block in blocks(page))]


def with_fewer_images(code):
    """Return code that takes a twelfth of the images, at least twelve, where it takes many."""

    def fewer(match):
        return re.sub(r"\d{2,}", lambda n: n[0] if int(n[0]) < 40 else str(max(12, int(n[0]) // 12)), match[0])

    return re.sub(r"\[\d*:\d+\]", fewer, code)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Pictures of noise in the form of `load_elpv`, of alternating classes after ``shuffle(random_state=0)``."""
    paths = written(noise(N_CELLS, 32, 32), tmp_path_factory.mktemp("cells"))
    target = np.empty(N_CELLS, dtype=int)
    target[shuffle(np.arange(N_CELLS), random_state=0)] = np.arange(N_CELLS) % 2
    return Bunch(
        data=np.array([str(path) for path in paths]),
        target=target,
        target_names=["functional", "defective"],
        probability=target / 1.5,
        module_type=np.array(["mono", "poly"])[target],
    )


def choose_in_a_moment(*args, n_stages, Cs, folds):
    return choose(*args, n_stages=n_stages[:1], Cs=Cs[:1], folds=folds[:1])


@pytest.fixture
def small_world(cells, tmp_path, monkeypatch):
    """Let every name of a backbone mean a tiny one, and the data sets be small."""
    small = load_backbone("timm/test_efficientnet", None)
    stages = nn.Sequential(OrderedDict(small.stages.named_children()))
    width = stages(torch.zeros(1, 3, 32, 32)).shape[1]
    for depth in range(len(stages) + 1, 9):  # as many as the default network has, since pages name them
        stages.add_module(f"stage{depth}", nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU()).eval())
    tiny = replace(small, stages=stages.requires_grad_(False), pretrained=True, published=True)
    monkeypatch.setattr(_backbones, "_build", lambda name, *_: replace(tiny, name=name))
    monkeypatch.setattr(_elpv, "load_elpv", lambda: cells)
    monkeypatch.setattr(_training, "resolve_recipe", lambda *_, **__: Recipe(1e-3, 1))
    monkeypatch.setattr(_feature_classifier, "choose", choose_in_a_moment)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", PIL.Image.MAX_IMAGE_PIXELS)  # a page changes it
    monkeypatch.chdir(tmp_path)
    for label in range(2):
        written(noise(6, 32, 32, 3, seed=label), tmp_path / "photos" / f"class{label}")
    clear_cache()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads only wait for each other, as little as there is to compute
    with threadpool_limits(1):
        yield
    torch.set_num_threads(n_threads)
    clear_cache()


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_of_the_page_runs(page, small_world):
    names = {}
    for block in blocks(page):
        if not block.reason:
            exec(compile(with_fewer_images(block.code), page.name, "exec"), names)


def test_every_block_that_prints_has_its_output():
    """``docs/run_pages.py`` writes the outputs."""
    for page in PAGES:
        for block in blocks(page):
            if not block.reason:
                assert ("print(" in block.code) == (block.output is not None), f"{page.name}: {block.code}"
