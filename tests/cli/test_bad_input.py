"""Bad input: one sentence that names the remedy, a non-zero exit, nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ghostify as package
from ghostify.files import fresh_directory

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnt50"], 1, "no model is called 'resnt50'; did you mean resnet50"),
        (["resnet20_cifar", "--s", "1"], 1, "GhostSpec.ratio (s) must be >= 2 (got 1)"),
        (["resnet20_cifar", "--s", "0"], 1, "GhostSpec.ratio (s) must be >= 2 (got 0)"),
        (["resnet20_cifar", "--s", "100"], 1, "choose a ratio of at most 16 or keep the layer"),
        (["resnet20_cifar", "--s", "two"], 2, "should be a valid integer"),
        (["resnet20_cifar", "--d", "4"], 1, "GhostSpec.kernel (d) must be odd and >= 1 (got 4)"),
        (["resnet20_cifar", "--d", "-1"], 1, "must be odd and >= 1 (got -1)"),
        (["resnet20_cifar", "--d", "three"], 2, "--d is written 3, or 1+3"),
        (["resnet20_cifar", "--d", "3+1+3"], 1, "two or more rising sides, like 1+3"),
        (["resnet20_cifar", "--cheap", "blurr"], 1, "did you mean blur?"),
        (["resnet20_cifar", "--cheap", "affine", "--d", "3"], 1, "of affine is always 1 (got 3)"),
        (["resnet20_cifar", "--plan", "p.yaml", "--cheap", "blur"], 2, "leave out --cheap"),
        (["resnet20_cifar", "--set", "layer1.*=s3,d4"], 2, "layer1.*=s3,d4: GhostSpec.kernel"),
        (["resnet20_cifar", "--set", "layer1.*"], 2, "--set is written PATTERN=s3,d5"),
        (["resnet20_cifar", "--set", "layer9.*=s3"], 1, "matches no convolution"),
        (["resnet20_cifar", "--keep", "layr1.0.conv1"], 1, "did you mean layer1.0.conv1"),
        (["resnet20_cifar", "--keep", "layer1"], 1, "write 'layer1.*' for all below it"),
        (["resnet20_cifar", "--keep", "conv1", "--set", "conv1=s2"], 1, "contradict"),
        (["resnet20_cifar", "--keep", "*"], 1, "nothing would be converted in resnet20_cifar: 19x"),
        (["resnet20_cifar", "--input-size", "0"], 2, "--input-size has no side below 1"),
        (["resnet20_cifar", "--input-size", "big"], 2, "--input-size is written 224, 224x320 or"),
        (["resnet20_cifar", "--input-size", "1x32x32"], 1, "input of shape 1x1x32x32"),
        (["vgg16_cifar", "--input-size", "16"], 1, "cannot run on an input of shape 1x3x16x16"),
        (["resnet20_cifar", "--model-arg", "classes"], 2, "--model-arg is written KEY=VALUE"),
        (["resnet20_cifar", "--model-arg", "clases=3"], 1, "check --model-arg"),
        (["resnet20_cifar", "--input-size", "999999999"], 1, "does not fit into memory"),
        (["resnet20_cifar", "--seed", "-1"], 2, "--seed"),
        (["resnet20_cifar", "--seed", "9" * 30], 2, "--seed"),
        (["resnet20_cifar", "--d", "9" * 20], 1, "must be at most 99"),
        (["resnet20_cifar", "--model-arg", "x=2020-01-01"], 2, "could not be saved; quote it"),
        (["resnet20_cifar", "--model-arg", "x={1: 2}"], 2, "could not be saved; quote it"),
        (["resnet20_cifar", "--plan", "none.yaml"], 1, "no such plan: none.yaml"),
        (["resnet20_cifar", "--plan", "p.yaml", "--s", "3"], 2, "leave out --s or edit the plan"),
        (["resnet20_cifar", "--weights", "none.pth"], 1, "the checkpoint none.pth does not exist"),
        (["resnet20_cifar", "--weights", "w", "--pretrained"], 2, "exclude each other"),
        (["resnet20_cifar", "--pretrained"], 1, "pass them by --weights"),
        (["json:loads"], 1, "names no factory; write package.module:function"),
        (["no_such_pkg:build"], 1, "no module 'no_such_pkg' is installed or in this directory"),
        (["resnet20_cifar", "--frobnicate"], 2, "No such option: --frobnicate"),
        ([], 2, "Missing argument 'MODEL'"),
        (["vit_b_16"], 1, "nothing would be converted in vit_b_16: 1x first convolution"),
    ],
)  # fmt: skip
def test_one_sentence_and_nothing_left(
    ghostify: Command, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    run = ghostify("convert", *arguments, "-o", tmp_path / "out", "--json")

    assert message in run.message
    assert run.code == code
    assert run.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_factory_that_makes_no_model(
    ghostify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_nets.py").write_text("def build(): return [1, 2]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    run = ghostify("convert", "odd_nets:build", "-o", "out")

    assert run.code == 1
    assert "gives a list, not a torch.nn.Module; let the factory return" in run.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["truncated", "bomb", "other network"])
def test_a_bad_checkpoint(ghostify: Command, tmp_path: Path, damage: str) -> None:
    file, target = tmp_path / "w.pth", tmp_path / "boom"
    state = package.convert("resnet20_cifar", verify=False).model.state_dict()
    if damage == "bomb":

        class Bomb:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(target),)

        torch.save({"state_dict": state, "extra": Bomb()}, file)
    else:
        torch.save(state, file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:5000])

    run = ghostify("convert", "resnet20_cifar", "--weights", file, "-o", tmp_path / "out")

    assert run.code == 1
    assert {
        "truncated": "is damaged or of an unknown format",
        "bomb": "could run code, and is refused",
        "other network": "does not fit resnet20_cifar: of its keys 18 missing",
    }[damage] in run.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.pth"]


def test_a_plan_for_another_network(ghostify: Command, tmp_path: Path) -> None:
    """Every layer of ResNet-20 is also one of ResNet-56, so names alone would not do."""
    ghostify("convert", "resnet20_cifar", "-q", "-o", tmp_path / "small")

    run = ghostify(
        "convert", "resnet56_cifar", "--plan", tmp_path / "small", "-o", tmp_path / "out"
    )

    assert run.code == 1
    assert "the plan is for another network (it was made for resnet20_cifar)" in run.message
    assert not (tmp_path / "out").exists()


def test_an_artefact_with_a_flipped_byte(ghostify: Command, tmp_path: Path) -> None:
    ghostify("convert", "resnet20_cifar", "-q", "-o", tmp_path / "out")
    weights = bytearray((tmp_path / "out" / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "out" / "model.safetensors").write_bytes(weights)

    run = ghostify("inspect", tmp_path / "out")

    assert run.code == 1
    assert "is damaged: its content hash differs" in run.message


def test_an_output_that_stands_in_the_way(ghostify: Command, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")

    for out, extra, message in (
        ("folder", [], "exists already; use --force to replace it"),
        ("file", ["--force"], "is a file; choose another output directory"),
        ("file/below", [], "is no directory; choose another"),
    ):
        run = ghostify("convert", "resnet20_cifar", "-o", tmp_path / out, *extra)
        assert run.code == 1
        assert message in run.message
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "years of work"


def test_an_empty_directory_needs_force_too(ghostify: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    assert "use --force" in ghostify("convert", "resnet20_cifar", "-o", tmp_path / "out").message
    assert ghostify("convert", "resnet20_cifar", "-q", "-o", tmp_path / "out", "--force").code == 0


def test_force_leaves_what_is_not_ours(ghostify: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")

    run = ghostify("convert", "resnet20_cifar", "-q", "-o", out, "--force")

    assert run.code == 0
    assert (out / "thesis.txt").read_text() == "years of work"
    assert package.load(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_current_directory_is_not_replaced(
    ghostify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert "is where you stand" in ghostify("convert", "resnet20_cifar", "-o", ".").message
    assert "is where you stand" in ghostify("convert", "resnet20_cifar", "-o", "..").message


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def race() -> None:
        with fresh_directory(tmp_path / "out", force=False):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis.txt").write_text("years of work")

    with pytest.raises(package.GhostifyError, match="exists already"):
        race()

    assert (tmp_path / "out" / "thesis.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_target_of_a_link_is_written(ghostify: Command, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")

    assert ghostify("convert", "resnet20_cifar", "-q", "-o", tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target" / "ghostify.json").is_file()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.exit(0)", "importing odd_nets fails (SystemExit: 0)"),
        ("def build():\n    raise SystemExit('bye')", "fails (SystemExit: bye)"),
        ("build = 3", "is a int, not a function"),
        (
            "import torch\nbuild = torch.jit.script(torch.nn.Conv2d(3, 8, 3))",
            "TorchScript modules cannot be converted",
        ),
        (
            "import torch\nbuild = torch.nn.Conv2d(3, 8, 3, device='meta')",
            "has no values; build it on a device",
        ),
        ("def build(:", "importing odd_nets fails (SyntaxError"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_factory_that_does_anything(
    ghostify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    (tmp_path / "odd_nets.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_nets", raising=False)

    run = ghostify("convert", "odd_nets:build", "--json")

    assert run.code == 1
    assert message in run.message
    assert run.out == ""


def test_output_that_cannot_be_encoded_is_replaced(tmp_path: Path) -> None:
    for extra in ([], ["--json", "-o", "\u00f6"]):
        run = subprocess.run(
            [sys.executable, "-m", "ghostify", "convert", "resnet20_cifar", *extra],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )

        assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["artefact"] == "\u00f6"


def test_a_file_named_like_a_library_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemError('mine')\n")
    script = Path(sys.executable).parent / "ghostify"

    run = subprocess.run(
        [script, "inspect", "resnet20_cifar", "-q"], cwd=tmp_path, capture_output=True, check=False
    )

    assert run.returncode == 0, run.stderr


def test_force_replaces_an_artefact(ghostify: Command, tmp_path: Path) -> None:
    ghostify("convert", "resnet20_cifar", "-q", "-o", tmp_path / "out")
    refused = ghostify("convert", "resnet20_cifar", "--s", 4, "-o", tmp_path / "out")
    kept = package.load(tmp_path / "out").layer1[0].conv1.ratio
    ghostify("convert", "resnet20_cifar", "--s", 4, "-q", "-o", tmp_path / "out", "--force")

    assert "use --force" in refused.message
    assert kept == 2
    assert package.load(tmp_path / "out").layer1[0].conv1.ratio == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_may_not_be_written(ghostify: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    run = ghostify("convert", "resnet20_cifar", "-o", tmp_path / "out")

    assert run.code == 1
    assert "cannot be written (Permission denied); choose another" in run.message


def test_a_place_where_nothing_can_be_written(ghostify: Command) -> None:
    run = ghostify("convert", "resnet20_cifar", "-o", "/proc/ghostify/out")

    assert run.code == 1
    assert "/proc/ghostify/out cannot be written" in run.message


def test_a_full_disk(tmp_path: Path) -> None:
    """Past a limit on the size of files the system refuses to write, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run = subprocess.run(
        [sys.executable, "-m", "ghostify", "convert", "resnet20_cifar", "-o", "deep/out"],
        preexec_fn=limit,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 1
    assert run.stderr.strip() == (
        "error: no space is left to write deep/out; free some or choose another output directory"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_one_line_as_well(ghostify: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("ghostify.cli.inspect.inspect_model", broken)

    run = ghostify("inspect", "resnet20_cifar")

    assert run.code == 3
    assert "this is a bug in ghostify (ZeroDivisionError: division by zero)" in run.message
