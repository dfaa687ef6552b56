"""What a layer is and what it becomes: the values of a conversion, before any tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ghostify.errors import SpecError, nearest

__all__ = ["CHEAP_TAPS", "MAX_KERNEL", "ConvSite", "GhostSpec", "Origin", "intrinsic_maps"]

CHEAP_TAPS: dict[str, Callable[[int], int]] = {
    "depthwise": lambda kernel: kernel * kernel,
}
"""Weights of one ghost map, which are also its multiply-adds per pixel, by cheap operation."""

MAX_KERNEL = 99
"""Far beyond any use; a larger side is a slip of the pen."""

_FIELDS = {"s": "ratio", "d": "kernel", "r": "round_to"}
_PART = re.compile(r"(?P<letter>[sdr])\s*=?\s*(?P<value>-?\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class GhostSpec:
    """How one convolution becomes a Ghost module (GhostNet, sec. 3.1).

    Raises:
        SpecError: ratio below 2, kernel even or below 1, a rounding below 1, or an unknown
            cheap operation.
    """

    ratio: int = 2  # s: output maps per intrinsic map
    kernel: int = 3  # d: side of the depthwise kernel, odd
    cheap: str = "depthwise"  # Phi: the operation that turns an intrinsic map into a ghost
    round_to: int = 1  # m becomes a multiple of this, so that it fills the vector registers

    def __post_init__(self) -> None:
        for name in ("ratio", "kernel", "round_to"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpecError(f"GhostSpec.{name} must be a whole number (got {value!r})")
        if self.ratio < 2:
            raise SpecError(
                f"GhostSpec.ratio (s) must be >= 2 (got {self.ratio}); "
                "to leave a layer as it is, keep it instead"
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise SpecError(
                f"GhostSpec.kernel (d) must be odd and >= 1 (got {self.kernel}); "
                "3 is the paper's choice"
            )
        if self.kernel > MAX_KERNEL:
            raise SpecError(
                f"GhostSpec.kernel (d) must be at most {MAX_KERNEL} (got {self.kernel}); "
                "3 is the paper's choice"
            )
        if self.round_to < 1:
            raise SpecError(
                f"GhostSpec.round_to must be >= 1 (got {self.round_to}); 16 suits most processors"
            )
        if not isinstance(self.cheap, str) or self.cheap not in CHEAP_TAPS:
            known = ", ".join(CHEAP_TAPS)
            raise SpecError(
                f"GhostSpec.cheap must be one of: {known} (got {self.cheap!r})"
                + nearest(str(self.cheap), CHEAP_TAPS)
            )

    @classmethod
    def parse(cls, text: str, *, default: GhostSpec | None = None) -> GhostSpec:
        """Read ``"s3,d5"``, ``"s=3,d=5"`` or ``"s2,d3,r16"``; what is missing is ``default``'s.

        Raises:
            SpecError: anything else.
        """
        spec = default or cls()
        seen: set[str] = set()
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            if match is None or match["letter"] in seen:
                raise SpecError(f"a Ghost setting is written like s2,d3 (got {text!r})")
            seen.add(match["letter"])
            change: dict[str, Any] = {_FIELDS[match["letter"]]: int(match["value"])}
            spec = replace(spec, **change)
        return spec

    def __str__(self) -> str:
        cheap = "" if self.cheap == "depthwise" else f",{self.cheap}"
        rounded = "" if self.round_to == 1 else f",r{self.round_to}"
        return f"s{self.ratio},d{self.kernel}{rounded}{cheap}"

    def intrinsic_maps(self, out_channels: int, groups: int = 1) -> int:
        """Return m for a layer of so many maps (:func:`intrinsic_maps`)."""
        return intrinsic_maps(out_channels, self.ratio, groups, self.round_to)

    @property
    def taps(self) -> int:
        """Multiply-adds per ghost pixel, which are also the weights per ghost map (d x d)."""
        return CHEAP_TAPS[self.cheap](self.kernel)


def intrinsic_maps(out_channels: int, ratio: int, groups: int = 1, round_to: int = 1) -> int:
    """Return m, the number of maps that the primary convolution makes.

    m = ceil(n / s), so that no map is computed and then cut. A grouped convolution
    needs a multiple of its groups: the smallest one that is not below n / s.

    ``round_to`` rounds m up further, to a multiple of it (and of the groups). A layer too
    narrow for that, of which no ghost would be left, keeps the m that it has without.
    """
    maps = groups * math.ceil(out_channels / (ratio * groups))
    step = math.lcm(groups, round_to)
    rounded = step * math.ceil(maps / step)
    return rounded if rounded < out_channels else maps


@dataclass(frozen=True, slots=True)
class ConvSite:
    """One convolution of a network, as it ran on the example input.

    ``pixels`` is the number of positions at which the whole kernel is applied, summed over
    the batch and over all calls: output positions, or input positions if ``transposed``.
    """

    name: str
    type: str  # class name, or "functional"
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    bias: bool
    in_size: tuple[int, ...]  # of the first call
    out_size: tuple[int, ...]  # of the first call
    calls: int
    pixels: int
    eligible: bool
    reason: str = ""  # why not eligible
    transposed: bool = False
    aliases: tuple[str, ...] = ()  # further names of the same module, or of its weight
    tied_to: str = ""  # an earlier convolution that holds the same weight
    extra_params: int = 0  # parameters beside weight and bias, one share for each output map
    fixed_params: int = 0  # parameters that do not depend on the number of output maps
    other_macs: int = 0  # multiply-adds of the module beside the convolution's own

    @property
    def depthwise(self) -> bool:
        """Whether every group reads one input map only."""
        return self.groups > 1 and self.groups == self.in_channels

    @property
    def weights_per_map(self) -> int:
        """Weights that make one output map, c / g x k x k: also its multiply-adds per pixel."""
        return self.in_channels // self.groups * math.prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-adds of all calls (GhostNet eq. 4, numerator)."""
        return self.pixels * self.out_channels * self.weights_per_map + self.other_macs

    @property
    def params(self) -> int:
        """Parameters, biases included (GhostNet eq. 5, numerator)."""
        weights = self.out_channels * self.weights_per_map
        return weights + self.out_channels * self.bias + self.extra_params + self.fixed_params


@dataclass(frozen=True, slots=True)
class Origin:
    """How a network was made: by a library's function of some name, or by the caller."""

    source: str  # "ghostify", "torchvision", "timm", "factory" or "memory"
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name if self.source == "factory" else f"{self.source}:{self.name}"
