"""The Ghost module: its arithmetic, its form, and that everything of torch works on it."""

from __future__ import annotations

import copy
import os
import socket
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.errors import SpecError
from ghostify.nn.ghost import GhostModule, slim
from ghostify.spec import GhostSpec


def test_the_output_is_equation_3_by_hand() -> None:
    """s = 4 on 10 maps: 3 intrinsic, then ghosts of maps 0-2, 0-2 and 0."""
    module = GhostModule(5, 10, 3, padding=1, ratio=4, kernel=5)
    x = torch.randn(2, 5, 9, 9)

    intrinsic = functional.conv2d(x, module.primary.weight, module.primary.bias, padding=1)
    maps = [intrinsic]
    for branch, read in zip(module.cheap, (3, 3, 1), strict=True):
        for index in range(read):
            maps.append(
                functional.conv2d(
                    intrinsic[:, index : index + 1],
                    branch.weight[index : index + 1],
                    branch.bias[index : index + 1],
                    padding=2,
                )
            )

    assert torch.allclose(module(x), torch.cat(maps, dim=1), atol=1e-6)


def test_dilation_belongs_to_the_primary_convolution_only() -> None:
    module = GhostModule(3, 8, 3, dilation=2, padding=2, ratio=2)

    assert module.primary.dilation == (2, 2)
    assert module.cheap[0].dilation == (1, 1)


def test_ghosts_come_from_plain_depthwise_branches() -> None:
    """s - 1 of them, each without a channel multiplier."""
    module = GhostModule(16, 64, 3, ratio=4)

    assert [
        (branch.in_channels, branch.out_channels, branch.groups) for branch in module.cheap
    ] == [(16, 16, 16)] * 3


def test_state_dict_keys_are_stable() -> None:
    module = GhostModule(4, 12, 3, ratio=3)

    assert list(module.state_dict()) == [
        "primary.weight",
        "primary.bias",
        "cheap.0.weight",
        "cheap.0.bias",
        "cheap.1.weight",
        "cheap.1.bias",
    ]


def test_keys_and_shapes_are_the_same_for_a_kernel_of_one() -> None:
    one, three = (GhostModule(4, 12, 3, ratio=3, kernel=d).state_dict() for d in (1, 3))

    assert list(one) == list(three)
    assert one["cheap.0.weight"].shape == (4, 1, 1, 1)


def test_the_repr_is_the_constructor_call() -> None:
    module = GhostModule(3, 64, 7, stride=2, padding=3, bias=False, ratio=2, kernel=5)

    assert repr(module) == (
        "GhostModule(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False, "
        "ratio=2, kernel=5)"
    )
    assert repr(eval(repr(module), {"GhostModule": GhostModule})) == repr(module)


@pytest.mark.parametrize("text", ["s3,d3,blur", "s2,affine", "s2,d1+3+5", "s4,wavelet", "s2,d5,r4"])
def test_the_repr_tells_the_cheap_operation(text: str) -> None:
    module = GhostModule.from_conv(nn.Conv2d(3, 24, 1), GhostSpec.parse(text))

    again = eval(repr(module), {"GhostModule": GhostModule})

    assert again.spec == module.spec == GhostSpec.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 9}, "GhostModule.ratio (s) must be at most out_channels (8) (got 9)"),
        ({"ratio": 1}, "GhostSpec.ratio (s) must be >= 2 (got 1)"),
        ({"kernel": 2}, "GhostSpec.kernel (d) must be odd and >= 1 (got 2)"),
        ({"groups": 8}, "GhostModule with groups=8 needs all 8 maps"),
        (
            {"cheap": "magic"},
            "GhostSpec.cheap must be one of: depthwise, affine, wavelet",
        ),
    ],
)
def test_an_impossible_module_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        GhostModule(8, 8, 3, **arguments)

    assert str(error.value).startswith(message)


def test_new_weights_are_drawn_as_in_the_papers_code() -> None:
    """Kaiming normal by fan-out: variance 2 / (maps x k x k) for the primary convolution."""
    module = GhostModule(64, 256, 3, ratio=2, kernel=3)

    assert module.primary.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert module.primary.bias is not None
    assert not module.primary.bias.any()


