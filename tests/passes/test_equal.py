from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.converting import convert
from ghostify.passes.optimize import apply_passes
from ghostify.passes.settings import Passes

from .nets import ghosted, library, shaken

_ALL = Passes()
_FORMS = {
    "parts": _ALL,
    "pointwise": Passes(affine="addcmul", eager=True),
    "expanded": Passes(affine="addcmul", expand=2),
    "folded": Passes(norms=False, maps=False, streams=False, readers=False),
    "streams": Passes(readers=False),
    "norms only": Passes(maps=False, streams=False, readers=False),
    "activations": Passes(streams=False, readers=False),
    "nothing": Passes(fold=False, norms=False, maps=False, streams=False, readers=False),
}


def check(model: nn.Module, example: Tensor, passes: Passes = _ALL) -> nn.Module:
    """Optimise, compare on another input of another batch size, and return the result."""
    before = copy.deepcopy(model.state_dict())
    optimized = apply_passes(model, [example], passes)
    assert optimized.ghostify_notes == []
    generator = torch.Generator().manual_seed(3)
    shape = (3, *example.shape[1:])
    images = torch.randn(shape, generator=generator, dtype=example.dtype)
    with torch.no_grad():
        wanted, found = model(images), optimized(images)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=float(wanted.abs().max()) * 1e-10)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    return optimized


def image(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)).double()


def operations(optimized: nn.Module, *targets: Callable[..., object]) -> int:
    return sum(node.target in targets for node in optimized.graph.nodes)


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize(("ratio", "orders"), [(0, False), (2, False), (3, False), (2, True)])
def test_every_form_keeps_the_function(form: str, ratio: int, orders: bool) -> None:
    model = ghosted(library("resnet18"), ratio, image(32).float(), orders=orders)

    check(model, image(32), _FORMS[form])


_NETWORKS = [
    "resnet50", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small", "densenet121",
    "shufflenet_v2_x0_5", "regnet_y_400mf", "efficientnet_b0", "mnasnet0_5", "convnext_tiny",
    "googlenet", "timm:ghostnet_100",
]  # fmt: skip


@pytest.mark.parametrize("name", _NETWORKS)
def test_networks_keep_their_function(name: str) -> None:
    check(ghosted(library(name), 2, image(32).float()), image(32))


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "regnet_y_400mf"])
@pytest.mark.parametrize("form", ["parts", "pointwise", "expanded"])
def test_networks_in_four_parts_keep_their_function(name: str, form: str) -> None:
    check(ghosted(library(name), 4, image(32).float()), image(32), _FORMS[form])


@pytest.mark.parametrize("name", ["mobilenet_v2", "regnet_y_400mf", "densenet121", "convnext_tiny"])
def test_orders_of_maps_are_respected(name: str) -> None:
    check(ghosted(library(name), 2, image(32).float(), orders=True), image(32))


def test_no_feature_maps_are_joined_before_global_pooling() -> None:
    optimized = check(ghosted(library("resnet50"), 2, image().float()), image())

    joins = [node for node in optimized.graph.nodes if node.target is torch.cat]
    assert len(joins) == 1
    assert all(source.target is torch.flatten for source in joins[0].args[0])
    assert operations(optimized, torch.narrow, torch.index_select) == 0


def test_orders_inside_a_block_cost_nothing() -> None:
    model = library("vgg11_bn")
    optimized = check(ghosted(model, 2, image().float(), orders=True), image())

    assert operations(optimized, torch.index_select, torch.narrow) == 0
    assert operations(optimized, torch.cat) == 1


def test_dense_networks_lose_their_norms_and_join_nothing() -> None:
    optimized = check(ghosted(library("resnet18"), 0, image()), image())

    kinds = {type(module) for module in optimized.modules()}
    assert nn.BatchNorm2d not in kinds
    assert operations(optimized, torch.cat) == 0
    assert sum(isinstance(module, nn.Conv2d) for module in optimized.modules()) == 20


