"""After a fit the writers of one stream have one order, and nothing is put in order any more."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.errors import SpecError, WeightsError
from ghostify.graph import calibrate as rooms
from ghostify.graph.calibrate import FitOptions, FitReport, calibrate
from ghostify.graph.fold import Folded, fold_orders, move_maps
from ghostify.graph.layer_fit import importance, pair_costs
from ghostify.graph.pairing import choose
from ghostify.graph.rewrite import rewrite
from ghostify.graph.segments import Segments
from ghostify.graph.store import Store
from ghostify.graph.stream_orders import common_pairings, shared_streams
from ghostify.graph.streams import Streams
from ghostify.graph.synthetic import dead_leaves
from ghostify.graph.wires import find_wires
from ghostify.models.resnet import ResNetCifar
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule
from ghostify.passes.optimize import optimize
from ghostify.plan import Plan
from ghostify.spec import GhostSpec
from tests.graph.test_fold import stir

FEW = FitOptions(rounds=1, iterations=2, block_steps=1, joint_steps=1, positions=2048)
ALONE = FitOptions(rounds=0, block_steps=0, joint_steps=0, positions=512, stream_order="own")
IMAGES = dead_leaves(8, (3, 16, 16), generator=torch.Generator().manual_seed(0))


def bottlenecks() -> nn.Module:
    """A narrow network of the form of ResNet-50: projections beside the first blocks."""
    resnet = import_beside_torchvision("torchvision.models.resnet")
    torch.manual_seed(0)
    net: nn.Module = resnet.ResNet(
        resnet.Bottleneck, [2, 2, 1, 1], num_classes=5, width_per_group=16
    )
    for stage in (2, 3, 4):
        setattr(net, f"layer{stage}", nn.Identity())
    net.layer2 = resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], width_per_group=16).layer2
    net.fc = nn.Linear(512, 5)
    return stir(net)


def basics() -> nn.Module:
    """A ResNet for CIFAR with two blocks in each stage, and maps of zeros between stages."""
    torch.manual_seed(0)
    return stir(ResNetCifar(2, num_classes=5))


def fitted(
    original: nn.Module, options: FitOptions = FEW, skip: tuple[str, ...] = ("conv1",)
) -> tuple[nn.Module, FitReport]:
    names = [
        name
        for name, module in original.named_modules()
        if isinstance(module, nn.Conv2d) and name not in skip
    ]
    plan = Plan({name: GhostSpec(2, 3) for name in names})
    converted = rewrite(original, plan).model.eval()
    return converted, calibrate(original, converted, names, [IMAGES], options=options)


@dataclass(frozen=True)
class Fit:
    """A fit with one order for each stream; the network with its copies still, and without."""

    original: nn.Module
    converted: nn.Module
    before: nn.Module
    folded: nn.Module
    report: FitReport


@pytest.fixture(scope="module", params=[basics, bottlenecks])
def fit(request: pytest.FixtureRequest) -> Fit:
    original = request.param()
    seen: list[nn.Module] = []

    def folding(segments: Segments, model: nn.Module, layers: Sequence[str]) -> Folded:
        seen.append(copy.deepcopy(model))
        found = fold_orders(segments, model, layers)
        seen.append(copy.deepcopy(model))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "fold_orders", folding)
        converted, report = fitted(original)
    return Fit(original, converted, *seen, report)


def ghosts_of(model: nn.Module) -> dict[str, GhostModule]:
    return {name: one for name, one in model.named_modules() if isinstance(one, GhostModule)}


def test_no_copy_is_left(fit: Fit) -> None:
    assert fit.report.copies == ()
    assert all(one.order is None for one in ghosts_of(fit.converted).values())
    assert all(one.order is not None for one in ghosts_of(fit.before).values())


def test_orders_of_their_own_keep_copies() -> None:
    _, report = fitted(basics(), ALONE)

    assert report.copies == tuple(f"layer{k}.{block}.conv2" for k in (1, 2, 3) for block in (0, 1))


def test_taking_the_copies_away_changes_no_output(fit: Fit) -> None:
    moved = copy.deepcopy(fit.original)
    move_maps(moved, fit.report.moves)

    with torch.no_grad():
        wanted, found = fit.before(IMAGES), fit.folded(IMAGES)
        theirs, ours = fit.original(IMAGES), moved(IMAGES)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_stream_travels_in_parts_as_in_an_unfitted_network(fit: Fit) -> None:
    plan = Plan({name: GhostSpec(2, 3) for name in ghosts_of(fit.converted)})
    unfitted = rewrite(fit.original, plan).model.eval()
    joins = {}
    for label, model in (("fitted", fit.converted), ("unfitted", unfitted)):
        fast = optimize(model, (IMAGES[:1],), runtime="onnxruntime")
        with torch.no_grad():
            wanted = model(IMAGES[:1])
            torch.testing.assert_close(fast(IMAGES[:1]), wanted, rtol=1e-3, atol=1e-4)
        calls = [node.target for node in fast.graph.nodes if node.op == "call_function"]
        joins[label] = [calls.count(one) for one in (torch.cat, torch.index_select, torch.narrow)]

    assert joins["fitted"] == joins["unfitted"]


def test_the_moved_original_has_its_maps_where_the_fitted_network_has_them(fit: Fit) -> None:
    moved = copy.deepcopy(fit.original)
    move_maps(moved, fit.report.moves)
    aims: dict[str, Tensor] = {}
    for label, model in (("converted", fit.converted), ("moved", moved), ("first", fit.original)):
        handle = model.get_submodule("layer1").register_forward_hook(
            lambda _m, _i, out, label=label: aims.update({label: out})
        )
        with torch.no_grad():
            model(IMAGES)
        handle.remove()

    def miss(label: str) -> float:
        return float((aims[label] - aims["converted"]).square().mean())

    assert "layer1" in fit.report.permuted
    assert miss("moved") < 0.5 * miss("first")


def test_the_costs_are_those_of_each_layer_weighted_by_its_norm_and_added_up() -> None:
    original = bottlenecks()
    plan = Plan({name: GhostSpec(2, 3) for name in ("layer1.0.conv3", "layer1.1.conv3")})
    converted = rewrite(original, plan).model.eval()
    names = list(plan.layers)
    segments = Segments(original, names, IMAGES[:2])
    streams = Streams(segments, original, converted, [IMAGES], Store(1 << 30))

    found = common_pairings(streams, {name: name.replace("conv", "bn") for name in names}, FEW)

    first, second = (found[name] for name in names)
    assert first == second
    whole = 0
    for name in names:
        seen: list[Tensor] = []
        conv = original.get_submodule(name)
        handle = conv.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        with torch.no_grad():
            original(IMAGES)
        handle.remove()
        norm = original.get_submodule(name.replace("conv", "bn"))
        ghost = converted.get_submodule(name)
        assert isinstance(ghost, GhostModule)
        assert isinstance(conv, nn.Conv2d)
        weights = importance(norm, conv.out_channels, conv.weight)
        whole = whole + pair_costs(ghost, seen, weights)[0]
    assert first == choose(whole, ratio=2)


class Odd(nn.Module):
    """Streams that cannot have one order: they leave the network, or are mixed on the way."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 4, 1)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = x + self.b(x.relu())
        if self.form == "grouped":
            x = x + self.c(x)
        if self.form == "mixed":
            x = functional.channel_shuffle(x, 2)
        return x if self.form == "leaves" else self.d(x)


