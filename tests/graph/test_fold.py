"""Orders that the readers of a Ghost module take up: the network gives the same as before."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ghostify
from ghostify.graph.calibrate import FitOptions
from ghostify.graph.fold import Move, fold_orders, move_maps
from ghostify.graph.segments import Segments
from ghostify.graph.slices import Kept
from ghostify.models.resnet import resnet20_cifar
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule
from ghostify.spec import GhostSpec

IMAGES = torch.randn(2, 3, 16, 16)


def ghost(inside: int, maps: int, seed: int, ratio: int = 2, **settings: object) -> GhostModule:
    """A Ghost module whose maps are put in some order."""
    module = GhostModule(inside, maps, 3, padding=1, ratio=ratio, **settings)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    module.reset_parameters(generator)
    module.reorder(torch.randperm(maps, generator=generator))
    return module


def stir(model: nn.Module) -> nn.Module:
    """Give every batch norm and PReLU values of its own for each map."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    if value is not None:
                        value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator))
    return model.eval()


def dense(model: nn.Module) -> nn.Module:
    """The network that it might have come from, with convolutions in place of Ghost modules."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, GhostModule):
            conv = nn.Conv2d(
                module.in_channels, module.out_channels, module.kernel_size,
                module.stride, module.padding, groups=module.groups,
            )  # fmt: skip
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, conv)
    return model


def folded(model: nn.Module, images: Tensor = IMAGES) -> list[str]:
    """Fold; make sure that outputs stay; return the Ghost modules that keep their order."""
    stir(model)
    names = [name for name, module in model.named_modules() if isinstance(module, GhostModule)]
    segments = Segments(dense(model), names, images)
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        before = model(images.clone())
        found = fold_orders(segments, model, names)
        after = model(images.clone())

    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    orders = [name for name in names if model.get_submodule(name).order is not None]
    assert list(found.copies) == orders
    check_permuted(model, teacher, found.permuted, images)
    return orders


def check_permuted(
    model: nn.Module, before: nn.Module, permuted: Sequence[str], images: Tensor
) -> None:
    """Exactly the modules that are said to be permuted give other maps than before."""
    seen: dict[bool, dict[str, Tensor]] = {}
    for which, network in ((True, before), (False, model)):
        values = seen.setdefault(which, {})
        handles = [
            module.register_forward_hook(
                lambda _m, _i, out, name=name, values=values: values.update(
                    {name: copy.deepcopy(out)}
                )
            )
            for name, module in network.named_modules()
        ]
        with torch.no_grad():
            network(images.clone())
        for handle in handles:
            handle.remove()
    for name, value in seen[True].items():
        inside = any(part in name for part in ("primary", "cheap"))
        if isinstance(value, Tensor) and value.dim() == 4 and name and not inside:
            same = torch.allclose(value, seen[False][name], rtol=1e-3, atol=1e-4)
            assert same is (name not in permuted), name


def test_a_chain_takes_up_every_order() -> None:
    model = nn.Sequential(
        ghost(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        ghost(8, 9, 2, ratio=3), nn.PReLU(9), nn.Dropout(),
        nn.Conv2d(9, 9, 3, padding=1, groups=9), nn.BatchNorm2d(9), nn.SiLU(), nn.AvgPool2d(2),
        nn.Conv2d(9, 6, 1), ghost(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip

    assert folded(model) == []


def test_flattened_maps_let_the_order_pass() -> None:
    """Each map gives 16 rows of the matrix behind, or one where means are taken."""
    assert folded(nn.Sequential(ghost(3, 8, 1), nn.AvgPool2d(4), nn.Flatten(),
                                nn.Linear(128, 4))) == []  # fmt: skip

    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = ghost(3, 8, 1), ghost(8, 6, 2), nn.Linear(8 + 96, 5)
            self.d, self.e = nn.Linear(8, 5), nn.Linear(96, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            rows = functional.adaptive_avg_pool2d(self.b(x), 4)
            return self.d(x.mean([2, 3])) + self.e(rows.view(x.size(0), -1))

    assert folded(Means()) == []


def test_what_leaves_the_network_keeps_its_order() -> None:
    assert folded(nn.Sequential(ghost(3, 8, 1), nn.ReLU())) == ["0"]
    assert folded(nn.Sequential(ghost(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())) == ["0"]
    assert folded(nn.Sequential(ghost(3, 8, 1), nn.AvgPool2d(4), nn.Flatten(2))) == ["0"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.PReLU(), nn.PReLU(8), nn.GELU(), nn.Upsample(scale_factor=2), nn.BatchNorm2d(8),
        nn.BatchNorm2d(8, affine=False),
        nn.Conv2d(8, 8, 3, groups=8), nn.Identity(), nn.Dropout2d(), nn.ZeroPad2d(1),
    ],
    ids=repr,
)  # fmt: skip
def test_layers_that_treat_each_map_alike_let_the_order_pass(layer: nn.Module) -> None:
    assert folded(nn.Sequential(ghost(3, 8, 1), layer, nn.Conv2d(8, 4, 3))) == []


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 8), nn.BatchNorm2d(8, track_running_stats=False), nn.ChannelShuffle(2),
        nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 16, 3, groups=8), nn.Softmax2d(),
        nn.LocalResponseNorm(2), nn.ConvTranspose2d(8, 4, 2), GhostModule(8, 8, 1, groups=2),
    ],
    ids=repr,
)  # fmt: skip
def test_layers_that_do_not_keep_the_copy(layer: nn.Module) -> None:
    head = nn.Conv2d(getattr(layer, "out_channels", 8), 4, 1)

    assert folded(nn.Sequential(ghost(3, 8, 1), layer, head)) == ["0"]


def test_batch_norms_of_any_class_are_taken_care_of() -> None:
    timm = import_beside_torchvision("timm.layers")
    misc = import_beside_torchvision("torchvision.ops.misc")
    frozen = misc.FrozenBatchNorm2d(8)
    for value in frozen.buffers():
        value.copy_(torch.rand(8) + 0.5)

    for norm in (timm.BatchNormAct2d(8), nn.SyncBatchNorm(8), frozen):
        assert folded(nn.Sequential(ghost(3, 8, 1), norm, nn.Conv2d(8, 4, 3))) == []


def test_blocks_of_torchvision_are_looked_into() -> None:
    misc = import_beside_torchvision("torchvision.ops.misc")
    block = misc.Conv2dNormActivation(3, 8, 3)
    block[0] = ghost(3, 8, 1)

    assert folded(nn.Sequential(block, misc.Conv2dNormActivation(8, 4, 1))) == []


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = ghost(3, 8, 1)
        self.first, self.norm, self.second = ghost(8, 6, 2), nn.BatchNorm2d(6), ghost(6, 8, 3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        return self.head(x + self.second(functional.relu_(self.norm(self.first(x)))))


def test_a_residual_stream_with_several_orders_keeps_its_copies() -> None:
    assert folded(Residual()) == ["stem", "second"]


def test_a_residual_stream_with_one_order_takes_it_up() -> None:
    model = Residual()
    model.second.reorder(model.stem.order)

    assert folded(model) == []


class Mixed(nn.Module):
    """A stream that dense convolutions and a depthwise one write to, gated and read in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.a = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            ghost(8, 8, 1),
        )
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Conv2d(11, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.norm(self.stem(x)).relu()
        stream = stream + self.deep(self.a(stream)) * 2
        gate = self.excite(self.squeeze(stream.mean((2, 3), keepdim=True)).relu()).sigmoid()
        stream = stream * gate * x[:, :1]
        return self.head(torch.cat([x, stream], 1)[:, :, 1:])


def test_all_that_writes_to_a_stream_is_permuted_alike() -> None:
    assert folded(Mixed()) == []


class Doubled(nn.Module):
    """Maps beside what a depthwise convolution makes of them, added to a layer twice as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = ghost(3, 4, 1)
        self.cheap = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.wide = ghost(3, 8, 2)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.narrow(x)
        return self.head(torch.cat([maps, self.cheap(maps)], 1) + self.wide(x))


def test_two_maps_of_one_wire_that_change_places_keep_the_copy() -> None:
    model = Doubled()
    model.narrow.reorder(torch.tensor([1, 0, 2, 3]))
    model.wide.reorder(torch.tensor([5, 4, 2, 3, 1, 0, 6, 7]))  # would do, were 4 and 5 exchanged

    assert folded(model) == ["narrow", "wide"]

    model = Doubled()
    model.narrow.reorder(torch.tensor([1, 0, 2, 3]))
    model.wide.reorder(torch.tensor([1, 0, 2, 3, 5, 4, 6, 7]))

    assert folded(model) == []


class Dense(nn.Module):
    """Concatenated maps, as in a dense block: each writer has an order of its own."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.a, self.b, self.norm = ghost(3, 6, 1), ghost(6, 4, 2), nn.BatchNorm2d(10)
        self.head, self.extra = nn.Conv2d(10, 4, 1), extra

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = torch.cat([x, self.b(x)], 1)
        return self.head(self.norm(x + x.flip(1) if self.extra else x))


def test_concatenated_maps_are_permuted_piece_by_piece() -> None:
    assert folded(Dense(extra=False)) == []
    assert folded(Dense(extra=True)) == ["a", "b"]


class Padded(nn.Module):
    """The shortcut of option A: maps of zeros on both sides."""

    def __init__(self, orders: tuple[Sequence[int], Sequence[int]], mode: str) -> None:
        super().__init__()
        self.a, self.b, self.head = ghost(3, 4, 1), ghost(4, 8, 2, stride=2), nn.Conv2d(8, 4, 1)
        self.a.reorder(torch.argsort(torch.tensor(orders[0])))
        self.b.reorder(torch.argsort(torch.tensor(orders[1])))
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        sides = (0, 0, 0, 0, 2, 2)
        if self.mode == "inside":
            return self.head(self.b(x) + functional.pad(x[:, :, ::2, ::2], sides))
        return self.head(self.b(x) + functional.pad(x[:, :, ::2, ::2], sides, value=2.0))


@pytest.mark.parametrize("mode", ["inside", "constant"])
def test_maps_beside_a_padded_shortcut_are_permuted_apart_from_it(mode: str) -> None:
    """Places 2 to 5 carry the maps of the shortcut, in its order; the others change places."""
    within = (2, 0, 3, 1)
    fits = (7, 0, 4, 2, 5, 3, 1, 6)
    assert folded(Padded((within, fits), mode)) == []

    other_inside = (7, 0, 2, 3, 4, 5, 1, 6)
    assert folded(Padded((within, other_inside), mode)) == ["a", "b"]
    crossing = (2, 0, 4, 7, 5, 3, 1, 6)
    assert folded(Padded((within, crossing), mode)) == ["a", "b"]


def test_an_original_takes_the_same_moves_and_stays_what_it_was() -> None:
    model = Mixed()
    names = ["a"]
    original = stir(dense(model))
    segments = Segments(original, names, IMAGES)
    found = fold_orders(segments, stir(model), names)
    with torch.no_grad():
        before = original(IMAGES.clone())
        features = original.norm(original.stem(IMAGES))

    move_maps(original, found.moves)

    with torch.no_grad():
        torch.testing.assert_close(original(IMAGES.clone()), before, rtol=1e-4, atol=1e-5)
        moved = original.norm(original.stem(IMAGES))
    order = next(move.places for move in found.moves if move.module == "norm")
    torch.testing.assert_close(moved, features[:, list(order)])
    assert order != tuple(range(8))


def test_the_original_of_a_network_that_has_lost_maps_moves_those_that_are_kept() -> None:
    torch.manual_seed(0)
    original = stir(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    )
    kept = Kept(out=(0, 2, 3, 7))
    slices = {"0": kept, "1": kept, "3": Kept(reads=kept.out)}
    swap = (1, 0, 3, 2)
    moves = [Move("0", "out", swap), Move("1", "both", swap), Move("3", "in", swap)]
    moved = copy.deepcopy(original)

    move_maps(moved, moves, slices=slices)

    with torch.no_grad():
        torch.testing.assert_close(moved(IMAGES), original(IMAGES), rtol=1e-4, atol=1e-5)
        found, wanted = moved[:2](IMAGES), original[:2](IMAGES)  # type: ignore[index]
    torch.testing.assert_close(found, wanted[:, [2, 1, 0, 7, 4, 5, 6, 3]])


def test_weights_that_are_computed_from_others_are_left_alone() -> None:
    head = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 1))

    assert folded(nn.Sequential(ghost(3, 8, 1), nn.ReLU(), head)) == ["0"]


