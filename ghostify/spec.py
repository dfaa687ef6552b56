"""What a layer is and what it becomes: the values of a conversion, before any tensor."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ghostify.cheap import CHEAP_COSTS, MAX_KERNEL, block_sizes, check_name, check_sides
from ghostify.errors import SpecError

__all__ = [
    "MAX_KERNEL",
    "ConvSite",
    "GhostSpec",
    "LayerSpec",
    "Origin",
    "PruneSpec",
    "intrinsic_maps",
    "parse_spec",
]

_KERNEL = 3  # the default of d

_FIELDS = {"s": "ratio", "d": "kernel", "r": "round_to"}
_PART = re.compile(r"(?P<letter>[sdr])\s*=?\s*(?P<value>-?\d+)", re.ASCII)
_SIDES = re.compile(r"d\s*=?\s*(?P<first>-?\d+)(?P<more>(\s*\+\s*(d\s*=?\s*)?-?\d+)+)", re.ASCII)
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_PRUNE = re.compile(r"p\s*=?\s*(?P<value>-?\d*\.?\d+(?:[eE][-+]?\d+)?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class GhostSpec:
    """How one convolution becomes a Ghost module (GhostNet, sec. 3.1).

    ``mixed`` gives the ghosts of one module kernels of several sides, in equal shares; then
    ``kernel`` is the largest of them. An operation with one side only (``affine``: 1,
    ``wavelet``: 3) has that one where ``kernel`` is left at 3, its default.

    Raises:
        SpecError: ratio below 2, a kernel that is even, below 1 or not the operation's, a
            rounding below 1, or an unknown cheap operation.
    """

    ratio: int = 2  # s: output maps per intrinsic map
    kernel: int = _KERNEL  # d: side of the depthwise kernel, odd
    cheap: str = "depthwise"  # Phi: the operation that turns an intrinsic map into a ghost
    round_to: int = 1  # m becomes a multiple of this, so that it fills the vector registers
    mixed: tuple[int, ...] = ()  # all sides d, rising, where there is more than one

    def __post_init__(self) -> None:
        for name in ("ratio", "kernel", "round_to"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpecError(f"GhostSpec.{name} must be a whole number (got {value!r})")
        check_name(self.cheap)
        if self.mixed:
            self._check_mixed()
        elif self.kernel == _KERNEL:
            object.__setattr__(self, "kernel", CHEAP_COSTS[self.cheap].only or _KERNEL)
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
        check_sides(self.cheap, self.kernels)

    def _check_mixed(self) -> None:
        sides = self.mixed
        if not isinstance(sides, tuple) or not all(
            isinstance(side, int) and not isinstance(side, bool) for side in sides
        ):
            raise SpecError(f"GhostSpec.mixed must be whole numbers (got {sides!r})")
        if len(sides) < 2 or any(one >= two for one, two in itertools.pairwise(sides)):
            raise SpecError(
                f"GhostSpec.mixed must be two or more rising sides, like 1+3 (got {_plus(sides)})"
            )
        for side in sides:
            GhostSpec(2, side)  # odd and in bounds
        if self.kernel not in (_KERNEL, sides[-1]):
            raise SpecError(
                f"GhostSpec.kernel (d) must be the largest side of mixed kernels, {sides[-1]} "
                f"(got {self.kernel}); leave it out"
            )
        object.__setattr__(self, "kernel", sides[-1])

    @classmethod
    def parse(cls, text: str, *, default: GhostSpec | None = None) -> GhostSpec:
        """Read ``"s3,d5"``, ``"s=3,d=5"``, ``"s2,d3,r16"``, ``"s2,d3,blur"`` or ``"s2,d1+3"``.

        What is missing is ``default``'s.

        Raises:
            SpecError: anything else.
        """
        default = default or cls()
        change: dict[str, Any] = {}
        for part in map(str.strip, text.split(",")):
            for name, value in _read(part, text).items():
                if name in change:
                    raise SpecError(f"a Ghost setting is written like s2,d3 (got {text!r})")
                change[name] = value
        cheap: str = change.get("cheap", default.cheap)
        ours, theirs = CHEAP_COSTS[cheap].only, CHEAP_COSTS[default.cheap].only
        if "kernel" in change and ours is not None:  # a side that was typed is meant
            check_sides(cheap, change["mixed"] or (change["kernel"],))
        elif "kernel" not in change and cheap != default.cheap and (ours or theirs):
            change |= {"kernel": ours or _KERNEL, "mixed": ()}
        return replace(default, **change)

    def __str__(self) -> str:
        cheap = "" if self.cheap == "depthwise" else f",{self.cheap}"
        rounded = "" if self.round_to == 1 else f",r{self.round_to}"
        side = "" if CHEAP_COSTS[self.cheap].only else f",d{_plus(self.kernels)}"
        return f"s{self.ratio}{side}{rounded}{cheap}"

    @property
    def kernels(self) -> tuple[int, ...]:
        """The sides d of the cheap filters, rising; mostly there is one."""
        return self.mixed or (self.kernel,)

    def intrinsic_maps(self, out_channels: int, groups: int = 1) -> int:
        """Return m for a layer of so many maps (:func:`intrinsic_maps`)."""
        return intrinsic_maps(out_channels, self.ratio, groups, self.round_to)

    def ghost_taps(self, maps: int, intrinsic: int) -> int:
        """Return the multiply-adds that all ghosts take for one pixel each.

        Args:
            maps: how many ghosts there are, n - m.
            intrinsic: m, of which each branch makes as many.
        """
        blocks = self._blocks(maps, intrinsic)
        return sum(count * side * side for side, count in blocks.items())

    def ghost_weights(self, maps: int, intrinsic: int) -> int:
        """Return how many weights the ghosts learn; their offsets are not among them."""
        cost = CHEAP_COSTS[self.cheap]
        blocks = self._blocks(maps, intrinsic)
        return sum(count * cost.weights(side) for side, count in blocks.items())

    @property
    def own_offsets(self) -> bool:
        """Whether each ghost learns an offset, even where the convolution has no bias."""
        return CHEAP_COSTS[self.cheap].own_offset

    def _blocks(self, maps: int, intrinsic: int) -> dict[int, int]:
        """Return how many ghosts have filters of each side."""
        full, rest = divmod(maps, intrinsic)
        whole, last = (block_sizes(size, len(self.kernels)) for size in (intrinsic, rest))
        return {
            side: full * each + some
            for side, each, some in zip(self.kernels, whole, last, strict=True)
        }


def _plus(sides: tuple[int, ...]) -> str:
    return "+".join(map(str, sides))


def _read(part: str, text: str) -> dict[str, Any]:
    """Read one part of a setting: ``s2``, ``d3``, ``d1+3``, ``r16`` or a cheap operation."""
    if match := _PART.fullmatch(part):
        found: dict[str, Any] = {_FIELDS[match["letter"]]: int(match["value"])}
        return found | {"mixed": ()} if match["letter"] == "d" else found
    if _SIDES.fullmatch(part):
        sides = tuple(sorted(int(one) for one in _NUMBER.findall(part)))
        return {"kernel": sides[-1], "mixed": sides}
    if part in CHEAP_COSTS:
        return {"cheap": part}
    if part.isalpha() and len(part) > 1:
        check_name(part)
    raise SpecError(f"a Ghost setting is written like s2,d3 (got {text!r})")


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
class PruneSpec:
    """How one convolution loses output maps: the least of them go, with all that reads them.

    Raises:
        SpecError: a ratio that is not above 0 and below 1.
    """

    ratio: float  # share of the output maps to remove

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float):
            raise SpecError(f"PruneSpec.ratio must be a number (got {self.ratio!r})")
        if not 0 < self.ratio < 1:
            raise SpecError(
                f"PruneSpec.ratio must be above 0 and below 1 (got {self.ratio}); "
                "to leave a layer as it is, keep it instead"
            )

    @classmethod
    def parse(cls, text: str) -> PruneSpec:
        """Read ``"p0.5"`` or ``"p=0.5"``: half of the maps go.

        Raises:
            SpecError: anything else.
        """
        match = _PRUNE.fullmatch(text.strip())
        if match is None:
            raise SpecError(f"a pruned share is written like p0.5 (got {text!r})")
        return cls(float(match["value"]))

    def __str__(self) -> str:
        return f"p{float(self.ratio)!r}"

    def kept_maps(self, out_channels: int, groups: int = 1) -> int:
        """Return how many maps stay: at least one, and as many in each group.

        That is n - floor(ratio x n), rounded up to a multiple of the groups.
        """
        removed = math.floor(self.ratio * out_channels + 1e-9)  # 0.29 x 100 is 28.999...
        return min(out_channels, groups * math.ceil(max(out_channels - removed, 1) / groups))


LayerSpec: TypeAlias = GhostSpec | PruneSpec
"""What a plan may say of a layer; a layer that it does not name stays as it is."""


def parse_spec(text: str, *, default: GhostSpec | None = None) -> LayerSpec:
    """Read what becomes of a layer: ``"s2,d3"`` (a Ghost module) or ``"p0.5"`` (pruned).

    Args:
        default: gives what the text of a Ghost module leaves out.

    Raises:
        SpecError: anything else.
    """
    if text.strip().startswith("p"):
        return PruneSpec.parse(text)
    return GhostSpec.parse(text, default=default)


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
