"""``ghostify.export``: any network to a file, with proof and metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ghostify
from ghostify.errors import ExportError, InputError, OutputError
from ghostify.exporting.formats import find_format
from tests.exporting.networks import Pair, small, small_ghost, with_layer

IMAGE = torch.zeros(1, 3, 64, 64)


def _branch(maps: Tensor) -> Tensor:
    return maps if bool(maps.sum() > 0) else -maps


@pytest.mark.parametrize("name", ["net.onnx", "net.xml", "net.pt2"])
def test_a_conversion_becomes_a_file_with_its_plan(name: str, tmp_path: Path) -> None:
    conversion = ghostify.convert(small(), example=IMAGE, verify=False)

    made = ghostify.export(conversion, tmp_path / name, dynamic_batch=True)

    assert 0 <= made.max_difference < 1e-4
    assert list(made.differences) == ["normal", "zeros", "large", "batch of 3"]
    assert made.passes is not None
    assert made.size_bytes == sum(one.stat().st_size for one in tmp_path.iterdir())
    known = find_format(made.format).metadata(tmp_path / name)
    assert json.loads(known["ghostify_plan"]) == conversion.plan.as_json()
    assert json.loads(known["ghostify_versions"])["torch"] == torch.__version__
    assert json.loads(known["ghostify_inputs"]) == ["1x3x64x64"]
    assert json.loads(known["ghostify_passes"]) == made.passes
    assert conversion.model.training  # untouched


def test_a_dense_network_by_name(tmp_path: Path) -> None:
    made = ghostify.export("resnet20_cifar", tmp_path / "net.pt2", batch=2, optimize=False)

    assert made.inputs == ("2x3x32x32",)
    assert made.passes is None
    known = find_format("pt2").metadata(tmp_path / "net.pt2")
    assert json.loads(known["ghostify_model"])["name"] == "resnet20_cifar"
    assert json.loads(known["ghostify_plan"])["layers"] == {}


def test_an_artefact(tmp_path: Path) -> None:
    conversion = ghostify.convert("resnet20_cifar", verify=False)
    ghostify.save(conversion, tmp_path / "out")

    made = ghostify.export(tmp_path / "out", tmp_path / "net.pt2")

    assert made.max_difference < 1e-4
    program = torch.export.load(tmp_path / "net.pt2")
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(
        program.module()(image), conversion.model.eval()(image), rtol=1e-4, atol=1e-4
    )
    known = find_format("pt2").metadata(tmp_path / "net.pt2")
    assert json.loads(known["ghostify_plan"])["layers"] == conversion.plan.as_json()["layers"]


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float16, "net.onnx"), (torch.bfloat16, "a.pt2")]
)
def test_half_precision_has_a_wider_tolerance(
    dtype: torch.dtype, name: str, tmp_path: Path
) -> None:
    made = ghostify.export(
        small_ghost().to(dtype), tmp_path / name, example=IMAGE.to(dtype), optimize=False
    )

    assert made.tolerance >= 1e-2
    assert made.max_difference <= made.tolerance


def test_bfloat16_is_for_pt2(tmp_path: Path) -> None:
    model, image = small_ghost().bfloat16(), IMAGE.bfloat16()

    with pytest.raises(ExportError, match=r"cannot be compared by ONNX Runtime .* as pt2"):
        ghostify.export(model, tmp_path / "net.onnx", example=image)


def test_several_inputs(tmp_path: Path) -> None:
    inputs = (torch.randn(1, 3, 8, 8), torch.randn(1, 2, 8, 8))

    made = ghostify.export(Pair(), tmp_path / "net.onnx", example=inputs, dynamic_batch=True)

    assert made.inputs == ("1x3x8x8", "1x2x8x8")


def test_a_file_that_computes_something_else_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module, example: Any, *, runtime: str) -> nn.Module:
        return nn.Sequential(model, nn.Hardtanh(-1e-3, 1e-3)).eval()

    monkeypatch.setattr("ghostify.exports.optimize_model", broken)

    with pytest.raises(ExportError, match=r"computes something else .*--no-optimize"):
        ghostify.export(small_ghost(), tmp_path / "net.pt2", example=IMAGE)

    assert not list(tmp_path.iterdir())


def test_a_form_that_cannot_be_written_gives_way_to_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def branching(model: nn.Module, example: Any, *, runtime: str) -> nn.Module:
        return nn.Sequential(model, with_layer(_branch).body.odd).eval()  # type: ignore[union-attr]

    monkeypatch.setattr("ghostify.exports.optimize_model", branching)

    made = ghostify.export(small_ghost(), tmp_path / "net.pt2", example=IMAGE)

    assert made.passes is None
    assert any("not optimised for torch-compile, since" in note for note in made.notes)


def test_a_network_that_answers_the_same_to_all_is_told(tmp_path: Path) -> None:
    model = small_ghost()
    with torch.no_grad():
        model[-1].weight.zero_()  # type: ignore[index, union-attr, operator]

    made = ghostify.export(model, tmp_path / "net.pt2", example=IMAGE)

    assert any("says little" in note for note in made.notes)


@pytest.mark.parametrize("fixed", [True, False])
def test_what_cannot_be_exported_leaves_no_file(fixed: bool, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"body\.odd"):
        ghostify.export(
            with_layer(_branch), tmp_path / "net.onnx", example=IMAGE, dynamic_batch=not fixed
        )

    assert not list(tmp_path.iterdir())


def test_bad_input(tmp_path: Path) -> None:
    model, file = small(), tmp_path / "net.pt2"

    with pytest.raises(InputError, match=r"is unknown; give an example"):
        ghostify.export(model, file)
    with pytest.raises(InputError, match=r"does not take an input of 1x5x8x8"):
        ghostify.export(model, file, example=torch.zeros(1, 5, 8, 8))
    with pytest.raises(InputError, match=r"whose arguments are tensors \(got a list\)"):
        ghostify.export(model, file, example=([IMAGE],))  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"batch is a whole number from 1 on \(got 0\)"):
        ghostify.export(model, file, input_size=(3, 64, 64), batch=0)
    file.write_text("mine")
    with pytest.raises(OutputError, match=r"exists already"):
        ghostify.export(model, file, example=IMAGE)
    assert file.read_text() == "mine"
    assert ghostify.export(model, file, example=IMAGE, force=True).file == file
