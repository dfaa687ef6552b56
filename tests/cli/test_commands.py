"""What the commands print and write."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ghostify as package

Command = Callable[..., Any]
KEYS = ["model", "before", "after", "replaced", "skipped"]


def test_convert_prints_one_json_object(ghostify: Command, tmp_path: Path) -> None:
    run = ghostify("convert", "resnet56_cifar", "--s", 2, "--all", "--json", "-o", tmp_path / "out")

    value = json.loads(run.out)
    assert run.code == 0
    assert list(value) == [*KEYS, "artefact"]
    assert value["model"] == "resnet56_cifar"
    assert value["before"] == {"params": 853018, "macs": 125485696}
    assert value["after"]["macs"] == 65139328
    assert len(value["replaced"]) == 55
    assert value["replaced"][0] == {"name": "conv1", "ratio": 2, "kernel": 3}
    assert value["artefact"] == str(tmp_path / "out")
    assert package.load(value["artefact"])


def test_round_to_is_for_all_layers_and_set_may_differ(ghostify: Command) -> None:
    run = ghostify("inspect", "vgg16_cifar", "--round-to", 16, "--set", "features.3=r1", "--json")

    replaced = json.loads(run.out)["replaced"]
    assert replaced[0] == {"name": "features.3", "ratio": 2, "kernel": 3}
    assert replaced[1] == {"name": "features.7", "ratio": 2, "kernel": 3, "round_to": 16}
    assert ghostify("inspect", "vgg16_cifar", "--round-to", 0).code == 1


def test_inspect_prints_the_same_without_artefact(ghostify: Command) -> None:
    value = json.loads(ghostify("inspect", "resnet20_cifar", "--json").out)

    assert list(value) == KEYS
    assert value["skipped"] == [
        {"name": "conv1", "reason": "first convolution, which stays by default"}
    ]
    assert value["after"]["macs"] < value["before"]["macs"]


def test_without_output_nothing_is_written(
    ghostify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    run = ghostify("convert", "resnet20_cifar", "--json")

    assert json.loads(run.out)["artefact"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_same_and_writes_nothing(ghostify: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dry = json.loads(ghostify("convert", "resnet20_cifar", "--dry-run", "--json", "-o", out).out)
    assert not out.exists()

    real = json.loads(ghostify("convert", "resnet20_cifar", "--json", "-o", out).out)
    assert dry | {"artefact": str(out)} == real


def test_the_table_lists_every_layer_and_the_totals(ghostify: Command) -> None:
    run = ghostify("convert", "vgg16_cifar", "--s", 2, "--d", 3, "--keep", "features.40")

    assert run.code == 0
    rows = [line for line in run.out.splitlines() if line.startswith("features.")]
    assert len(rows) == 13
    assert "first convolution, which stays by default" in rows[0]
    assert "kept by the rule 'features.40'" in rows[-1]
    assert "s2,d3" in rows[1]
    assert "313.5 M" in run.out
    assert "11 Ghost, 2 kept" in run.out
    assert "verified" in run.err


def test_inspect_gives_a_second_opinion(ghostify: Command) -> None:
    run = ghostify("inspect", "resnet20_cifar")

    assert "thop counts" in run.err
    assert "agrees on 19 plain convolutions" in " ".join(run.err.split())


def test_quiet_prints_nothing(ghostify: Command, tmp_path: Path) -> None:
    run = ghostify("convert", "resnet20_cifar", "-q", "-o", tmp_path / "out")

    assert (run.code, run.out, run.err) == (0, "", "")
    assert (tmp_path / "out" / "ghostify.json").is_file()


def test_rules_from_the_command_line(ghostify: Command) -> None:
    run = ghostify(
        "convert", "resnet20_cifar", "--json", "--s", 4, "--keep", "layer1.*",
        "--set", "layer3.*=s3,d5", "--set", "layer3.0.conv1=d1", "--set", "layer2.0.conv1=keep",
    )  # fmt: skip

    replaced = {
        one["name"]: (one["ratio"], one["kernel"]) for one in json.loads(run.out)["replaced"]
    }
    assert replaced["layer3.0.conv1"] == (4, 1)
    assert replaced["layer3.0.conv2"] == (3, 5)
    assert replaced["layer2.0.conv2"] == (4, 3)
    assert not any(name.startswith("layer1.") for name in replaced)
    assert "layer2.0.conv1" not in replaced


def test_a_plan_file_says_everything(ghostify: Command, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("layers:\n  conv1: s4,d1\n  layer3.0.conv1: s2,d3\n")

    run = ghostify("convert", "resnet20_cifar", "--plan", plan, "--json")

    assert json.loads(run.out)["replaced"] == [
        {"name": "conv1", "ratio": 4, "kernel": 1},
        {"name": "layer3.0.conv1", "ratio": 2, "kernel": 3},
    ]


@pytest.mark.parametrize(
    ("text", "shape"), [("40", "1x3x40x40"), ("32x48", "1x3x32x48"), ("3x24x24", "1x3x24x24")]
)
def test_the_input_size_is_taken(ghostify: Command, text: str, shape: str) -> None:
    run = ghostify("convert", "resnet20_cifar", "--input-size", text, "--no-verify")

    assert f"resnet20_cifar, input {shape}" in run.out
    assert "not verified" in run.err


def test_weights_are_loaded_and_kept(ghostify: Command, tmp_path: Path, checkpoints: Path) -> None:
    file = checkpoints / "resnet20-12fca82f.th"
    run = ghostify("convert", "resnet20_cifar", "--weights", file, "-q", "-o", tmp_path / "out")
    published = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]

    model = package.load(tmp_path / "out")

    assert run.code == 0
    assert torch.equal(model.conv1.weight, published["module.conv1.weight"])
    assert torch.equal(
        model.layer2[0].bn1.running_var, published["module.layer2.0.bn1.running_var"]
    )


def test_the_seed_decides_the_bytes(ghostify: Command, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        ghostify("convert", "resnet20_cifar", "-q", "--seed", seed, "-o", tmp_path / name)

    weights = {
        n: (tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "same", "other")
    }
    assert weights["one"] == weights["same"] != weights["other"]


def test_a_factory_in_the_working_directory(
    ghostify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def build(width):\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Conv2d(width, width, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    run = ghostify(
        "convert", "my_nets:build", "--model-arg", "width=8", "--input-size", "1x12x12", "--json",
        "-o", "out",
    )  # fmt: skip

    assert [one["name"] for one in json.loads(run.out)["replaced"]] == ["1"]
    assert package.load(tmp_path / "out")[1].out_channels == 8


def test_what_a_network_prints_stays_off_standard_output(
    ghostify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loud_nets.py").write_text(
        "from torch import nn\n"
        "class Loud(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        print('running')\n"
        "        return super().forward(x)\n"
        "def build():\n"
        "    print('building')\n"
        "    return Loud(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    run = ghostify("convert", "loud_nets:build", "--input-size", "16", "--json")

    assert json.loads(run.out)["artefact"] is None
    assert "building" in run.err
    assert "running" in run.err


def test_an_artefact_can_be_inspected(ghostify: Command, tmp_path: Path) -> None:
    ghostify("convert", "resnet20_cifar", "--d", 1, "-q", "-o", tmp_path / "out")

    value = json.loads(ghostify("inspect", tmp_path / "out", "--json").out)

    assert value["replaced"] == []
    assert value["before"] == value["after"]
    assert "already part of a Ghost module" in {skip["reason"] for skip in value["skipped"]}


def test_version_and_help(ghostify: Command) -> None:
    assert ghostify("--version").out.startswith("ghostify 0.")
    assert "--keep" in ghostify("convert", "--help").out
    assert ghostify("inspect", "--help").code == 0


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_pandas(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from ghostify.cli.app import main\n"
        f"code = main({arguments!r})\n"
        "heavy = {'torch', 'pandas', 'numpy', 'timm', 'torchvision'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr


def test_the_console_script_and_the_module_are_there() -> None:
    script = Path(sys.executable).parent / "ghostify"
    for command in ([str(script)], [sys.executable, "-m", "ghostify"]):
        run = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)

        assert run.stdout.startswith("ghostify ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m ghostify inspect resnet20_cifar --no-thop | head -1"

    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)

    assert "Traceback" not in run.stderr
    assert "error" not in run.stderr


def wait_for_handlers(pid: int) -> None:
    """Wait until a process catches SIGTERM, which Python by itself does not."""
    status = Path(f"/proc/{pid}/status")
    for _ in range(1000):
        lines = status.read_text().splitlines() if status.exists() else []
        caught = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0, 2.4])
@pytest.mark.parametrize("signal_number", [2, 15])
def test_a_signal_half_way_leaves_nothing_behind(
    tmp_path: Path, delay_s: float, signal_number: int
) -> None:
    command = [sys.executable, "-m", "ghostify", "convert", "resnet18", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    wait_for_handlers(process.pid)
    time.sleep(delay_s)
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=60)

    if process.returncode == 0:  # it was faster
        assert (tmp_path / "out" / "ghostify.json").is_file()
        return
    assert process.returncode == 128 + signal_number
    assert err == "error: interrupted; nothing half-written is left\n"
    assert out == ""
    assert list(tmp_path.iterdir()) == []
