"""Plans that keep, ghost and prune: exact costs, and the whole way to an artefact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ghostify
from ghostify.cost.budget import Cost
from ghostify.cost.mixed import mixed_cost
from ghostify.errors import PlanError
from ghostify.graph.calibrate import FitOptions
from ghostify.graph.probe import Probe, as_call
from ghostify.graph.rewrite import rewrite
from ghostify.graph.sites import find_sites
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.pruners.groups import find_groups, prunables_of
from ghostify.pruners.planned import choose_maps
from ghostify.spec import GhostSpec, PruneSpec, parse_spec
from tests.pruners.networks import IMAGE, chain, residual

FEW = FitOptions(block_steps=20, joint_steps=5)
MIXED = {"a": PruneSpec(0.5), "b": GhostSpec(2, 3), "c": PruneSpec(0.25)}


def macs(model: nn.Module) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(IMAGE[:1])
    return int(counter.get_total_flops()) // 2


CHOICES = st.sampled_from([None, "s2,d3", "s3,d5", "p0.25", "p0.5", "p0.9"])


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(wide=CHOICES, narrow=st.sampled_from([None, "s2,d3"]), plain=CHOICES, stem=st.booleans())
def test_the_cost_of_any_mixture_is_exact(
    wide: str | None, narrow: str | None, plain: str | None, stem: bool
) -> None:
    model = residual()
    wishes = {"wide": wide, "narrow": narrow, "plain": plain, "stem": "s2,d3" if stem else None}
    plan = Plan({name: parse_spec(text) for name, text in wishes.items() if text})
    probe = Probe(model, as_call(IMAGE[:1]))
    sites = find_sites(probe).sites
    graph = find_groups(model, IMAGE[:1])
    params = sum(one.numel() for one in model.parameters())

    layers, after = mixed_cost(Cost(params, macs(model)), sites, plan.layers, prunables_of(graph))

    slices = choose_maps(model, plan.prunes, IMAGE[:1], graph=graph)
    converted = rewrite(model, plan, slices=slices).model.eval()
    assert after.macs == macs(converted)
    assert after.params == sum(one.numel() for one in converted.parameters())
    assert {layer.name for layer in layers} == set(plan.layers)


def test_the_least_filters_go() -> None:
    model = chain()

    slices = choose_maps(model, {"a": PruneSpec(0.5)}, IMAGE)

    norms = model.a.weight.detach().abs().sum((1, 2, 3))
    assert set(slices["a"].out or ()) == set(norms.topk(12).indices.tolist())
    assert slices["b"].reads == slices["a"].out


def test_a_mixed_plan_is_converted_saved_and_loaded(tmp_path: Path) -> None:
    model = chain()

    conversion = ghostify.convert(model, plan=Plan(MIXED), input_size=(3, 12, 12))

    assert conversion.after is not None
    assert conversion.after.macs == macs(conversion.model.eval())
    assert conversion.model.a.out_channels == 12
    assert isinstance(conversion.model.b, GhostModule)
    assert conversion.model.b.in_channels == 12
    assert conversion.model.head.in_features == 18
    ghostify.save(conversion, tmp_path / "out")
    loaded = ghostify.load(tmp_path / "out", base=chain(seed=5)).eval()
    assert torch.equal(loaded(IMAGE), conversion.model(IMAGE))
    page = (tmp_path / "out" / "summary.md").read_text()
    assert "| a | 24 | 12 |" in page
    assert "| c | pruned 0.25 |" in page


def test_a_fit_brings_a_mixed_network_closer_to_the_original() -> None:
    model = chain(maps=32)
    images = torch.randn(48, 3, 12, 12, generator=torch.Generator().manual_seed(2))

    def miss(one: nn.Module) -> float:
        with torch.no_grad():
            wanted = model(images)
            return float((one.eval()(images) - wanted).square().mean() / wanted.var())

    settings = {"plan": Plan(MIXED), "input_size": (3, 12, 12)}
    raw = ghostify.convert(model, **settings)  # type: ignore[arg-type]
    fitted = ghostify.convert(model, calibration=[images], fit=FEW, **settings)  # type: ignore[arg-type]

    assert miss(fitted.model) < 0.5 * miss(raw.model)
    assert fitted.history[-1]["kind"] == "fit"


def test_rewrite_does_not_guess_which_maps_go() -> None:
    with pytest.raises(PlanError, match="the plan prunes layers, and which maps go is not said"):
        rewrite(chain(), Plan(MIXED))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("stem", "its maps are added to others"),
        ("deep", "depthwise, its maps are its input's"),
    ],
)
def test_a_plan_cannot_prune_what_others_depend_on(layer: str, reason: str) -> None:
    plan = Plan({layer: PruneSpec(0.5)})

    with pytest.raises(PlanError) as caught:
        ghostify.convert(residual(), plan=plan, input_size=(3, 12, 12))

    assert str(caught.value) == (
        f"the plan asks for p0.5 at {layer}, which cannot be: {reason}; "
        "take the layer out of the plan"
    )


def test_only_faster_does_not_take_pruned_layers() -> None:
    with pytest.raises(PlanError, match="the plan prunes a, and what pruning saves"):
        ghostify.convert(chain(), plan=Plan(MIXED), input_size=(3, 12, 12), only_faster="eager")


def test_without_gradient_steps_images_decide_which_maps_go() -> None:
    """A map whose copy stays can go, however large its filter; by norms it would stay."""
    model = chain(maps=8)
    with torch.no_grad():
        for value in (model.a.weight, model.a_bn.weight, model.a_bn.bias):
            value[3] = value[5]
        model.a.weight[[3, 5]] *= 10
        model.a_bn.running_mean[3] = model.a_bn.running_mean[5]
        model.a_bn.running_var[[3, 5]] = 100 * model.a_bn.running_var[5]
    images = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(8))
    settings = {"plan": Plan({"a": PruneSpec(0.13)}), "input_size": (3, 12, 12)}

    solved = FitOptions(block_steps=0, joint_steps=0)
    seen = ghostify.convert(model, calibration=[images], fit=solved, **settings)  # type: ignore[arg-type]
    stepped = ghostify.convert(model, calibration=[images], fit=FEW, **settings)  # type: ignore[arg-type]

    assert len({3, 5} & set(seen.slices["a"].out or ())) == 1
    assert {3, 5} <= set(stepped.slices["a"].out or ())
