"""GhostNet on the command line: width, timm's weights, and what is wrong in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ghostify.models.torchvision_import import import_beside_torchvision


def test_timms_weights_go_into_ours_by_file(ghostify: Callable[..., Any], tmp_path: Path) -> None:
    theirs = import_beside_torchvision("timm").create_model("ghostnet_050", num_classes=10)
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")

    run = ghostify(
        "convert", "ghostnet", "--model-arg", "width=0.5", "--model-arg", "num_classes=10",
        "--weights", tmp_path / "timm.safetensors", "--input-size", "64", "--no-verify",
        "-o", tmp_path / "out",
    )  # fmt: skip

    assert run.code == 0, run.err
    assert "ghostnet is ghostify's own (timm's go by timm:ghostnet_100" in run.err
    made = load_file(tmp_path / "out" / "model.safetensors")
    original = load_file(tmp_path / "out" / "original.safetensors")
    assert torch.equal(made["classifier.weight"], theirs.classifier.weight)
    assert torch.equal(original["stem.conv.weight"], theirs.conv_stem.weight)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("width=wide", "ghostnet's width is a number above 0 (got 'wide')"),
        ("widht=1.3", "unexpected keyword argument 'widht'"),
        ("ratio=1", "GhostSpec.ratio (s) must be >= 2 (got 1)"),
        ("cheap=depthwize", "depthwise"),
    ],
)
def test_a_wrong_argument_is_one_line(
    ghostify: Callable[..., Any], argument: str, message: str
) -> None:
    run = ghostify("inspect", "ghostnet", "--model-arg", argument)

    assert run.code == 1
    assert message in run.message


def test_another_width_than_the_weights_is_one_line(
    ghostify: Callable[..., Any], tmp_path: Path
) -> None:
    theirs = import_beside_torchvision("timm").create_model("ghostnet_050")
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")

    run = ghostify("inspect", "ghostnet", "--weights", tmp_path / "timm.safetensors")

    assert run.code == 1
    assert "does not fit" in run.message
    assert "of another shape" in run.message
