"""The parts of training, each by itself."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer._finetuning._network import TunedNetwork, fit_first_head
from sktransfer._finetuning._recipe import WeightedCrossEntropy, warmup_cosine


def network(n_classes=3, **options):
    stages = nn.Sequential(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU()))
    return TunedNetwork(stages, 4, n_classes, **options)


def test_schedule_rises_and_falls():
    factor = warmup_cosine(100, warmup=0.1)
    values = [factor(step) for step in range(100)]
    assert values[0] == 0.1
    assert values[9] == values[10] == 1.0
    assert all(a > b for a, b in zip(values[10:], values[11:], strict=False))
    assert 0 < values[99] < 0.001
    assert [warmup_cosine(1)(step) for step in range(2)][0] == 1.0


def test_loss_equals_torch():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    criterion = WeightedCrossEntropy()
    torch.testing.assert_close(criterion(logits, [labels, torch.ones(6)]), nn.CrossEntropyLoss()(logits, labels))
    weights = torch.tensor([3.0, 0, 0, 0, 0, 0])
    torch.testing.assert_close(criterion(logits, [labels, weights]), nn.CrossEntropyLoss()(logits[:1], labels[:1]) / 2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_first_head_is_the_logistic_regression(n_classes):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % n_classes
    features = (rng.normal(size=(60, 4)) + labels[:, None]) * [1, 10, 100, 0.1]
    weights = rng.uniform(0.5, 2, 60)
    net = network(n_classes)
    fit_first_head(net, features, labels, weights)
    scaler = StandardScaler().fit(features)
    expected = LogisticRegression(C=0.01).fit(scaler.transform(features), labels, sample_weight=weights)
    with torch.no_grad():
        probabilities = net.eval()(torch.tensor(features, dtype=torch.float32)).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected.predict_proba(scaler.transform(features)), atol=1e-4)


def test_first_head_leaves_hidden_layers_and_missing_classes_alone():
    features, labels = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 0, 1, 0, 1])
    for net in (network(2, head_hidden=(5,)), network(3)):
        before = [p.clone() for p in net.parameters()]
        fit_first_head(net, features, labels, np.ones(6))
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_statistics_are_kept_or_learned():
    x = torch.randn(8, 3, 3, 2) + 5
    for keep in (True, False):
        net = network(keep_statistics=keep).train()
        before = net.stages[0][1].running_mean.clone()
        net(x)
        assert torch.equal(before, net.stages[0][1].running_mean) is keep


def test_head_layers():
    net = network(3, head_hidden=(8, 5), dropout=0.3)
    assert [type(layer).__name__ for layer in net.head] == ["Dropout", "Linear", "ReLU"] * 2 + ["Dropout", "Linear"]
    assert [layer.out_features for layer in net.head if isinstance(layer, nn.Linear)] == [8, 5, 3]
    assert net.eval()(torch.zeros(2, 3, 3, 2)).shape == net(torch.zeros(2, 4)).shape == (2, 3)