class Several(nn.Module):
    """Three readers of one output, one of which is on two ways."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = ghost(3, 8, 1), nn.BatchNorm2d(8)
        self.a, self.b, self.c = nn.Conv2d(8, 4, 1), ghost(8, 4, 2), last

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.norm(self.stem(x)).relu()
        return self.a(x), self.b(functional.max_pool2d(x, 2)), self.c(torch.sigmoid(x))


def test_all_of_several_readers_take_it_up_or_none() -> None:
    assert folded(Several(nn.Conv2d(8, 3, 1))) == ["b"]
    assert folded(Several(nn.Identity())) == ["stem", "b"]
    assert folded(Several(nn.InstanceNorm2d(8))) == ["stem", "b"]


class Twice(nn.Module):
    """The reader runs twice, once on something else."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = ghost(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x)) + self.head(self.other(x))


class TiedReaders(nn.Module):
    """Two readers hold one weight, and one of them reads something else."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = ghost(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.a(self.stem(x)) + self.b(self.other(x))


class Borrowed(nn.Module):
    """The reader's weight is used by a function, on something else."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other = ghost(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x)) + functional.conv2d(self.other(x), self.head.weight)


class SharedWriter(nn.Module):
    """The Ghost module itself runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = ghost(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x))) + self.head(self.norm(self.stem(-x)))


@pytest.mark.parametrize("network", [Twice, TiedReaders, Borrowed, SharedWriter])
def test_what_somebody_else_uses_too_is_left_alone(network: type[nn.Module]) -> None:
    assert folded(network()) == ["stem"]


class Mixing(nn.BatchNorm2d):
    """A batch norm in name that mixes the maps."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input.flip(1)


