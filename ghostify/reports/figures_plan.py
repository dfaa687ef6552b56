"""Which layer each method keeps, turns into a Ghost module or prunes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ghostify.reports.figures_data import Series, by_budget, layer_sizes
from ghostify.reports.figures_style import INK, figure_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Tile", "draw_plans", "rows_of"]

_GHOST, _PRUNED = "#0f9488", "#c77700"
_KEPT_STRENGTH = 0.07
_NAMED = 26  # layers, up to which each tile has its text
_MOST_NAMES = 60  # layers, up to which each one is named below


@dataclass(frozen=True, slots=True)
class Tile:
    """What becomes of one layer."""

    kind: str = "kept"  # or "ghost", "pruned"
    text: str = ""  # "s2", or the share of maps that is left, in percent
    strength: float = 0.0  # 0 to 1: which share of the maps is no longer computed


def rows_of(series: Sequence[Series]) -> tuple[tuple[str, ...], dict[str, dict[str, Tile]]]:
    """Return the layers in their order, and for each method with a plan its tiles by layer.

    Of several seeds the first one's plan stands for all.
    """
    sizes = layer_sizes(series)
    layers = dict.fromkeys(sizes)
    rows: dict[str, dict[str, Tile]] = {}
    several = len({one.budget for one in series if one.budget}) > 1
    for one in by_budget(series):
        plan = next((record.plan for record in one.records if record.plan), None)
        if plan is None or one.control:
            continue
        tiles = _tiles(plan, sizes)
        if not sizes:
            layers |= dict.fromkeys(tiles)
        name = f"{one.method_label}, {one.budget}" if several and one.budget else one.method_label
        rows.setdefault(name, tiles)
    return tuple(layers), {name: tiles for name, tiles in rows.items() if tiles}


def draw_plans(
    network: str, layers: Sequence[str], rows: Mapping[str, Mapping[str, Tile]]
) -> Figure:
    """Draw a row of tiles for each method, a column for each layer in the network's order."""
    from matplotlib.patches import Rectangle

    side = 0.34 if len(layers) <= _NAMED else max(0.115, min(0.34, 8.8 / len(layers)))
    width = 2.6 + side * len(layers)
    figure = figure_of(max(6.0, width), 1.75 + 0.31 * len(rows))
    axis = figure.subplots()
    for row, tiles in enumerate(rows.values()):
        for column, layer in enumerate(layers):
            tile = tiles.get(layer, Tile())
            colour, strength = _look(tile)
            axis.add_patch(
                Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, fc=colour, alpha=strength, lw=0)
            )
            if len(layers) <= _NAMED and tile.text:
                axis.text(column, row, tile.text, ha="center", va="center", fontsize=7)
    axis.set_xlim(-0.6, len(layers) - 0.4)
    axis.set_ylim(len(rows) - 0.45, -0.55)
    axis.set_yticks(range(len(rows)), list(rows))
    step = max(1, -(-len(layers) // _MOST_NAMES))
    shown = range(0, len(layers), step)
    axis.set_xticks(
        list(shown),
        [_short(layers[i]) for i in shown],
        rotation=90,
        fontsize=6.6,
        ha="right",
        va="center",
        rotation_mode="anchor",
    )
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_title(network)
    _explain(figure)
    return figure


def _tiles(plan: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Tile]:
    tiles = {str(name): _tile(setting) for name, setting in (plan.get("layers") or {}).items()}
    for name, maps in (plan.get("kept") or {}).items():
        whole = sizes.get(str(name))
        if whole is None:
            tiles[str(name)] = Tile("pruned", "", 0.5)
        elif maps < whole:
            tiles[str(name)] = Tile("pruned", f"{100 * maps / whole:.0f}", 1 - maps / whole)
    return tiles


def _tile(setting: Any) -> Tile:
    if not isinstance(setting, Mapping):
        return Tile("ghost", str(setting), 0.5)
    if "prune" in setting:
        share = float(setting["prune"])
        return Tile("pruned", f"{100 * (1 - share):.0f}", share)
    ratio, kernel = int(setting.get("ratio", 2)), setting.get("kernel", 3)
    sides = "+".join(map(str, kernel)) if isinstance(kernel, Sequence) else str(kernel)
    text = f"s{ratio}" + ("" if sides == "3" else f"\nd{sides}")
    return Tile("ghost", text, 1 - 1 / ratio)


def _look(tile: Tile) -> tuple[str, float]:
    """Return colour and opacity; they let the text on them be read on light and dark pages."""
    if tile.kind == "kept":
        return INK, _KEPT_STRENGTH
    return (_GHOST if tile.kind == "ghost" else _PRUNED), 0.1 + 0.8 * tile.strength**2


def _explain(figure: Figure) -> None:
    from matplotlib.patches import Patch

    shown = {
        "kept": (INK, _KEPT_STRENGTH),
        "Ghost, s = 2": _look(Tile("ghost", strength=1 / 2)),
        "s = 4": _look(Tile("ghost", strength=3 / 4)),
        "pruned, half of the maps left": _look(Tile("pruned", strength=1 / 2)),
        "a quarter left": _look(Tile("pruned", strength=3 / 4)),
    }
    figure.legend(
        [Patch(fc=colour, alpha=strength, lw=0) for colour, strength in shown.values()],
        list(shown), loc="outside lower center", ncols=len(shown), handlelength=1.3,
        columnspacing=1.4, borderaxespad=0.4, fontsize=8,
    )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"…{name[-21:]}"