class Functional(nn.Module):
    """Sums of many spellings, activations as functions, biases, odd channel counts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 13, 3, padding=1)
        self.one = nn.Conv2d(13, 13, 3, padding=1)
        self.two = nn.Conv2d(13, 13, 3, padding="same", padding_mode="reflect")
        self.three = nn.Conv2d(13, 13, 1)
        self.norm = nn.BatchNorm2d(13)
        self.act = nn.PReLU(13)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = x + self.act(self.norm(self.one(x)))
        y = self.two(x)
        y += x
        y = torch.add(y, functional.hardswish(x))
        y = functional.dropout(y, 0.5, self.training)
        z = self.three(y).mul_(0.5)
        z = z.add(y).relu_()
        z = functional.max_pool2d(z, 2) - functional.avg_pool2d(z, 2)
        z = z * torch.sigmoid(z.mean((2, 3), keepdim=True))
        return self.head(self.drop(z)).mean((2, 3))


class UNet(nn.Module):
    """Down, up, and what was before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.c = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        up = functional.interpolate(self.up(b), size=a.shape[-2:], mode="nearest")
        return self.head(self.c(torch.cat([up, a], dim=1)))


class Grouped(nn.Module):
    """Convolutions in groups that read maps in parts, and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.one = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.groups = nn.Conv2d(24, 48, 3, padding=1, groups=4)
        self.wide = nn.Conv2d(48, 96, 3, stride=2, padding=1, groups=48)
        self.shuffle = nn.ChannelShuffle(4)
        self.head = nn.Linear(96, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.norm(self.one(self.stem(x))))
        x = self.shuffle(self.wide(self.groups(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Squeeze(nn.Module):
    """Squeeze and excitation by linear layers; the stream is read before and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)
        self.scale = nn.Parameter(torch.rand(16, 1, 1))
        self.head = nn.Conv2d(16, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.conv(self.stem(x))
        batch, channels = x.size(0), x.shape[1]
        gate = self.up(functional.relu(self.down(x.mean((2, 3)))))
        y = x * torch.sigmoid(gate).view(batch, channels, 1, 1) + x * self.scale
        return self.head(y), {"between": y}


@pytest.mark.parametrize("form", ["parts", "pointwise", "expanded", "activations"])
@pytest.mark.parametrize("orders", [False, True])
@pytest.mark.parametrize("ratio", [0, 2, 3])
@pytest.mark.parametrize("net", [Functional, UNet, Grouped])
def test_hand_made_networks_keep_their_function(
    net: type[nn.Module], ratio: int, orders: bool, form: str
) -> None:
    example = image(16)

    check(ghosted(net(), ratio, example.float(), orders=orders), example, _FORMS[form])


@pytest.mark.parametrize("orders", [False, True])
def test_outputs_of_any_structure_are_whole(orders: bool) -> None:
    example = image(16)
    model = ghosted(Squeeze(), 2, example.float(), orders=orders)

    optimized = apply_passes(model, [example], _ALL)

    assert optimized.ghostify_notes == []
    with torch.no_grad():
        (wanted, before), (found, after) = model(example), optimized(example)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(after["between"], before["between"])


@pytest.mark.parametrize("kernel", [1, 5])
def test_other_cheap_kernels(kernel: int) -> None:
    example = image(32)
    model = ghosted(library("resnet18"), 2, example.float(), kernel=kernel)

    for form in ("parts", "pointwise", "expanded"):
        check(model, example, _FORMS[form])


def test_an_activation_in_place_is_seen_by_all_that_read_the_tensor() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.norm, self.act = nn.BatchNorm2d(8), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.b(self.a(x)))
            y = self.act(x)
            return x + 2 * y

    check(ghosted(InPlace(), 2, image(16).float()), image(16))


def test_a_layer_that_runs_twice_keeps_its_function() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
            self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(self.conv(self.stem(x))).relu()
            return self.two(self.conv(x))

    check(ghosted(Twice(), 2, image(16).float()), image(16))


@pytest.mark.parametrize("form", ["parts", "pointwise", "expanded", "nothing"])
@pytest.mark.parametrize("setting", ["s2,affine", "s2,wavelet", "s3,d5,shift", "s3,d1+3+5"])
def test_every_cheap_operation_keeps_its_function(form: str, setting: str) -> None:
    rules = {"*": setting}
    model = convert(library("resnet18"), rules=rules, example=image(32).float(), verify=False).model

    check(shaken(model, orders=form == "parts"), image(32), _FORMS[form])
