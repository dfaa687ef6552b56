"""What a redundancy analysis found, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ghostify.plan import Plan
from ghostify.rules import Skipped
from ghostify.spec import ConvSite, GhostSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "THRESHOLDS",
    "Floats",
    "Gallery",
    "LayerRedundancy",
    "MapPair",
    "Redundancy",
    "Suggestion",
    "usual_kernel",
]

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

THRESHOLDS = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Of the relative error, below which maps are counted."""


@dataclass(frozen=True, slots=True)
class MapPair:
    """One map and its best partner: ``target`` follows from ``source`` by a linear filter.

    ``mse``, ``relative`` and ``filters`` have one entry for each side d; ``relative`` is the
    share of the target's variance that the filter leaves over.
    """

    layer: str
    source: int
    target: int
    kernels: tuple[int, ...]
    mse: tuple[float, ...]
    relative: tuple[float, ...]
    filters: tuple[tuple[tuple[float, ...], ...], ...]  # rows of each d x d filter
    offsets: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values; per-side ones in objects with the keys "1", "3" ..."""
        return {
            "layer": self.layer,
            "source": self.source,
            "target": self.target,
            "mse": _by(self.kernels, self.mse),
            "relative_mse": _by(self.kernels, self.relative),
            "r2": _by(self.kernels, [1 - one for one in self.relative]),
            "filters": {
                str(kernel): [list(row) for row in rows]
                for kernel, rows in zip(self.kernels, self.filters, strict=True)
            },
            "offsets": _by(self.kernels, self.offsets),
        }


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The cheapest Ghost setting of a layer whose error stays within the tolerance, or none."""

    spec: GhostSpec | None
    error: float | None  # share of the layer's output that its ghosts would miss
    reason: str = ""  # why there is no setting
    macs: int = 0  # with the setting, of one image


@dataclass(frozen=True, slots=True, eq=False)
class LayerRedundancy:
    """How well the output maps of one convolution follow from each other.

    Row k of ``relative`` (kernels, n) is for filters of side ``kernels[k]``: what the best
    partner of each map leaves over, as a share of its variance; NaN for a map that is constant
    on all images. ``partners`` (kernels, n) names these partners (-1 for a constant map).
    """

    site: ConvSite
    depth: int  # place in the order of the network, from 0
    kernels: tuple[int, ...]
    positions: int  # of the output that were looked at
    variance: Floats  # (n,)
    relative: Floats
    partners: Ints
    pairs: tuple[MapPair, ...]  # the most similar ones, none of them sharing a map
    suggestion: Suggestion

    @property
    def name(self) -> str:
        """The convolution's name."""
        return self.site.name

    @property
    def maps(self) -> int:
        """How many output maps there are."""
        return len(self.variance)

    @property
    def constant(self) -> int:
        """How many maps do not vary at all on these images."""
        return int((self.variance <= 0).sum())

    def _row(self, kernel: int) -> int:
        return self.kernels.index(kernel)

    def errors(self, kernel: int) -> Floats:
        """Return the relative errors of the maps that are not constant."""
        row = self.relative[self._row(kernel)]
        return np.asarray(row[np.isfinite(row)], dtype=np.float64)

    def quartiles(self, kernel: int) -> tuple[float, float, float]:
        """Return lower quartile, median and upper quartile of the relative error."""
        errors = self.errors(kernel)
        if not len(errors):
            return math.nan, math.nan, math.nan
        low, middle, high = np.quantile(errors, (0.25, 0.5, 0.75)).tolist()
        return low, middle, high

    def share_below(self, threshold: float, kernel: int) -> float:
        """Return the share of maps whose relative error is below a threshold."""
        errors = self.errors(kernel)
        return float((errors < threshold).mean()) if len(errors) else math.nan

    def relative_mse(self, kernel: int) -> float:
        """Return the error of all maps together, as a share of their variance."""
        row = np.nan_to_num(self.relative[self._row(kernel)])
        whole = float(self.variance.sum())
        return float((row * self.variance).sum()) / whole if whole > 0 else math.nan

    def mse(self, kernel: int) -> float:
        """Return the mean squared error over all maps, in the units of the layer's output."""
        row = np.nan_to_num(self.relative[self._row(kernel)])
        return float((row * self.variance).mean())

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        spec = self.suggestion.spec
        return {
            "name": self.name,
            "depth": self.depth,
            "maps": self.maps,
            "kernel": list(self.site.kernel),
            "groups": self.site.groups,
            "output": list(self.site.out_size),
            "macs": self.site.macs,
            "positions": self.positions,
            "constant_maps": self.constant,
            "errors": {
                str(kernel): {
                    "mse": _plain(self.mse(kernel)),
                    "relative_mse": _plain(self.relative_mse(kernel)),
                    "r2": _plain(1 - self.relative_mse(kernel)),
                    "quartiles": [_plain(one) for one in self.quartiles(kernel)],
                    "share_below": {
                        f"{one:g}": _plain(self.share_below(one, kernel)) for one in THRESHOLDS
                    },
                }
                for kernel in self.kernels
            },
            "pairs": [pair.as_json() for pair in self.pairs],
            "suggestion": {
                "ratio": spec and spec.ratio,
                "kernel": spec and spec.kernel,
                "error": self.suggestion.error,
                "reason": self.suggestion.reason,
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """The maps ``(n, H, W)`` that a layer makes of one image ``(C, H, W)``, for a picture."""

    layer: str
    image: Floats
    maps: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Redundancy:
    """The layers of a network in its order, and how well their maps follow from each other."""

    model: str
    input: str  # such as "3x32x32"
    images: int
    kernels: tuple[int, ...]
    tolerance: float
    seed: int
    layers: tuple[LayerRedundancy, ...]
    skipped: tuple[Skipped, ...]  # convolutions that were not looked at, and why
    plan: Plan  # of the suggestions
    gallery: Gallery | None
    seconds: float
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kernel(self) -> int:
        """The side that pairs are chosen by: the paper's 3, or what comes closest to it."""
        return usual_kernel(self.kernels)

    def layer(self, name: str) -> LayerRedundancy:
        """Return the layer of that name."""
        return next(one for one in self.layers if one.name == name)

    def best_pairs(self, count: int = 10) -> tuple[MapPair, ...]:
        """Return the most similar pairs of all layers, one of each layer first."""
        place = self.kernels.index(self.kernel)
        firsts = [layer.pairs[0] for layer in self.layers if layer.pairs]
        return tuple(sorted(firsts, key=lambda pair: pair.relative[place])[:count])

    def as_json(self) -> dict[str, Any]:
        """Return plain values, as ``ghostify redundancy --json`` prints them."""
        return {
            "model": self.model,
            "input": self.input,
            "images": self.images,
            "kernels": list(self.kernels),
            "tolerance": self.tolerance,
            "seed": self.seed,
            "layers": [layer.as_json() for layer in self.layers],
            "skipped": [{"name": one.name, "reason": one.reason} for one in self.skipped],
            "plan": self.plan.as_json(),
            "seconds": round(self.seconds, 2),
            "notes": list(self.notes),
            "data": None if self.data is None else dict(self.data),
            **self.provenance,
        }

    def frame(self) -> pd.DataFrame:
        """Return one row for each layer and side, as pandas has it."""
        from ghostify.analysis.tables import layer_frame

        return layer_frame(self)


def usual_kernel(kernels: Sequence[int]) -> int:
    """Return 3, the paper's choice, or the side that is closest to it, rather a larger one."""
    return min(kernels, key=lambda one: (abs(one - 3), -one))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by(kernels: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    return {str(kernel): value for kernel, value in zip(kernels, values, strict=True)}
