"""Images that are made from nothing but the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ghostify.graph.synthetic import dead_leaves, synthetic_images
from tests.graph.networks import plain


def trained_like() -> nn.Module:
    """A network whose batch norms have seen coloured, bright images."""
    torch.manual_seed(0)
    model = plain()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for _ in range(40):
            model(0.5 * dead_leaves(16, (3, 16, 16), generator=generator) + 1.5)
    return model.eval()


def miss(model: nn.Module, images: Tensor) -> float:
    """How far mean and spread before each batch norm are from what it has kept."""
    total = 0.0
    with torch.no_grad():
        for index in (1, 4):
            norm = model[index]
            seen = model[:index](images)
            mean, spread = seen.mean((0, 2, 3)), seen.std((0, 2, 3))
            kept = norm.running_var.sqrt()
            total += float((((mean - norm.running_mean) / kept) ** 2).mean())
            total += float(((spread / kept - 1) ** 2).mean())
    return total


def test_images_come_to_have_the_statistics_that_the_network_has_kept() -> None:
    model = trained_like()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    start = synthetic_images(model, (3, 16, 16), count=16, steps=0, seed=1)
    images = synthetic_images(model, (3, 16, 16), count=16, steps=25, seed=1)

    assert images.shape == (16, 3, 16, 16)
    assert not images.requires_grad
    assert miss(model, images) < 0.3 * miss(model, start)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_same_seed_makes_the_same_images() -> None:
    model = trained_like()
    one, same, other = (
        synthetic_images(model, (3, 8, 8), count=4, steps=2, seed=seed) for seed in (1, 1, 2)
    )

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_steps_are_counted_over_all_chunks() -> None:
    seen: list[tuple[int, int]] = []

    synthetic_images(
        trained_like(), (3, 128, 128), count=17, steps=2, on_step=lambda *at: seen.append(at)
    )

    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]  # 8 and 9 images: one would be too few


def test_a_network_without_batch_norms_gets_dead_leaves() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))

    images = synthetic_images(model, (3, 8, 8), count=3, seed=5)

    leaves = dead_leaves(3, (3, 8, 8), generator=torch.Generator().manual_seed(5))
    assert torch.equal(images, leaves)


def test_dead_leaves_have_the_spectrum_of_photographs() -> None:
    """The energy falls with frequency, about as 1 / f^2, and each image has variance 1."""
    images = dead_leaves(64, (3, 32, 32), generator=torch.Generator().manual_seed(0))

    assert torch.allclose(images.std((1, 2, 3), correction=0), torch.ones(64), atol=1e-3)
    power = np.abs(np.fft.fft2(images[:, 0].numpy())) ** 2
    line = power.mean(0)[0, 1:16] + power.mean(0)[1:16, 0]
    slope = np.polyfit(np.log(np.arange(1, 16)), np.log(line), 1)[0]
    assert -3.0 < slope < -1.2


def test_any_shape_will_do() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 1), (1, 5, 80), (4, 100, 70), (3, 1, 9)):
        assert dead_leaves(2, shape, generator=generator).isfinite().all()
