"""``ghostify latency``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ghostify as package
from ghostify import runtimes
from ghostify.errors import GhostifyError, RuntimeFailedError
from ghostify.models.resnet import resnet20_cifar
from ghostify.runtimes import RUNTIMES
from ghostify.runtimes.base import as_outputs, inference_copy

Command = Callable[..., Any]
KEYS = ("model", "runtime", "median_ms", "iqr_ms", "speedup")
TINY = ("--input-size", "8", "--rounds", 1)


class Counting:
    """A runtime whose networks take as many milliseconds as they have thousand parameters."""

    name = "torch"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def device(self) -> str:
        return "cpu"

    def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Any:
        return CountingSession(inference_copy(model))


class CountingSession:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.seconds = sum(weight.numel() for weight in model.parameters()) / 1e6

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return as_outputs(self.model(*inputs))

    def time(self, repeats: int) -> float:
        return self.seconds * repeats

    def close(self) -> None: ...


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "torch", "counting:Counting")
    monkeypatch.setattr(runtimes, "_adapter", lambda _name: Counting())


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3))


@pytest.mark.usefixtures("counting")
def test_json_compares_with_the_first_model_named(ghostify: Command) -> None:
    run = ghostify("latency", "resnet20_cifar", "resnet56_cifar", "--json", "--no-optimize", *TINY)

    rows = json.loads(run.out)
    assert run.code == 0
    assert [tuple(row)[:5] for row in rows] == [KEYS, KEYS]
    assert [row["model"] for row in rows] == ["resnet20_cifar", "resnet56_cifar"]
    assert [row["median_ms"] for row in rows] == pytest.approx([269.722, 853.018])
    assert [row["iqr_ms"] for row in rows] == [0, 0]
    assert rows[0]["speedup"] == 1
    assert rows[1]["speedup"] == pytest.approx(269.722 / 853.018)
    assert rows[1]["macs_ratio"] == pytest.approx(rows[0]["macs"] / rows[1]["macs"])
    assert not any(row["noisy"] for row in rows)
    assert run.err == ""


@pytest.mark.usefixtures("counting")
def test_the_table_says_what_was_measured_on_what(ghostify: Command) -> None:
    run = ghostify("latency", "resnet20_cifar", "resnet20_cifar", "--no-optimize", *TINY)

    assert run.code == 0
    rows = [line.split() for line in run.out.splitlines() if line.startswith("resnet20_cifar")]
    assert rows[0][:3] == ["resnet20_cifar", "torch", "269.7"]
    assert rows[0] == rows[1]
    assert "1 thread, input 1x3x8x8; torch 1" in " ".join(run.out.split())
    assert str(torch.__version__) in run.out


@pytest.mark.usefixtures("counting")
def test_quiet_prints_nothing(ghostify: Command) -> None:
    run = ghostify("latency", "resnet20_cifar", "-q", "--no-optimize", *TINY)

    assert (run.code, run.out, run.err) == (0, "", "")


def test_an_artefact_beside_its_original_on_two_runtimes(ghostify: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert ghostify("convert", "resnet20_cifar", "-q", "--no-verify", "-o", out).code == 0
    threads = torch.get_num_threads()

    run = ghostify(
        "latency", "resnet20_cifar", out, "--runtime", "torch,torch-channels-last", "--batch", 2,
        "--threads", 2, "--json", "--input-size", 16, "--rounds", 2,
    )  # fmt: skip

    rows = json.loads(run.out)
    assert [row["runtime"] for row in rows] == ["torch"] * 2 + ["torch-channels-last"] * 2
    assert {row["batch"] for row in rows} == {2}
    assert {row["threads"] for row in rows} == {2}
    assert all(row["median_ms"] > 0 for row in rows)
    assert all(row["max_difference"] < 1e-4 for row in rows)
    assert rows[1]["macs_ratio"] == pytest.approx(1.9, abs=0.15)
    assert torch.get_num_threads() == threads


def test_an_unknown_runtime_lists_the_known_ones(ghostify: Command) -> None:
    run = ghostify("latency", "resnet20_cifar", "--runtime", "tensorrt")

    assert run.code == 1
    assert run.message.startswith("no runtime is called 'tensorrt'")
    assert all(name in run.message for name in RUNTIMES)


def test_a_missing_runtime_names_the_extra(
    ghostify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GHOSTIFY_EXECUTORCH_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_rest: None)

    run = ghostify("latency", "resnet20_cifar", "--runtime", "torch,executorch")

    assert run.code == 1
    assert "pip install 'ghostify[executorch]'" in run.message
    assert "GHOSTIFY_EXECUTORCH_PYTHON" in run.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--threads", 0),
            "Invalid value for '--threads': Input should be greater than or equal to 1",
        ),
        (("--batch", 0), "Invalid value for '--batch': Input should be greater than or equal to 1"),
        (
            ("--rounds", 0),
            "Invalid value for '--rounds': Input should be greater than or equal to 1",
        ),
        (("--seconds", 0), "--seconds is a number above 0 (got 0)"),
        (("--seconds", "nan"), "--seconds is a number above 0 (got nan)"),
        (("--runtime", ","), "--runtime names no runtime; write, for example, --runtime torch"),
        (("--input-size", "x"), "--input-size is written 224, 224x320 or 3x224x320 (got 'x')"),
    ],
)
def test_options_that_make_no_sense(
    ghostify: Command, arguments: tuple[object, ...], message: str
) -> None:
    run = ghostify("latency", "resnet20_cifar", *arguments)

    assert run.code == 2
    assert run.message.removesuffix("; see ghostify --help").rstrip(".") == message


def test_a_network_that_cannot_be_measured_is_named_with_the_runtime(ghostify: Command) -> None:
    run = ghostify("latency", "resnet20_cifar", "--input-size", "5x8x8")

    assert run.code == 1
    assert "resnet20_cifar cannot run on an input of shape 1x5x8x8" in run.message


def test_a_detector_is_refused(ghostify: Command) -> None:
    run = ghostify("latency", "torchvision:ssdlite320_mobilenet_v3_large")

    assert run.code == 1
    assert "runtimes take networks whose arguments are tensors (got a list)" in run.message


def test_what_a_runtime_refuses_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Counting):
        def prepare(self, *_args: Any, **_settings: Any) -> Any:
            raise RuntimeFailedError("the operator aten.foo of stage1 has no counterpart there")

    monkeypatch.setattr(runtimes, "_adapter", lambda _name: Refusing())

    with pytest.raises(GhostifyError) as caught:
        package.latency(network(), example=torch.randn(1, 3, 8, 8), runtimes="torch")
    assert str(caught.value) == (
        "Sequential on torch: the operator aten.foo of stage1 has no counterpart there"
    )


def test_networks_in_memory_and_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_adapter", lambda _name: Counting())
    model = network().train()

    found = package.latency(
        model, model, example=(torch.randn(4, 3, 8, 8),), runtimes=("torch",), rounds=3
    )

    assert [row.speedup for row in found.rows] == pytest.approx([1.0, 1.0])
    assert found.inputs == ("4x3x8x8",)
    assert model.training


def test_different_inputs_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_adapter", lambda _name: Counting())

    found = package.latency("resnet20_cifar", "timm:test_resnet", optimize=False, rounds=1)

    assert "the networks take different inputs (resnet20_cifar: 1x3x32x32" in found.notes[-1]


def test_other_values_than_torchs_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Counting):
        def prepare(self, model: nn.Module, example: Sequence[Tensor], *, threads: int) -> Any:
            session = CountingSession(inference_copy(model))
            session.model = nn.Sequential(session.model, nn.Hardtanh(-0.01, 0.01))
            return session

    monkeypatch.setattr(runtimes, "_adapter", lambda _name: Wrong())

    found = package.latency(network(), example=torch.randn(1, 3, 8, 8), rounds=1, optimize=False)

    assert found.rows[0].max_difference > 1e-3
    assert "gives other values than in torch" in found.notes[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads is a whole number from 1 on (got 0)"),
        ({"batch": 0}, "batch is a whole number from 1 on (got 0)"),
        ({"runtimes": ()}, "no runtime is named; name one, such as torch"),
    ],
)
def test_impossible_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GhostifyError) as caught:
        package.latency("resnet20_cifar", **settings)

    assert str(caught.value) == message


def test_model_arguments_reach_the_networks_that_go_by_a_name(
    ghostify: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_adapter", lambda _name: Counting())

    run = ghostify(
        "latency",
        "resnet20_cifar",
        "--model-arg",
        "num_classes=100",
        "--no-optimize",
        *TINY,
        "--json",
    )

    expected = sum(one.numel() for one in resnet20_cifar(num_classes=100).parameters()) / 1e3
    assert json.loads(run.out)[0]["median_ms"] == pytest.approx(expected)


def test_model_arguments_without_such_a_network_are_refused() -> None:
    with pytest.raises(GhostifyError) as caught:
        package.latency(network(), model_args={"width": 2}, example=torch.randn(1, 3, 8, 8))

    assert str(caught.value) == "model arguments are for networks that go by a name; here is none"


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from ghostify.cli.app import main; main(['latency', '--help']); "
        "main(['profile', '--help']); assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
