"""ONNX files: one file, names that can be read, errors that name the layer."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from ghostify.errors import ExportError
from ghostify.exporting.onnx import LIMIT_BYTES, layers_of_nodes, write_onnx
from tests.exporting.networks import small_ghost, with_layer


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ghosted network with a dynamic batch."""
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(small_ghost(), (torch.randn(1, 3, 64, 64),), file, dynamic_batch=True)
    return file


def test_weights_are_in_the_one_file(written: Path) -> None:
    assert [one.name for one in written.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(str(written), load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert all(tensor.raw_data for tensor in model.graph.initializer)


def test_inputs_outputs_and_the_open_axis_have_names(written: Path) -> None:
    graph = onnx.load(str(written)).graph

    assert [one.name for one in graph.input] == ["input"]
    assert [one.name for one in graph.output] == ["output"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_nodes_bear_the_names_of_layers(written: Path) -> None:
    names = {name for name, _ in small_ghost().named_modules()}
    layers = layers_of_nodes(written)

    assert set(layers.values()) <= names
    assert layers["3.conv.primary/Conv"] == "3.conv.primary"
    assert layers["3.conv.cheap.0/Conv"] == "3.conv.cheap.0"
    assert layers["3.conv/Concat"] == "3.conv"


def test_nothing_tells_of_this_machine(written: Path) -> None:
    content = written.read_bytes()

    assert str(Path(__file__).parent.parent).encode() not in content
    assert b"site-packages" not in content


def test_an_operator_without_counterpart_is_told_with_its_layer(tmp_path: Path) -> None:
    model = with_layer(torch.special.bessel_j0)

    with pytest.raises(
        ExportError, match=r"the operator aten\.special_bessel_j0 of body\.odd has no"
    ):
        write_onnx(model, (torch.randn(1, 3, 8, 8),), tmp_path / "model.onnx")

    assert not list(tmp_path.iterdir())


def test_a_network_beyond_the_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LIMIT_BYTES < 2**31
    monkeypatch.setattr("ghostify.exporting.onnx.LIMIT_BYTES", 1000)

    with pytest.raises(ExportError, match=r"at most 2 GiB .*; export it as pt2"):
        write_onnx(small_ghost(), (torch.randn(1, 3, 64, 64),), tmp_path / "model.onnx")
