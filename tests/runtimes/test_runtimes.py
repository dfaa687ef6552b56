"""Runtimes by name: which there are, and what is said of one that is not here."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import nn

from ghostify.errors import RuntimeFailedError, RuntimeMissingError, RuntimeNotFoundError
from ghostify.runtimes import RUNTIMES, find_runtime, installed
from ghostify.runtimes.inductor import fresh_function
from ghostify.runtimes.nodes import NodeMap


def test_each_name_is_the_adapters_own() -> None:
    assert {name for name in RUNTIMES if installed()[name]} >= {"torch", "torch-channels-last"}
    assert find_runtime("torch").name == "torch"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(RuntimeNotFoundError) as caught:
        find_runtime("onnxruntim")

    message = str(caught.value)
    assert message.startswith("no runtime is called 'onnxruntim'; did you mean onnxruntime?")
    assert "usable here: torch, torch-channels-last" in message
    assert all(name in message for name in RUNTIMES)


@pytest.mark.parametrize(
    ("name", "packages", "extra"),
    [
        ("onnxruntime", ("onnxruntime",), "onnx"),
        ("openvino", ("openvino",), "openvino"),
        ("litert", ("litert_torch",), "litert"),
        ("executorch", ("executorch",), "executorch"),
    ],
)
def test_a_missing_one_names_the_extra(
    name: str, packages: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def without(package: str, *rest: Any) -> Any:
        return None if package in packages else found(package, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    for variable in ("GHOSTIFY_LITERT_PYTHON", "GHOSTIFY_EXECUTORCH_PYTHON"):
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(RuntimeMissingError) as caught:
        find_runtime(name)
    assert f"{packages[0]} must be installed for this: pip install 'ghostify[{extra}]'" in str(
        caught.value
    )


@pytest.mark.parametrize("name", ["cuda", "cuda-graphs"])
def test_without_a_gpu_cuda_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(RuntimeMissingError, match=f"^{name} needs a GPU of NVIDIA"):
        find_runtime(name)


def test_without_a_compiler_torch_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)

    with pytest.raises(RuntimeMissingError, match=r"needs a C\+\+ compiler"):
        find_runtime("torch-compile")


def test_a_network_that_does_not_run_is_named_by_its_runtime() -> None:
    with pytest.raises(RuntimeFailedError, match=r"^torch cannot run the network"):
        find_runtime("torch").prepare(nn.Linear(3, 2), (torch.randn(1, 5),), threads=1)


def test_a_network_without_tensors_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, image: torch.Tensor) -> int:
            return int(image.shape[0])

    session = find_runtime("torch").prepare(Silent(), (torch.randn(1, 5),), threads=1)
    with pytest.raises(RuntimeFailedError, match="gives no tensor"):
        session.run(torch.randn(1, 5))


def test_compiled_functions_share_no_code() -> None:
    """Of one code object, torch.compile keeps eight variants at most."""
    first, second = (fresh_function(nn.Identity()) for _ in range(2))

    assert first.__code__ is not second.__code__
    assert first(torch.ones(2)).sum() == 2  # type: ignore[attr-defined]


def test_fused_nodes_belong_to_their_convolution() -> None:
    nodes = NodeMap(
        layers={"a/Conv": "a", "a.relu/Relu": "a.relu", "b/Conv": "b", "Add": ""},
        producers={"one": "a/Conv", "two": "a.relu/Relu", "three": "b/Conv", "sum": "Add"},
        inputs={
            "a/Conv": ("image", "w"),
            "a.relu/Relu": ("one",),
            "b/Conv": ("two", "v"),
            "Add": ("three", "two"),
        },
        operators={"a/Conv": "Conv", "a.relu/Relu": "Relu", "b/Conv": "Conv", "Add": "Add"},
    )

    assert nodes.layer("b/Conv", "Conv") == "b"
    assert nodes.layer("two_nchwc", "Conv") == "a"  # Conv and Relu in one
    assert nodes.layer("two_nchwc", "Relu") == "a.relu"
    assert nodes.layer("sum_nchwc", "Conv") == "b"  # Conv and Add in one
    assert nodes.layer("sum", "Add") is None
    assert nodes.layer("b/Conv_token_12", "Conv") == "b"
    assert nodes.layer("input_abcd_acdb_b/Conv", "Reorder") == "b"
    assert nodes.layer("ReorderInput_token_3", "ReorderInput") is None
