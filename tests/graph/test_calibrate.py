"""The order of a fit, the weights of its errors, and what it reports."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostify.graph import calibrate as rooms
from ghostify.graph.calibrate import FitOptions, calibrate
from ghostify.graph.layer_fit import importance
from ghostify.graph.rewrite import rewrite
from ghostify.graph.synthetic import dead_leaves
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.spec import GhostSpec

ALGEBRA = FitOptions(block_steps=0, joint_steps=0)


def test_importance_is_that_of_the_batch_norm_behind() -> None:
    norm = nn.BatchNorm2d(3, eps=0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.0]))
        norm.running_var.copy_(torch.tensor([0.5, 3.5, 1.0]))

    assert importance(norm, 3, torch.zeros(1)).tolist() == [1.0, 1.0, 0.0]
    assert importance(None, 3, torch.zeros(1)).tolist() == [1.0, 1.0, 1.0]
    bare = nn.BatchNorm2d(2, affine=False, eps=1.0)
    assert importance(bare, 2, torch.zeros(1)).tolist() == [0.5, 0.5]
    frozen = import_beside_torchvision("torchvision.ops.misc").FrozenBatchNorm2d(2, eps=1.0)
    assert importance(frozen, 2, torch.zeros(1)).tolist() == [0.5, 0.5]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Conv2d(8, 8, 3),
    )  # fmt: skip


def test_layers_are_fitted_one_after_another_on_what_the_fitted_ones_give() -> None:
    """The second layer alone, on the fitted first one's output, gives the same weights.

    Behind the first is a norm over several maps, which leaves them in their places.
    """
    images = dead_leaves(16, (3, 12, 12), generator=torch.Generator().manual_seed(0))
    original = net().eval()
    original[3] = nn.GroupNorm(2, 8)
    plan = Plan({"2": GhostSpec(2, 3), "5": GhostSpec(2, 3)})
    whole = rewrite(original, plan).model
    calibrate(original, whole, ["2", "5"], [images], options=ALGEBRA)
    halves = rewrite(original, plan).model
    first = calibrate(original, halves, ["2"], [images], options=ALGEBRA)
    second = calibrate(original, halves, ["5"], [images], options=ALGEBRA)

    with torch.no_grad():
        assert torch.allclose(whole.eval()(images), halves.eval()(images), atol=1e-4)
    assert [one.name for one in (*first.layers, *second.layers)] == ["2", "5"]


def test_the_reported_error_is_the_weighted_miss_of_the_layer() -> None:
    images = dead_leaves(16, (3, 12, 12), generator=torch.Generator().manual_seed(0))
    original = net().eval()
    with torch.no_grad():
        original[3].weight.uniform_(0.5, 2)
        original[3].running_var.uniform_(0.5, 2)
    converted = rewrite(original, Plan({"2": GhostSpec(2, 3)})).model.eval()

    report = calibrate(original, converted, ["2"], [images], options=ALGEBRA)

    with torch.no_grad():  # behind the batch norm, which weighs the maps
        wanted, found = original[:4](images), converted[:4](images)
    if converted[2].order is None:  # the maps may stand in another order before the last layer
        with torch.no_grad():
            last = original(images), converted.eval()(images)
        assert float((last[0] - last[1]).var() / last[0].var()) < 1
    else:
        miss = (found - wanted).var((0, 2, 3), correction=0).sum()
        whole = wanted.var((0, 2, 3), correction=0).sum()
        assert abs(report.layers[0].error - float(miss / whole)) < 1e-3
    assert 0 < report.layers[0].error <= report.layers[0].start_error < 1
    assert report.images == 16
    assert report.blocks == ()
    assert report.joint is None


def test_layers_that_are_no_ghost_modules_only_say_where_blocks_begin() -> None:
    images = torch.randn(8, 3, 12, 12)
    original = net().eval()
    converted = rewrite(original, Plan({"5": GhostSpec(2, 3)})).model

    report = calibrate(
        original, converted, ["0", "2", "5"], [images], options=FitOptions(block_steps=2)
    )

    assert [one.name for one in report.layers] == ["5"]
    assert [one.layers for one in report.blocks] == [("0",), ("2",), ("5",)]
    assert isinstance(converted[5], GhostModule)


def test_more_rounds_of_the_algebra_never_make_a_layer_worse() -> None:
    images = dead_leaves(16, (3, 12, 12), generator=torch.Generator().manual_seed(0))
    errors = []
    for rounds in (0, 1, 4):
        original = net().eval()
        converted = rewrite(original, Plan({"2": GhostSpec(3, 3)})).model
        options = FitOptions(block_steps=0, joint_steps=0, rounds=rounds)
        report = calibrate(original, converted, ["2"], [images], options=options)
        errors.append(report.layers[0].error)

    assert errors[2] <= errors[1] + 1e-6
    assert errors[1] < errors[0]


def test_how_many_joint_steps_there_are_goes_by_what_one_costs() -> None:
    """As many as the work pays for, by hand arithmetic, between the least and the most."""
    images = dead_leaves(16, (3, 12, 12), generator=torch.Generator().manual_seed(0))
    original = net().eval()
    plan = Plan({"2": GhostSpec(2, 3), "5": GhostSpec(2, 3)})
    macs = 3 * 8 * 9 * 100 + 8 * 8 * 9 * 64 + 8 * 8 * 9 * 36  # of one image
    found = []
    for work in (650e9, 7 * 16 * macs + 16, 0.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rooms, "_JOINT_MACS", work)
            patch.setattr(rooms, "_JOINT_STEPS", (2, 20))
            converted = rewrite(original, plan).model
            report = calibrate(
                original, converted, ["2", "5"], [images], options=FitOptions(block_steps=0)
            )
        assert report.joint is not None
        found.append(report.joint.steps)

    assert found == [20, 7, 2]
