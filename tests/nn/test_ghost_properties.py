"""Any convolution: same shape, counted cost, gradients everywhere, exact round trip."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ghostify
from ghostify import GhostSpec, Plan
from ghostify.cost.closed_form import ghost_macs, ghost_params
from ghostify.spec import ConvSite

FURTHER = ("affine", "wavelet", "d3,shift", "d5,blur", "d1+3", "d3+5+7")

CASES, PARTS = 640, 4
"""Cases in all, and tests that they are divided among, so that they run side by side."""


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, GhostSpec, tuple[int, int]]:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    in_channels = groups * draw(st.integers(1, 5))
    ratio = draw(st.integers(2, 5))
    out_channels = groups * draw(st.integers(1, 13))
    assume(ratio <= out_channels)
    assume(groups * math.ceil(out_channels / (ratio * groups)) < out_channels)
    kernel = (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    reach = [step * (side - 1) + 1 for step, side in zip(dilation, kernel, strict=True)]
    # At most half of what the kernel reaches, so that no window sees padding alone.
    sides = tuple(draw(st.integers(0, (length - 1) // 2)) for length in reach)
    padding: Any = draw(st.sampled_from([sides, sides, "same", "valid"]))
    if padding == "same":
        stride = (1, 1)
    mode: Any = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    cheap = draw(st.sampled_from([*["d1", "d3", "d5", "d7"] * 2, *FURTHER]))
    spec = GhostSpec.parse(f"s{ratio},{cheap},r{draw(st.sampled_from([1, 1, 2, 4, 16]))}")
    size = tuple(least + draw(st.integers(1, 6)) for least in reach)
    return conv, spec, size  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_ghost_module_stands_in_for_any_convolution(part: int) -> None:
    @seed(part)
    @settings(
        max_examples=CASES // PARTS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(convolutions())
    def check(case: tuple[nn.Conv2d, GhostSpec, tuple[int, int]]) -> None:
        conv, spec, size = case
        base = nn.Sequential(conv)
        x = torch.randn(2, conv.in_channels, *size)
        expected = base(x)
        conversion = ghostify.rewrite(base, Plan({"0": spec}), seed=part)
        model = conversion.model

        with FlopCounterMode(display=False) as counter:
            found = model(x)
        (found * torch.randn_like(found)).sum().backward()

        assert found.shape == expected.shape
        n, groups = conv.out_channels, conv.groups
        plain = groups * math.ceil(n / (spec.ratio * groups))
        fits = (k for k in range(plain, n, groups) if k % spec.round_to == 0)
        m = next(fits, plain)
        pixels = 2 * math.prod(found.shape[2:])
        primary = pixels * m * conv.in_channels // groups * math.prod(conv.kernel_size)
        sides = [side for size in _branches(n, m) for side in _dealt(size, spec.kernels)]
        assert len(sides) == n - m
        # Torch's counter has no formula for the products of d = 1.
        counted = counter.get_total_flops() // 2 + pixels * sides.count(1)
        assert counted == primary + pixels * sum(side * side for side in sides)
        site = conversion_site(conv, pixels)
        assert counted == ghost_macs(site, spec)
        assert sum(one.numel() for one in model.parameters()) == ghost_params(site, spec)
        moved_out = spec.cheap == "shift" and min(found.shape[2:]) <= spec.kernel // 2
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any() or moved_out, name
        with tempfile.TemporaryDirectory() as folder:
            ghostify.save(conversion, Path(folder) / "out")
            again = ghostify.load(Path(folder) / "out", base=base)
        assert torch.equal(again(x), found)

    check()


def _branches(n: int, m: int) -> list[int]:
    """Return how many maps each branch makes: m each, and the last what is missing."""
    return [min(m, n - start) for start in range(m, n, m)]


def _dealt(maps: int, sides: tuple[int, ...]) -> list[int]:
    """Deal out sides like cards, one to each map in turn."""
    return sorted(sides[place % len(sides)] for place in range(maps))


def conversion_site(conv: nn.Conv2d, pixels: int) -> ConvSite:
    return ConvSite(
        name="0", type="Conv2d", in_channels=conv.in_channels, out_channels=conv.out_channels,
        kernel=conv.kernel_size, stride=(1, 1), dilation=(1, 1), groups=conv.groups,
        bias=conv.bias is not None, in_size=(), out_size=(), calls=1, pixels=pixels,
        eligible=True,
    )  # fmt: skip
