"""The shipped search spaces fit their networks, and mistakes are named with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml

import ghostify
from ghostify.errors import DataFileError
from ghostify.models.resnet import ResNetCifar
from ghostify.models.zoo import build
from ghostify.pruners.groups import prunable
from ghostify.searches.problem import make_problem
from ghostify.searches.schema import space_schema
from ghostify.searches.space import load_space, parse_space, shipped_spaces
from ghostify.spec import GhostSpec, PruneSpec

FOLDER = Path(__file__).parents[2] / "search_spaces"
NETWORKS = [name for name in shipped_spaces() if name not in ("generic", "ghostnet", "pruning")]


def test_the_papers_networks_have_a_space() -> None:
    assert {
        "generic",
        "ghostnet",
        "resnet20_cifar",
        "resnet50",
        "resnet56_cifar",
        "vgg16_cifar",
    } <= set(shipped_spaces())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shipped_space_fits_its_network(name: str) -> None:
    space = load_space(name)
    built = build(name, seed=0)
    found = ghostify.inspect(built)
    shrinking = prunable(built.model.eval(), torch.zeros(1, *built.input_size))

    problem = make_problem(found.sites, space, total=found.before, prunable=shrinking)

    assert space.model == name
    assert problem.notes == ()  # every choice of every pattern is possible wherever it matches
    assert space.size(found.sites) > 10**6


def test_the_generic_space_fits_a_network_that_it_does_not_know() -> None:
    found = ghostify.inspect(ResNetCifar(1))

    problem = make_problem(found.sites, load_space("generic"), total=found.before)

    stages = [one.layers[0].partition(".")[0] for one in problem.variables]
    assert stages == ["conv1", "layer1", "layer2", "layer3"]


def test_the_pruning_space_chooses_for_each_layer_that_may_shrink() -> None:
    """Those are the first convolutions of the blocks: others write to the residual stream."""
    net = ResNetCifar(2)
    found = ghostify.inspect(net)
    shrinking = prunable(net.eval(), torch.zeros(1, 3, 32, 32))

    problem = make_problem(
        found.sites, load_space("pruning"), total=found.before, prunable=shrinking
    )

    assert [one.layers for one in problem.variables] == [
        (f"layer{stage}.{block}.conv1",) for stage in (1, 2, 3) for block in (0, 1)
    ]
    assert problem.shape == (7,) * 6


def test_the_arguments_of_ghostnet_are_those_of_its_function() -> None:
    space = load_space("ghostnet")
    sets = space.combinations()

    for name, values in space.arguments.items():
        for value in values:
            build("ghostnet", args={name: value})
    assert space.size([]) == 7 * 3 * 3
    assert len(sets) == 7 * 7
    assert not any(one["kernel"] == 1 and one["ratio"] > 2 for one in sets)
    assert sets[0] == {"width": 1.0, "ratio": 2, "kernel": 3}


@pytest.mark.parametrize("name", shipped_spaces())
def test_a_shipped_space_holds_to_the_schema(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")

    jsonschema.validate(yaml.safe_load(text), space_schema())

    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.validate(load_space(name).as_json(), space_schema())


def test_the_shipped_schema_is_that_of_the_code() -> None:
    shipped = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))

    jsonschema.Draft202012Validator.check_schema(shipped)
    assert shipped == space_schema()


def layer(*choices: Any, **more: Any) -> dict[str, Any]:
    return {"layers": [{"match": "a", "choices": list(choices), **more}]}


GOOD = [
    layer("keep"),
    layer("keep", "s2", "s3,d5,r16", "d5,s2", "s=2,d=7", "s10", "s2,d1+3"),
    layer("s2,affine", "s2,wavelet", "s3,d5,blur", "s2,shift"),
    layer("p0.5", "p.25", "p=0.75", "p0.125"),
    layer("keep", shared=True),
    layer("keep", shared="stage"),
    {"model": "net", "description": "d", "layers": [{"match": "*", "choices": ["s2"]}]},
    {**layer("keep", "s2"), "forbidden": [{"a": "s2", "b": ["keep", "p0.5"]}]},
    {"arguments": {"width": [0.5, 1.0], "cheap": ["blur", None], "flag": [True, False]}},
    {"arguments": {"width": [0.5, 1.0]}, "forbidden": [{"width": 0.5, "kernel": 3}]}
    | {"arguments": {"width": [0.5, 1.0], "kernel": [3, 5]}},
]

BAD = [
    7,
    {},
    {"model": "net"},
    {"layers": []},
    {"layers": {}},
    {"layrs": []},
    {**layer("keep"), "arguments": {"width": [1]}},
    {**layer("keep"), "budget": "macs=0.5x"},
    {"model": 7, **layer("keep")},
    {"layers": [{"match": "a"}]},
    {"layers": [{"match": "", "choices": ["keep"]}]},
    {"layers": [{"choices": ["keep"]}]},
    {"layers": [{"match": "a", "choices": []}]},
    {"layers": [{"match": "a", "choise": ["keep"]}]},
    {"layers": ["a"]},
    layer(2),
    layer(None),
    layer(0.5),
    layer("Keep"),
    layer("s1"),
    layer("s0,d3"),
    layer("s2,d2"),
    layer("s2,d-3"),
    layer("s2,d3,x4"),
    layer("s2 d3"),
    layer("s2,blurr"),
    layer("s2,r0"),
    layer("p0"),
    layer("p0.0"),
    layer("p1"),
    layer("p1.5"),
    layer("p-0.5"),
    layer(""),
    layer("keep", "keep"),
    layer("keep", shared="stages"),
    layer("keep", shared=1.5),
    {**layer("keep"), "forbidden": {}},
    {**layer("keep"), "forbidden": [{}]},
    {**layer("keep"), "forbidden": [{"a": "s1"}]},
    {**layer("keep"), "forbidden": [{"a": []}]},
    {"arguments": {}},
    {"arguments": []},
    {"arguments": {"width": []}},
    {"arguments": {"width": 1.0}},
    {"arguments": {"width": [1.0, 1.0]}},
    {"arguments": {"width": [[1.0]]}},
    {"arguments": {"2x": [1.0]}},
]


@pytest.mark.parametrize("value", GOOD, ids=str)
def test_schema_and_reader_both_take_it(value: Any) -> None:
    jsonschema.validate(value, space_schema())

    space = parse_space(value)

    assert parse_space(space.as_json()) == space
    assert parse_space(json.loads(json.dumps(space.as_json()))).digest == space.digest


@pytest.mark.parametrize("value", BAD, ids=str)
def test_schema_and_reader_both_refuse_it(value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, space_schema())
    with pytest.raises(DataFileError):
        parse_space(value)


def test_the_first_matching_pattern_decides(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "model: net\nlayers:\n"
        "  - {match: 'a.*', choices: [keep, 's2,d3', p0.5]}\n"
        "  - {match: '*.conv', choices: [s4]}\n"
    )

    space = load_space(file)

    assert space.choices("a.conv") == (None, GhostSpec(2, 3), PruneSpec(0.5))
    assert space.choices("b.conv") == (GhostSpec(4, 3),)
    assert space.choices("b.other") == (None,)


@pytest.mark.parametrize(
    ("name", "stage", "block"),
    [
        ("layer1.0.conv1", "layer1", "layer1.0"),
        ("blocks.2.1.conv_pw", "blocks.2", "blocks.2.1"),
        ("features.denseblock3.denselayer7.conv1", "features.denseblock3",
         "features.denseblock3.denselayer7"),
        ("conv1", "conv1", "conv1"),
        ("stem.conv", "stem.conv", "stem.conv"),
    ],
)  # fmt: skip
def test_stages_and_blocks_go_by_the_numbers_in_names(name: str, stage: str, block: str) -> None:
    by_stage, by_block = (
        parse_space(layer("keep", shared=shared)).layers[0] for shared in ("stage", "block")
    )

    assert by_stage.group(name) == stage
    assert by_block.group(name) == block


def test_the_description_is_no_part_of_the_digest() -> None:
    space = layer("keep", "s2")

    assert parse_space({**space, "description": "x"}).digest == parse_space(space).digest
    assert parse_space(layer("keep", "s3")).digest != parse_space(space).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layrs: []",
            "space.yaml: layrs: unknown key, known are model, description, layers, arguments, "
            "forbidden; did you mean layers?",
        ),
        ("layers: []", "space.yaml: layers: must be a list"),
        ("{}", "layers: must be a list of match and choices, or arguments a mapping of names"),
        (
            "layers: [{match: a, choices: [s1]}]",
            "layers[0].choices[0]: GhostSpec.ratio (s)",
        ),
        ("layers: [{match: a, choices: [kep]}]", "layers[0].choices[0]: "),
        ("layers: [{match: a, choices: [p2]}]", "layers[0].choices[0]: PruneSpec.ratio must be"),
        ("layers: [{match: a, choices: [s2, 's2,d3']}]", "choices[1]: s2,d3 stands twice"),
        ("layers: [{match: a, choise: []}]", "layers[0].choise: unknown key"),
        ("layers: [{match: a, choices: []}]", "layers[0].choices: must be a list"),
        ("layers: [{match: a, choices: [s2], shared: bloc}]", "did you mean block?"),
        ("layers: [{choices: [s2]}]", "layers[0].match: must be a layer name or pattern"),
        (
            "{arguments: {width: [1, 2]}, forbidden: [{widht: 1}]}",
            "forbidden[0].widht: is none of the arguments width; did you mean width?",
        ),
        (
            "{arguments: {width: [1, 2]}, forbidden: [{width: 3}]}",
            "forbidden[0].width: 3 is none of the values that width may take",
        ),
        (
            "{arguments: {width: [1, 2]}, forbidden: [{width: [1, 2]}]}",
            "forbidden: leaves no set of arguments at all",
        ),
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
    assert "space.yaml" in str(error.value)


def test_an_unknown_space_names_the_nearest() -> None:
    with pytest.raises(DataFileError, match="did you mean resnet50"):
        load_space("resnet5")
