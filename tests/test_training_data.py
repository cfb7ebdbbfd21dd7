"""What the net is fed: even batches, repeatable views, smaller images at first."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pictures import noise
from sktransfer import FineTunedCNNClassifier, clear_cache
from sktransfer._finetuning._network import TunedNetwork
from sktransfer._finetuning._training_data import EvenBatches, TrainingSet
from sktransfer._frozen import _backbones
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._extraction import Extractor


class Identity:
    device = torch.device("cpu")

    def __call__(self, canvases):
        return torch.from_numpy(canvases).float()


@pytest.mark.parametrize(("n", "batch_size"), [(33, 32), (1, 32), (64, 32), (65, 32), (7, 2), (100, 33)])
def test_batches_are_even_and_complete(n, batch_size):
    data = TrainingSet(np.arange(n, dtype=np.float32)[:, None], np.arange(n), np.ones(n, np.float32), Identity())
    batches = EvenBatches(data, batch_size, np.random.default_rng(0))
    sizes = [len(x) for x, _ in batches]
    assert len(sizes) == len(batches)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size
    epochs = [torch.cat([labels for _, (labels, _) in batches]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(n)) for epoch in epochs)
    if n > 6:
        assert epochs[0].tolist() != epochs[1].tolist()  # shuffled anew
    ordered = torch.cat([x for x, _ in EvenBatches(data, batch_size)])
    assert ordered[:, 0].tolist() == list(range(n))


def test_augmented_views_follow_the_rng_and_spare_the_rest():
    canvases = noise(4, 6, 6, 3)

    def noisy(image, generator):
        return (image + torch.randint(0, 9, image.shape, generator=generator)).to(torch.uint8)

    def views(seed):
        data = TrainingSet(
            canvases, np.zeros(4, int), np.ones(4, np.float32), Identity(), noisy, np.random.default_rng(seed)
        )
        return [data.batch(np.arange(4))[0] for _ in range(2)]

    state = torch.random.get_rng_state()
    first, second = views(0)
    assert not torch.equal(first, second)
    assert torch.equal(first, views(0)[0])
    assert not torch.equal(first, views(1)[0])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture
def sides(monkeypatch):
    """The sides of the images on which a network that passes for a pretrained one was trained, one per epoch."""
    tiny = load_backbone("timm/test_efficientnet", None)
    monkeypatch.setattr(
        _backbones, "_build", lambda name, weights, seed: replace(tiny, name=name, pretrained=weights is not None)
    )
    clear_cache()
    trained, features = [], TunedNetwork.features

    def noted(network, activations):
        if network.training:
            trained.append(activations.shape[1])
        return features(network, activations)

    monkeypatch.setattr(TunedNetwork, "features", noted)
    yield trained
    clear_cache()


LEARNS = {"freeze": 1, "augment": "photo", "max_epochs": 5, "image_size": 144, "random_state": 0}


def fitted(**params):
    return FineTunedCNNClassifier(**{**LEARNS, **params}).fit(noise(6, 20, 20, 3), [0, 1] * 3)


def test_first_epochs_show_smaller_images(sides):
    fitted()
    assert sides == [48, 48, 48, 72, 72]  # after the first stage, which halves them
    losses = [[epoch["train_loss"] for epoch in fitted().history_] for _ in range(2)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "params",
    [
        {"augment": None},
        {"augment": "any_orientation"},
        {"n_views": 2},
        {"max_epochs": 4},
        {"lr_factor": 0.0},
        {"image_size": 112},
        {"weights": None},
    ],
    ids=str,
)
def test_all_epochs_show_the_whole_size(sides, params):
    fitted(**params)
    assert len(set(sides)) == 1


def test_a_head_alone_sees_the_whole_size(sides, monkeypatch):
    """Its network gets vectors, so the canvases are counted."""
    made, canvases = [], Extractor.canvases
    monkeypatch.setattr(Extractor, "canvases", lambda *args: made.append(canvases(*args)) or made[-1])
    fitted(freeze="all")
    assert {each.shape[1:3] for each in made} == {(144, 144)}


def test_continued_training_shows_the_whole_size(sides):
    model = fitted(warm_start=True)
    sides.clear()
    model.fit(noise(6, 20, 20, 3), [0, 1] * 3)
    assert set(sides) == {72}


def test_networks_of_one_size_are_trained_at_it(sides, monkeypatch):
    tiny = load_backbone()

    class OneSize(torch.nn.Module):
        def forward(self, x):
            assert x.shape[-1] == 144
            return x

    stages = torch.nn.Sequential(torch.nn.Sequential(OneSize(), tiny.stages[0]), *tiny.stages[1:])
    monkeypatch.setattr(_backbones, "_build", lambda name, *_: replace(tiny, name=name, stages=stages))
    clear_cache()
    fitted()
    assert set(sides) == {72}
