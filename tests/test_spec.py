"""Settings: what is allowed, how they are written, how many maps they leave."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ghostify.errors import SpecError
from ghostify.spec import GhostSpec, PruneSpec, intrinsic_maps, parse_spec


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
        ("blur", GhostSpec(4, 7, "blur")),
        ("s2, d3, r16, shift", GhostSpec(2, 3, "shift", 16)),
        ("s2,affine", GhostSpec(2, 1, "affine")),
        ("wavelet", GhostSpec(4, 3, "wavelet")),
        ("s2,d1+3+5", GhostSpec(2, 5, mixed=(1, 3, 5))),
        ("s2,d3+d1", GhostSpec(2, mixed=(1, 3))),
        ("s2,d=3+5,blur", GhostSpec(2, 5, "blur", mixed=(3, 5))),
    ],
)
def test_settings_are_read_with_what_is_missing_from_the_default(
    text: str, spec: GhostSpec
) -> None:
    assert GhostSpec.parse(text, default=GhostSpec(4, 7)) == spec


def test_a_cheap_operation_by_default_takes_its_own_side_along() -> None:
    assert GhostSpec.parse("d3", default=GhostSpec(2, mixed=(1, 3, 5))) == GhostSpec(2, 3)
    assert GhostSpec.parse("s4", default=GhostSpec(cheap="affine")) == GhostSpec(4, 1, "affine")
    assert GhostSpec.parse("depthwise", default=GhostSpec(cheap="affine")) == GhostSpec()
    assert GhostSpec.parse("affine", default=GhostSpec(2, mixed=(3, 5))).kernels == (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s2,d1,blur", "GhostSpec.kernel (d) of blur must be at least 3 (got 1)"),
        ("s2,d1+3,shift", "GhostSpec.kernel (d) of shift must be at least 3 (got 1)"),
        ("s2,d3,affine", "GhostSpec.kernel (d) of affine is always 1 (got 3); leave it out"),
        ("s2,d1+3,wavelet", "GhostSpec.kernel (d) of wavelet is always 3 (got 1+3)"),
        ("s2,d3+3", "GhostSpec.mixed must be two or more rising sides, like 1+3 (got 3+3)"),
        ("s2,d1+4", "GhostSpec.kernel (d) must be odd and >= 1 (got 4)"),
        ("s2,wavelets", "did you mean wavelet?"),
        ("blur,shift", "a Ghost setting is written like s2,d3 (got 'blur,shift')"),
    ],
)
def test_a_cheap_operation_that_there_is_not_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        GhostSpec.parse(text)

    assert message in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [{"mixed": (3,)}, {"mixed": [1, 3]}, {"mixed": (5, 3)}, {"mixed": (1, True)},
     {"mixed": (1, 3), "kernel": 5}, {"cheap": None}],
)  # fmt: skip
def test_settings_in_values_are_checked_too(arguments: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        GhostSpec(**arguments)


def test_ghosts_learn_what_is_not_fixed_and_cost_what_is_computed() -> None:
    """7 ghosts of 3 intrinsic maps: branches of 3, 3 and 1."""
    cases = {
        "d3": (7 * 9, 7 * 9), "affine": (7, 7), "wavelet": (7 * 9, 7), "d5,shift": (7 * 25, 7),
        "d1+3": (2 * (2 * 1 + 9) + 1,) * 2, "d3+5,blur": (2 * (2 * 9 + 25) + 9, 7),
    }  # fmt: skip

    for text, (taps, weights) in cases.items():
        spec = GhostSpec.parse(f"s4,{text}")
        assert (spec.ghost_taps(7, 3), spec.ghost_weights(7, 3)) == (taps, weights), text


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
    "spec",
    [
        GhostSpec(),
        GhostSpec(3, 5),
        GhostSpec(2, 1, round_to=16),
        GhostSpec(4, round_to=3),
        GhostSpec(2, 5, "blur"),
        GhostSpec(3, 3, "shift", 16),
        GhostSpec(2, cheap="affine"),
        GhostSpec(4, cheap="wavelet", round_to=8),
        GhostSpec(2, mixed=(1, 3, 5), round_to=4),
        GhostSpec(2, cheap="shift", mixed=(3, 7)),
    ],
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


@pytest.mark.parametrize(
    ("ratio", "maps", "groups", "kept"),
    [(0.5, 16, 1, 8), (0.5, 7, 1, 4), (0.29, 100, 1, 71), (0.99, 3, 1, 1), (0.01, 8, 1, 8),
     (0.4, 12, 4, 8), (0.9, 8, 4, 4)],
)  # fmt: skip
def test_a_pruned_layer_keeps_what_is_left_of_its_maps(
    ratio: float, maps: int, groups: int, kept: int
) -> None:
    """n less floor(ratio x n), at least one, rounded up to the groups."""
    assert PruneSpec(ratio).kept_maps(maps, groups) == kept


@pytest.mark.parametrize("text", ["p0.5", "p=0.25", "p.125", "p1e-05"])
def test_a_share_survives_being_written(text: str) -> None:
    spec = parse_spec(text)

    assert isinstance(spec, PruneSpec)
    assert parse_spec(str(spec)) == spec


def test_other_settings_are_of_ghost_modules() -> None:
    assert parse_spec("s3", default=GhostSpec(2, 5)) == GhostSpec(3, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p", "a pruned share is written like p0.5 (got 'p')"),
        ("p0.5,d3", "a pruned share is written like p0.5 (got 'p0.5,d3')"),
        ("p0", "PruneSpec.ratio must be above 0 and below 1 (got 0.0)"),
        ("p1", "PruneSpec.ratio must be above 0 and below 1 (got 1.0)"),
        ("p-0.5", "PruneSpec.ratio must be above 0 and below 1 (got -0.5)"),
    ],
)
def test_a_share_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("ratio", ["0.5", True, None, float("nan")])
def test_a_share_is_a_number(ratio: object) -> None:
    with pytest.raises(SpecError, match=r"PruneSpec\.ratio must be"):
        PruneSpec(ratio)  # type: ignore[arg-type]
