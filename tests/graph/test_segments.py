"""A network run segment by segment gives what it gives as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghostify.graph.probe import tensors_of
from ghostify.graph.segments import Segments, is_batch_norm
from ghostify.models.resnet import resnet20_cifar
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.models.vgg import vgg16_cifar
from tests.graph.networks import Auxiliary, Branching, ByShape, Functional, Shared, Tied, plain

FACTORY: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet18": ("torchvision.models", {"weights": None}, 32),
    "mobilenet_v3_small": ("torchvision.models", {"weights": None}, 32),
    "densenet121": ("torchvision.models", {"weights": None}, 32),
    "googlenet": ("torchvision.models", {"weights": None, "init_weights": False}, 32),
    "shufflenet_v2_x0_5": ("torchvision.models", {"weights": None}, 32),
    "tinynet_e": ("timm", {}, 32),
    "regnety_002": ("timm", {}, 32),
    "convnext_atto": ("timm", {}, 32),
    "resnetv2_50": ("timm", {}, 32),
}


def convolutions(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def check_runs(model: nn.Module, images: Tensor, layers: list[str]) -> Segments:
    model.eval()
    segments = Segments(model, layers, images)
    with torch.no_grad():
        expected = tensors_of(model(images.clone()))
        state = segments.start(images)
        seen: list[str] = []
        for position, segment in enumerate(segments.row):
            held = copy.deepcopy(state)
            after = segments.run(model, segment, state)
            for one, other in zip(tensors_of(state), tensors_of(held), strict=True):
                assert torch.equal(one, other), "what is stored was changed in place"
            assert segment.last is (position == len(segments.row) - 1)
            seen += segment.layers
            state = after

    found = tensors_of(state["output"])
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert len(seen) >= len(layers)
    assert set(seen) == set(layers)
    return segments


@pytest.mark.parametrize("name", FACTORY)
def test_networks_of_the_libraries_run_as_a_whole(name: str) -> None:
    library, settings, side = FACTORY[name]
    module = import_beside_torchvision(library)
    make = getattr(module, name) if library != "timm" else (lambda: module.create_model(name))
    torch.manual_seed(0)
    model = make(**settings)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        model.train()(images)

    layers = [name for name in convolutions(model) if not name.startswith("aux")]
    segments = check_runs(model, images, layers)

    assert segments.note == ""
    assert len(segments.row) > 4


@pytest.mark.parametrize(
    ("make", "layers", "pieces"),
    [
        (plain, ["0", "3", "6"], 3),
        (Shared, ["stem", "tower"], 2),
        (Tied, ["stem", "fine", "coarse"], 2),
        (Functional, ["stem", "lender"], 2),
        (Auxiliary, ["stem", "body"], 2),
    ],
)
def test_odd_networks_run_as_a_whole(
    make: Callable[[], nn.Module], layers: list[str], pieces: int
) -> None:
    segments = check_runs(make(), torch.randn(2, 3, 8, 8), layers)

    assert segments.note == ""
    assert len(segments.row) == pieces


@pytest.mark.parametrize("make", [Branching, ByShape])
def test_a_network_that_cannot_be_traced_is_one_piece(make: Callable[[], nn.Module]) -> None:
    model = make()
    layers = convolutions(model)

    segments = check_runs(model, torch.randn(2, 3, 8, 8), layers)

    assert [segment.layers for segment in segments.row] == [tuple(layers)]
    assert segments.note.startswith("fitted as one piece, since torch.fx cannot cut the network (")


class Counting(nn.Module):
    """Its graph does not compute what it computes: tracing sees one number only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 4, 1), 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Counting:
        copied = Counting()
        copied.load_state_dict(self.state_dict())
        return copied

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x) * self.calls


def test_a_graph_that_lies_is_not_used() -> None:
    """The copy that is traced begins to count at 0, the network itself is at 5."""
    model = Counting().eval()
    model.calls = 5

    segments = Segments(model, ["conv"], torch.randn(2, 3, 4, 4))

    assert segments.graph is None
    assert "AssertionError" in segments.note


def test_a_residual_block_is_one_segment() -> None:
    model = resnet20_cifar()

    segments = check_runs(model, torch.randn(2, 3, 32, 32), convolutions(model)[1:])

    assert [segment.layers for segment in segments.row] == [
        (),
        *(
            (f"layer{stage}.{block}.conv1", f"layer{stage}.{block}.conv2")
            for stage in (1, 2, 3)
            for block in range(3)
        ),
        (),
    ]
    assert segments.row[0].modules[0] == "conv1"
    assert segments.row[-1].modules[-1] == "linear"


