"""The networks of a suite: read, each with the seeds, budgets, recipe and rates of its runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ghostify.cost.budget import Budget
from ghostify.errors import BudgetError, RecipeError
from ghostify.runs.reading import Node
from ghostify.runs.suite import SuiteAdapt, SuiteData, SuiteNetwork, SuiteRecipe, SuiteTune
from ghostify.train.recipe import load_recipe

__all__ = ["OF_NETWORKS", "check_name", "read_networks"]

OF_NETWORKS = ("seeds", "budgets", "recipe", "adapt", "tune", "lr")
"""What a network may say itself, in place of the suite."""

_KEYS = ("label", "model", "weights", "pretrained", "model_args", "input", *OF_NETWORKS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def read_networks(
    top: Node, *, data: SuiteData | None, folder: Path, files: bool
) -> tuple[SuiteNetwork, ...]:
    """Read all networks of a suite.

    Args:
        top: the suite.
        folder, files: as for :func:`ghostify.runs.suite_file.parse_suite`.

    Raises:
        SuiteError: a mistake in one of them, or in what the suite says for all.
    """
    reader = _Reader(top, data, folder, files)
    return tuple(reader.network(name, node) for name, node in top["networks"].items())


def check_name(name: str, node: Node) -> None:
    """Make sure that a name can be part of a file's name and of a pattern."""
    if not _NAME.fullmatch(name):
        node.fail("a name is made of letters, digits, . _ + and -; put the rest into the label")


@dataclass(frozen=True, slots=True)
class _Reader:
    """What all networks of a suite have in common."""

    top: Node
    data: SuiteData | None
    folder: Path
    files: bool

    def network(self, name: str, node: Node) -> SuiteNetwork:
        check_name(name, node)
        node.keys(_KEYS, required=("model",))
        weights, pretrained = node["weights"], node["pretrained"].flag(False)
        if weights.value is not None and pretrained:
            node["pretrained"].fail("weights are given as well; leave one of the two out")
        arguments = node["model_args"]
        return SuiteNetwork(
            name=name,
            label=node["label"].text(name),
            model=node["model"].text(),
            weights=None if weights.value is None else weights.path(self.folder, there=self.files),
            pretrained=pretrained,
            model_args={} if arguments.value is None else arguments.mapping(),
            input=None if node["input"].value is None else _size(node["input"]),
            seeds=_seeds(self._said(node, "seeds")),
            budgets=_budgets(self._said(node, "budgets")),
            recipe=self._recipe_of(node),
            adapt=self._adapt(self._said(node, "adapt")),
            tune=self._tune(self._said(node, "tune")),
            lr=self._lr(node),
        )

    def _said(self, network: Node, key: str) -> Node:
        """Return what a network says itself, or else the suite."""
        return network[key] if key in network else self.top[key]

    def _recipe_of(self, network: Node) -> SuiteRecipe | None:
        common, own = self.top["recipe"], network["recipe"]
        if self.data is None:
            for node in (common, own):
                if node.value is not None:
                    node.fail("without data nothing is trained; give data or leave the recipe out")
            return None
        if common.value is None:
            common.fail("is missing; give it, such as recipe: {name: distil, epochs: 1}")
        base = self._recipe(common)
        if own.value is None:
            return base
        own.keys(("epochs", "steps", "overrides"))
        return self._changed(own, base)

    def _recipe(self, node: Node) -> SuiteRecipe:
        if isinstance(node.value, str):
            node = Node({"name": node.value}, node.file, node.place)
        node.keys(("name", "epochs", "steps", "overrides"), required=("name",))
        name = node["name"].text()
        if name.endswith((".yaml", ".yml")):
            name = str(node["name"].path(self.folder, there=self.files))
        return self._changed(node, SuiteRecipe(name))

    def _changed(self, node: Node, base: SuiteRecipe) -> SuiteRecipe:
        """Return a recipe with other settings, and make sure that it can be."""
        changes = {} if node["overrides"].value is None else node["overrides"].mapping()
        for key in ("epochs", "steps"):
            if node[key].value is not None:
                changes[key] = node[key].number() if key == "epochs" else node[key].whole(least=1)
        overrides = dict(base.overrides)
        for one, other in (("epochs", "steps"), ("steps", "epochs")):
            if one in changes:
                overrides.pop(other, None)
        overrides |= changes
        if not self.files and Path(base.name).is_absolute():
            return SuiteRecipe(base.name, overrides)
        try:
            whole = load_recipe(base.name, **overrides).as_json()
        except RecipeError as error:
            node.fail(str(error))
        return SuiteRecipe(base.name, {key: whole[key] for key in overrides})

    def _adapt(self, node: Node) -> SuiteAdapt | None:
        if node.value is None:
            return None
        if self.data is None:
            node.fail("without data nothing is trained; give data or leave it out")
        node.keys(("recipe", "epochs", "steps", "overrides", "lr", "seed"), required=("recipe",))
        named = self._recipe(node["recipe"])
        overrides = {} if node["overrides"].value is None else node["overrides"].mapping()
        if node["lr"].value is not None:
            overrides["lr"] = node["lr"].number()
        changes = {key: node[key].value for key in ("epochs", "steps")} | {"overrides": overrides}
        return SuiteAdapt(
            self._changed(Node(changes, node.file, node.place), named), node["seed"].whole(0)
        )

    def _tune(self, node: Node) -> SuiteTune | None:
        if node.value is None:
            return None
        if self.data is None or not self.data.validation:
            node.fail(
                "rates are tried on images held back from training; give data.validation, such "
                "as 5000, or leave tune out"
            )
        node.keys(("rates", "steps", "seed"), required=("rates", "steps"))
        return SuiteTune(
            tuple(rate.number() for rate in node["rates"].once("rate")),
            node["steps"].whole(least=1),
            node["seed"].whole(0),
        )

    def _lr(self, network: Node) -> float | None:
        node = self._said(network, "lr")
        if node.value is None:
            return None
        if self.data is None:
            node.fail("without data nothing is trained; give data or leave it out")
        if self._said(network, "tune").value is not None:
            node.fail("tune finds the rate; leave one of the two out")
        return node.number()


def _seeds(node: Node) -> tuple[int, ...]:
    return (0,) if node.value is None else tuple(one.whole() for one in node.once("seed"))


def _budgets(node: Node) -> tuple[str, ...]:
    if node.value is None:
        return ()
    found = []
    for one in node.once("budget"):
        found.append(one.text())
        try:
            Budget.parse(found[-1])
        except BudgetError as error:
            one.fail(str(error))
    return tuple(found)


def _size(node: Node) -> tuple[int, ...]:
    sides = tuple(side.whole(least=1) for side in node.entries())
    if len(sides) != 3:
        node.fail(f"must be channels, height and width, such as [3, 32, 32] (got {node.value!r})")
    return sides
