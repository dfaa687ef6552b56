"""Pictures of a redundancy analysis: the pair grid of Fig. 1, errors by depth, distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostify.analysis.drawing import COLOURS, MAPS, figure_of, save, show_map
from ghostify.analysis.values import Floats, Gallery, LayerRedundancy, MapPair, Redundancy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all", "error_by_depth", "error_distribution", "pair_grid"]


_MOST = 64  # maps of one grid
_WIDTH = 7.6  # inches of it
_FRAMED = 3  # pairs, in any case
_LIKE = 0.25  # left over, up to which others are framed too
_BINS = 25


def draw_all(found: Redundancy, directory: Path) -> tuple[str, ...]:
    """Write all pictures, each as PNG and SVG; return the names of the PNG files."""
    pictures = {"error_by_depth": error_by_depth(found), "distribution": error_distribution(found)}
    if found.gallery is not None:
        pictures["pairs"] = pair_grid(found, found.gallery)
    for name, figure in pictures.items():
        for suffix in (".png", ".svg"):
            save(figure, directory / f"{name}{suffix}")
    return tuple(f"{name}.png" for name in pictures)


def pair_grid(found: Redundancy, gallery: Gallery) -> Figure:
    """Draw the maps of a layer with the most similar pairs in frames of one colour (Fig. 1).

    Beside it, for each pair: the source, the target, what the filter makes of the source, and
    what it misses, on the target's scale. Layers of more than 64 maps are shown in part, the
    pairs first.
    """
    layer = found.layer(gallery.layer)
    pairs = _framed(layer, found.kernel)
    shown = _shown(layer, pairs)
    columns = min(8, math.ceil(math.sqrt(len(shown))))
    rows = -(-len(shown) // columns)
    side = _WIDTH / max(columns, 4)
    high = max(rows * (side + 0.2), len(pairs) * 1.5)
    beside = 4 * min(2.2, high / max(1, len(pairs)) - 0.2) + 0.8
    figure = figure_of((_WIDTH + beside, high + 0.5))
    left, right = figure.subfigures(1, 2, width_ratios=(_WIDTH, beside), squeeze=False)[0]
    frames = {
        one: (letter, colour)
        for pair, letter, colour in zip(pairs, "ABCDEFGH", COLOURS, strict=False)
        for one in (pair.source, pair.target)
    }
    axes = left.subplots(rows, columns, squeeze=False).flatten()
    for axis, index in zip(axes, shown, strict=False):
        show_map(axis, gallery.maps[index])
        letter, colour = frames.get(index, ("", ""))
        axis.set_title(f"{index} {letter}".strip(), color=colour or "black", fontsize=8, pad=2)
        if colour:
            _frame(axis, colour)
    for axis in axes[len(shown) :]:
        axis.remove()
    whole = "" if len(shown) == layer.maps else f" ({len(shown)} shown)"
    left.suptitle(f"{layer.name}: {layer.maps} output maps of one image{whole}", fontsize=10)
    _pair_rows(right, layer, gallery, pairs, found.kernel)
    return figure


def error_by_depth(found: Redundancy) -> Figure:
    """Draw, for each side d, how much of each layer's maps their best partners leave over."""
    figure = figure_of((max(6.0, min(14.0, 3 + 0.16 * len(found.layers))), 4.6))
    axis = figure.subplots()
    places = np.arange(len(found.layers))
    for kernel, colour in zip(found.kernels, _ramp(len(found.kernels)), strict=True):
        quartiles = np.array([layer.quartiles(kernel) for layer in found.layers]).reshape(-1, 3)
        whole = [layer.relative_mse(kernel) for layer in found.layers]
        axis.plot(
            places, whole, color=colour, marker="o", markersize=3, linewidth=1.3,
            label=f"d = {kernel}",
        )  # fmt: skip
        if kernel == found.kernel:
            axis.fill_between(
                places, quartiles[:, 0], quartiles[:, 2], color=colour, alpha=0.18, linewidth=0,
                label=f"quartiles over maps, d = {kernel}",
            )  # fmt: skip
    axis.set_ylim(0, 1)
    axis.set_xlim(-0.5, len(places) - 0.5)
    axis.set_ylabel("left over of the maps' variance (1 - R²)")
    _name_layers(axis, found.layers)
    axis.grid(axis="y", linewidth=0.4, alpha=0.5)
    axis.legend(fontsize=8, ncols=len(found.kernels) + 1, loc="lower center",
                bbox_to_anchor=(0.5, 1.06), frameon=False)  # fmt: skip
    axis.set_title(
        f"{found.model}: each map from its best partner by one d x d filter", fontsize=10
    )
    return figure


