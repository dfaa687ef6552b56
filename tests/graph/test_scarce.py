"""Fits to few images, judged by images that none of them has seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ghostify.graph import layer_fit, reader_fit
from ghostify.graph.calibrate import FitOptions, calibrate
from ghostify.graph.rewrite import rewrite
from ghostify.graph.scarce import is_scarce, parted
from ghostify.graph.slices import Kept, cut
from ghostify.graph.synthetic import dead_leaves
from ghostify.plan import Plan
from ghostify.spec import GhostSpec
from tests.pruners.networks import chain

SOLVED = FitOptions(block_steps=0, joint_steps=0)
MAPS = 32
KEPT = tuple(range(0, MAPS, 2))
SLICES = {"a": Kept(out=KEPT), "a_bn": Kept(out=KEPT), "b": Kept(reads=KEPT)}


def images(count: int, *, side: int = 5, seed: int = 0) -> Tensor:
    return dead_leaves(count, (3, side, side), generator=torch.Generator().manual_seed(seed))


def missed(model: nn.Module, other: nn.Module) -> float:
    """Return how far the outputs are apart on images of their own, as a share of their variance."""
    unseen = images(200, seed=1)
    with torch.no_grad():
        expected, found = model.eval()(unseen), other.eval()(unseen)
    return float((found - expected).square().sum() / (expected - expected.mean(0)).square().sum())


def network() -> nn.Module:
    model = chain(maps=MAPS).train()
    with torch.no_grad():
        for _ in range(50):  # statistics that are its own
            model(images(64, seed=2))
    return model.eval()


def ghosts(model: nn.Module, count: int, options: FitOptions = SOLVED) -> nn.Module:
    converted = rewrite(model, Plan({"a": GhostSpec(2, 3), "b": GhostSpec(2, 3)})).model
    calibrate(model, converted, ["a", "b"], [images(count)], options=options)
    return converted


def narrow(model: nn.Module, count: int) -> nn.Module:
    converted = cut(model, SLICES)
    calibrate(model, converted, ["a", "b"], [images(count)], options=SOLVED, slices=SLICES)
    return converted


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_filters_never_learn_a_few_images_by_heart(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    still = FitOptions(rounds=0, block_steps=0, joint_steps=0)

    careful = missed(model, ghosts(model, count))

    assert careful <= 1.01 * missed(model, ghosts(model, count, still))
    monkeypatch.setattr(layer_fit, "is_scarce", lambda *_: False)
    assert careful < 0.95 * missed(model, ghosts(model, count))


def test_readers_of_pruned_maps_never_learn_a_few_images_by_heart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network()

    careful = missed(model, narrow(model, 8))

    assert careful <= missed(model, cut(model, SLICES))
    monkeypatch.setattr(reader_fit, "is_scarce", lambda *_: False)
    assert careful < 0.8 * missed(model, narrow(model, 8))


def test_what_is_scarce_goes_by_images_and_by_positions_for_each_weight() -> None:
    def stream(count: int, side: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.zeros(count, 1, side, side), torch.zeros(count, 1, side, side))]

    assert is_scarce(lambda: stream(31, 100), 1)
    assert not is_scarce(lambda: stream(32, 10), 800)  # 3,200 positions
    assert is_scarce(lambda: stream(32, 10), 801)


@pytest.mark.parametrize("cut_at", [1, 3, 10])
def test_every_fourth_image_is_held_back_however_the_stream_is_cut(cut_at: int) -> None:
    numbers = torch.arange(10.0).view(10, 1, 1, 1)
    used, held_back = parted(lambda: iter([(part, -part) for part in numbers.split(cut_at)]))

    assert torch.cat([source for source, _ in held_back()]).flatten().tolist() == [3, 7]
    assert torch.cat([aim for _, aim in used()]).flatten().tolist() == [
        0,
        -1,
        -2,
        -4,
        -5,
        -6,
        -8,
        -9,
    ]
