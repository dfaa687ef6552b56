"""The proof that a file computes what its network computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghostify.errors import ExportError
from ghostify.exporting.check import difference, prove, sample_inputs, tolerance_for

INPUTS = sample_inputs((torch.zeros(2, 3),), dynamic_batch=True)


class Stub:
    """A format whose files are what a function makes of the inputs."""

    name, suffix, passes = "stub", ".stub", "torch"

    def __init__(self, network: nn.Module | None = None, *, factor: float = 1.0) -> None:
        self.network, self.factor = network or nn.Identity(), factor

    def missing(self) -> None:
        return None

    def versions(self) -> Mapping[str, str]:
        return {}

    def write(self, *_: object, **__: object) -> None:
        raise NotImplementedError

    def metadata(self, file: Path) -> Mapping[str, str]:
        return {}

    def run(self, file: Path, inputs: Sequence[Sequence[Tensor]]) -> tuple[tuple[Tensor, ...], ...]:
        return tuple((self.factor * self.network(*one),) for one in inputs)


def test_inputs_are_random_zero_large_and_of_other_batches() -> None:
    assert list(INPUTS) == ["normal", "zeros", "large", "batch of 1", "batch of 4"]
    assert not INPUTS["zeros"][0].any()
    assert INPUTS["large"][0].abs().max() > 5
    assert [one[0].shape[0] for one in INPUTS.values()] == [2, 2, 2, 1, 4]
    assert list(sample_inputs((torch.zeros(2, 3),))) == ["normal", "zeros", "large"]


def test_integers_are_left_as_they_are() -> None:
    numbers = torch.tensor([[1, 2]])

    for (given,) in sample_inputs((numbers,)).values():
        assert torch.equal(given, numbers) or not given.any()


def test_equal_outputs_differ_by_nothing() -> None:
    proof = prove(nn.Identity(), Stub(), Path("x"), INPUTS, tolerance=1e-4)

    assert proof.largest == 0
    assert proof.response > 0.5


def test_the_largest_difference_is_relative() -> None:
    proof = prove(nn.Identity(), Stub(factor=1.001), Path("x"), INPUTS, tolerance=1e-2)

    assert proof.largest == pytest.approx(1e-3, rel=1e-2)
    assert proof.differences["zeros"] == 0


def test_too_large_a_difference_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"differ by 1\.0e-03 of the largest output, 1e-04 is"):
        prove(nn.Identity(), Stub(factor=1.001), Path("x"), INPUTS, tolerance=1e-4)


def test_an_input_on_which_rounding_decides_is_left_out() -> None:
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Parameter(torch.tensor(1e4))

        def forward(self, maps: Tensor) -> Tensor:
            return torch.where(maps.abs().max() > 5, (maps + self.large) - self.large, maps)

    proof = prove(Cancelling(), Stub(), Path("x"), INPUTS, tolerance=1e-6)

    assert "large" not in proof.differences
    assert proof.largest == 0
    assert "'large' was left out" in proof.notes[0]
    with pytest.raises(ExportError, match=r"computes something else .* 'normal'"):
        prove(Cancelling(), Stub(factor=1.001), Path("x"), INPUTS, tolerance=1e-6)


def test_a_network_of_nothing_but_rounding_is_refused() -> None:
    class Cancelling(nn.Linear):
        def forward(self, maps: Tensor) -> Tensor:
            return (maps + 1e4) - 1e4

    inputs = {"normal": INPUTS["normal"]}
    with pytest.raises(ExportError, match=r"magnifies rounding errors so much"):
        prove(Cancelling(1, 1), Stub(), Path("x"), inputs, tolerance=1e-6)


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"outputs of 6 on the input 'normal', the"):
        prove(nn.Identity(), Stub(nn.Flatten(0)), Path("x"), INPUTS, tolerance=1e-4)


def test_a_network_that_draws_numbers_is_told_as_such() -> None:
    class Noisy(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return maps + torch.rand_like(maps)

    with pytest.raises(ExportError, match=r"gives other outputs each time"):
        prove(Noisy(), Stub(), Path("x"), INPUTS, tolerance=1e-4)


def test_difference_by_hand() -> None:
    wanted = torch.tensor([1.0, -4.0])

    assert difference(torch.tensor([1.0, -4.0]), wanted) == 0
    assert difference(torch.tensor([1.5, -4.0]), wanted) == pytest.approx(0.125)
    assert difference(torch.tensor([0.5, 0.0]), torch.zeros(2)) == 0.5
    assert difference(torch.tensor([float("nan"), -4.0]), wanted) == float("inf")
    endless = torch.tensor([float("inf"), -4.0])
    assert difference(endless, endless) == 0
    assert difference(-endless, endless) == float("inf")
    assert difference(torch.tensor([]), torch.tensor([])) == 0


def test_the_tolerance_is_that_of_the_coarsest_type() -> None:
    linear, image = nn.Linear(2, 2), torch.zeros(1, 2)

    assert tolerance_for(linear, (image,)) == 1e-4
    assert tolerance_for(linear.half(), (image.half(),)) == 1e-2
    assert tolerance_for(linear.bfloat16(), (image.half(),)) == 5e-2
    assert tolerance_for(linear.double(), (image.double(),)) == 1e-6
