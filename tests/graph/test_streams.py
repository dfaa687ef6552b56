"""Images in chunks of one size, and the activations of two networks side by side."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ghostify.errors import InputError
from ghostify.graph import streams as rooms
from ghostify.graph.segments import Segments
from ghostify.graph.store import Store
from ghostify.graph.streams import Streams, normalisation_behind, rechunked
from ghostify.models.torchvision_import import import_beside_torchvision
from tests.graph.networks import Shared, plain


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_chunks_do_not_depend_on_the_batches(size: int) -> None:
    images = torch.randn(200, 1, 2, 3)

    chunks = list(rechunked(images.split(size)))

    assert [len(chunk) for chunk in chunks] == [64, 64, 64, 8]
    assert torch.equal(torch.cat(chunks), images)


def test_large_images_come_in_small_chunks() -> None:
    chunks = list(rechunked([torch.zeros(9, 1, 256, 256)]))

    assert [len(chunk) for chunk in chunks] == [4, 4, 1]
    assert [len(one) for one in rechunked([torch.zeros(2, 1, 1024, 1024)])] == [1, 1]


def test_a_generator_is_read_once_and_as_needed() -> None:
    given: list[int] = []

    def endless() -> Iterator[Tensor]:
        while True:
            given.append(1)
            yield torch.zeros(32, 1, 2, 2)

    next(rechunked(endless()))

    assert len(given) == 2


def test_empty_batches_are_passed_over() -> None:
    batches = [torch.zeros(0, 1, 2, 2), torch.zeros(3, 1, 2, 2), torch.zeros(0, 1, 2, 2)]

    assert [len(one) for one in rechunked(batches)] == [3]
    assert list(rechunked([])) == []
    assert list(rechunked([torch.zeros(0, 3, 0, 0)])) == []


FLOATS = (
    "calibration images come as floating-point tensors (N, C, H, W), normalised as the network "
    "wants them (got {})"
)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            [torch.zeros(2, 3, 4, 4, dtype=torch.uint8)],
            FLOATS.format("torch.uint8 of shape (2, 3, 4, 4)"),
        ),
        ([torch.zeros(3, 4, 4)], FLOATS.format("torch.float32 of shape (3, 4, 4)")),
        ([(torch.zeros(1, 3, 4, 4), torch.zeros(1))], FLOATS.format("tuple")),
        (
            [torch.zeros(64, 3, 4, 4), torch.zeros(1, 3, 4, 5)],
            "calibration images differ in shape (3x4x4, 3x4x5); resize them",
        ),
        (
            [torch.zeros(3, 3, 4, 4), torch.zeros(1, 1, 4, 4)],
            "calibration images differ in shape (3x4x4, 1x4x4); resize them",
        ),
        (
            [torch.full((1, 3, 4, 4), float("nan"))],
            "calibration images hold values that are not finite; mend them",
        ),
    ],
)
def test_bad_batches_are_said_in_one_sentence(batches: list[Tensor], message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(rechunked(batches))

    assert str(caught.value) == message


def test_inputs_are_of_the_converted_and_targets_of_the_original() -> None:
    original = plain().eval()
    torch.manual_seed(3)
    converted = plain().eval()
    images = list(torch.randn(5, 3, 8, 8).split(2))
    segments = Segments(original, ["0", "3", "6"], images[0])
    streams = Streams(segments, original, converted, images, Store(1 << 20))

    with torch.no_grad():
        for position, segment in enumerate(segments.row):
            (name,) = segment.layers
            index = int(name)
            targets = streams.targets(segment, name, 1 << 20)
            inputs = streams.inputs(segment, name, len(targets))
            for chunk, ours, theirs in zip(images, inputs, targets, strict=True):
                assert len(ours) == len(theirs) == 1
                assert torch.allclose(ours[0], converted[:index](chunk), atol=1e-6)
                assert torch.allclose(theirs[0], original[: index + 1](chunk), atol=1e-6)
            if position < 2:
                streams.pass_on(segment)


def test_no_more_chunks_are_run_than_there_are_positions_asked_for() -> None:
    model = plain().eval()
    images = list(torch.randn(10, 3, 8, 8).split(2))
    segments = Segments(model, ["0", "3", "6"], images[0])
    streams = Streams(segments, model, copy.deepcopy(model), images, Store(1 << 20))

    assert len(streams.targets(segments.row[0], "0", 1)) == 1
    assert len(streams.targets(segments.row[0], "0", 129)) == 2
    assert len(streams.targets(segments.row[0], "0", 10_000)) == 5


def test_every_call_of_a_layer_is_seen() -> None:
    model = Shared().eval()
    images = list(torch.randn(4, 3, 8, 8).split(2))
    segments = Segments(model, ["stem", "tower"], images[0])
    streams = Streams(segments, model, copy.deepcopy(model), images, Store(1 << 20))
    streams.pass_on(segments.row[0])

    targets = streams.targets(segments.row[1], "tower", 1 << 20)

    assert [[tuple(one.shape[2:]) for one in calls] for calls in targets] == [
        [(8, 8), (8, 8), (4, 4)]
    ] * 2


def test_a_layer_is_left_at_its_last_call() -> None:
    """What comes behind is not run once it is known how often the layer is called."""
    behind: list[int] = []

    class Counter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            behind.append(len(x))
            return x

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Identity()).eval()
    images = list(torch.randn(6, 3, 4, 4).split(2))
    segments = Segments(model, ["0", "2"], images[0])
    streams = Streams(segments, model, copy.deepcopy(model), images, Store(1 << 20))
    model[1].register_forward_hook(lambda _m, _i, out: behind.append(len(out)))

    streams.targets(segments.row[0], "0", 1 << 20)

    assert len(behind) == 1


def test_stored_activations_stay_within_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain().eval()
    images = list(torch.randn(40, 3, 8, 8).split(4))
    segments = Segments(model, ["0", "3", "6"], images[0])
    spilled: list[int] = []
    spill = Store._spilled

    def count(self: Store, tensor: Tensor, size: int) -> Tensor:
        spilled.append(size)
        return spill(self, tensor, size)

    monkeypatch.setattr(Store, "_spilled", count)
    store = Store(30_000)
    streams = Streams(segments, model, copy.deepcopy(model), images, store)
    for segment in segments.row[:2]:
        streams.pass_on(segment)

    assert store.peak_bytes <= 30_000
    assert spilled
    with torch.no_grad():
        expected = model[:6](torch.cat(images))
    assert torch.allclose(torch.cat([one["_5"] for one in streams.ours]), expected, atol=1e-6)


class Norms(nn.Module):
    """Batch norms behind: one of its own, one of two layers, one behind an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.both, self.late = (nn.BatchNorm2d(4) for _ in range(3))
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 4, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.own(self.a(x))
        y = y + self.both(self.b(x)) + self.both(self.c(x))
        return y + self.late(self.d(x).relu())


def test_the_batch_norm_behind_is_one_that_reads_this_layer_only() -> None:
    found = normalisation_behind(Norms().eval(), torch.randn(2, 3, 4, 4), ["a", "b", "c", "d"])

    assert found == {"a": "own"}


def test_frozen_batch_norms_are_found_too() -> None:
    frozen = import_beside_torchvision("torchvision.ops.misc").FrozenBatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), frozen).eval()

    assert normalisation_behind(model, torch.randn(1, 3, 2, 2), ["0"]) == {"0": "1"}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_rechunked_sizes_are_those_of_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_CHUNK", 5)

    assert [len(one) for one in rechunked([torch.zeros(12, 1, 2, 2)])] == [5, 5, 2]
