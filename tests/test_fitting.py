"""A fit as users ask for it: by ``convert(..., calibration=...)``, on networks of every kind."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ghostify
from ghostify.errors import GhostifyError, InputError, ModelError, SpecError, WeightsError
from ghostify.graph.calibrate import FitOptions
from ghostify.graph.probe import tensors_of
from ghostify.graph.rewrite import Conversion
from ghostify.graph.synthetic import dead_leaves
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule
from tests.graph.networks import (
    Asymmetric,
    Auxiliary,
    Branching,
    ByShape,
    Functional,
    Shared,
    Tied,
    plain,
)

FEW = FitOptions(block_steps=3, joint_steps=3)
ALGEBRA = FitOptions(block_steps=0, joint_steps=0)


def leaves(count: int, side: int = 16, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return dead_leaves(count, (3, side, side), generator=generator)


def settled(model: nn.Module, images: Tensor) -> nn.Module:
    """Let batch norms keep what they see, as if the network had been trained."""
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
        for _ in range(20):
            model(images)
    return model.eval()


def answers(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return tensors_of(model(images.clone()))


def relative_miss(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    ours, theirs = answers(one, images)[0], answers(other, images)[0]
    return float((ours - theirs).square().mean() / theirs.var(correction=0))


# True ghosts -------------------------------------------------------------------------------------


def make_ghosts(conv: nn.Conv2d, ratio: int, kernel: int) -> None:
    """Let a conv's maps really be ghosts of a few of them, in some order.

    Inside its 5x5 filters are 3x3 ones in a frame of zeros, so that a 3x3 filter of a map is
    a 5x5 convolution too; an input framed by zeros makes the borders agree.
    """
    maps = conv.out_channels
    count = -(-maps // ratio)
    with torch.no_grad():
        own = torch.randn(count, conv.in_channels, 3, 3)
        made = [functional.pad(own, (1, 1, 1, 1))]
        for start in range(count, maps, count):
            some = own[: min(count, maps - start)]
            if kernel == 1:
                made.append(functional.pad(some, (1, 1, 1, 1)) * torch.randn(len(some), 1, 1, 1))
                continue
            filters = torch.randn(len(some), 1, 3, 3)
            made += [
                functional.conv2d(one[:, None], filters[k, None], padding=2).transpose(0, 1)
                for k, one in enumerate(some)
            ]
        conv.weight.copy_(torch.cat(made)[torch.randperm(maps)])


@pytest.mark.parametrize(
    ("ratio", "kernel", "norm", "bias"),
    [
        (2, 3, True, False),
        (2, 3, True, True),
        (2, 3, False, True),
        (2, 3, False, False),
        (3, 3, True, False),
        (4, 3, False, True),
        (4, 3, True, False),
        (2, 1, True, False),
        (2, 1, True, True),
        (3, 1, False, True),
        (3, 1, False, False),
    ],
)
def test_true_ghosts_are_recovered(ratio: int, kernel: int, norm: bool, bias: bool) -> None:
    torch.manual_seed(ratio)
    maps = 13 if ratio == 3 else 12
    conv = nn.Conv2d(6, maps, 5, padding=2, bias=bias)
    make_ghosts(conv, ratio, kernel)
    if bias and kernel > 1:  # a filtered bias is no bias at the borders
        nn.init.zeros_(conv.bias)
    between = nn.BatchNorm2d(maps) if norm else nn.Identity()
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ZeroPad2d(4), conv, between, nn.ReLU(),
        nn.Conv2d(maps, 5, 1), nn.AdaptiveAvgPool2d(3),
    )  # fmt: skip
    images = leaves(48)
    settled(model, images)

    conversion = ghostify.convert(
        model, example=images[:1], ratio=ratio, kernel=kernel, keep=["6"],
        calibration=[images], fit=ALGEBRA,
    )  # fmt: skip

    held_back = leaves(8, seed=9)
    assert relative_miss(conversion.model, model, held_back) ** 0.5 < 1e-5


def test_a_conv_with_a_bias_behind_which_nothing_is_known_loses_its_mean_error() -> None:
    """No batch norm: the biases of primary and branches take the offsets."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 11, 3, padding=1)).eval()
    nn.init.normal_(model[2].bias, std=3.0)
    images = leaves(32)

    conversion = ghostify.convert(
        model, example=images[:1], ratio=3, calibration=[images], fit=ALGEBRA
    )

    miss = answers(conversion.model, images)[0] - answers(model, images)[0]
    assert miss.mean((0, 2, 3)).abs().max() < 1e-3


