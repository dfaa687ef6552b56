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
        ("s2,d3,r16", GhostSpec(2, 3, round_to=16)),
        ("r8", GhostSpec(4, 7, round_to=8)),
    ],
)
def test_settings_are_read_with_what_is_missing_from_the_default(
    text: str, spec: GhostSpec
) -> None:
    assert GhostSpec.parse(text, default=GhostSpec(4, 7)) == spec


@pytest.mark.parametrize("text", ["", "3,5", "s3,s4", "s3;d5", "sx", "s3,d5,", "r0", "r4,r8"])
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


@pytest.mark.parametrize("round_to", [0, -16, 2.0, True])
def test_a_rounding_is_a_positive_whole_number(round_to: int) -> None:
    with pytest.raises(SpecError, match="round_to must be"):
        GhostSpec(round_to=round_to)


@pytest.mark.parametrize(
    "spec", [GhostSpec(), GhostSpec(3, 5), GhostSpec(2, 1, round_to=16), GhostSpec(4, round_to=3)]
)
def test_settings_are_written_as_they_are_read(spec: GhostSpec) -> None:
    assert GhostSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("maps", "ratio", "groups", "round_to", "expected"),
    [
        (64, 2, 1, 16, 32),  # a multiple already
        (48, 2, 1, 16, 32),  # 24, rounded up
        (24, 2, 1, 16, 16),
        (96, 4, 1, 16, 32),  # 24, rounded up
        (16, 2, 1, 16, 8),  # no ghost would be left: not rounded
        (32, 2, 1, 32, 16),
        (48, 5, 8, 12, 24),  # a multiple of 8 and of 12
        (48, 5, 8, 16, 16),
        (17, 2, 1, 16, 16),
    ],
)
def test_intrinsic_maps_are_rounded_up_where_a_ghost_is_left(
    maps: int, ratio: int, groups: int, round_to: int, expected: int
) -> None:
    assert intrinsic_maps(maps, ratio, groups, round_to) == expected
    assert GhostSpec(ratio, round_to=round_to).intrinsic_maps(maps, groups) == expected


def test_rounding_ends_at_the_first_multiple_from_the_plain_number_on() -> None:
    """By search over all numbers: the least multiple of both that is not below n / s."""
    for maps in range(2, 70):
        for ratio in (2, 3, 4):
            for round_to in (1, 3, 4, 16):
                plain = math.ceil(maps / ratio)
                fits = [m for m in range(plain, maps) if m % round_to == 0]
                expected = fits[0] if fits else plain
                assert intrinsic_maps(maps, ratio, 1, round_to) == expected
