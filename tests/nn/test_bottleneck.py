"""GhostNet's building block, against hand arithmetic and timm's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ghostify.errors import SpecError
from ghostify.nn.bottleneck import GhostBottleneck, NormedGhost, SqueezeExcite
from ghostify.nn.cheap import ChannelScale
from ghostify.spec import GhostSpec


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)


def test_the_ghosts_are_filtered_from_normed_intrinsic_maps() -> None:
    ghost = NormedGhost(3, 4).eval()
    _randomise_norms(ghost)
    x = torch.randn(2, 3, 5, 6)

    out = ghost(x)

    intrinsic = functional.relu(ghost.primary.norm(ghost.primary.conv(x)))
    branch = ghost.cheap[0]
    made = functional.conv2d(intrinsic, branch.conv.weight, padding=1, groups=2)
    assert torch.allclose(out[:, :2], intrinsic)
    assert torch.allclose(out[:, 2:], functional.relu(branch.norm(made)), atol=1e-6)
    assert out.min() == 0


def test_without_relu_the_maps_may_be_negative() -> None:
    assert NormedGhost(3, 4, relu=False).eval()(torch.randn(1, 3, 8, 8)).min() < 0


@pytest.mark.parametrize(("maps", "ratio", "branches"), [(8, 4, [2, 2, 2]), (7, 3, [3, 1])])
def test_other_ratios_make_exactly_the_missing_maps(
    maps: int, ratio: int, branches: list[int]
) -> None:
    ghost = NormedGhost(5, maps, spec=GhostSpec(ratio, 5))

    assert ghost(torch.randn(2, 5, 6, 6)).shape == (2, maps, 6, 6)
    assert [branch.conv.weight.shape[0] for branch in ghost.cheap] == branches
    assert {branch.conv.weight.shape[-1] for branch in ghost.cheap} == {5}


def test_a_kernel_of_one_is_a_multiplication() -> None:
    assert isinstance(NormedGhost(4, 4, spec=GhostSpec(kernel=1)).cheap[0].conv, ChannelScale)


def test_the_gate_is_a_hard_sigmoid_of_the_means() -> None:
    squeeze = SqueezeExcite(3, 2)
    x = torch.randn(2, 3, 4, 4)

    reduced = functional.relu(squeeze.reduce(x.mean((2, 3), keepdim=True)))
    gate = functional.relu6(squeeze.expand(reduced) + 3) / 6
    assert torch.allclose(squeeze(x), x * gate, atol=1e-6)


@pytest.mark.parametrize(
    "spec", ["s2,d3,blur", "s4,d3,shift", "s2,wavelet", "s2,affine", "s2,d1+5"]
)
def test_every_cheap_operation_has_its_place(spec: str) -> None:
    ghost = NormedGhost(4, 8, spec=GhostSpec.parse(spec))

    ghost(torch.randn(2, 4, 6, 6)).square().sum().backward()

    assert all(p.grad is not None and p.isfinite().all() for p in ghost.parameters())


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5)])
def test_the_stride_decides_the_output_size(
    stride: int, kernel: int, size: tuple[int, int]
) -> None:
    block = GhostBottleneck(6, 16, 8, stride=stride, depthwise_kernel=kernel, squeezed=4)

    out = block(torch.randn(2, 6, *size))

    assert out.shape == (2, 8, *(-(-side // stride) for side in size))


def test_parameters_by_hand() -> None:
    ghosts = (8 * 4 + 8 * 9 + 2 * 16) + (16 * 3 + 3 * 9 + 2 * 6)  # filters, ghosts, norms
    strided = 16 * 25 + 2 * 16
    squeeze = 16 * 4 + 4 + 4 * 16 + 16
    shortcut = 4 * 25 + 2 * 4 + 4 * 6 + 2 * 6

    block = GhostBottleneck(4, 16, 6, stride=2, depthwise_kernel=5, squeezed=4)

    assert _count(block) == ghosts + strided + squeeze + shortcut


def test_the_same_shape_has_the_input_itself_as_its_shortcut() -> None:
    block = GhostBottleneck(6, 16, 6).eval()
    nn.init.zeros_(block.ghost2.primary.norm.weight)
    nn.init.zeros_(block.ghost2.cheap[0].norm.weight)
    x = torch.randn(1, 6, 5, 5)

    assert torch.equal(block(x), x)
    assert x.grad_fn is None


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_is_that_of_finite_differences(stride: int) -> None:
    torch.manual_seed(1)
    block = GhostBottleneck(2, 4, 3, stride=stride, squeezed=2).double().eval()
    _randomise_norms(block)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*block.named_parameters(), strict=True)

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(block, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *weights))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 3}, "GhostBottleneck.stride must be 1 or 2 (got 3)"),
        ({"depthwise_kernel": 4}, "GhostBottleneck.depthwise_kernel must be odd (got 4)"),
        ({"spec": GhostSpec(9)}, "spec.ratio (s) must be at most out_channels (8) (got 9)"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        GhostBottleneck(4, 8, 8, **arguments)

    assert message in str(error.value)
    assert "\n" not in str(error.value)
