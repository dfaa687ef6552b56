"""Networks that do what nobody expects: converted, or kept with a reason that is true."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import ghostify
from ghostify.nn.ghost import GhostModule

IMAGE = torch.randn(1, 3, 16, 16)


def around(layer: nn.Module, channels: int = 8) -> nn.Sequential:
    """A stem, the layer, and a convolution behind it that can always be converted."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.ReLU(), nn.Conv2d(channels, 8, 3))


def converted(model: nn.Module, example: Any = IMAGE) -> dict[str, str]:
    """Convert; return the settings or the reason for each convolution."""
    conversion = ghostify.convert(model, example=example)
    spec = {one.name: f"s{one.ratio},d{one.kernel}" for one in conversion.replaced}
    return spec | {skip.name: skip.reason for skip in conversion.skipped}


COMPUTED = "its weight is computed from others (weight_norm, pruning mask, ...): bake it in"


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "pruned"])
def test_a_computed_weight_is_kept_and_the_rest_converted(kind: str) -> None:
    """Such modules hold tensors that copy.deepcopy refuses."""
    conv = nn.Conv2d(8, 8, 3)
    layer = {
        "weight_norm": nn.utils.weight_norm,
        "spectral_norm": nn.utils.spectral_norm,
        "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    }[kind](conv)
    model = around(layer)
    model(IMAGE)

    found = converted(model)

    assert found["1"] == COMPUTED
    assert found["3"] == "s2,d3"


class ScalarGain(nn.Conv2d):
    """A subclass with one parameter for all maps, one for each input map, and a bare bias."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.ones(()))
        self.scale = nn.Parameter(torch.rand(self.in_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale) * self.gain


class SubPixel(nn.Conv2d):
    """A subclass that gives other maps than it has."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(super().forward(x), 2)


class LowRank(nn.Conv2d):
    """A subclass that multiplies beside its convolution."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.a = nn.Parameter(torch.randn(self.out_channels, 2))
        self.b = nn.Parameter(torch.randn(2, self.in_channels * 9))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + (self.a @ self.b).view_as(self.weight)
        return functional.conv2d(x, weight, self.bias)


class Twice(nn.Conv2d):
    """A subclass that convolves two times."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(-x)


class Pair(nn.Conv2d):
    """A subclass that gives two tensors."""

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return out, out.mean()


class First(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] * pair[1]


@pytest.mark.parametrize(
    ("layer", "channels", "expected"),
    [
        (ScalarGain(8, 6, 3), 6, "s2,d3"),
        (SubPixel(8, 8, 3), 2, "SubPixel gives something else than its 8 output maps"),
        (LowRank(8, 6, 3), 6, "LowRank does more than one convolution"),
        (Twice(8, 8, 3), 8, "Twice does more than one convolution"),
        (nn.Sequential(Pair(8, 8, 3), First()), 8, "Pair gives more than one tensor"),
    ],
)
def test_a_subclass_is_converted_or_kept_with_a_true_reason(
    layer: nn.Module, channels: int, expected: str
) -> None:
    found = converted(around(layer, channels))

    assert found["1.0" if isinstance(layer, nn.Sequential) else "1"] == expected
    assert found["3"] == "s2,d3"


def test_a_forward_replaced_on_the_instance_keeps_the_layer() -> None:
    model = around(nn.Conv2d(8, 8, 3))
    original = model[1].forward
    model[1].forward = lambda x: 2 * original(x)

    assert converted(model)["1"] == "its forward was replaced on the instance"


def test_shared_biases_stay_shared_or_keep_the_layer() -> None:
    both, bias_only = (around(nn.Conv2d(8, 8, 3)) for _ in range(2))
    both[3].weight, both[3].bias = both[1].weight, both[1].bias
    bias_only[3].bias = bias_only[1].bias

    model = ghostify.convert(both, example=IMAGE).model

    assert model[3].cheap[0].bias is model[1].cheap[0].bias
    assert model[3].primary.bias is model[1].primary.bias
    with pytest.raises(ghostify.GhostifyError, match="shares its bias with"):
        ghostify.convert(bias_only, example=IMAGE)


class ByHook(nn.Module):
    """Reads its features from a hook, as extractors do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = around(nn.Conv2d(8, 8, 3))
        self.kept: dict[str, Tensor] = {}
        self.body[1].register_forward_hook(self.keep)

    def keep(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.kept["features"] = output

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.kept.pop("features")


def test_hooks_that_the_network_lives_on_are_run() -> None:
    model = ghostify.convert(ByHook(), example=IMAGE, rules={"body.3": None}).model

    assert model(IMAGE).shape == (1, 8, 12, 12)


def test_other_hooks_of_the_caller_are_not_run() -> None:
    model = around(nn.Conv2d(8, 8, 3))
    seen: list[Any] = []

    def watch(_module: nn.Module, args: Any, output: Any = None) -> None:
        seen.append((args, output))

    model[1].register_forward_pre_hook(watch)
    model[1].register_forward_hook(watch)

    result = ghostify.convert(model, example=IMAGE).model

    assert seen == []
    result(IMAGE)
    assert len(seen) == 2


def test_a_hook_that_changes_sizes_is_counted() -> None:
    model = around(nn.Conv2d(8, 8, 3))
    model[1].register_forward_hook(lambda _m, _a, out: functional.interpolate(out, scale_factor=2))
    with FlopCounterMode(display=False) as counter:
        model(IMAGE)

    assert ghostify.inspect(model, example=IMAGE).before.macs == counter.get_total_flops() // 2


class Batched(nn.Module):
    """Takes clips of four images, and nothing less."""

    def __init__(self) -> None:
        super().__init__()
        self.body = around(nn.Conv2d(8, 8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.view(-1, 4, *x.shape[1:]).flatten(0, 1)).unflatten(0, (-1, 4)).mean(1)


def test_a_network_that_wants_its_batch_whole_gets_it() -> None:
    conversion = ghostify.convert(Batched(), example=torch.randn(8, 3, 16, 16))

    assert len(conversion.replaced) == 2
    assert any("MACs are those of the whole batch" in note for note in conversion.notes)


def test_a_reference_to_the_original_is_said_to_be_one() -> None:
    class Closure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.run = lambda x: self.b(self.a(x))

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x)

    found = ghostify.inspect(Closure(), example=IMAGE)

    assert found.layers == ()
    assert found.sites[0].reason.startswith("runs through a reference to the original")


def test_memory_format_survives() -> None:
    model = around(nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last)

    ghost = ghostify.convert(model, example=IMAGE).model[1]

    assert isinstance(ghost, GhostModule)
    assert ghost.primary.weight.is_contiguous(memory_format=torch.channels_last)


def test_randomness_of_the_network_does_not_leak() -> None:
    model = nn.Sequential(around(nn.Conv2d(8, 8, 3)), nn.Dropout())
    torch.manual_seed(2)
    expected = torch.rand(2)
    torch.manual_seed(2)

    ghostify.convert(model, example=IMAGE)

    assert torch.equal(torch.rand(2), expected)


def test_the_mode_of_each_module_comes_back(tmp_path: Any) -> None:
    model = around(nn.BatchNorm2d(8)).train()
    model[1].eval()
    conversion = ghostify.convert(model, example=IMAGE)
    ghostify.save(conversion, tmp_path / "out")

    again = ghostify.load(tmp_path / "out", base=around(nn.BatchNorm2d(8)))

    assert [module.training for module in again] == [True, False, True, True]
