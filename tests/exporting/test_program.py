"""Capturing a network, and saying where it fails."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.program import capture, layer_with, quiet
from tests.exporting.networks import small, with_layer


def _branch(maps: Tensor) -> Tensor:
    return maps if bool(maps.sum() > 0) else -maps


def _fixed(maps: Tensor) -> Tensor:
    return maps + torch.zeros(2, 1, 1, 1)


def test_a_network_in_train_mode_is_captured_in_eval_mode_and_left_alone() -> None:
    model, image = small(), torch.randn(1, 3, 64, 64)

    program = capture(model, (image,))

    assert model.training
    assert torch.equal(program.module()(image), model.eval()(image))


def test_a_dynamic_batch_takes_any_size() -> None:
    model = small().eval()

    network = capture(model, (torch.randn(1, 3, 64, 64),), dynamic_batch=True).module()

    for size in (1, 2, 5):
        image = torch.randn(size, 3, 64, 64)
        torch.testing.assert_close(network(image), model(image))


def test_a_branch_on_values_is_told_with_its_layer() -> None:
    with pytest.raises(ExportError, match=r"cannot trace body\.odd \("):
        capture(with_layer(_branch), (torch.randn(1, 3, 8, 8),))


def test_a_fixed_batch_is_told_as_such() -> None:
    with pytest.raises(ExportError, match=r"with a dynamic batch \(.*\); fix the batch"):
        capture(with_layer(_fixed), (torch.randn(2, 3, 8, 8),), dynamic_batch=True)


def test_inputs_without_a_common_batch_have_no_dynamic_one() -> None:
    with pytest.raises(ExportError, match=r"common first axis \(got 1x3, 2x3\); fix the batch"):
        capture(nn.Bilinear(3, 3, 2), (torch.zeros(1, 3), torch.zeros(2, 3)), dynamic_batch=True)


def test_the_operator_of_an_error_is_found_in_its_layer() -> None:
    program = capture(with_layer(torch.special.bessel_j0), (torch.randn(1, 3, 8, 8),))

    found = layer_with(program, "no function for torch.ops.aten.special_bessel_j0.default here")

    assert found == ("aten.special_bessel_j0", "body.odd")
    assert layer_with(program, "it failed") == ("", "")


def test_quiet_keeps_prints_from_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        sys.stdout.write("noise")
        sys.stderr.write("noise")

    sys.stdout.write("result\n")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("result\n", "")
