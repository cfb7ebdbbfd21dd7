"""What the net is fed: even batches, repeatable views."""

import numpy as np
import pytest
import torch

from pictures import noise
from sktransfer._finetuning._training_data import EvenBatches, TrainingSet


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
