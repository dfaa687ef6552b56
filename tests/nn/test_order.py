import copy

import pytest
import torch
from torch import Tensor, nn

from ghostify.nn.ghost import GhostModule
from ghostify.nn.order import in_order

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 5, 1, 4), (2, 5, 1, 1)])
def test_maps_are_picked_as_torch_picks_them_and_keep_their_layout(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    maps = torch.rand(shape).contiguous(memory_format=layout)

    for order in (torch.tensor([3, 0, 4, 1, 2]), torch.tensor([4, 1])):
        found = in_order(maps, order)

        assert torch.equal(found, maps.index_select(1, order))
        assert found.is_contiguous(memory_format=layout)


def test_gradients_go_back_to_where_maps_came_from() -> None:
    order = torch.tensor([2, 0, 1])
    maps = torch.rand(2, 3, 2, 2, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()

    def picked(some: Tensor) -> Tensor:
        return in_order(some, order).sin()

    assert torch.autograd.gradcheck(picked, maps)
    assert torch.autograd.gradgradcheck(picked, maps)


def test_a_single_image_without_a_batch_and_a_batch_without_images_are_picked_from_too() -> None:
    maps, order = torch.rand(3, 4, 4), torch.tensor([1, 2, 0])

    assert torch.equal(in_order(maps, order), maps[order])
    assert in_order(torch.rand(0, 3, 4, 4), order).shape == (0, 3, 4, 4)


def test_transforms_and_exports_see_a_plain_operation() -> None:
    order = torch.tensor([1, 2, 0])
    maps = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    stacked = torch.rand(5, 2, 3, 4, 4)

    class Picks(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return in_order(maps, order)

    mapped = torch.func.vmap(lambda some: in_order(some, order))(stacked)
    exported = torch.export.export(Picks(), (maps,)).graph

    assert torch.equal(mapped, stacked[:, :, order])
    names = [node.target for node in exported.nodes if node.op == "call_function"]
    assert names == [torch.ops.aten.index_select.default]


@pytest.mark.parametrize("training", [False, True])
def test_a_module_with_an_order_keeps_channels_last(training: bool) -> None:
    torch.manual_seed(0)
    module = GhostModule(4, 6, 3, padding=1, ratio=2).train(training)
    module.reorder(torch.tensor([5, 0, 3, 1, 4, 2]))
    other = copy.deepcopy(module).to(memory_format=torch.channels_last)
    images = torch.rand(2, 4, 5, 5)
    turned = images.contiguous(memory_format=torch.channels_last)

    with torch.set_grad_enabled(training):
        expected, found = module(images), other(turned)

    assert expected.is_contiguous()
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
    if training:
        expected.sin().sum().backward()
        found.sin().sum().backward()
        for one, two in zip(module.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one.grad, two.grad)
