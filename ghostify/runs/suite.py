"""Suites as values: networks, methods, budgets and seeds, and one recipe for all of them.

:func:`ghostify.runs.suite_file.load_suite` reads them. What a network says itself stands
before what the suite says for all; both are settled when a suite has been read, so that each
:class:`SuiteNetwork` carries its own seeds, budgets, recipe and rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ghostify.train.recipe import Recipe

__all__ = [
    "KINDS",
    "LAYOUTS",
    "ORIGINAL",
    "PRUNE_METHODS",
    "STARTS",
    "Suite",
    "SuiteAdapt",
    "SuiteData",
    "SuiteLatency",
    "SuiteMethod",
    "SuiteNetwork",
    "SuiteRecipe",
    "SuiteReport",
    "SuiteTune",
]

KINDS = ("dense", "prune", "ghost", "plan", "search")
"""What a method does to a network; dense leaves it as it is."""

STARTS: dict[str, tuple[str, ...]] = {
    "dense": ("weights", "scratch"),
    "prune": ("weights",),
    "ghost": ("random", "fitted", "scratch"),
    "plan": ("random", "fitted", "scratch"),
    "search": ("random", "fitted", "scratch"),
}
"""Where training begins, by kind; the first is the default.

weights: those of the original that are left. random: Ghost modules with new weights, all else
from the original. fitted: Ghost modules fitted to what the convolutions did. scratch: a new
network, of which no weight was ever trained.
"""

PRUNE_METHODS = (
    "l1", "l1-global", "l2", "random", "fpgm", "lamp", "bn-scale", "taylor", "hessian",
    "group-norm", "group-sparse", "growing-reg",
)  # fmt: skip
"""As in :data:`ghostify.pruners.methods.METHODS`, which needs torch."""

LAYOUTS = ("plain", "table3", "table4", "table5", "table6", "table7", "table8")
"""How the report sets its table, by the paper's."""

ORIGINAL = "original"
"""The teacher that is the network before it was converted."""


@dataclass(frozen=True, slots=True)
class SuiteRecipe:
    """A recipe by name or file, with changes."""

    name: str  # or the absolute path of a YAML file
    overrides: Mapping[str, Any] = field(default_factory=dict)  # fields of Recipe

    def load(self) -> Recipe:
        """Return the recipe itself.

        Raises:
            RecipeError: no such recipe, or a mistake in it.
        """
        from ghostify.train.recipe import load_recipe

        return load_recipe(self.name, **self.overrides)


@dataclass(frozen=True, slots=True)
class SuiteData:
    """The images of all runs; paths are absolute."""

    path: Path
    split: str | None = None  # the part that is trained on
    validation: int = 0  # images held back from training, for tuning
    calibration: int = 3000  # images that Ghost modules are fitted to, from the training part
    test: Path | None = None  # None: the data's own test part


@dataclass(frozen=True, slots=True)
class SuiteAdapt:
    """The training of the original before anything else, once per network and seed 0."""

    recipe: SuiteRecipe
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SuiteTune:
    """The learning rates that each method tries on the validation images; the best one stays."""

    rates: tuple[float, ...]
    steps: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SuiteLatency:
    """A runtime that every network is measured on."""

    runtime: str
    threads: int = 1
    batch: int = 1
    rounds: int = 25


@dataclass(frozen=True, slots=True)
class SuiteNetwork:
    """A network to begin with, and what holds for its runs."""

    name: str
    label: str
    model: str
    weights: Path | None = None  # absolute
    pretrained: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)
    input: tuple[int, ...] | None = None  # (C, H, W)
    seeds: tuple[int, ...] = (0,)
    budgets: tuple[str, ...] = ()
    recipe: SuiteRecipe | None = None  # there if and only if the suite has data
    adapt: SuiteAdapt | None = None
    tune: SuiteTune | None = None
    lr: float | None = None  # without tune; None: the recipe's


@dataclass(frozen=True, slots=True)
class SuiteMethod:
    """A row of the table for each network (and budget, where it takes one).

    ``options`` by kind:

    - prune: ``method``, one of PRUNE_METHODS; ``reconstruct``, whether the blocks are fitted to
      what they did before; ``images``, ``sparse_steps``, ``keep``.
    - ghost: ``s``, ``d`` (3, or "1+3"), ``cheap``, ``round_to``, ``all`` (the first
      convolution too), ``keep`` (patterns), ``set`` (settings by pattern).
    - search: arguments of :func:`ghostify.search`, such as ``trials``.
    - any but dense: ``fit``, fields of FitOptions such as ``block_steps``.
    """

    name: str
    label: str
    kind: str  # one of KINDS
    options: Mapping[str, Any]  # as above, only those that were given
    networks: tuple[str, ...]  # names of those it is made for
    start: str = "weights"  # one of STARTS
    train: bool = True  # False: accuracy before any training only
    teacher: str | None = None  # ORIGINAL, or None for labels alone
    own_teacher: bool = False  # another than the suite's for all
    plans: Mapping[str, Path] = field(default_factory=dict)  # of "plan": file by network
    settings: Mapping[str, Any] = field(default_factory=dict)  # as the suite writes it

    @property
    def takes_budget(self) -> bool:
        """Whether it makes one network for each budget."""
        return self.kind in ("prune", "search")

    @property
    def fits(self) -> bool:
        """Whether it needs images without labels to fit to."""
        return self.start == "fitted" or bool(self.options.get("reconstruct"))


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """How the report shows the runs."""

    layout: str = "plain"  # some of LAYOUTS, with commas between them
    reference: str | None = None  # the method that others are tested against
    published: tuple[str, ...] = ()  # tables of the paper to show beside, such as "table5"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that a comparison runs; without data nothing is trained, costs are counted."""

    path: Path
    title: str
    networks: tuple[SuiteNetwork, ...]
    methods: tuple[SuiteMethod, ...]
    description: str = ""
    data: SuiteData | None = None
    teacher: str | None = None  # ORIGINAL or None, where a method does not say otherwise
    latency: tuple[SuiteLatency, ...] = ()
    report: SuiteReport = field(default_factory=SuiteReport)
    text: str = ""  # of the file, as it stands there

    def network(self, name: str) -> SuiteNetwork:
        """Return a network by its name in the suite."""
        return next(network for network in self.networks if network.name == name)

    def method(self, name: str) -> SuiteMethod:
        """Return a method by its name in the suite."""
        return next(method for method in self.methods if method.name == name)

    def methods_of(self, network: str) -> tuple[SuiteMethod, ...]:
        """Return the methods that are made for a network, in the suite's order."""
        return tuple(method for method in self.methods if network in method.networks)
