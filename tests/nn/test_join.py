"""Less is kept for the backward pass, but values and gradients are the plain operations'."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ghostify.nn.ghost import GhostModule
from ghostify.spec import GhostSpec

SETTINGS = ["s2,d3", "s3,d5", "s4,d1", "s3,affine", "s3,d3,shift"]


def module(text: str, *, bias: bool = True, ordered: bool = False) -> GhostModule:
    made = GhostModule.from_conv(nn.Conv2d(4, 10, 3, padding=1, bias=bias), GhostSpec.parse(text))
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    if ordered:
        made.reorder(torch.randperm(10))
    return made


def is_lean(made: Tensor) -> bool:
    return type(made.grad_fn).__name__ == "_JoinBackward"


def by_hand(made: GhostModule, x: Tensor) -> Tensor:
    """Return equation 3 by the branches' own forward."""
    intrinsic = made.primary(x)
    maps = [intrinsic]
    for branch in made.cheap:
        maps.append(branch(intrinsic[:, : branch.in_channels]))
    joined = torch.cat(maps, dim=1)
    return joined if made.order is None else joined[:, made.order]


def gradients(
    run: Callable[[Tensor], Tensor], made: nn.Module, x: Tensor, **autocast: Any
) -> list[Tensor]:
    made.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", **autocast, enabled=bool(autocast)):
        out = run(x)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    (out * direction).sum().backward()
    return [out.detach(), x.grad, *(one.grad for one in made.parameters())]


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-4) -> bool:
    return all(
        torch.allclose(one, two, rtol=0, atol=tolerance * float(two.abs().max() + 1))
        for one, two in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("text", SETTINGS)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_plain_operations(
    text: str, ordered: bool, bias: bool
) -> None:
    made = module(text, ordered=ordered, bias=bias)
    x = torch.randn(3, 4, 7, 6)

    assert is_lean(made(x))
    assert agree(gradients(made, made, x), gradients(lambda x: by_hand(made, x), made, x))


def test_channels_last_and_autocast() -> None:
    made = module("s3,d3").to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    plain = lambda x: by_hand(made, x)  # noqa: E731

    assert made(x).is_contiguous(memory_format=torch.channels_last)
    assert agree(gradients(made, made, x), gradients(plain, made, x))
    short = {"dtype": torch.bfloat16}
    assert agree(gradients(made, made, x, **short), gradients(plain, made, x, **short), 2e-2)


@pytest.mark.parametrize("ordered", [False, True])
def test_gradients_and_those_of_gradients_against_finite_differences(ordered: bool) -> None:
    made = GhostModule(2, 5, 3, padding=1, ratio=3).double()
    if ordered:
        made.reorder(torch.tensor([4, 0, 3, 1, 2]))
    names = [name for name, _ in made.named_parameters()]
    values = [one.detach().clone().requires_grad_() for one in made.parameters()]
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))

    assert is_lean(run(x, *values))
    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


@pytest.mark.parametrize("text", SETTINGS)
def test_an_activation_in_place_behind_it_is_noticed(text: str) -> None:
    """The first time the intrinsic maps are computed again, afterwards all is done plainly."""
    made = module(text)
    x = torch.randn(2, 4, 6, 6)
    expected = gradients(lambda x: functional.relu(by_hand(made, x)), made, x)

    first = gradients(lambda x: torch.relu_(made(x)), made, x)
    assert not made.lean
    assert agree(first, expected)
    assert not is_lean(made(x))
    assert agree(gradients(lambda x: torch.relu_(made(x)), made, x), expected)


class Kept:
    """Adds up the memory that a forward pass keeps for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def note(self, value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        self.storages[storage.data_ptr()] = storage.nbytes()
        return value


def test_no_intrinsic_maps_are_kept_beside_the_joined_ones() -> None:
    """What is reachable from the result, weights left out: the input and the joined maps."""
    made = GhostModule(4, 16, 3, padding=1, bias=False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    plain = Kept()
    with saved_tensors_hooks(plain.note, lambda value: value):
        by_hand(made, x)
    lean = made(x).grad_fn

    kept = {one.untyped_storage().data_ptr() for one in lean.saved_tensors if one is not None}
    assert kept == {one.untyped_storage().data_ptr() for one in (x, *made.parameters())}
    assert lean.joined.shape == (2, 16, 8, 8)
    assert sum(size == 4 * 2 * 8 * 8 * 8 for size in plain.storages.values()) == 1  # the plain way


def test_torchs_own_ways_to_run_a_module_get_the_plain_operations() -> None:
    made = module("s3,d3")
    x = torch.randn(2, 4, 6, 6)
    expected = made(x).detach()

    with torch.no_grad():
        assert torch.equal(made(x), expected)
    with saved_tensors_hooks(lambda value: value, lambda value: value):
        assert not is_lean(made(x))
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected, atol=1e-5)
    assert torch.allclose(torch.fx.symbolic_trace(made)(x), expected, atol=1e-5)
    mapped = torch.func.vmap(lambda image: made(image[None])[0])(x)
    assert torch.allclose(mapped, expected, atol=1e-5)
    of_all = torch.func.grad(lambda x: made(x).square().sum())(x)
    assert torch.allclose(of_all, gradients_of_energy(made, x), atol=1e-3)


def gradients_of_energy(made: GhostModule, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(by_hand(made, x).square().sum(), x)[0]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own use of it
def test_forward_mode_derivatives() -> None:
    made = module("s2,d3")
    x, direction = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)

    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(made(forward_ad.make_dual(x, direction))).tangent

    step = 1e-2
    expected = (by_hand(made, x + step * direction) - by_hand(made, x - step * direction)) / step
    assert torch.allclose(found, expected / 2, atol=1e-2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant: bool) -> None:
    made = module("s2,d3")
    x = torch.randn(2, 4, 5, 5)

    found = gradients(lambda x: checkpoint(made, x, use_reentrant=reentrant), made, x)

    assert agree(found, gradients(lambda x: by_hand(made, x), made, x))


def test_what_hangs_on_a_part_still_runs() -> None:
    made = module("s2,d3")
    seen: list[int] = []
    made.cheap[0].register_forward_hook(lambda *_: seen.append(1))

    out = made(torch.randn(1, 4, 5, 5))

    assert seen == [1]
    assert not is_lean(out)


def test_frozen_parts_get_no_gradient() -> None:
    made = module("s2,d3")
    made.cheap.requires_grad_(False)
    x = torch.randn(1, 4, 5, 5)
    assert not is_lean(made(x))  # nothing would be kept

    made.cheap[0].bias.requires_grad_(True)
    made.cheap[0].weight.requires_grad_(True)
    made.primary.bias.requires_grad_(False)
    made(x).sum().backward()

    assert made.primary.bias.grad is None
    assert made.cheap[0].weight.grad is not None


def test_a_backward_pass_may_run_twice() -> None:
    made = module("s3,d3")
    x = torch.randn(1, 4, 5, 5)
    out = made(x).square().sum()

    out.backward(retain_graph=True)
    once = [one.grad.clone() for one in made.parameters()]
    out.backward()

    assert all(
        torch.allclose(one.grad, 2 * before, rtol=1e-4)
        for one, before in zip(made.parameters(), once, strict=True)
    )


def test_a_module_that_was_overwritten_can_be_copied() -> None:
    made = module("s2,d3")
    torch.relu_(made(torch.randn(1, 4, 5, 5))).sum().backward()

    copied = copy.deepcopy(made)

    assert not copied.lean
    assert "lean" not in copied.state_dict()