class ScaledConv2d(nn.Conv2d):
    """A subclass with weight standardisation and a gain for each map."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1))
        self.register_buffer("offset", torch.rand(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) * self.gain + self.offset, self.bias)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_slim_subclass_computes_the_first_maps_of_each_group(groups: int) -> None:
    conv = ScaledConv2d(4, 12, 3, groups=groups)
    x = torch.randn(1, 4, 6, 6)
    kept = [0, 1, 2, 3, 4, 5] if groups == 1 else [0, 1, 2, 6, 7, 8]

    small = slim(conv, 6)

    assert type(small) is ScaledConv2d
    assert torch.allclose(small(x), conv(x)[:, kept], atol=1e-6)


def test_the_primary_convolution_keeps_its_class() -> None:
    module = GhostModule.from_conv(ScaledConv2d(4, 12, 3), GhostSpec())

    assert type(module.primary) is ScaledConv2d
    assert module.primary.gain.shape == (6, 1, 1, 1)
    assert "primary=ScaledConv2d" in repr(module)


def test_an_unbatched_image_works_as_for_a_convolution() -> None:
    module = GhostModule(3, 8, 3, ratio=4, kernel=1)
    image = torch.randn(3, 8, 8)

    assert torch.allclose(module(image), module(image[None])[0], atol=1e-6)


MODULES = [
    pytest.param({"ratio": 2, "kernel": 3}, id="s2d3"),
    pytest.param({"ratio": 3, "kernel": 1}, id="s3d1"),
    pytest.param({"ratio": 4, "kernel": 5, "bias": False}, id="s4d5"),
    pytest.param({"ratio": 3, "mixed": (1, 5)}, id="s3d1+5"),
    pytest.param({"ratio": 3, "cheap": "shift", "bias": False}, id="s3shift"),
    pytest.param({"ratio": 2, "cheap": "affine", "bias": False}, id="s2affine"),
]


@pytest.mark.parametrize("settings", MODULES)
class TestUnderTorch:
    """Each module gives the same values in each of torch's ways to run one."""

    def made(self, settings: dict[str, Any]) -> tuple[GhostModule, Tensor, Tensor]:
        torch.manual_seed(0)
        module = GhostModule(6, 10, 3, padding=1, **settings).eval()
        x = torch.randn(2, 6, 8, 8)
        return module, x, module(x).detach()

    def test_autocast(self, settings: dict[str, Any]) -> None:
        module, x, expected = self.made(settings)

        with torch.autocast("cpu", torch.bfloat16):
            found = module(x)

        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.float(), expected, atol=0.1, rtol=0.05)

    def test_channels_last(self, settings: dict[str, Any]) -> None:
        module, x, expected = self.made(settings)

        found = module.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )

        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(found, expected, atol=1e-5)

    def test_export(self, settings: dict[str, Any]) -> None:
        module, x, expected = self.made(settings)
        batch = torch.export.Dim("batch", min=2, max=64)

        program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
        found = program.module()(torch.cat([x, x, x]))

        assert torch.allclose(found, torch.cat([expected] * 3), atol=1e-5)

    def test_torchscript_trace(self, settings: dict[str, Any]) -> None:
        module, x, expected = self.made(settings)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of TorchScript
            traced = torch.jit.trace(module, x)

        assert torch.allclose(traced(x), expected, atol=1e-5)

    def test_compile(self, settings: dict[str, Any]) -> None:
        """With the eager backend: the graph is captured whole, no compiler is needed."""
        module, x, expected = self.made(settings)
        torch.compiler.reset()

        found = torch.compile(module, backend="eager", fullgraph=True)(x)

        assert torch.allclose(found, expected, atol=1e-5)

    def test_deep_copy_and_half(self, settings: dict[str, Any]) -> None:
        module, x, expected = self.made(settings)

        found = copy.deepcopy(module).to(torch.bfloat16)(x.to(torch.bfloat16))

        assert torch.allclose(found.float(), expected, atol=0.1, rtol=0.05)


def test_distributed_data_parallel_finds_every_parameter_used() -> None:
    """Without find_unused_parameters, a parameter that gets no gradient is an error there."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(GhostModule(3, 10, 3, ratio=4, kernel=3))
        for _ in range(2):
            parallel(torch.randn(2, 3, 8, 8)).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()

    assert all(parameter.grad is not None for parameter in parallel.parameters())


def test_an_order_puts_the_maps_where_it_says() -> None:
    module = GhostModule(3, 7, 3, padding=1, ratio=3)
    x = torch.randn(2, 3, 5, 5)
    made = module(x)
    order = torch.randperm(7)

    module.reorder(order)

    assert torch.equal(module(x), made[:, order])
    assert torch.allclose(module(x[0]), made[0][order], atol=1e-6)
    module.reorder(None)
    assert torch.equal(module(x), made)
    assert "order" not in module.state_dict()


def test_an_order_is_part_of_the_state() -> None:
    module = GhostModule(3, 6, 1)
    module.reorder(torch.tensor([5, 4, 3, 2, 1, 0], dtype=torch.int32))

    assert module.state_dict()["order"].dtype == torch.int64
    copied = copy.deepcopy(module)
    x = torch.randn(1, 3, 2, 2)
    assert torch.equal(copied(x), module(x))
    assert [name for name, _ in module.named_parameters()] == [
        name for name, _ in GhostModule(3, 6, 1).named_parameters()
    ]


@pytest.mark.parametrize(
    "order", [[0, 1, 2], [0, 1, 2, 3, 4, 4], [1, 2, 3, 4, 5, 6], [[0, 1, 2], [3, 4, 5]]]
)
def test_an_order_names_each_map_once(order: list[Any]) -> None:
    module = GhostModule(3, 6, 1)

    with pytest.raises(SpecError, match=r"GhostModule\.order must name each of its 6 maps once"):
        module.reorder(torch.tensor(order))
    assert module.order is None
