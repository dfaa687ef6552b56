"""What plans cost by arithmetic, against torch's counter on the networks that they make."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ghostify
from ghostify.cost.budget import Cost
from ghostify.cost.macs import count, count_params
from ghostify.errors import DataFileError, PlanError
from ghostify.graph.probe import Probe, as_call
from ghostify.models.resnet import ResNetCifar
from ghostify.plan import Plan
from ghostify.pruners.groups import prunable
from ghostify.searches.derive import derive_space
from ghostify.searches.latency import LatencyModel
from ghostify.searches.problem import Problem, make_problem
from ghostify.searches.space import parse_space
from ghostify.spec import GhostSpec, LayerSpec, PruneSpec
from tests.graph import networks

GHOSTS = (GhostSpec(2, 1), GhostSpec(3, 3), GhostSpec(2, 3, "affine"), GhostSpec(2, 3, "shift"))


class Inverted(nn.Module):
    """An expansion whose maps a depthwise convolution reads, then a projection, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24))
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.project = nn.Conv2d(24, 12, 1)
        self.out = nn.Conv2d(12, 6, 3, stride=2)
        self.head = nn.Linear(6 * 49, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.project(self.depth(torch.relu(self.expand(x)))))
        return self.head(torch.relu(self.out(x)).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNetCifar(1),
    "grouped, dilated, biased": networks.plain,
    "shared module": networks.Shared,
    "shared weight": networks.Tied,
    "depthwise and linear": Inverted,
}


def problem_of(model: nn.Module, size: int = 16, *, prunes: bool = True) -> Problem:
    example = torch.zeros(1, 3, size, size)
    found = ghostify.inspect(model, example=example)
    shrinking = prunable(model.eval(), example) if prunes else {}
    space = derive_space(
        found.sites,
        prunable=shrinking,
        ghosts=GHOSTS,
        prunes=(PruneSpec(0.3), PruneSpec(0.6)) if prunes else (),
    )
    return make_problem(found.sites, space, total=found.before, prunable=shrinking)


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_that_torch_counts(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    problem = problem_of(model)
    plans = problem.random(6, np.random.default_rng(0))
    costs = problem.costs(plans)
    image = torch.zeros(1, 3, 16, 16)

    for place, row in enumerate(plans):
        converted = ghostify.convert(
            model, plan=problem.plan(row), example=image, verify=False
        ).model
        seen = count(Probe(converted, as_call(image)))
        assert costs["macs"][place] == seen.macs
        assert costs["params"][place] == count_params(converted)
        assert costs["size"][place] == 4 * count_params(converted)


def test_pruning_and_the_layer_behind_it_cost_something_together() -> None:
    """By hand: half of 24 maps go, and the projection behind computes 6 of 12 maps."""
    problem = problem_of(Inverted(), prunes=True)
    plan = Plan({"expand.0": PruneSpec(0.6), "project": GhostSpec(3, 3)})

    found = problem.cost(problem.assignment(plan))
    expand = problem.cost(problem.assignment(Plan({"expand.0": PruneSpec(0.6)})))
    project = problem.cost(problem.assignment(Plan({"project": GhostSpec(3, 3)})))

    kept, made = 24 - 14, 4
    assert problem.terms["macs"].pairs
    assert found["params"] - project["params"] == (
        (kept - 24) * 8  # expand's own weights
        + (kept - 24) * 2  # its batch norm
        + (kept - 24) * 10  # the depthwise filters and biases
        + (kept - 24) * made  # the weights of the maps that the projection still computes
    )
    assert found["macs"] - project["macs"] > expand["macs"] - problem.original["macs"]


def test_many_plans_cost_what_each_costs_alone() -> None:
    problem = problem_of(networks.plain(), prunes=False)
    plans = problem.random(5000, np.random.default_rng(1))

    together = problem.costs(plans)

    alone = [problem.cost(row)["macs"] for row in plans[-3:]]
    assert together["macs"][-3:].tolist() == alone
    assert together["macs"].shape == (5000,)


def test_a_plan_is_an_assignment_and_back() -> None:
    problem = problem_of(ResNetCifar(1))

    for row in problem.random(20, np.random.default_rng(2)):
        plan = problem.plan(row)
        assert (problem.assignment(plan) == row).all()
        assert list(plan) == [name for name in problem.order if name in plan.layers]
    assert len(problem.plan(problem.nothing())) == 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"conv1": GhostSpec(2)}, "it makes conv1 s2,d3, where nothing can be chosen"),
        ({"layer1.0.conv2": GhostSpec(9)}, "layer1.0.conv2 may be keep, s2,d1,"),
        ({"layer1.0.conv2": PruneSpec(0.6)}, "(got p0.6)"),
    ],
)
def test_a_plan_outside_the_space(layers: dict[str, LayerSpec], message: str) -> None:
    problem = problem_of(ResNetCifar(1))

    with pytest.raises(PlanError) as error:
        problem.assignment(Plan(layers))

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (np.zeros(1, int), "an assignment has 2 choices"),
        (np.zeros(2), "whole numbers"),
        (np.array([0, 99]), "a choice that its variable does not have"),
        (np.array([0, -1]), "a choice that its variable does not have"),
    ],
)
def test_an_assignment_that_cannot_be(assignment: np.ndarray, message: str) -> None:
    problem = problem_of(networks.plain(), prunes=False)

    with pytest.raises(PlanError) as error:
        problem.costs(assignment)

    assert message in str(error.value)


