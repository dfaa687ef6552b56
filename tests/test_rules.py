"""Rules: exact name > first matching pattern > default, and nothing silently."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ghostify.errors import PlanError, RuleError
from ghostify.plan import Plan
from ghostify.rules import PlanRules, explain_nothing, follow, resolve
from ghostify.spec import ConvSite, GhostSpec


def site(
    name: str,
    maps: int = 64,
    channels: int = 64,
    kernel: int = 3,
    groups: int = 1,
    reason: str = "",
    tied_to: str = "",
) -> ConvSite:
    return ConvSite(
        name=name,
        type="Conv2d",
        in_channels=channels,
        out_channels=maps,
        kernel=(kernel, kernel),
        stride=(1, 1),
        dilation=(1, 1),
        groups=groups,
        bias=False,
        in_size=(8, 8),
        out_size=(8, 8),
        calls=1,
        pixels=64,
        eligible=not reason,
        reason=reason,
        tied_to=tied_to,
    )


STEM, BODY, OTHER = site("stem", channels=3), site("body.0.conv"), site("body.1.conv")


def reasons(rules: PlanRules, *sites: ConvSite) -> dict[str, str]:
    return {skip.name: skip.reason for skip in resolve(rules, sites).skipped}


def test_the_first_convolution_stays_unless_all_is_asked_for() -> None:
    default = resolve(PlanRules(), [STEM, BODY])
    everything = resolve(PlanRules(convert_first=True), [STEM, BODY])

    assert default.layers == {"body.0.conv": GhostSpec()}
    assert set(everything.layers) == {"stem", "body.0.conv"}


def test_a_pattern_that_matches_the_first_convolution_converts_it() -> None:
    rules = PlanRules(rules=(("st*", GhostSpec(2, 1)),))

    assert resolve(rules, [STEM, BODY]).layers["stem"] == GhostSpec(2, 1)


def test_an_exact_name_comes_before_a_pattern_and_a_pattern_before_the_default() -> None:
    rules = PlanRules(
        rules=(
            ("body.*", GhostSpec(3)),
            ("*.conv", GhostSpec(5)),
            ("body.1.conv", GhostSpec(4)),
        )
    )

    layers = resolve(rules, [STEM, BODY, OTHER, site("head")]).layers

    assert {name: spec.ratio for name, spec in layers.items()} == {
        "body.0.conv": 3,
        "body.1.conv": 4,
        "head": 2,
    }


def test_a_kept_layer_says_by_which_rule() -> None:
    rules = PlanRules(rules=(("body.0*", None),))

    assert reasons(rules, STEM, BODY, OTHER)["body.0.conv"] == "kept by the rule 'body.0*'"


def test_depthwise_convolutions_stay() -> None:
    depthwise = site("dw", maps=128, groups=64)

    assert reasons(PlanRules(), STEM, depthwise)["dw"] == "depthwise convolution"


def test_a_ghost_module_that_would_not_cost_less_is_not_made() -> None:
    """1x1 on 8 maps takes 8 multiply-adds a pixel; half of that and half of 9 is more."""
    narrow = site("narrow", channels=8, kernel=1)

    assert "would not cost less" in reasons(PlanRules(), STEM, narrow)["narrow"]
    assert "narrow" in resolve(PlanRules(GhostSpec(2, 1)), [STEM, narrow]).layers


def test_an_exact_name_converts_even_what_would_not_cost_less() -> None:
    narrow = site("narrow", channels=8, kernel=1)
    rules = PlanRules(rules=(("narrow", GhostSpec()),))

    assert "narrow" in resolve(rules, [STEM, narrow]).layers


def test_a_rule_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(RuleError) as error:
        resolve(PlanRules(rules=(("body.2.conv", GhostSpec()),)), [STEM, BODY])

    assert str(error.value) == (
        "the rule 'body.2.conv' matches no convolution; did you mean body.0.conv?"
    )


def test_a_rule_for_a_block_suggests_the_pattern_below_it() -> None:
    with pytest.raises(RuleError) as error:
        resolve(PlanRules(rules=(("body.0", None),)), [STEM, BODY])

    assert str(error.value).endswith("; write 'body.0.*' for all below it")


def test_a_rule_for_what_cannot_be_converted_says_why() -> None:
    idle = site("aux", reason="does not run in eval mode")

    with pytest.raises(RuleError) as error:
        resolve(PlanRules(rules=(("aux", GhostSpec()),)), [STEM, idle])

    assert str(error.value).endswith("aux: does not run in eval mode")


def test_two_rules_for_one_layer_contradict_each_other() -> None:
    with pytest.raises(RuleError, match="contradict each other"):
        PlanRules(rules=(("stem", None), ("stem", GhostSpec())))


def test_a_ratio_above_the_maps_of_a_wide_layer_is_an_error() -> None:
    with pytest.raises(RuleError, match="choose a ratio of at most 64"):
        resolve(PlanRules(GhostSpec(65)), [STEM, BODY])


def test_a_narrow_head_is_kept_when_the_ratio_exceeds_its_maps() -> None:
    head = site("head", maps=3)

    assert reasons(PlanRules(GhostSpec(4)), STEM, BODY, head)["head"] == (
        "3 output maps, fewer than the ratio 4"
    )


def test_layers_that_share_a_weight_are_treated_alike() -> None:
    """The first convolution stays, so its twin has to stay as well."""
    twin = site("twin", channels=3, tied_to="stem")

    found = resolve(PlanRules(), [STEM, BODY, twin])

    assert set(found.layers) == {"body.0.conv"}
    assert found.skipped[-1].reason.startswith("shares its weight with stem")


def test_why_nothing_is_converted_is_counted() -> None:
    skipped = resolve(PlanRules(), [STEM, site("a", groups=64), site("b", groups=64)]).skipped

    assert explain_nothing(skipped) == (
        "2x depthwise convolution; 1x first convolution, which stays by default"
    )
    assert explain_nothing(()) == "the network runs no convolution"


def test_a_plan_for_an_impossible_layer_is_refused() -> None:
    with pytest.raises(PlanError, match="fewer than the ratio 100"):
        follow(Plan({"body.0.conv": GhostSpec(100)}), [STEM, BODY])


def test_a_plan_leaves_the_rest_and_says_so() -> None:
    found = follow(Plan({"stem": GhostSpec()}), [STEM, BODY])

    assert set(found.layers) == {"stem"}
    assert found.skipped[0].reason == "not in the plan"


def test_maps_that_are_too_small_to_be_moved_stay() -> None:
    small = replace(BODY, out_size=(1, 1))
    rules = PlanRules(GhostSpec(2, 3, "shift"))

    found = resolve(rules, [STEM, small])

    assert found.skipped[-1].reason == "its maps of 1x1 are too small to be moved by 1"
    assert "body.0.conv" in resolve(rules, [STEM, replace(BODY, out_size=(2, 2))]).layers
    assert "body.0.conv" in resolve(PlanRules(GhostSpec(2, 3, "blur")), [STEM, small]).layers
