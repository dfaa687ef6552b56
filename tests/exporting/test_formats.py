"""What every format must do, and the choice among them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from ghostify.errors import ExportError, RuntimeMissingError
from ghostify.exporting.base import Format
from ghostify.exporting.formats import (
    FORMATS,
    _adapter,
    find_format,
    format_name,
    installed_formats,
)
from ghostify.passes.settings import PASSES
from tests.exporting.networks import Pair, small_ghost

METADATA = {"ghostify_plan": '{"layers":{"a.b":"<s2>&\'d3\'"}}', "ghostify_inputs": "1x3x64x64"}


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> Format:
    """A format that can be written here."""
    found = _adapter(request.param)
    why = found.missing()
    if why is not None:
        pytest.skip(why)
    return found


def test_a_dynamic_batch_in_any_format(form: Format, tmp_path: Path) -> None:
    """The file gives the network's outputs for several batches, and its metadata back."""
    model = small_ghost()
    file = tmp_path / f"model{form.suffix}"
    images = [torch.randn(size, 3, 64, 64) for size in (1, 4)]

    form.write(model, (images[0],), file, dynamic_batch=True, metadata=METADATA)
    found = form.run(file, [(image,) for image in images])

    for image, (output,) in zip(images, found, strict=True):
        torch.testing.assert_close(output, model(image), rtol=1e-4, atol=1e-5)
    known = form.metadata(file)
    assert {key: known[key] for key in METADATA} == METADATA


def test_several_inputs_and_outputs_keep_their_order(form: Format, tmp_path: Path) -> None:
    model = Pair().eval()
    inputs = (torch.randn(1, 3, 8, 8), torch.randn(1, 2, 8, 8))
    file = tmp_path / f"model{form.suffix}"

    form.write(model, inputs, file)
    ((first, second),) = form.run(file, [inputs])

    wanted = model(*inputs)
    torch.testing.assert_close(first, wanted["sum"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, wanted["mean"], rtol=1e-4, atol=1e-5)


def test_formats_say_what_they_are(form: Format) -> None:
    assert FORMATS[form.name][0] == form.suffix
    assert form.passes in PASSES
    assert form.versions()


@pytest.mark.parametrize(("name", "suffix"), [(name, one[0]) for name, one in FORMATS.items()])
def test_a_format_goes_by_its_ending(name: str, suffix: str) -> None:
    assert format_name(Path(f"net{suffix.upper()}")) == name
    assert format_name(Path(f"net{suffix}"), name) == name


def test_names_that_say_no_format() -> None:
    with pytest.raises(ExportError, match=r"does not say its format; give --format, or one of"):
        format_name(Path("net.bin"))
    with pytest.raises(
        ExportError, match=r"onnx end in \.onnx \(got net\.pt2\); name it net\.onnx"
    ):
        format_name(Path("net.pt2"), "onnx")


def test_an_unknown_format_lists_those_there_are() -> None:
    there = installed_formats()

    with pytest.raises(ExportError, match=r"no format is called 'onxn'; did you mean onnx") as told:
        format_name(Path("net.onnx"), "onxn")

    for name in there:
        assert name in str(told.value)
    assert there["pt2"]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("GHOSTIFY_LITERT_PYTHON", raising=False)
    monkeypatch.delenv("GHOSTIFY_EXECUTORCH_PYTHON", raising=False)

    for name, extra in (("onnx", "onnx"), ("openvino", "openvino"), ("litert", "litert")):
        with pytest.raises(RuntimeMissingError, match=rf"pip install 'ghostify\[{extra}\]'"):
            find_format(name)
    with pytest.raises(RuntimeMissingError, match=r"by GHOSTIFY_EXECUTORCH_PYTHON"):
        find_format("executorch")


def test_an_interpreter_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHOSTIFY_LITERT_PYTHON", "/nowhere/python")

    with pytest.raises(
        RuntimeMissingError, match=r"LITERT_PYTHON is '/nowhere/python', which is no"
    ):
        find_format("litert")


@pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is not None, reason="LiteRT is installed here"
)
def test_an_interpreter_without_the_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GHOSTIFY_LITERT_PYTHON", sys.executable)

    with pytest.raises(RuntimeMissingError, match=r"has no litert_torch; install it there"):
        find_format("litert").write(
            Pair().eval(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8)), tmp_path / "a.tflite"
        )

    assert not list(tmp_path.iterdir())