def test_a_batch_norm_behind_takes_the_offsets_and_keeps_its_variance() -> None:
    images = leaves(32)
    torch.manual_seed(0)
    model = settled(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12)),
        images,
    )

    conversion = ghostify.convert(model, example=images[:1], calibration=[images], fit=ALGEBRA)

    miss = answers(conversion.model, images)[0] - answers(model, images)[0]
    assert miss.mean((0, 2, 3)).abs().max() < 1e-3
    assert torch.equal(conversion.model[3].running_var, model[3].running_var)


# More images, other batches, less memory ---------------------------------------------------------


def small_resnet() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
            self.na, self.nb = nn.BatchNorm2d(12), nn.BatchNorm2d(12)

        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(x + self.nb(self.b(functional.relu_(self.na(self.a(x))))))

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), Block(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def fitted(images: Tensor, size: int = 64, **options: Any) -> tuple[nn.Module, Conversion]:
    model = settled(small_resnet(), leaves(64, seed=3))
    conversion = ghostify.convert(
        model, example=images[:1], calibration=images.split(size), fit=FitOptions(**options)
    )
    return model, conversion


def test_more_images_never_raise_the_held_back_error_by_more_than_noise() -> None:
    """Two draws for each number of images; between 8 and 256 the error hardly falls any more."""
    held_back = leaves(64, seed=77)
    errors = []
    for count in (2, 8, 64):
        misses = []
        for seed in (100, 101):
            images = leaves(count, seed=seed)
            model, conversion = fitted(images, block_steps=0, joint_steps=0)
            misses.append(relative_miss(conversion.model, model, held_back))
        errors.append(sum(misses) / 2)

    for fewer, more in itertools.pairwise(errors):
        assert more < 1.2 * fewer
    assert errors[-1] < 0.2


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_result_does_not_depend_on_the_batch_size_of_the_stream() -> None:
    images = leaves(80)
    results = [
        state_of(fitted(images, size, block_steps=4, joint_steps=4)[1].model) for size in (1, 7, 64)
    ]

    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("last", [False, True])
def test_the_result_does_not_depend_on_where_activations_are_kept(
    last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no memory allowed, all is spilled, into files that are gone again."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    images = leaves(70)
    if last:
        images = images.to(memory_format=torch.channels_last)
    held = state_of(fitted(images, block_steps=4, joint_steps=4)[1].model)
    spilled = state_of(fitted(images, block_steps=4, joint_steps=4, memory_bytes=0)[1].model)

    assert same(held, spilled)
    assert list(tmp_path.iterdir()) == []


def test_another_seed_takes_other_steps() -> None:
    images = leaves(130, 8)
    one, same_again, other = (
        state_of(fitted(images, block_steps=6, joint_steps=0, seed=seed)[1].model)
        for seed in (0, 0, 1)
    )

    assert same(one, same_again)
    assert not same(one, other)


def test_a_fit_is_far_better_than_a_random_start_and_steps_make_it_better_still() -> None:
    images, held_back = leaves(64), leaves(32, seed=77)
    model, algebra = fitted(images, block_steps=0, joint_steps=0)
    _, stepped = fitted(images, block_steps=30, joint_steps=40)
    random = ghostify.convert(model, example=images[:1])

    errors = [relative_miss(one.model, model, held_back) for one in (random, algebra, stepped)]

    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < errors[1]


# Networks of every kind --------------------------------------------------------------------------


class Watched:
    """Everything of a network that a fit must leave as it was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state = state_of(model)
        self.modes = [module.training for module in model.modules()]
        self.asked = [parameter.requires_grad for parameter in model.parameters()]
        self.hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        self.names = [name for name, _ in model.named_modules()]

    def check(self) -> None:
        assert same(self.state, state_of(self.model))
        assert self.modes == [module.training for module in self.model.modules()]
        assert self.asked == [parameter.requires_grad for parameter in self.model.parameters()]
        assert all(parameter.grad is None for parameter in self.model.parameters())
        assert self.names == [name for name, _ in self.model.named_modules()]
        assert self.hooks == [
            len(m._forward_hooks) + len(m._forward_pre_hooks) for m in self.model.modules()
        ]


def survives(
    model: nn.Module, images: Tensor | None = None, *, count: int = 4, **settings: Any
) -> Conversion:
    """Convert with a short fit; check all that holds for every network."""
    images = torch.randn(count, 3, 16, 16) if images is None else images
    before = Watched(model)
    random = torch.random.get_rng_state()

    conversion = ghostify.convert(
        model, example=images[:1], calibration=[images], fit=FEW, **settings
    )

    before.check()
    assert torch.equal(random, torch.random.get_rng_state())
    converted = conversion.model
    assert [module.training for _, module in converted.named_modules() if _ in before.names] == (
        before.modes
    )
    assert all(one.requires_grad for one in converted.parameters()) is all(before.asked)
    assert all(value.isfinite().all() for value in converted.state_dict().values())
    training = model.training
    ours, theirs = answers(converted.eval(), images), answers(model.eval(), images)
    model.train(training)
    assert [one.shape for one in ours] == [one.shape for one in theirs]
    assert all(one.isfinite().all() for one in ours)
    assert conversion.history[-1]["kind"] == "fit"
    assert conversion.history[-1]["images"] == len(images)
    return conversion


class ByValue(nn.Module):
    """One of its layers is never reached by images as dark as these."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dark = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bright = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dark(self.stem(x))
        return self.bright(y) if float(x.mean()) > 100 else y


class NoOffset(nn.Module):
    """Neither bias nor batch norm behind: layers that divide by a spread instead."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, bias=False)
        self.norm, self.body = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, bias=False)
        self.last = nn.InstanceNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.norm(self.stem(x)).relu()))


class NormTwice(nn.Module):
    """A convolution and its batch norm that run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.norm(self.body(self.norm(self.body(x)).relu()))


class TiedBiases(nn.Module):
    """Two convolutions with one weight, and a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.fine, self.coarse = (nn.Conv2d(8, 8, 3, stride=s, padding=1) for s in (1, 2))
        self.coarse.weight = self.fine.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.fine(x), self.coarse(x)


class Outputs(nn.Module):
    """Gives numbers, names, nothing and whole numbers beside its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.body(self.stem(x))
        return {"maps": y, "best": y.argmax(1), "all": [y, (y, None)], "side": 4, "name": "x"}


class Labels(nn.Module):
    """Gives whole numbers only: nothing by which a gradient could be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x)).argmax(1)


def with_layers(kind: str) -> nn.Module:
    timm = import_beside_torchvision("timm.layers")
    misc = import_beside_torchvision("torchvision.ops.misc")
    conv: nn.Module = {
        "standardised": lambda: timm.ScaledStdConv2d(8, 8, 3, padding=1),
        "same": lambda: timm.Conv2dSame(8, 8, 3, stride=2),
    }.get(kind, lambda: nn.Conv2d(8, 8, 3, padding=1, bias=kind == "bias"))()
    norm: nn.Module = {
        "frozen": lambda: misc.FrozenBatchNorm2d(8),
        "act": lambda: timm.BatchNormAct2d(8),
        "no affine": lambda: nn.BatchNorm2d(8, affine=False),
        "no statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    }.get(kind, lambda: nn.Identity())()
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), conv, norm, nn.Dropout(0.5), nn.Conv2d(8, 4, 1)
    )


KINDS = ["standardised", "same", "bias", "frozen", "act", "no affine", "no statistics", "plain"]
NETWORKS: list[Callable[[], nn.Module]] = [
    plain, Branching, ByShape, ByValue, Shared, Tied, TiedBiases, Auxiliary, NoOffset, NormTwice,
    Outputs, Labels,
]  # fmt: skip


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_odd_networks_are_fitted(make: Callable[[], nn.Module], training: bool) -> None:
    survives(make().train(training), verify=make is not Labels)


def test_a_network_that_convolves_by_function_is_fitted() -> None:
    survives(Functional(), convert_all=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [2, 3])
def test_layers_of_every_kind_are_fitted(kind: str, ratio: int) -> None:
    conversion = survives(with_layers(kind), ratio=ratio, keep=["5"])

    assert conversion.history[-1]["layers"][0]["error"] < 1


def test_a_subclass_that_cannot_be_converted_is_kept_and_the_rest_fitted() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Asymmetric(8, 8, 3), nn.Conv2d(8, 8, 3))

    conversion = survives(model)

    assert [one.name for one in conversion.replaced] == ["2"]


def test_one_image_will_do() -> None:
    survives(settled(small_resnet(), leaves(8)), torch.randn(1, 3, 16, 16))


def test_images_that_are_all_alike_will_do() -> None:
    for images in (torch.zeros(4, 3, 16, 16), torch.ones(4, 3, 16, 16) * 7):
        survives(settled(small_resnet(), leaves(8)), images)


def test_a_dead_map_will_do() -> None:
    model = settled(small_resnet(), leaves(8))
    with torch.no_grad():
        model[3].a.weight[3:5] = 0
        model[3].na.weight[1] = 0
        model[3].na.bias[7] = -1000
        model[4].weight[:, :6] = 0

    survives(model)


def test_double_precision_is_kept() -> None:
    conversion = survives(plain().double(), torch.randn(4, 3, 16, 16).double())

    assert {one.dtype for one in conversion.model.parameters()} == {torch.float64}


def test_single_precision_images_do_for_a_network_in_double_precision() -> None:
    model = plain().double()

    ghostify.convert(
        model, input_size=(3, 16, 16), calibration=[torch.randn(4, 3, 16, 16)], fit=FEW
    )


def test_frozen_parameters_stay_frozen_in_name() -> None:
    model = plain()
    for parameter in model[3].parameters():
        parameter.requires_grad_(False)

    conversion = ghostify.convert(
        model, example=torch.randn(1, 3, 16, 16), calibration=[torch.randn(4, 3, 16, 16)], fit=FEW
    )

    without = ghostify.convert(model, example=torch.randn(1, 3, 16, 16))
    assert [one.requires_grad for one in conversion.model.parameters()] == [
        one.requires_grad for one in without.model.parameters()
    ]


def test_hooks_that_watch_are_kept_and_hear_nothing_of_the_fit() -> None:
    heard: list[str] = []
    model = plain()

    def listen(_module: nn.Module, _inputs: object, _output: object) -> None:
        heard.append("called")

    model[3].register_forward_hook(listen)
    model[1].register_forward_hook(listen)

    conversion = survives(model)

    fitting = len(heard)
    answers(conversion.model, torch.randn(1, 3, 16, 16))
    assert fitting <= 4  # of ``survives`` itself: two answers
    assert len(heard) == fitting + 2


def test_a_fit_runs_in_no_grad() -> None:
    with torch.no_grad():
        survives(plain())


def test_a_network_without_batch_norm_and_bias_keeps_its_keys() -> None:
    conversion = survives(NoOffset())

    ghost = conversion.model.body
    assert isinstance(ghost, GhostModule)
    assert ghost.primary.bias is None
    assert {key.rpartition(".")[2] for key in ghost.state_dict()} == {"weight", "order"}


# What can be wrong -------------------------------------------------------------------------------


def refused(error: type[GhostifyError], model: nn.Module, calibration: Any, **more: Any) -> str:
    before = Watched(model)
    with pytest.raises(error) as caught:
        ghostify.convert(
            model, example=torch.randn(1, 3, 16, 16).to(next(model.parameters()).dtype),
            calibration=calibration, **{"fit": FEW} | more,
        )  # fmt: skip
    before.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_images_at_all() -> None:
    for nothing in ([], iter([]), [torch.zeros(0, 3, 16, 16)]):
        assert refused(InputError, plain(), nothing) == (
            "there are no calibration images; give some"
        )


def test_something_that_is_no_set_of_images() -> None:
    assert "got 'synthetics'" in refused(InputError, plain(), "synthetics")
    assert "calibration" in refused(InputError, plain(), 5)
    assert "got str" in refused(InputError, plain(), ["image.png"])


def test_one_tensor_is_one_batch() -> None:
    ghostify.convert(
        plain(), input_size=(3, 16, 16), calibration=torch.randn(4, 3, 16, 16), fit=FEW
    )


def test_a_generator_gives_images_too() -> None:
    def batches() -> Iterator[Tensor]:
        for _ in range(3):
            yield torch.randn(2, 3, 16, 16)

    calibration: Iterable[Tensor] = batches()
    conversion = ghostify.convert(plain(), input_size=(3, 16, 16), calibration=calibration, fit=FEW)

    assert conversion.history[-1]["images"] == 6


def test_wrong_channels_and_a_wrong_size() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 144, 4)
    )
    for shape, name in (((2, 1, 16, 16), "1x16x16"), ((2, 3, 20, 16), "3x20x16")):
        message = refused(InputError, model, [torch.randn(*shape)])
        assert message.startswith(f"the network does not take calibration images of {name} (")
        assert message.endswith("choose their size and channels to fit it")


def test_bytes_and_shapes_that_differ() -> None:
    bytes_ = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    assert "got torch.uint8 of shape" in refused(InputError, plain(), [bytes_])
    mixed = [torch.randn(64, 3, 16, 16), torch.randn(64, 3, 18, 16)]
    assert "differ in shape (3x16x16, 3x18x16)" in refused(InputError, plain(), mixed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    message = refused(ModelError, plain().to(dtype), [torch.randn(2, 3, 16, 16)], verify=False)

    assert message == f"a fit needs weights in float32 (got {dtype}); call .float() first"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_and_images_that_are_not_finite(value: float) -> None:
    model = plain()
    images = torch.randn(4, 3, 16, 16)
    images[1, 2, 3, 4] = value
    assert "not finite" in refused(InputError, model, [images])
    with torch.no_grad():
        model[3].weight[1, 2, 0, 0] = value
    with pytest.raises(WeightsError, match=r"3\.weight holds values that are not finite"):
        ghostify.convert(
            model, example=images[:1], calibration=[torch.randn(4, 3, 16, 16)], fit=FEW
        )


def test_activations_that_are_too_large_are_named() -> None:
    model = plain()
    with torch.no_grad():
        model[0].weight.fill_(1e30)
        model[1].running_var.fill_(1e-30)
        model[1].weight.fill_(1e30)

    message = refused(WeightsError, model, [torch.randn(4, 3, 16, 16)], verify=False)

    assert message == "3 gives values that are not finite; use sound weights and images"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_steps": -1}, "FitOptions.block_steps is a whole number >= 0 (got -1)"),
        ({"joint_steps": -1}, "FitOptions.joint_steps is a whole number >= 0 (got -1)"),
        ({"joint_steps": 1.5}, "FitOptions.joint_steps is a whole number >= 0 (got 1.5)"),
        ({"positions": 0}, "FitOptions.positions is a whole number >= 1 (got 0)"),
        ({"rounds": True}, "FitOptions.rounds is a whole number >= 0 (got True)"),
        ({"rate": 0.0}, "FitOptions.rate must be above 0 (got 0.0)"),
        ({"rate": float("nan")}, "FitOptions.rate must be above 0 (got nan)"),
        ({"memory_bytes": -5}, "FitOptions.memory_bytes is a whole number >= 0 (got -5)"),
        ({"seed": -1}, "FitOptions.seed is a whole number >= 0 (got -1)"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        FitOptions(**options)

    assert str(caught.value) == message


def test_synthetic_images_need_a_size() -> None:
    message = refused(InputError, plain(), "synthetic")

    assert message == "synthetic images need the network's input size; give it as C, H, W"


# Without images ----------------------------------------------------------------------------------


def test_synthetic_images_serve_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from ghostify import fitting

    monkeypatch.setattr(fitting, "_SMALL", 64)
    monkeypatch.setattr(fitting, "_STEPS", 8)
    model = settled(small_resnet(), leaves(64, seed=3))
    model.input_size = (3, 16, 16)
    before = Watched(model)
    told: list[tuple[int, int, str]] = []

    conversion = ghostify.convert(
        model, calibration="synthetic", fit=ALGEBRA, on_fit=lambda *at: told.append(at)
    )

    before.check()
    random = ghostify.convert(model)
    held_back = leaves(64, seed=77)
    assert relative_miss(conversion.model, model, held_back) < 0.7 * relative_miss(
        random.model, model, held_back
    )
    assert conversion.history[-1]["data"] == {"synthetic": True}
    assert "synthetic images, which is clearly worse than real ones" in conversion.notes[-1]
    assert {what for _, _, what in told} >= {"making images"}
    assert all(0 <= done <= of for done, of, _ in told)


# The record --------------------------------------------------------------------------------------


def test_the_record_tells_what_was_done() -> None:
    images = leaves(16)
    model = settled(small_resnet(), images)
    told: list[tuple[int, int, str]] = []

    conversion = ghostify.convert(
        model, example=images[:1], calibration=[images], fit=FEW,
        calibration_data={"name": "leaves"}, on_fit=lambda *at: told.append(at),
    )  # fmt: skip

    entry = conversion.history[-1]
    assert [one["name"] for one in entry["layers"]] == ["3.a", "3.b", "4"]
    for one in entry["layers"]:
        assert 0 <= one["error"] <= one["start_error"] < 1
    assert [one["layers"] for one in entry["blocks"]] == [("3.a", "3.b"), ("4",)]
    assert entry["joint"]["layers"] == ("3.a", "3.b", "4")
    assert entry["data"] == {"name": "leaves"}
    assert entry["options"]["block_steps"] == 3
    assert entry["copies"] == []
    assert {"3", "3.b", "3.nb", "1"} <= set(entry["permuted"])
    assert entry["original_permuted"] is True
    assert entry["what"] in conversion.notes
    assert told
    assert all(0 <= done <= of for done, of, _ in told)
    assert [what for _, _, what in told][:2] == ["3.a", "3.b"]


def test_the_kept_original_computes_the_same_with_its_maps_in_the_new_places() -> None:
    images = leaves(8)
    model = settled(small_resnet(), images)
    conversion = ghostify.convert(
        model, example=images[:1], calibration=[images], fit=ALGEBRA, convert_all=True
    )

    assert conversion.original is not None
    assert not same(dict(conversion.original), state_of(model))
    moved = copy.deepcopy(model).eval()
    moved.load_state_dict(dict(conversion.original))
    with torch.no_grad():
        torch.testing.assert_close(moved(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_copies_are_counted() -> None:
    images = leaves(8)
    conversion = ghostify.convert(
        settled(small_resnet(), images), example=images[:1], calibration=[images],
        fit=dataclasses.replace(ALGEBRA, stream_order="own"), convert_all=True,
    )  # fmt: skip

    assert conversion.after is not None
    sizes = {"0": 12 * 16 * 16, "3.b": 12 * 16 * 16, "4": 16 * 8 * 8}
    copies = conversion.history[-1]["copies"]
    assert copies == ["0", "3.b"]
    assert conversion.after.copied == sum(sizes[name] for name in copies)
    for name in sizes:
        assert (conversion.model.get_submodule(name).order is not None) is (name in copies)
