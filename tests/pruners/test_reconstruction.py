"""Maps are ranked by what their readers miss without them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from ghostify.pruners import reconstruction
from ghostify.pruners.groups import find_groups
from ghostify.pruners.reconstruction import reconstruction_scores
from tests.pruners.networks import chain, residual

IMAGES = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(8))


def best_sets(model: nn.Module, layer: str, reader: str, images: torch.Tensor) -> list[int]:
    """Return which single map costs least, by solving for the others by least squares."""
    seen: list[torch.Tensor] = []
    conv = model.get_submodule(reader)
    handle = conv.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    columns = torch.nn.functional.unfold(seen[0], conv.kernel_size, padding=conv.padding,
                                         stride=conv.stride)  # fmt: skip
    read = columns.transpose(1, 2).flatten(0, 1).double()
    read = read - read.mean(0)
    wanted = read @ conv.weight.detach().double().flatten(1).T
    taps = conv.weight[0, 0].numel()
    maps = model.get_submodule(layer).weight.shape[0]
    costs = []
    for gone in range(maps):
        rest = [k for k in range(maps * taps) if k // taps != gone]
        found = torch.linalg.lstsq(read[:, rest], wanted).solution
        costs.append(float((read[:, rest] @ found - wanted).square().sum()))
    return sorted(range(maps), key=lambda one: costs[one])


def test_the_first_to_go_is_the_one_that_least_squares_can_best_do_without() -> None:
    model = chain(maps=6)
    graph = find_groups(model, IMAGES[:1])

    turns = reconstruction_scores(model, graph, ["a", "b"], [IMAGES])

    assert int(turns["a"].argmin()) == best_sets(model, "a", "b", IMAGES)[0]
    assert int(turns["b"].argmin()) == best_sets(model, "b", "c", IMAGES)[0]
    assert sorted(turns["a"]) == list(range(6))


def test_copies_of_a_map_go_before_all_but_one_of_them() -> None:
    """What another map can stand in for costs nothing, however large its filter is."""
    model = chain(maps=8)
    with torch.no_grad():
        for value in (model.a.weight, model.a_bn.weight, model.a_bn.bias):
            value[3] = value[5]
        model.a_bn.running_mean[3] = model.a_bn.running_mean[5]
        model.a_bn.running_var[3] = model.a_bn.running_var[5]
        model.a_bn.weight[[3, 5]] = 4.0
    graph = find_groups(model, IMAGES[:1])

    turns = reconstruction_scores(model, graph, ["a"], [IMAGES])

    assert min(turns["a"][3], turns["a"][5]) <= 1


def test_a_linear_reader_is_understood_and_a_layer_in_between_too() -> None:
    model = residual()
    graph = find_groups(model, IMAGES[:1])

    turns = reconstruction_scores(model, graph, ["wide", "plain"], [IMAGES])

    assert sorted(turns["wide"]) == list(range(20))  # a depthwise layer stands between
    assert sorted(turns["plain"]) == list(range(16))


def test_wide_readers_are_ranked_without_solving(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain(maps=8)
    graph = find_groups(model, IMAGES[:1])
    monkeypatch.setattr(reconstruction, "_LARGEST", 8)
    with torch.no_grad():
        model.b.weight[:, 2] = 0  # nobody listens

    turns = reconstruction_scores(model, graph, ["a"], itertools.repeat(IMAGES[:8], 2))

    assert turns["a"][2] == 0


def test_the_model_keeps_its_modes_and_hooks() -> None:
    model = chain(maps=8).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    reconstruction_scores(model, find_groups(model, IMAGES[:1]), ["a"], [IMAGES[:4]])

    assert model.training
    assert not model.b._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
