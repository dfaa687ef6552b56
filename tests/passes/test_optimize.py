from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import ghostify
from ghostify.errors import InputError, SpecError
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule
from ghostify.passes import optimize
from ghostify.passes.optimize import apply_passes
from ghostify.passes.settings import PASSES, Passes

from .nets import ghosted, library, shaken


class Block(nn.Module):
    """A residual block between a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.norm(self.conv(x))))


def images(batch: int = 1, size: int = 16) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("runtime", PASSES)
@pytest.mark.parametrize("ratio", [2, 4])
def test_each_runtime_has_passes_that_keep_float32_outputs(runtime: str, ratio: int) -> None:
    model = ghosted(Block(), ratio, images()).float()

    optimized = optimize(model, [images()], runtime=runtime)

    assert optimized.ghostify_notes == []
    batch = images(3)
    torch.testing.assert_close(optimized(batch), model(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", ["torch", "torch-channels-last"])
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
def test_packed_weights_keep_the_function(name: str, runtime: str) -> None:
    model = ghosted(library(name), 2, images(size=32)).float()
    example = images(size=64).to(memory_format=torch.channels_last)

    optimized = optimize(model, [example], runtime=runtime)

    assert optimized.ghostify_notes == []
    batch = images(2, 64)
    with torch.no_grad():
        wanted = model(batch)
        torch.testing.assert_close(
            optimized(batch), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max())
        )
        again = copy.deepcopy(optimized)(batch)
        torch.testing.assert_close(again, optimized(batch), rtol=0, atol=0)
    assert torch.equal(batch, images(2, 64))


def test_the_result_is_frozen_and_the_model_is_untouched() -> None:
    model = ghosted(Block(), 2, images()).float().train()
    before = copy.deepcopy(model.state_dict())

    optimized = optimize(model, [images()])

    assert not optimized.training
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_that_cannot_be_traced_comes_back_as_it_is() -> None:
    class Branching(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    model = shaken(Branching()).float()

    optimized = optimize(model, [images()])

    (note,) = optimized.ghostify_notes
    assert note.startswith("left as it is, since it cannot be optimised (TraceError: ")
    assert torch.equal(optimized(images()), model(images()))
    assert not optimized.training


def test_a_graph_that_computes_something_else_is_not_used() -> None:
    class Drifting(Block):
        def __init__(self) -> None:
            super().__init__()
            self.offset = 1.0

        def forward(self, x: Tensor) -> Tensor:
            self.offset += 1.0
            return super().forward(x) + self.offset

    optimized = optimize(shaken(Drifting()).float(), [images()])

    (note,) = optimized.ghostify_notes
    assert "its outputs differ by" in note


def test_a_hook_that_changes_a_layer_is_kept() -> None:
    model = ghosted(Block(), 2, images()).float()
    model.conv.register_forward_hook(lambda _module, _args, output: output * 2)

    optimized = optimize(model, [images()])

    torch.testing.assert_close(optimized(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_half_precision_networks_stay_half() -> None:
    model = ghosted(Block(), 2, images()).to(torch.bfloat16)
    example = images().to(torch.bfloat16)

    optimized = optimize(model, [example], runtime="onnxruntime")

    assert optimized.ghostify_notes == []
    assert optimized(example).dtype == torch.bfloat16


def test_thin_parts_are_joined_before_a_dense_convolution() -> None:
    model = ghosted(Block(), 2, images())
    example = images().double()

    wide = apply_passes(model, [example], Passes(slim=8))
    thin = apply_passes(model, [example], Passes(slim=9))

    joins = [sum(node.target is torch.cat for node in one.graph.nodes) for one in (wide, thin)]
    assert joins == [1, 3]  # the maps of the head, and those that two layers read


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(SpecError, match="no passes are known for the runtime 'onnxruntim'; did"):
        optimize(Block(), [images()], runtime="onnxruntim")


def test_public_optimize_takes_names_and_conversions() -> None:
    conversion = ghostify.convert("resnet20_cifar", ratio=2, verify=False)

    by_conversion = ghostify.optimize(conversion, runtime="onnxruntime", input_size=(3, 32, 32))
    by_name = ghostify.optimize("resnet20_cifar", runtime="torch")

    assert by_conversion.ghostify_notes == by_name.ghostify_notes == []


def test_public_optimize_refuses_what_the_network_does_not_take() -> None:
    with pytest.raises(InputError, match="Block does not take an input of 1x4x8x8 "):
        ghostify.optimize(Block(), example=torch.zeros(1, 4, 8, 8))
    with pytest.raises(InputError, match="arguments are tensors"):
        ghostify.optimize(Block(), example=("no",))  # type: ignore[arg-type]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch-channels-last"])
@pytest.mark.parametrize("name", ["lcnet_050", "resnet26d", "ese_vovnet19b_slim_dw"])
def test_norms_that_end_in_an_activation_are_taken_apart(name: str, runtime: str) -> None:
    """Most networks of timm have such norms; one joins maps only where several meet or leave."""
    model = ghosted(library(f"timm:{name}"), 2, images(size=64)).float()
    kinds = {type(module).__name__ for module in model.modules()}
    assert name == "resnet26d" or "BatchNormAct2d" in kinds
    state = copy.deepcopy(model.state_dict())

    optimized = optimize(model, [images(size=64)], runtime=runtime)

    assert optimized.ghostify_notes == []
    assert not [one for one in optimized.modules() if "BatchNorm" in type(one).__name__]
    joins = [node for node in optimized.graph.nodes if node.target is torch.cat]
    ghosts = [one for one in model.modules() if isinstance(one, GhostModule)]
    assert runtime != "onnxruntime" or len(joins) < len(ghosts) / 2
    batch = images(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(optimized(batch), model(batch), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_frozen_norm_with_an_activation_is_taken_apart_too() -> None:
    layers = import_beside_torchvision("timm.layers.norm_act")
    model = nn.Sequential(nn.Conv2d(3, 8, 3), layers.BatchNormAct2d(8), nn.Conv2d(8, 4, 1))
    shaken(model).float()
    model = layers.freeze_batch_norm_2d(model)
    assert type(model[1]).__name__ == "FrozenBatchNormAct2d"

    optimized = optimize(model, [images()], runtime="onnxruntime")

    assert optimized.ghostify_notes == []
    assert not [one for one in optimized.modules() if "BatchNorm" in type(one).__name__]
    with torch.no_grad():
        torch.testing.assert_close(optimized(images()), model(images()), rtol=1e-4, atol=1e-5)


class Cut(nn.Module):
    """Takes all maps of a layer, or some, by a slice, as Ghost bottlenecks of timm do."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv, self.head = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(maps, 4, 1)
        self.maps = maps

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.stem(x))[:, : self.maps, :, :].relu())


