"""A layer that reads fewer maps is solved for by least squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.calibrate import FitOptions, FitReport, calibrate
from ghostify.graph.slices import Kept, cut
from tests.pruners.networks import chain

IMAGES = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(6))
KEPT = (0, 2, 3, 5)
SLICES = {"a": Kept(out=KEPT), "a_bn": Kept(out=KEPT), "b": Kept(reads=KEPT)}
SOLVED = FitOptions(block_steps=0, joint_steps=0)


def fitted(model: nn.Module) -> tuple[nn.Module, FitReport]:
    narrow = cut(model, SLICES)
    report = calibrate(model, narrow, ["a", "b"], [IMAGES], options=SOLVED, slices=SLICES)
    return narrow, report


def between(model: nn.Module) -> Tensor:
    return functional.relu(model.a_bn(model.a(IMAGES)))


def test_the_weights_are_those_of_least_squares() -> None:
    model = chain(maps=6)

    narrow, report = fitted(model)

    with torch.no_grad():
        wanted = model.b(between(model)).permute(0, 2, 3, 1).flatten(0, 2).double()
        columns = functional.unfold(between(model)[:, list(KEPT)], 3, padding=1)
        read = columns.transpose(1, 2).flatten(0, 1).double()
    read, wanted = read - read.mean(0), wanted - wanted.mean(0)
    best = torch.linalg.lstsq(read, wanted).solution.T
    misses = (read @ narrow.b.weight.detach().double().flatten(1).T - wanted).square().sum()
    least = (read @ best.T - wanted).square().sum()
    assert float(misses) == pytest.approx(float(least), rel=0.02)  # a ridge, and fewer pixels
    assert [layer.name for layer in report.layers] == ["b"]
    assert report.layers[0].error == pytest.approx(float(least / wanted.square().sum()), rel=0.1)
    assert report.layers[0].error < 0.8 * report.layers[0].start_error


def test_the_mean_goes_into_the_batch_norm() -> None:
    model = chain(maps=6)

    narrow, _ = fitted(model)

    with torch.no_grad():
        theirs = model.b_bn(model.b(between(model))).mean((0, 2, 3))
        ours = narrow.b_bn(narrow.b(between(narrow))).mean((0, 2, 3))
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.0)


def test_no_piece_ends_where_there_are_fewer_maps() -> None:
    model = chain(maps=6)

    _, report = fitted(model)

    assert report.notes == ()  # the network was cut, and ran in pieces to the end