class Ramp(nn.ReLU):
    """An activation in name, with a slope for each map."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.slope


@pytest.mark.parametrize("layer", [Mixing, Ramp])
def test_a_subclass_with_a_mind_of_its_own_keeps_the_copy(layer: type[nn.Module]) -> None:
    made = layer(8) if layer is Mixing else layer()

    assert folded(nn.Sequential(ghost(3, 8, 1), made, nn.Conv2d(8, 4, 1))) == ["0"]


def test_a_network_that_cannot_be_traced_keeps_its_copies() -> None:
    class ByValue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = ghost(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x) if float(x.sum()) < 1e9 else x

    assert folded(ByValue()) == ["a"]


def test_an_order_that_changes_nothing_is_dropped() -> None:
    model = nn.Sequential(ghost(3, 8, 1), nn.GroupNorm(2, 8))
    model[0].reorder(torch.arange(8))

    assert folded(model) == []


def test_the_convs_inside_the_blocks_of_a_resnet_are_free_of_copies() -> None:
    torch.manual_seed(0)
    model = resnet20_cifar()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and name != "conv1":
            made = GhostModule.from_conv(module, GhostSpec(2, 3))
            made.reorder(torch.randperm(module.out_channels))
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, made)

    kept = folded(model)

    assert kept == [f"layer{stage}.{block}.conv2" for stage in (1, 2, 3) for block in range(3)]


def test_a_kept_order_goes_through_save_and_load(tmp_path: Path) -> None:
    conversion = ghostify.convert(
        "resnet20_cifar",
        calibration=[torch.randn(8, 3, 32, 32)],
        fit=FitOptions(block_steps=0, joint_steps=0, positions=4096, stream_order="own"),
    )
    ghostify.save(conversion, tmp_path / "out")

    loaded = ghostify.load(tmp_path / "out")

    orders = [name for name in loaded.state_dict() if name.endswith(".order")]
    assert orders == [name for name in conversion.model.state_dict() if name.endswith(".order")]
    assert len(orders) == 9
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(image), conversion.model.eval()(image))