@pytest.mark.parametrize(("maps", "joins"), [(16, 1), (12, 2)])
def test_a_slice_that_leaves_nothing_out_is_no_reason_to_join(maps: int, joins: int) -> None:
    """What leaves the network is always joined."""
    model = ghosted(Cut(maps), 2, images()).float()

    optimized = optimize(model, [images()], runtime="onnxruntime")

    assert optimized.ghostify_notes == []
    assert sum(node.target is torch.cat for node in optimized.graph.nodes) == joins
    with torch.no_grad():
        torch.testing.assert_close(optimized(images()), model(images()), rtol=1e-4, atol=1e-5)


def peak_bytes(model: nn.Module, batch: Tensor) -> int:
    """Return the most that torch's allocator had handed out at one time, by its profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=activities, profile_memory=True) as profile,
    ):
        model(batch)
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def test_ghosts_of_an_inverted_block_take_no_more_memory() -> None:
    """The batch norm overwrites the intrinsic maps once the ghosts have been made of them."""
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 96, 1, bias=False),
        nn.BatchNorm2d(96),
        nn.ReLU6(),
        nn.Conv2d(96, 96, 3, 2, 1, groups=96, bias=False),
        nn.BatchNorm2d(96),
        nn.ReLU6(),
        nn.Conv2d(96, 8, 1),
    )
    ghosts = ghosted(dense, 2, images()).float()
    batch = images(4, size=64)

    small = optimize(ghosts, [batch], runtime="torch-channels-last")
    large = optimize(dense.eval(), [batch], runtime="torch-channels-last")

    torch.testing.assert_close(small(batch), ghosts(batch), rtol=1e-4, atol=1e-5)
    assert peak_bytes(small, batch) <= 1.02 * peak_bytes(large, batch)
