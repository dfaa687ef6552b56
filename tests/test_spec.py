"""Settings: what is allowed, how they are written, how many maps they leave."""

from __future__ import annotations

import math

import pytest

from ghostify.errors import SpecError
from ghostify.spec import GhostSpec, intrinsic_maps


@pytest.mark.parametrize(
    ("ratio", "kernel", "message"),
    [
        (
            1,
            3,
            "GhostSpec.ratio (s) must be >= 2 (got 1); to leave a layer as it is, keep it instead",
        ),
        (2, 4, "GhostSpec.kernel (d) must be odd and >= 1 (got 4); 3 is the paper's choice"),
        (2, 0, "GhostSpec.kernel (d) must be odd and >= 1 (got 0); 3 is the paper's choice"),
        (2.0, 3, "GhostSpec.ratio must be a whole number (got 2.0)"),
        (2, True, "GhostSpec.kernel must be a whole number (got True)"),
    ],
)
def test_an_impossible_setting_is_refused(ratio: int, kernel: int, message: str) -> None:
    with pytest.raises(SpecError) as error:
        GhostSpec(ratio, kernel)

    assert str(error.value) == message


def test_an_unknown_cheap_operation_names_the_nearest() -> None:
    with pytest.raises(SpecError) as error:
        GhostSpec(cheap="depthwize")

    assert "did you mean depthwise?" in str(error.value)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("s3,d5", GhostSpec(3, 5)),
        ("d5,s3", GhostSpec(3, 5)),
        ("s=3, d=5", GhostSpec(3, 5)),
        ("s3", GhostSpec(3, 7)),
        ("d1", GhostSpec(4, 1)),
    ],
)
def test_settings_are_read_with_what_is_missing_from_the_default(
    text: str, spec: GhostSpec
) -> None:
    assert GhostSpec.parse(text, default=GhostSpec(4, 7)) == spec


@pytest.mark.parametrize("text", ["", "3,5", "s3,s4", "s3;d5", "sx", "s3,d5,"])
def test_anything_else_is_no_setting(text: str) -> None:
    with pytest.raises(SpecError):
        GhostSpec.parse(text)


@pytest.mark.parametrize("maps", [1, 2, 7, 64, 255])
@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_intrinsic_maps_of_a_plain_convolution_are_the_ceiling(maps: int, ratio: int) -> None:
    assert intrinsic_maps(maps, ratio) == math.ceil(maps / ratio)


def test_a_grouped_convolution_gets_a_multiple_of_its_groups() -> None:
    """48 maps in 8 groups at s = 5 want 9.6: the next multiple of 8 is 16."""
    assert intrinsic_maps(48, 5, groups=8) == 16