def test_a_chain_is_one_segment_for_each_convolution() -> None:
    model = vgg16_cifar()
    names = convolutions(model)

    segments = check_runs(model, torch.randn(2, 3, 32, 32), names)

    assert [segment.layers for segment in segments.row] == [*((name,) for name in names), ()]


class AsksForItsBatch(nn.Module):
    """The size of the batch stays in use up to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4 if k else 3, 4, 3, padding=1) for k in range(3))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, (height, width) = x.size(0), x.shape[-2:]
        x = self.c(self.b(self.a(x).relu()).relu())
        return self.fc(x.mean((2, 3)).view(batch, -1)) / (height * width)


def test_sizes_that_stay_in_use_do_not_keep_a_network_whole() -> None:
    segments = check_runs(AsksForItsBatch(), torch.randn(2, 3, 8, 8), ["a", "b", "c"])

    assert [segment.layers for segment in segments.row] == [("a",), ("b",), ("c",), ()]
    assert len(segments.row[0].alive) > 1


def test_many_kept_layers_are_segments_of_their_own() -> None:
    """Two of them are taken along with the layer before them."""
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(8)))

    segments = check_runs(model, torch.randn(2, 3, 8, 8), ["1", "6"])

    assert [segment.layers for segment in segments.row] == [(), ("1",), (), ("6",)]
    assert [segment.modules for segment in segments.row] == [
        ("0",), ("1", "2", "3"), ("4", "5"), ("6", "7"),
    ]  # fmt: skip


class Dense(nn.Module):
    """Every layer reads all the maps before it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2 * k + 3, 2, 3, padding=1) for k in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        return torch.cat(maps, 1)


def test_a_long_block_is_cut_where_fewest_tensors_are_alive() -> None:
    names = [f"layers.{k}" for k in range(20)]

    segments = check_runs(Dense(20), torch.randn(2, 3, 6, 6), names)

    assert [len(segment.layers) for segment in segments.row] == [8, 8, 4]
    assert len(segments.row[0].alive) == 9


class Split(nn.Module):
    """A tuple is alive between its layers, and its parts are changed in place behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 1)
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        maps, places = self.pool(self.stem(x))
        return self.head(maps[:, :4]) + maps[:, 4:].relu_() + places.add_(1)[:, :4]


def test_operations_in_place_cannot_reach_what_is_stored() -> None:
    model = nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1),
        nn.Hardswish(inplace=True), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1),
    )  # fmt: skip

    check_runs(model, torch.randn(2, 3, 4, 4), ["1", "3", "6"])


def test_parts_of_a_stored_tuple_are_safe_too() -> None:
    model = Split().eval()
    images = torch.randn(2, 3, 4, 4)
    segments = Segments(model, ["stem", "head"], images)
    with torch.no_grad():
        state = segments.start(images)
        for segment in segments.row:
            answers = [segments.run(model, segment, state) for _ in range(2)]
            for one, other in zip(*map(tensors_of, answers), strict=True):
                assert torch.equal(one, other)
            state = answers[0]

    torch.testing.assert_close(state["output"], model(images))


class WithTable(nn.Module):
    """Adds a table of its own, and one that it computes, to what flows through."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.table = nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("other", torch.randn(4, 1, 1))

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        x = self.a(x) + self.table
        half = self.table / scale
        return self.b(x * half).relu() * half + self.other


def test_constants_belong_to_every_segment_that_needs_them() -> None:
    segments = check_runs(WithTable(), torch.randn(2, 3, 4, 4), ["a", "b"])

    assert len(segments.row) == 2


def test_segments_run_other_networks_with_layers_of_the_same_names() -> None:
    model = plain().eval()
    images = torch.randn(2, 3, 8, 8)
    segments = Segments(model, ["0", "3", "6"], images)
    torch.manual_seed(5)
    other = plain().eval()

    state = segments.start(images)
    with torch.no_grad():
        for segment in segments.row:
            state = segments.run(other, segment, state)
        assert torch.allclose(state["output"], other(images), atol=1e-6)


def test_batch_norms_are_known_whatever_their_class() -> None:
    timm = import_beside_torchvision("timm.layers")
    misc = import_beside_torchvision("torchvision.ops.misc")

    for norm in (nn.BatchNorm2d(4), nn.SyncBatchNorm(4), misc.FrozenBatchNorm2d(4)):
        assert is_batch_norm(norm)
    assert is_batch_norm(timm.BatchNormAct2d(4))
    for norm in (nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(2, 4), nn.ReLU()):
        assert not is_batch_norm(norm)