@pytest.mark.parametrize("form", ["plain", "leaves", "mixed", "grouped"])
def test_streams_that_cannot_have_one_order_keep_their_copies(form: str) -> None:
    torch.manual_seed(0)
    original = Odd(form).eval()
    skip = ("d",) if form == "grouped" else ("c", "d")

    converted, report = fitted(original, skip=skip)

    segments = Segments(original, ["a", "b"], IMAGES[:2])
    streams = shared_streams(find_wires(segments, converted), converted)
    assert streams == ([("a", "b")] if form == "plain" else [])
    assert set(report.copies) >= (set() if form == "plain" else {"a", "b"})
    assert (report.copies == ()) is (form == "plain")


class Doubled(nn.Module):
    """A layer of which two maps each are tied to one, through a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.narrow = nn.Conv2d(16, 8, 3, padding=1)
        self.cheap = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        maps = self.narrow(x)
        maps = torch.cat([maps, self.cheap(maps)], 1) + self.wide(x)
        return self.head(maps.relu().mean((2, 3)))  # type: ignore[no-any-return]


def test_layers_with_two_maps_of_one_wire_have_orders_of_their_own() -> None:
    torch.manual_seed(0)
    original = Doubled()

    converted, report = fitted(original, skip=("conv1", "cheap"))

    assert set(report.copies) == {"narrow", "wide"}
    with torch.no_grad():
        wanted = original(IMAGES)
        miss = (converted(IMAGES) - wanted).square().mean() / wanted.var()
    assert miss < 0.5


def test_what_a_stream_order_can_be() -> None:
    with pytest.raises(SpecError, match="stream_order is one of common, own \\(got 'any'\\)"):
        FitOptions(stream_order="any")  # type: ignore[arg-type]


def test_values_that_are_not_finite_are_named() -> None:
    original = basics()
    with torch.no_grad():
        original.get_submodule("bn1").weight.fill_(1e30)  # type: ignore[union-attr]
        original.get_submodule("layer1.0.bn1").weight.fill_(1e30)  # type: ignore[union-attr]

    with pytest.raises(WeightsError, match="gives values that are not finite"):
        fitted(original)