def error_distribution(found: Redundancy) -> Figure:
    """Draw, layer by layer, how the maps' errors are distributed, with their median."""
    kernel = found.kernel
    figure = figure_of((max(6.0, min(14.0, 3 + 0.16 * len(found.layers))), 4.2))
    axis = figure.subplots()
    edges = np.linspace(0, 1, _BINS + 1)
    shares = np.zeros((_BINS, len(found.layers)))
    for place, layer in enumerate(found.layers):
        errors = layer.errors(kernel)
        if len(errors):
            shares[:, place] = 100 * np.histogram(errors, edges)[0] / len(errors)
    mesh = axis.pcolormesh(
        np.arange(len(found.layers) + 1) - 0.5, edges, shares, cmap=MAPS, vmin=0, rasterized=True
    )
    middle = [layer.quartiles(kernel)[1] for layer in found.layers]
    axis.plot(range(len(middle)), middle, color="white", linewidth=2.2)
    axis.plot(range(len(middle)), middle, color="#D55E00", linewidth=1.2, label="median")
    figure.colorbar(mesh, ax=axis, label="share of the layer's maps, %", pad=0.01)
    axis.set_ylabel(f"left over of a map's variance, d = {kernel}")
    _name_layers(axis, found.layers)
    axis.legend(fontsize=8, loc="lower right")
    axis.set_title(f"{found.model}: errors of the single maps, by layer", fontsize=10)
    return figure


def _pair_rows(
    part: Any, layer: LayerRedundancy, gallery: Gallery, pairs: Sequence[MapPair], kernel: int
) -> None:
    """Draw each pair: source, target, what the filter makes, what it misses."""
    part.suptitle(f"the most similar pairs, filter of side d = {kernel}", fontsize=10)
    if not pairs:
        return
    axes = part.subplots(len(pairs), 4, squeeze=False)
    for row, (pair, colour) in enumerate(zip(pairs, COLOURS, strict=False)):
        source, target = gallery.maps[pair.source], gallery.maps[pair.target]
        made = _made(pair, source, kernel)
        bounds = float(target.min()), float(target.max())
        reach = (bounds[1] - bounds[0]) or 1.0
        missed = target - made
        show_map(axes[row, 0], source)
        show_map(axes[row, 1], target, bounds)
        show_map(axes[row, 2], made, bounds)
        show_map(axes[row, 3], np.abs(missed), (0.0, reach))
        titles = (f"{pair.source}", f"{pair.target}", f"{pair.source} filtered", "difference")
        for axis, title in zip(axes[row], titles, strict=True):
            axis.set_title(title, fontsize=8, pad=2)
        for axis in axes[row, :2]:
            _frame(axis, colour)
        left = 100 * pair.relative[pair.kernels.index(kernel)]
        axes[row, 0].set_ylabel(f"{'ABCDEFGH'[row]}: {left:.2g} %\nleft over", fontsize=8)


def _made(pair: MapPair, source: Floats, kernel: int) -> Floats:
    """Filter a map as a depthwise convolution does: zero-padded, not flipped."""
    weights = np.asarray(pair.filters[pair.kernels.index(kernel)])
    pad = kernel // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(source, pad), weights.shape)
    made = np.einsum("hwij,ij->hw", windows, weights)
    return np.asarray(made + pair.offsets[pair.kernels.index(kernel)])


def _framed(layer: LayerRedundancy, kernel: int) -> tuple[MapPair, ...]:
    """Return the pairs that are shown as similar: three, and more if they truly are."""
    place = layer.kernels.index(kernel)
    return tuple(
        pair
        for number, pair in enumerate(layer.pairs[: len(COLOURS)])
        if number < _FRAMED or pair.relative[place] < _LIKE
    )


def _shown(layer: LayerRedundancy, pairs: Sequence[MapPair]) -> list[int]:
    """Return the maps of a grid in their order; of many, the pairs' and the first others."""
    if layer.maps <= _MOST:
        return list(range(layer.maps))
    must = [one for pair in pairs for one in (pair.source, pair.target)]
    others = [one for one in range(layer.maps) if one not in must]
    return sorted(must + others[: _MOST - len(must)])


def _frame(axis: Axes, colour: str) -> None:
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color(colour)
        spine.set_linewidth(2.5)


def _name_layers(axis: Axes, layers: Sequence[LayerRedundancy]) -> None:
    """Write the layers' names below the axis, as many as there is room for."""
    step = max(1, -(-len(layers) // 40))
    places = list(range(0, len(layers), step))
    axis.set_xticks(places, [layers[place].name for place in places], rotation=90, fontsize=6)
    axis.set_xlabel("convolution, in the order of the network", fontsize=9)


def _ramp(count: int) -> list[Any]:
    """Return colours of rising brightness, perceptually even, none too pale."""
    from matplotlib import colormaps

    return [colormaps[MAPS](one) for one in np.linspace(0.0, 0.85, count)]
