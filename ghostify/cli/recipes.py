"""``ghostify recipes``: which recipes there are, and what is in one."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ghostify.cli import render
from ghostify.train.recipe import Recipe, load_recipe, shipped_recipes

__all__ = ["run"]


def run(name: str | None, *, as_json: bool) -> int:
    """Print all recipes, or one in full; return the exit code."""
    if name is not None:
        recipe = load_recipe(name)
        if as_json:
            render.print_json(recipe.as_json())
        else:
            render.page(_settings(recipe))
        return 0
    found = [load_recipe(one) for one in shipped_recipes()]
    if as_json:
        render.print_json([recipe.as_json() for recipe in found])
        return 0
    table = Table(header_style="bold", pad_edge=False, box=None)
    for title in ("recipe", "length", "batch", "optimiser", "what it is"):
        table.add_column(title, overflow="fold")
    for recipe in found:
        length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs:g} epochs"
        table.add_row(
            recipe.name,
            length,
            str(recipe.batch_size),
            f"{recipe.optimizer} {recipe.lr:g}",
            escape(recipe.description.strip()),
        )
    render.page(table)
    return 0


def _settings(recipe: Recipe) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("setting")
    table.add_column("value", overflow="fold")
    for key, value in recipe.as_json().items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(key, escape(text.strip()))
    return table
