"""torchvision's CUDA wheel imports beside a CPU torch, also from a user's own module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

IMPORT = (
    "from ghostify.models.torchvision_import import import_beside_torchvision as load\n"
    "vision = load('torchvision')\n"
)


def in_a_new_process(script: str, folder: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_models_transforms_and_datasets_work(tmp_path: Path) -> None:
    script = IMPORT + (
        "import torch, torchvision.transforms.v2, torchvision.datasets\n"
        "model = vision.models.resnet18().eval()\n"
        "print(tuple(model(torch.zeros(1, 3, 32, 32)).shape))\n"
    )

    assert in_a_new_process(script, tmp_path) == "(1, 1000)"


def test_a_users_module_may_import_torchvision(tmp_path: Path) -> None:
    (tmp_path / "vision_nets.py").write_text("from torchvision.models import resnet18 as build\n")
    script = (
        "import sys; sys.path.insert(0, '')\n"
        "from ghostify.models.zoo import build\n"
        "print(type(build('vision_nets:build').model).__name__)\n"
    )

    assert in_a_new_process(script, tmp_path) == "ResNet"


def test_a_plain_import_is_not_repaired_where_it_works(tmp_path: Path) -> None:
    script = IMPORT + "import ghostify.models.torchvision_import as m; print(len(m._libraries))"
    plain = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, check=False
    )

    assert in_a_new_process(script, tmp_path) == str(int(plain.returncode != 0))


def test_other_failures_of_an_import_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("raise RuntimeError('something else')\n")
    script = "import sys; sys.path.insert(0, '')\n" + IMPORT + "load('odd')"

    with pytest.raises(subprocess.CalledProcessError) as error:
        in_a_new_process(script, tmp_path)
    assert "something else" in error.value.stderr
