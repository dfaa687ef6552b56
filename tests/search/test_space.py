"""The shipped search spaces fit their networks, and mistakes are named with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

import ghostify
from ghostify.errors import DataFileError
from ghostify.rules import PlanRules, resolve
from ghostify.search.space import load_space, shipped_spaces
from ghostify.spec import GhostSpec


def test_the_papers_networks_have_a_space() -> None:
    assert {"resnet50", "resnet56_cifar", "vgg16_cifar"} <= set(shipped_spaces())


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_fits_its_network(name: str) -> None:
    space = load_space(name)
    sites = ghostify.inspect(space.model).sites

    assert space.model == name
    for layer in space.layers:
        for settings in layer.settings:
            rules = PlanRules(None, ((layer.pattern, settings),))
            found = resolve(rules, sites)  # raises if the pattern matches nothing
            chosen = settings is not None
            assert bool(found.layers) == chosen
    assert space.size(sites) > 10**6


def test_the_first_matching_pattern_decides(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "model: net\nlayers:\n"
        "  - {match: 'a.*', choices: [keep, 's2,d3']}\n"
        "  - {match: '*.conv', choices: [s4]}\n"
    )

    space = load_space(file)

    assert space.choices("a.conv") == (None, GhostSpec(2, 3))
    assert space.choices("b.conv") == (GhostSpec(4, 3),)
    assert space.choices("b.other") == (None,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layrs: []",
            "space.yaml: layrs: unknown key, known are model, description, layers",
        ),
        ("layers: []", "space.yaml: layers: must be a list"),
        (
            "layers: [{match: a, choices: [s1]}]",
            "layers[0].choices[0]: GhostSpec.ratio (s)",
        ),
        ("layers: [{match: a, choise: []}]", "layers[0].choise: unknown key"),
        ("layers: [{match: a, choices: []}]", "layers[0].choices: must be a list"),
        ("layers: [{choices: [s2]}]", "layers[0].match: must be a layer name or pattern"),
        ("layers: [", "line 2: not valid YAML"),
        ("7", "a search space is a mapping"),
    ],
)
def test_a_mistake_is_named_with_file_and_path(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text + "\n")

    with pytest.raises(DataFileError) as error:
        load_space(file)

    assert message in str(error.value)


def test_an_unknown_space_names_the_nearest() -> None:
    with pytest.raises(DataFileError, match="did you mean resnet50"):
        load_space("resnet5")