def test_a_problem_travels_to_other_processes() -> None:
    problem = problem_of(ResNetCifar(1))
    plans = problem.random(10, np.random.default_rng(3))

    other = pickle.loads(pickle.dumps(problem))

    assert (other.costs(plans)["macs"] == problem.costs(plans)["macs"]).all()


def small(space: dict[str, object], **more: object) -> Problem:
    model = ResNetCifar(1)
    found = ghostify.inspect(model, example=torch.zeros(1, 3, 16, 16))
    return make_problem(found.sites, parse_space(space), total=found.before, **more)  # type: ignore[arg-type]


def test_layers_of_a_stage_choose_together() -> None:
    choices = ["keep", "s2,d3", "s4,d3"]
    problem = small({"layers": [{"match": "layer*", "choices": choices, "shared": "stage"}]})

    assert [one.layers for one in problem.variables] == [
        (f"layer{stage}.0.conv1", f"layer{stage}.0.conv2") for stage in (1, 2, 3)
    ]
    plan = problem.plan(np.array([0, 1, 2]))
    assert {name: str(spec) for name, spec in plan.layers.items()} == {
        "layer2.0.conv1": "s2,d3",
        "layer2.0.conv2": "s2,d3",
        "layer3.0.conv1": "s4,d3",
        "layer3.0.conv2": "s4,d3",
    }


def test_all_layers_may_choose_together() -> None:
    problem = small({"layers": [{"match": "*", "choices": ["keep", "s2,d3"], "shared": True}]})

    assert problem.shape == (2,)
    assert "conv1" in problem.plan(np.array([1])).layers


def test_forbidden_combinations() -> None:
    problem = small(
        {
            "layers": [{"match": "layer[12]*", "choices": ["keep", "s2,d3", "s4,d3"]}],
            "forbidden": [{"layer1.*": "s4,d3", "layer2.0.conv1": ["s2,d3", "s4,d3"]}],
        }
    )
    by_name = [one.name for one in problem.variables]
    plans = problem.random(300, np.random.default_rng(0))

    first = [by_name.index("layer1.0.conv1"), by_name.index("layer1.0.conv2")]
    second = by_name.index("layer2.0.conv1")
    out = (plans[:, first] == 2).any(1) & (plans[:, second] > 0)
    assert out.any()
    assert (problem.allowed(plans) == ~out).all()


