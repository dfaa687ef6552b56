"""Suites: what they say, whose word counts, and each mistake with file, path and remedy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ghostify.errors import SuiteError
from ghostify.pruners.methods import METHODS
from ghostify.runs.methods import NEED_IMAGES, SEARCH_KEYS, WHOLE_FIT_KEYS
from ghostify.runs.suite import PRUNE_METHODS, Suite, SuiteLatency, SuiteRecipe, SuiteTune
from ghostify.runs.suite_file import load_suite, parse_suite
from ghostify.runs.suite_schema import suite_schema
from tests.runs.samples import suite

SUITES = Path(__file__).parents[2] / "benchmarks" / "suites"


def parse(value: Any, *, files: bool = False) -> Suite:
    return parse_suite(value, file=Path("small.yaml"), folder=Path("/base"), files=files)


def refused(value: Any, **settings: Any) -> str:
    """Return what is said of a suite that cannot be."""
    with pytest.raises(SuiteError) as caught:
        parse(value, **settings)
    return str(caught.value)


def test_a_network_carries_what_the_suite_says_for_all() -> None:
    read = parse(suite({"seeds": [3, 4], "tune": {"rates": [1e-3, "2e-3"], "steps": 7}}))
    network = read.network("r20")

    assert (network.label, network.seeds, network.budgets) == ("r20", (3, 4), ("macs=0.5x",))
    assert network.recipe == SuiteRecipe("distil", {"steps": 5})
    assert network.tune == SuiteTune((0.001, 0.002), 7)
    assert network.recipe is not None
    assert network.recipe.load().steps == 5


def test_what_a_network_says_itself_stands_before_the_suite() -> None:
    own = {"seeds": [9], "budgets": ["params=1M"], "tune": None, "recipe": {"epochs": 2}}
    changes = {"networks/r56": {"model": "resnet56_cifar", **own}, "seeds": [1]}
    read = parse(suite(changes | {"tune": {"rates": [0.1], "steps": 1}}))
    network = read.network("r56")

    assert (network.seeds, network.budgets, network.tune) == ((9,), ("params=1M",), None)
    assert network.recipe is not None
    assert network.recipe.load().epochs == 2
    assert network.recipe.load().steps is None
    assert read.network("r20").seeds == (1,)


def test_overrides_of_a_network_join_those_of_the_suite() -> None:
    read = parse(
        suite(
            {
                "recipe/overrides": {"batch_size": 32, "weight_decay": "5e-4"},
                "networks/r20/recipe": {"overrides": {"batch_size": 16}},
            }
        )
    )

    recipe = read.network("r20").recipe

    assert recipe is not None
    assert recipe.overrides == {"steps": 5, "batch_size": 16, "weight_decay": 0.0005}


def test_methods_are_read_with_their_defaults() -> None:
    read = parse(
        suite(
            {
                "teacher": "original",
                "methods/ghost/teacher": None,
                "methods/ghost/d": "1+3",
                "methods/ghost/set": {"layer3.*": "s4"},
                "methods/l1/reconstruct": True,
                "methods/l1/fit": {"block_steps": 3},
            }
        )
    )
    dense, l1, ghost = read.methods

    assert (dense.start, dense.teacher, dense.own_teacher) == ("weights", "original", False)
    assert (dense.takes_budget, dense.fits) == (False, False)
    assert (ghost.start, ghost.teacher, ghost.own_teacher) == ("fitted", None, True)
    assert ghost.options["d"] == "1+3"
    assert ghost.options["set"] == {"layer3.*": "s4"}
    assert (ghost.takes_budget, ghost.fits) == (False, True)
    assert l1.options == {"method": "l1", "reconstruct": True, "fit": {"block_steps": 3}}
    assert (l1.takes_budget, l1.fits) == (True, True)


def test_methods_may_be_for_some_networks_only() -> None:
    read = parse(
        suite({"networks/r56": {"model": "resnet56_cifar"}, "methods/l1/networks": ["r56"]})
    )

    assert [method.name for method in read.methods_of("r20")] == ["dense", "ghost"]
    assert [method.name for method in read.methods_of("r56")] == ["dense", "l1", "ghost"]


def test_without_data_nothing_is_trained() -> None:
    read = parse(
        suite({"methods/ghost/start": "random", "latency": [{"runtime": "torch", "batch": 8}]},
              without=("data", "recipe"))
    )  # fmt: skip

    assert read.data is None
    assert not any(method.train for method in read.methods)
    assert read.network("r20").recipe is None
    assert read.latency == (SuiteLatency("torch", 1, 8),)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "suites"
    (tmp_path / "images").mkdir()
    folder.mkdir()
    (folder / "plan.yaml").write_text("layers: {conv1: 's2,d3'}")
    (folder / "own.yaml").write_text("steps: 3\nlr: 0.5\n")
    methods = {"plan": {"kind": "plan", "plan": "plan.yaml"}}
    value = suite({"data/path": "../images", "recipe": "own.yaml", "methods": methods})
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump(value))

    read = load_suite(file)

    assert read.data is not None
    assert read.data.path == tmp_path / "images"
    assert read.methods[0].plans == {"r20": folder / "plan.yaml"}
    assert read.networks[0].recipe == SuiteRecipe(str(folder / "own.yaml"))
    assert read.networks[0].recipe.load().lr == 0.5
    assert read.text == file.read_text()


def test_a_copy_elsewhere_can_still_be_read(tmp_path: Path) -> None:
    """A report reads the copy of a suite, whose paths lead nowhere."""
    methods = {"plan": {"kind": "plan", "plan": "plan.yaml"}}
    value = suite({"data/path": "../images", "recipe": "own.yaml", "methods": methods})
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(value))

    read = load_suite(tmp_path / "suite.yaml", files=False)

    assert read.title == "Small"
    with pytest.raises(SuiteError, match=r"data\.path: there is nothing at"):
        load_suite(tmp_path / "suite.yaml")


MISTAKES: list[tuple[Any, str]] = [
    ([], "a suite is a mapping with title, networks and methods"),
    (suite(without=("title",)), "title: is missing; give it"),
    (suite({"titel": "x"}), "titel: unknown key, known are …; did you mean title?"),
    (suite({"networks": {}}), "networks: is empty; give at least one entry"),
    (suite({"networks": ["r20"]}), "networks: must be a mapping such as key: value (got ['r20'])"),
    (
        suite({"networks/r20/models": 1}),
        "networks.r20.models: unknown key, known are …; did you mean model or model_args?",
    ),
    (
        suite({"networks/r 20": {"model": "x"}}),
        "networks.r 20: a name is made of letters, digits, . _ + and -; put the rest into the "
        "label",
    ),
    (
        suite({"networks/r20/pretrained": True, "networks/r20/weights": "a.pt"}),
        "networks.r20.pretrained: weights are given as well; leave one of the two out",
    ),
    (
        suite({"networks/r20/input": [32, 32]}),
        "networks.r20.input: must be channels, height and width, such as [3, 32, 32] "
        "(got [32, 32])",
    ),
    (
        suite({"methods/l1/kind": "prun"}),
        "methods.l1.kind: there is no 'prun', known are dense, prune, ghost, plan, search; did "
        "you mean prune or plan?",
    ),
    (
        suite({"methods/l1/method": "l3"}),
        "methods.l1.method: there is no 'l3', known are …; did you mean l2 or l1?",
    ),
    (suite({"methods/l1": {"kind": "prune"}}), "methods.l1.method: is missing; give one of …"),
    (
        suite({"methods/l1/ratio": 2}),
        "methods.l1.ratio: unknown key, known are …",
    ),
    (
        suite({"methods/l1/start": "fitted"}),
        "methods.l1.start: unknown key, known are …",
    ),
    (
        suite({"methods/l1/fit": {"block_steps": 1}}),
        "methods.l1.fit: nothing is fitted here; give start: fitted, or leave it out",
    ),
    (
        suite({"methods/ghost/s": 1}),
        "methods.ghost: GhostSpec.ratio (s) must be >= 2 (got 1); to leave a layer as it is, keep "
        "it instead",
    ),
    (
        suite({"methods/ghost/d": "x"}),
        "methods.ghost.d: is written 3, or 1+3 for kernels of several sides (got 'x')",
    ),
    (
        suite({"methods/ghost/start": "fited"}),
        "methods.ghost.start: there is no 'fited', known are random, fitted, scratch; did you "
        "mean fitted?",
    ),
    (
        suite({"methods/ghost/networks": ["r21"]}),
        "methods.ghost.networks[0]: there is no 'r21', known are r20; did you mean r20?",
    ),
    (
        suite({"methods/ghost/teacher": "orginal"}),
        "methods.ghost.teacher: there is no 'orginal', known are original; did you mean original?",
    ),
    (
        suite({"methods/ghost/train": "no"}),
        "methods.ghost.train: must be true or false (got 'no')",
    ),
    (
        suite({"methods": {"p": {"kind": "plan", "plan": {"r21": "x.yaml"}}}}),
        "methods.p.plan.r21: unknown key, known are r20; did you mean r20?",
    ),
    (
        suite(without=("budgets",)),
        "methods.l1: a method of kind prune needs a budget for r20; give one, such as budgets: "
        "[macs=0.5x]",
    ),
    (
        suite({"budgets": ["mac=0.5x"]}),
        "budgets[0]: a budget limits macs, params, size, latency (got 'mac'); did you mean macs?",
    ),
    (suite({"seeds": [1, 1]}), "seeds[1]: the seed 1 stands twice; leave one out"),
    (suite({"seeds": [-1]}), "seeds[0]: must be a whole number >= 0 (got -1)"),
    (
        suite({"recipe/name": "distill"}),
        "recipe: no recipe is called 'distill'; did you mean distil, distil-long or distil-fitted?",
    ),
    (
        suite({"recipe/overrides": {"learning": 1}}),
        "recipe: distil: learning: unknown key; remove it",
    ),
    (
        suite(without=("recipe",)),
        "recipe: is missing; give it, such as recipe: {name: distil, epochs: 1}",
    ),
    (
        suite(without=("data",)),
        "recipe: without data nothing is trained; give data or leave the recipe out",
    ),
    (
        suite(without=("data", "recipe")),
        "methods.ghost: a fit needs images; give data, or leave the fit out",
    ),
    (
        suite({"data/validation": 0, "tune": {"rates": [1], "steps": 1}}),
        "tune: rates are tried on images held back from training; give data.validation, such as "
        "5000, or leave tune out",
    ),
    (
        suite({"lr": 0.1, "tune": {"rates": [1], "steps": 1}}),
        "lr: tune finds the rate; leave one of the two out",
    ),
    (
        suite({"latency": [{"runtime": "onnx"}]}),
        "latency[0].runtime: there is no 'onnx', known are …; did you mean onnxruntime or "
        "openvino?",
    ),
    (
        suite({"report": {"layout": "table55"}}),
        "report.layout: there is no 'table55', known are …; did you mean table5, table8 or table7?",
    ),
    (
        suite({"report": {"reference": "densse"}}),
        "report.reference: there is no 'densse', known are dense, l1, ghost; did you mean dense?",
    ),
]


@pytest.mark.parametrize(("value", "message"), MISTAKES)
def test_a_mistake_is_named_by_file_path_and_remedy(value: Any, message: str) -> None:
    pattern = re.escape(f"small.yaml: {message}").replace("…", ".+")

    assert re.fullmatch(pattern, refused(value)), refused(value)


@pytest.mark.parametrize("method", NEED_IMAGES)
def test_pruning_by_labels_needs_images(method: str) -> None:
    value = suite(
        {"methods": {"p": {"kind": "prune", "method": method}}}, without=("data", "recipe")
    )

    assert refused(value) == (
        f"small.yaml: methods.p.method: {method} ranks by labelled images; give data"
    )


def test_a_plan_with_a_mistake_is_named_twice(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("layers: {conv1: 's1'}")
    value = suite({"methods": {"p": {"kind": "plan", "plan": str(tmp_path / "plan.yaml")}}})
    value["data"]["path"] = str(tmp_path)

    message = refused(value, files=True)

    assert message.startswith(f"small.yaml: methods.p.plan: {tmp_path / 'plan.yaml'}: layers.conv1")


def test_a_missing_file_and_a_directory_are_told(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such suite: "):
        load_suite(tmp_path / "absent.yaml")
    with pytest.raises(SuiteError, match="is a directory; give the YAML file of a suite"):
        load_suite(tmp_path)


def test_pruning_methods_are_those_there_are() -> None:
    assert set(PRUNE_METHODS) == set(METHODS)
    assert {name for name, one in METHODS.items() if one.needs} == set(NEED_IMAGES)


def test_keys_of_fits_and_searches_are_arguments_of_theirs() -> None:
    import inspect

    from ghostify.graph.fit_options import FitOptions
    from ghostify.searching import search

    assert {*WHOLE_FIT_KEYS, "rate"} <= set(FitOptions.__dataclass_fields__)
    assert set(SEARCH_KEYS) <= set(inspect.signature(search).parameters)


@pytest.mark.parametrize("file", sorted(SUITES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_committed_suite_reads_and_holds_to_the_schema(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    jsonschema.validate(yaml.safe_load(text), suite_schema())
    read = load_suite(file, files=False)

    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    for method in read.methods:
        for path in method.plans.values():
            assert path.is_file()


def test_the_committed_schema_is_that_of_the_code() -> None:
    shipped = json.loads((SUITES / "schema.json").read_text(encoding="utf-8"))

    jsonschema.Draft202012Validator.check_schema(shipped)
    assert shipped == json.loads(json.dumps(suite_schema()))


BEYOND = ("r21", "r20", "needs a budget", "stands twice", "recipe", "limits", "images", "held",
          "leave one", "reference", "the label", "nothing is fitted", "is written")  # fmt: skip
"""Of messages about what a schema cannot tell, or tells by other words."""


@pytest.mark.parametrize(
    "value",
    [value for value, message in MISTAKES if not any(part in message for part in BEYOND)],
)
def test_the_schema_finds_what_the_reader_finds(value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, suite_schema())


def test_the_schema_takes_what_the_reader_takes() -> None:
    jsonschema.validate(suite(), suite_schema())


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from ghostify.runs.suite_file import load_suite; "
        "from ghostify.runs.store import RunStore; import ghostify.runs.query; "
        "load_suite(sys.argv[1], files=False); "
        "print([name for name in ('torch', 'pandas', 'scipy') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, SUITES / "table5-cpu.yaml"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "[]"
