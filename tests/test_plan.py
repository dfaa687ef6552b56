"""Plans: read, written, hashed, and refused for other networks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ghostify.errors import ArtefactError, PlanError
from ghostify.plan import Plan
from ghostify.plan_file import load_plan
from ghostify.spec import GhostSpec, PruneSpec

PLAN = Plan({"a": GhostSpec(2, 3), "b": GhostSpec(4, 1)}, model="net", convs={"a": (8, 3, 3, 3)})


def test_a_plan_survives_json() -> None:
    assert Plan.from_json(PLAN.as_json()) == PLAN


def test_the_digest_depends_on_the_layers_only() -> None:
    same = Plan({"b": GhostSpec(4, 1), "a": GhostSpec(2, 3)}, model="other")

    assert same.digest == PLAN.digest
    assert Plan({"a": GhostSpec(2, 3)}).digest != PLAN.digest


def test_a_person_can_write_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("layers:\n  conv1: s3,d5\n  conv2: {ratio: 2, kernel: 1}\n")

    assert load_plan(file).layers == {"conv1": GhostSpec(3, 5), "conv2": GhostSpec(2, 1)}


def test_a_rounding_survives_json_and_counts_in_the_digest(tmp_path: Path) -> None:
    rounded = Plan({"a": GhostSpec(2, 3, round_to=16)}, model="net")
    file = tmp_path / "plan.yaml"
    file.write_text("layers:\n  a: s2,d3,r16\n  b: {ratio: 2, kernel: 3, round_to: 8}\n")

    assert Plan.from_json(rounded.as_json()) == rounded
    assert rounded.digest != Plan({"a": GhostSpec(2, 3)}).digest
    assert load_plan(file).layers == {
        "a": GhostSpec(2, 3, round_to=16),
        "b": GhostSpec(2, 3, round_to=8),
    }


def test_a_plan_may_prune_too(tmp_path: Path) -> None:
    mixed = Plan({"a": GhostSpec(2, 3), "b": PruneSpec(0.5)})
    file = tmp_path / "plan.yaml"
    file.write_text("layers:\n  a: s2,d3\n  b: {prune: 0.5}\n  c: p0.25\n")

    assert mixed.as_json()["layers"]["b"] == {"prune": 0.5}
    assert Plan.from_json(mixed.as_json()) == mixed
    assert load_plan(file).prunes == {"b": PruneSpec(0.5), "c": PruneSpec(0.25)}
    assert load_plan(file).ghosts == {"a": GhostSpec(2, 3)}


def test_a_plan_without_rounding_is_written_and_hashed_as_before_there_was_any() -> None:
    """The SHA-256 of the JSON ``{"a":{"kernel":3,"ratio":2}}``, taken by hand."""
    plan = Plan({"a": GhostSpec(2, 3)})

    assert plan.as_json()["layers"] == {"a": {"ratio": 2, "kernel": 3}}
    assert plan.digest == hashlib.sha256(b'{"a":{"kernel":3,"ratio":2}}').hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a plan is a mapping with the key layers"),
        (
            "layer: {}",
            "layer: unknown key, a plan has model, layers and convs; did you mean layers?",
        ),
        ("layers: {a: {ration: 2}}", "layers.a.ration: unknown key"),
        ("layers: {a: s1}", "layers.a: GhostSpec.ratio (s) must be >= 2 (got 1)"),
        ("layers: {a: 7}", "layers.a: must be like s2,d3 or p0.5"),
        ("layers: {a: p2}", "layers.a: PruneSpec.ratio must be above 0 and below 1"),
        ("layers: {a: {prune: 0.5, ratio: 2}}", "layers.a: a pruned layer has the key prune alone"),
        ("layers: {a: {prun: 0.5}}", "layers.a.prun: unknown key"),
        ("layers: {a: r0}", "layers.a: GhostSpec.round_to must be >= 1 (got 0)"),
        ("layers: {a: {ratio: two}}", "GhostSpec.ratio must be a whole number (got 'two')"),
        ("layers: {a: {cheap: [x]}}", "GhostSpec.cheap must be one of: depthwise"),
        ("layers: {a: s2, a: s4}", "a stands twice in line 1; leave one out"),
        ("[" * 3000, "not valid YAML"),
        ("? [a, b]\n: s2", "not valid YAML"),
        ("layers: {", "line 2: not valid YAML"),
        ("", "a plan is a mapping"),
    ],
)
def test_a_mistake_is_named_with_file_and_path(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text + "\n")

    with pytest.raises(PlanError) as error:
        load_plan(file)

    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such plan"):
        load_plan(tmp_path / "none.yaml")


def test_a_folder_that_is_no_artefact_holds_no_plan(tmp_path: Path) -> None:
    with pytest.raises((PlanError, ArtefactError)):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    ("convs", "message"),
    [
        ({"a": (8, 3, 3, 3)}, "no convolution 'b'"),
        (
            {"a": (8, 3, 3, 3), "b": (4, 8, 1, 1), "c": (4, 4, 1, 1)},
            "does not know the convolution 'b'",
        ),
        ({"a": (16, 3, 3, 3), "b": (4, 8, 1, 1)}, "does not know"),
    ],
)
def test_a_plan_for_another_network_is_refused(
    convs: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(PlanError) as error:
        PLAN.check(convs)

    assert "the plan is for another network (it was made for net)" in str(error.value)
    assert message in str(error.value)


def test_a_planned_layer_of_another_shape_is_refused() -> None:
    plan = Plan({"a": GhostSpec()}, convs={"a": (8, 3, 3, 3)})

    with pytest.raises(PlanError, match="shape 16x3x3x3, the plan expects 8x3x3x3"):
        plan.check({"a": (16, 3, 3, 3)})


def test_a_layer_outside_the_plan_may_differ() -> None:
    """Another number of classes in a convolutional head does not make another network."""
    plan = Plan({"a": GhostSpec()}, convs={"a": (8, 3, 3, 3), "head": (1000, 8, 1, 1)})

    plan.check({"a": (8, 3, 3, 3), "head": (10, 8, 1, 1)})


def test_cheap_operations_and_mixed_kernels_survive_json() -> None:
    blurred, scaled = GhostSpec(2, 5, "blur"), GhostSpec(cheap="affine")
    plan = Plan({"a": blurred, "b": GhostSpec(3, mixed=(1, 3)), "c": scaled})

    value = plan.as_json()

    assert value["layers"]["b"] == {"ratio": 3, "kernel": [1, 3]}
    assert value["layers"]["a"]["cheap"] == "blur"
    assert Plan.from_json(json.loads(json.dumps(value))) == plan
    by_hand = Plan.from_json({"layers": {"a": "s2,d5,blur", "b": "s3,d1+3", "c": "affine"}})
    assert by_hand.layers == plan.layers


@pytest.mark.parametrize("kernel", [[], [3], [3, "5"], [5, 3], "3"])
def test_kernels_in_a_plan_are_checked(kernel: object) -> None:
    with pytest.raises(PlanError, match=r"plan: layers\.a"):
        Plan.from_json({"layers": {"a": {"ratio": 2, "kernel": kernel}}})
