"""Counting: torch's counter is the authority, and what it cannot count is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostify.cost.macs import (
    Counted,
    SecondOpinion,
    check_against_sites,
    check_macs,
    check_params,
    count,
    count_params,
    second_opinion,
)
from ghostify.errors import CountError
from ghostify.graph.probe import Probe, as_call
from ghostify.graph.sites import find_sites
from ghostify.nn.ghost import GhostModule
from tests.graph import networks


def probe(model: nn.Module, *shape: int) -> Probe:
    return Probe(model, as_call(torch.randn(shape or (1, 3, 16, 16))))


def test_convolutions_and_linear_layers_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )

    counted = count(probe(model))

    assert counted.conv_macs == 8 * 3 * 9 * 14 * 14
    assert counted.macs == counted.conv_macs + 8 * 5
    assert counted.uncounted == ()


def test_products_per_channel_of_a_kernel_of_one_are_counted() -> None:
    counted = count(probe(GhostModule(3, 8, 1, kernel=1, bias=False)))

    assert counted.macs == 256 * (4 * 3 + 4)


def test_attention_on_the_cpu_is_listed_since_torch_does_not_count_it() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(x, x, x)

    counted = count(probe(Attention(), 1, 2, 10, 4))

    assert counted.macs == 0
    assert counted.uncounted == ("aten._scaled_dot_product_flash_attention_for_cpu",)


def test_a_token_that_wants_a_gradient_does_not_disturb_the_count() -> None:
    """A view of a parameter that is passed to a layer trips the counter's own hooks."""

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 4))
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.token.expand(len(x), -1, -1))

    assert count(probe(Token())).macs == 8


def test_what_has_no_formula_is_listed() -> None:
    class Spectral(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft2(x).abs()

    assert count(probe(Spectral())).uncounted == ("aten._fft_r2c",)


def test_shared_parameters_count_once() -> None:
    assert count_params(networks.Tied()) == 8 * 27 + 8 + 8 * 8 * 9


@pytest.mark.parametrize(
    "model", [networks.plain(), networks.Shared(), networks.Functional(), networks.Auxiliary()]
)
def test_the_closed_form_agrees_with_the_counter(model: nn.Module) -> None:
    here = probe(model)
    sites = find_sites(here).sites

    check_against_sites(count(here), sites, model="it")

    with pytest.raises(CountError, match="the per-layer figures cannot be trusted"):
        check_against_sites(count(here), [replace(sites[0], pixels=1), *sites[1:]], model="it")


def test_a_conversion_that_does_not_cost_what_it_should_is_an_error() -> None:
    with pytest.raises(
        CountError, match=r"should take 5 multiply-adds by eq\. 4, but torch counts 6"
    ):
        check_macs(Counted(6, 6), 5, model="net")
    with pytest.raises(CountError, match=r"should have 1 parameters by eq\. 5, but has 224"):
        check_params(nn.Conv2d(3, 8, 3), 1, model_name="net")


def test_thop_agrees_on_every_plain_convolution() -> None:
    here = probe(networks.plain())
    keys = list(here.source.state_dict())

    opinion = second_opinion(here, find_sites(here).sites)

    assert isinstance(opinion, SecondOpinion)
    assert set(opinion.layers) == {"0", "3", "6"}
    assert opinion.total > count(here).macs  # it adds batch norm
    assert list(here.source.state_dict()) == keys


def test_thops_disagreement_is_an_error() -> None:
    here = probe(networks.plain())
    sites: list[Any] = list(find_sites(here).sites)

    with pytest.raises(CountError, match="but thop counts"):
        second_opinion(here, [replace(sites[0], pixels=7), *sites[1:]])


def test_a_network_that_thop_cannot_run_is_no_error() -> None:
    class Raw(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if hasattr(self, "total_ops"):
                raise RuntimeError("buffers that nobody asked for")
            return x

    assert isinstance(second_opinion(probe(Raw()), ()), str)
