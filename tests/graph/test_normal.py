"""The solve of the primary filters, against the least-squares problem written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghostify.graph.fit import inherit, misses, set_filters
from ghostify.graph.normal import fit_primary, input_gram, is_linear_in_its_weight
from ghostify.graph.pairing import Pairing
from ghostify.graph.synthetic import dead_leaves
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule, slim
from ghostify.spec import GhostSpec


def problem(
    ratio: int, kernel: int, **settings: Any
) -> tuple[GhostModule, Pairing, Tensor, Tensor, Tensor]:
    """Return a Ghost module in double precision, a pairing, inputs, targets and weights."""
    torch.manual_seed(0)
    conv = nn.Conv2d(kernel_size=3, **settings).double()
    ghost = GhostModule.from_conv(conv, GhostSpec(ratio, kernel))
    source = dead_leaves(6, (conv.in_channels, 9, 9), generator=torch.Generator().manual_seed(1))
    source = source.double()
    each = conv.out_channels // conv.groups
    count = ghost.intrinsic_channels // conv.groups
    starts = range(0, conv.out_channels, each)
    intrinsic = tuple(start + k for start in starts for k in range(count))
    pairing = Pairing(intrinsic, tuple(sorted(set(range(conv.out_channels)) - set(intrinsic))))
    inherit(ghost, conv, pairing)
    set_filters(ghost, torch.randn(ghost.ghost_channels, kernel**2).double())
    if conv.bias is not None:
        nn.init.normal_(ghost.primary.bias)
    weights = torch.rand(conv.out_channels, dtype=torch.float64) + 0.1
    return ghost, pairing, source, conv(source).detach(), weights


def lowest(
    ghost: GhostModule,
    pairing: Pairing,
    source: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    offset: bool = True,
) -> float:
    """Push every unit vector of the filters through the module, and solve with an offset a map."""
    weight = ghost.primary.weight
    kept = weight.detach().clone()
    made = list(pairing.made)
    with torch.no_grad():
        weight.zero_()
        fixed = ghost(source)
        columns = []
        for index in range(weight.numel()):
            weight.zero_()
            weight.view(-1)[index] = 1.0
            columns.append(ghost(source) - fixed)
        weight.copy_(kept)
    scale = weights[made].sqrt().view(1, -1, 1, 1)

    def flat(maps: Tensor) -> Tensor:
        about = maps - maps.mean((0, 2, 3), keepdim=True) if offset else maps
        return (about * scale).reshape(-1)

    design = torch.stack([flat(column) for column in columns], 1)
    wanted = flat(target[:, made] - fixed)
    solution = torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    miss = design @ solution - wanted
    return float(miss.square().sum()) / target[:, 0].numel()


def present(
    ghost: GhostModule, pairing: Pairing, source: Tensor, target: Tensor, weights: Tensor
) -> float:
    _, miss, _ = misses(ghost, pairing, lambda: iter([(source, target)]))
    return float((miss * weights[list(pairing.made)]).sum())


CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plain": (2, 3, {"in_channels": 3, "out_channels": 6, "padding": 1}),
    "no padding": (2, 3, {"in_channels": 3, "out_channels": 6}),
    "odd, no bias": (2, 3, {"in_channels": 3, "out_channels": 7, "padding": 1, "bias": False}),
    "stride 2": (2, 3, {"in_channels": 3, "out_channels": 6, "padding": 1, "stride": 2}),
    "groups": (2, 3, {"in_channels": 4, "out_channels": 8, "padding": 1, "groups": 2}),
    "groups, s = 3": (3, 3, {"in_channels": 4, "out_channels": 12, "padding": 1, "groups": 2}),
    "dilation": (2, 3, {"in_channels": 3, "out_channels": 6, "padding": 2, "dilation": 2}),
    "same": (2, 3, {"in_channels": 3, "out_channels": 6, "padding": "same"}),
    "reflect": (
        2,
        3,
        {"in_channels": 3, "out_channels": 6, "padding": 1, "padding_mode": "reflect"},
    ),
    "circular, stride": (
        2,
        3,
        {
            "in_channels": 3,
            "out_channels": 6,
            "padding": 1,
            "padding_mode": "circular",
            "stride": 2,
        },
    ),
    "d = 1": (2, 1, {"in_channels": 3, "out_channels": 6, "padding": 1}),
    "d = 5": (2, 5, {"in_channels": 3, "out_channels": 6, "padding": 1}),
    "s = 3": (3, 3, {"in_channels": 3, "out_channels": 7, "padding": 1}),
    "s = 4, d = 5": (4, 5, {"in_channels": 2, "out_channels": 10, "padding": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_many_iterations_reach_the_minimum(case: str) -> None:
    ratio, kernel, settings = CASES[case]
    ghost, pairing, source, target, weights = problem(ratio, kernel, **settings)
    parts = [(source[:2], target[:2]), (source[2:], target[2:])]

    fit_primary(ghost, pairing, lambda: iter(parts), weights, gram=None, iterations=400)

    least = lowest(ghost, pairing, source, target, weights)
    assert least > 1e-3
    assert present(ghost, pairing, source, target, weights) == pytest.approx(least, rel=1e-5)


def test_the_minimum_without_an_offset_is_reached_too() -> None:
    ratio, kernel, settings = CASES["odd, no bias"]
    ghost, pairing, source, target, weights = problem(ratio, kernel, **settings)
    source, target = source + 1, target + 1

    fit_primary(
        ghost,
        pairing,
        lambda: iter([(source, target)]),
        weights,
        gram=None,
        iterations=800,
        offset=False,
    )

    mean, miss, _ = misses(ghost, pairing, lambda: iter([(source, target)]))
    found = float(((miss + mean.square()) * weights[list(pairing.made)]).sum())
    least = lowest(ghost, pairing, source, target, weights, offset=False)
    assert found == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_few_preconditioned_iterations_come_close(case: str) -> None:
    ratio, kernel, settings = CASES[case]
    ghost, pairing, source, target, weights = problem(ratio, kernel, **settings)
    least = lowest(ghost, pairing, source, target, weights)
    start = present(ghost, pairing, source, target, weights)

    gram = input_gram(ghost, [source[:1], source[1:]])
    fit_primary(ghost, pairing, lambda: iter([(source, target)]), weights, gram=gram, iterations=40)

    end = present(ghost, pairing, source, target, weights)
    assert end - least < 0.02 * (start - least)


def test_the_moments_of_the_input_are_those_of_its_patches() -> None:
    ghost, _, source, _, _ = problem(2, 3, in_channels=4, out_channels=8, groups=2, stride=2)

    gram = input_gram(ghost, [source[:2], source[2:]])

    assert gram is not None
    near = nn.functional.unfold(source, 3, stride=2).view(6, 2, 18, -1)
    for group in range(2):
        rows = near[:, group].permute(1, 0, 2).reshape(18, -1)
        assert torch.allclose(gram[group], torch.cov(rows, correction=0), atol=1e-9)


def test_a_filter_too_large_for_its_moments_goes_without() -> None:
    ghost, pairing, source, target, weights = problem(2, 3, in_channels=3, out_channels=6)
    start = present(ghost, pairing, source, target, weights)

    assert input_gram(ghost, [source], limit=26) is None
    fit_primary(ghost, pairing, lambda: iter([(source, target)]), weights, gram=None)

    assert present(ghost, pairing, source, target, weights) < start


@pytest.mark.parametrize("kind", ["dead input", "all dead", "one pixel"])
def test_too_little_to_go_by_is_no_failure(kind: str) -> None:
    ghost, pairing, source, target, weights = problem(2, 3, in_channels=3, out_channels=6)
    ghost, source, target = ghost.float(), source.float(), target.float()
    if kind == "dead input":
        source[:, 1] = 5.0
    elif kind == "all dead":
        source[:] = 3.0
    else:
        source, target = source[:1, :, :3, :3], target[:1, :, :1, :1]

    gram = input_gram(ghost, [source])
    fit_primary(ghost, pairing, lambda: iter([(source, target)]), weights, gram=gram)

    assert ghost.primary.weight.isfinite().all()


class Gain(nn.Conv2d):
    """A factor for each map, and so only for as many maps as there are."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(1 + torch.rand(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.gain, self.bias)


def test_only_what_is_linear_in_its_weight_is_solved_for() -> None:
    layers = import_beside_torchvision("timm.layers")
    convs: dict[nn.Conv2d, bool] = {
        nn.Conv2d(4, 6, 3): True,
        layers.Conv2dSame(4, 6, 3, stride=2): True,
        layers.ScaledStdConv2d(4, 6, 3): False,
        layers.StdConv2d(4, 6, 3): False,
        Gain(4, 6, 3): False,
    }

    for conv, expected in convs.items():
        assert is_linear_in_its_weight(slim(conv, 3)) is expected, conv