def test_what_is_left_out_is_said() -> None:
    problem = small({"layers": [{"match": "layer1.*", "choices": ["keep", "s2", "s17", "p0.5"]}]})

    assert problem.shape == (2, 2)
    assert problem.notes == (
        "s17,d3 is left out for 2 layers, such as layer1.0.conv1: fewer maps (16) than the ratio",
        "p0.5 is left out for 2 layers, such as layer1.0.conv1: its maps are read by what cannot "
        "do with fewer",
    )


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"layers": [{"match": "layer4*", "choices": ["keep", "s2"]}]},
            "the search space names 'layer4*', which matches no convolution of the network",
        ),
        (
            {"layers": [{"match": "layer1.0.conv3", "choices": ["keep", "s2"]}]},
            "did you mean layer1.0.conv",
        ),
        (
            {"layers": [{"match": "layer1*", "choices": ["keep"]}]},
            "the search space leaves nothing to choose in this network",
        ),
        (
            {"layers": [{"match": "layer1*", "choices": ["keep", "s99"]}]},
            "nothing to choose in this network: s99,d3 is left out for 2 layers",
        ),
        ({"arguments": {"width": [1, 2]}}, "the search space chooses arguments (width)"),
    ],
)
def test_an_empty_space_says_why(space: dict[str, object], message: str) -> None:
    with pytest.raises(DataFileError) as error:
        small(space)

    assert message in str(error.value)


def test_convolutions_that_share_a_weight_choose_together() -> None:
    model = networks.Tied()
    found = ghostify.inspect(model, example=torch.zeros(1, 3, 16, 16))
    space = parse_space(
        {
            "layers": [
                {"match": "fine", "choices": ["keep", "s2,d3", "s4,d3"]},
                {"match": "coarse", "choices": ["keep", "s2,d3"]},
            ]
        }
    )

    problem = make_problem(found.sites, space, total=found.before)

    assert [one.layers for one in problem.variables] == [("fine", "coarse")]
    assert problem.variables[0].choices == (None, GhostSpec(2, 3))


class Table:
    """Times of a network whose original takes 10 ms, and that is predicted 10 % too high."""

    def gain_ms(self, name: str, spec: GhostSpec) -> float | None:
        return None if spec.ratio == 4 else 0.5 * spec.ratio

    def predict(self, plan: Plan) -> float:
        gains = [self.gain_ms(name, spec) for name, spec in plan.ghosts.items()]
        return 1.1 * (10.0 - sum(gain for gain in gains if gain is not None))


def test_latency_is_linear_in_the_choices() -> None:
    space = {"layers": [{"match": "layer1*", "choices": ["keep", "s2", "s3", "s4"]}]}
    choices = {name: [GhostSpec(2), GhostSpec(3), GhostSpec(4)] for name in
               ("layer1.0.conv1", "layer1.0.conv2")}  # fmt: skip
    latency = LatencyModel.of(Table(), choices, original_ms=10.0)

    problem = small(space, latencies={"onnxruntime": latency})

    assert problem.original["latency@onnxruntime"] == 10.0
    for row in problem.random(10, np.random.default_rng(0)):
        predicted = problem.cost(row)["latency@onnxruntime"]
        assert predicted == pytest.approx(Table().predict(problem.plan(row)))
        assert predicted == pytest.approx(latency.predict(problem.plan(row)))
    assert problem.shape == (3, 3)
    assert "s4,d3 is left out for 2 layers" in problem.notes[0]
    assert "it was not timed on onnxruntime" in problem.notes[0]


def test_losses_of_layers_become_losses_of_choices() -> None:
    choices = ["keep", "s2,d3", "s4,d3"]
    problem = small({"layers": [{"match": "layer[12]*", "choices": choices, "shared": "stage"}]})
    by_layer = {
        name: {GhostSpec(2): 0.1 * place, GhostSpec(4): 1.0}
        for place, name in enumerate(problem.layer_choices())
    }

    losses = problem.losses(by_layer)

    assert losses[0] == pytest.approx([0.0, 0.0 + 0.1, 2.0])
    assert losses[1] == pytest.approx([0.0, 0.2 + 0.3, 2.0])
    with pytest.raises(PlanError, match=r"nothing is known of layer1\.0\.conv1 as s2,d3"):
        problem.losses({})


def test_what_is_not_a_cost_of_the_original_is_not_there() -> None:
    problem = small({"layers": [{"match": "layer1*", "choices": ["keep", "s2"]}]})

    assert set(problem.original) == set(problem.terms) == {"macs", "params", "size"}
    assert problem.original["macs"] == problem.cost(problem.nothing())["macs"]
    assert Cost(int(problem.original["params"]), 0).params == count_params(ResNetCifar(1))
