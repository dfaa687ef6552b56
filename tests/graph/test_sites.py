"""Every convolution that runs is found, with its shapes and whether it can be converted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from ghostify.errors import InputError
from ghostify.graph.probe import Probe, as_call
from ghostify.graph.sites import Sites, conv_shapes, find_sites
from ghostify.spec import ConvSite
from tests.graph import networks


def found_in(model: nn.Module, example: Any = None) -> Sites:
    example = torch.randn(1, 3, 16, 16) if example is None else example
    return find_sites(Probe(model, as_call(example)))


def by_name(model: nn.Module, example: Any = None) -> dict[str, ConvSite]:
    return {site.name: site for site in found_in(model, example).sites}


def test_a_site_tells_shapes_and_settings() -> None:
    sites = by_name(networks.plain())

    assert list(sites) == ["0", "3", "6"]
    last = sites["6"]
    assert (last.in_channels, last.out_channels, last.groups) == (16, 16, 2)
    assert (last.kernel, last.stride, last.dilation) == ((3, 3), (1, 1), (2, 2))
    assert (last.in_size, last.out_size, last.calls, last.pixels) == ((8, 8), (8, 8), 1, 64)
    assert last.eligible
    assert last.bias


def test_a_traceable_network_is_traced() -> None:
    found = found_in(networks.plain())

    assert found.graph is not None
    assert found.note == ""


def test_nothing_is_computed_and_the_model_is_left_as_it_was() -> None:
    """A fake pass over an image of a gigapixel takes no memory and no time."""
    model = networks.plain().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    huge = torch.zeros(1, 1, 1, 1).expand(1, 3, 2**15, 2**15)

    assert by_name(model, huge)["6"].out_size == (2**14, 2**14)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("model", [networks.Branching(), networks.ByShape()])
def test_what_cannot_be_traced_is_run_once_with_hooks_and_says_so(model: nn.Module) -> None:
    found = found_in(model)

    assert found.graph is None
    assert found.note.startswith("found by one run with hooks, since torch.fx cannot trace")
    assert next(site.name for site in found.sites if site.calls) == "stem"


def test_a_layer_on_the_way_not_taken_is_listed_last() -> None:
    sites = by_name(networks.Branching())

    assert sites["left"].eligible
    assert list(sites)[-1] == "right"
    assert sites["right"].reason == "does not run in eval mode"


def test_a_shared_convolution_is_one_site_with_all_its_calls() -> None:
    """Twice on 16x16 and once on 8x8."""
    tower = by_name(networks.Shared())["tower"]

    assert tower.calls == 3
    assert tower.pixels == 2 * 256 + 64
    assert tower.aliases == ("again",)


def test_convolutions_that_share_a_weight_know_each_other() -> None:
    sites = by_name(networks.Tied())

    assert sites["coarse"].tied_to == "fine"
    assert sites["fine"].tied_to == ""
    assert sites["fine"].aliases == ("coarse",)


def test_functional_calls_are_listed_with_their_settings() -> None:
    sites = by_name(networks.Functional())

    assert list(sites) == ["stem", "lender", "conv2d", "conv2d_2"]
    own = sites["conv2d_2"]
    assert (own.in_channels, own.out_channels, own.groups) == (8, 6, 2)
    assert (own.kernel, own.stride, own.dilation) == ((3, 3), (2, 2), (2, 2))
    assert own.reason == "functional call: its weight belongs to no Conv2d module"


def test_a_lent_weight_keeps_its_layer_from_being_converted() -> None:
    lender = by_name(networks.Functional())["lender"]

    assert lender.reason == "its weight is also used by a functional call"


def test_arguments_may_be_a_tuple_or_named() -> None:
    images = torch.randn(1, 3, 16, 16), torch.randn(1, 1, 16, 16)
    positional = found_in(networks.TwoInputs(), images)
    named = found_in(networks.TwoInputs(), {"image": images[0], "guide": images[1]})

    assert positional.graph is not None
    assert named.graph is not None
    assert [site.name for site in positional.sites] == ["image", "guide", "body", "masked"]
    assert [site.calls for site in positional.sites] == [1, 1, 1, 0]
    assert positional.sites == named.sites


def test_an_optional_argument_that_is_given_is_followed() -> None:
    images = torch.randn(1, 3, 16, 16), torch.randn(1, 1, 16, 16), torch.ones(1, 1, 16, 16)

    assert by_name(networks.TwoInputs(), images)["masked"].calls == 1


def test_a_list_of_images_is_one_argument() -> None:
    images = [torch.randn(3, 16, 16), torch.randn(3, 8, 8)]

    assert by_name(networks.ListInput(), images)["body"].pixels == 256 + 64


def test_other_kinds_of_convolution_are_listed_with_the_reason() -> None:
    sites = by_name(networks.Auxiliary())

    assert sites["up"].reason == "ConvTranspose2d: transposed convolution"
    assert sites["up"].macs == 256 * 8 * 4 * 4
    assert sites["aux"].reason == sites["dead"].reason == "does not run in eval mode"


def in_between(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), layer)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            networks.Asymmetric(8, 8, 3),
            "Asymmetric does not compute its output maps independently of each other",
        ),
        (
            parametrizations.weight_norm(nn.Conv2d(8, 8, 3)),
            "its weight is computed from others (weight_norm, pruning mask, ...): bake it in",
        ),
        (
            prune.l1_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5),
            "its weight is computed from others (weight_norm, pruning mask, ...): bake it in",
        ),
    ],
)
def test_a_layer_that_cannot_be_rebuilt_says_why(layer: nn.Module, reason: str) -> None:
    if hasattr(layer, "weight_mask"):
        layer.weight.detach_()  # pruning leaves a tensor that copy.deepcopy refuses
        layer.weight = layer.weight.detach()

    assert by_name(in_between(layer))["1"].reason == reason


def test_a_layer_with_more_than_one_argument_is_not_converted() -> None:
    class Styled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = networks.Modulated(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x, torch.ones(1))

    assert by_name(Styled())["conv"].reason == "Modulated takes more than its input"


@pytest.mark.parametrize(
    "shape", [(1, 4, 16, 16), (1, 3, 1, 1), (3, 3)], ids=["channels", "too small", "dimensions"]
)
def test_an_input_that_does_not_suit_is_one_sentence(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))

    with pytest.raises(InputError) as error:
        found_in(model, torch.randn(shape))

    assert str(error.value).startswith("Sequential cannot run on an input of shape ")
    assert "\n" not in str(error.value)


def test_an_example_without_a_tensor_is_refused() -> None:
    with pytest.raises(InputError, match="the example holds no tensor"):
        as_call("image.png")


def test_conv_shapes_are_those_of_the_weights() -> None:
    model = networks.plain()

    assert conv_shapes(model) == {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
