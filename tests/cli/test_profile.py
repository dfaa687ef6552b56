"""``ghostify profile``: times by layer, the network before beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ghostify as package
from ghostify.profiling import LayerTime
from ghostify.profiling import _layers as layers_of
from ghostify.runtimes.base import NodeTime

Command = Callable[..., Any]
TINY = ("--input-size", "16", "--runs", 2)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("artefact") / "out"
    package.save(package.convert("resnet20_cifar", verify=True), out)
    return out


def test_json_lists_the_layers_in_order(ghostify: Command, artefact: Path) -> None:
    run = ghostify("profile", artefact, "--runtime", "torch", "--no-optimize", "--json", *TINY)

    value = json.loads(run.out)
    names = [layer["name"] for layer in value["layers"]]
    assert run.code == 0
    assert list(value)[:3] == ["model", "runtime", "version"]
    assert names.index("conv1") < names.index("layer1.0.conv1") < names.index("layer3.2.conv2")
    assert names.index("layer3.2.conv2") < names.index("linear")
    kinds = {layer["name"]: layer["kind"] for layer in value["layers"]}
    assert kinds["conv1"] == ""
    assert kinds["layer1.0.conv1"] == "ghost"
    assert sum(layer["share"] for layer in value["layers"]) == pytest.approx(1)
    assert value["profiled_ms"] == pytest.approx(sum(layer["ms"] for layer in value["layers"]))
    assert value["latency"]["median_ms"] > 0
    assert value["original"]["median_ms"] > 0
    assert all(layer["original_ms"] > 0 for layer in value["layers"] if layer["kind"] == "ghost")


def test_the_table_ends_with_what_has_no_layer_and_the_totals(
    ghostify: Command, artefact: Path
) -> None:
    run = ghostify("profile", artefact, *TINY)

    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0].split() == ["layer", "before", "time", "share", "operations"]
    assert any(line.startswith("layer1.0.conv1") and "ghost" in line for line in lines)
    assert "in the layers; unwatched" in run.out
    assert "before the conversion" in run.out


def test_without_comparison(ghostify: Command, artefact: Path) -> None:
    run = ghostify("profile", artefact, "--against", "none", "--json", *TINY)

    value = json.loads(run.out)
    assert value["original"] is None
    assert {layer["original_ms"] for layer in value["layers"]} == {None}


def test_onnxruntime_times_go_to_the_layers(ghostify: Command, artefact: Path) -> None:
    run = ghostify(
        "profile", artefact, "--runtime", "onnxruntime", "--against", "none", "--json", *TINY
    )

    value = json.loads(run.out)
    work = {"Conv", "FusedConv", "Gemm", "MatMul"}
    ghosts = [layer for layer in value["layers"] if layer["kind"] == "ghost"]
    assert len(ghosts) == 18
    assert all(work & set(layer["operators"]) and layer["ms"] > 0 for layer in ghosts)
    strays = [set(layer["operators"]) for layer in value["layers"] if layer["name"] is None]
    assert strays  # reordering of maps, sums
    assert not work & set.union(*strays)


def test_a_network_in_memory() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()

    found = package.profile(model, example=torch.randn(1, 3, 8, 8), optimize=False, runs=2)

    assert [layer.name for layer in found.layers if layer.name] == ["0", "1", "2"]
    assert found.original is None
    assert model.training


def test_a_runtime_that_cannot_profile_says_so(ghostify: Command) -> None:
    run = ghostify("profile", "resnet20_cifar", "--runtime", "torch-compile")

    assert run.code == 1
    assert run.message.startswith("torch-compile does not tell how long each layer takes")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--runs", 0), 2, "'--runs': Input should be"),
        (("--runtime", "tflite"), 1, "no runtime is called 'tflite'"),
        (("--against", "nothing_like_it"), 1, "no model is called 'nothing_like_it'"),
    ],
)
def test_bad_input(
    ghostify: Command, arguments: tuple[object, ...], code: int, message: str
) -> None:
    run = ghostify("profile", "resnet20_cifar", *arguments)

    assert run.code == code
    assert message in run.message


def test_all_parts_of_a_ghost_module_are_one_layer() -> None:
    model = package.convert(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)), input_size=(3, 8, 8), verify=False
    ).model
    nodes = [
        NodeTime("n0", "Conv", "0", 1.0),
        NodeTime("n1", "Conv", "1.primary", 2.0),
        NodeTime("n2", "Conv", "1.cheap.0", 3.0),
        NodeTime("n3", "Concat", "1", 4.0),
        NodeTime("n4", "Reorder", None, 5.0),
        NodeTime("n5", "Conv", "elsewhere", 6.0),
        NodeTime("n6", "Conv", "1.primary_from_1", 0.5),
        NodeTime("n7", "Conv", "0_1", 0.25),
    ]

    assert layers_of(nodes, model) == (
        LayerTime("0", "", ("Conv",), 1.25),
        LayerTime("1", "ghost", ("Conv", "Concat"), 9.5),
        LayerTime(None, "", ("Reorder",), 5.0),
        LayerTime(None, "", ("Conv",), 6.0),
    )
