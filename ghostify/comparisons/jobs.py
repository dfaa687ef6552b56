"""From a suite to its runs: which there are, and what tells each from all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ghostify.comparisons.inputs import Inputs
from ghostify.errors import SuiteError, nearest
from ghostify.runs.record import identify
from ghostify.runs.suite import Suite, SuiteAdapt, SuiteMethod, SuiteNetwork
from ghostify.train.recipe import Recipe

__all__ = ["Job", "chosen", "jobs_of", "original_key", "recipe_of"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a comparison, as it is asked for; its record has the same ``id``.

    ``start`` and ``original`` are the keys of the network that it begins with and of the one
    that this was made of; jobs that share them begin with the very same weights. ``first`` is
    the start of the row's first seed, which stands for the row where latency is measured.
    """

    id: str
    kind: str  # "test", "tune" or "count", as records are
    network: str
    method: str
    budget: str | None
    seed: int
    start: str
    original: str
    first: str
    lr: float | None = None  # of "tune": the rate that is tried

    @property
    def name(self) -> str:
        """What people call it: ``resnet20/l1/macs=0.52x/seed=0``, or ``.../lr=0.001``."""
        last = f"lr={self.lr:g}" if self.kind == "tune" else f"seed={self.seed}"
        return "/".join((*self.row, last))

    @property
    def row(self) -> tuple[str, ...]:
        """Network, method and, where there is one, budget."""
        budget = () if self.budget is None else (self.budget,)
        return (self.network, self.method, *budget)


def jobs_of(suite: Suite, inputs: Inputs) -> tuple[Job, ...]:
    """Return all runs of a suite: the tuning of each row, then its seeds.

    The id of a run follows from all that decides its result, so that a run whose wish has
    not changed is known again after the suite was edited.
    """
    return tuple(
        job
        for network in suite.networks
        for method in suite.methods_of(network.name)
        for budget in (network.budgets if method.takes_budget else (None,))
        for job in _row(suite, network, method, budget, inputs)
    )


def chosen(jobs: Iterable[Job], pattern: str | None) -> tuple[Job, ...]:
    """Return the runs whose name fits a pattern, with the tuning that they need.

    Raises:
        SuiteError: there is none.
    """
    jobs = tuple(jobs)
    if pattern is None:
        return jobs
    fits = [job for job in jobs if fnmatchcase(job.name, pattern) or pattern in job.row]
    if not fits:
        names = {job.name for job in jobs} | {part for job in jobs for part in job.row}
        raise SuiteError(
            f"--only {pattern} fits no run of the suite"
            + (nearest(pattern, names) or "; --dry-run lists them")
        )
    rows = {job.row for job in fits if job.kind == "test"}
    return tuple(job for job in jobs if job in fits or (job.kind == "tune" and job.row in rows))


def recipe_of(
    network: SuiteNetwork, *, lr: float | None = None, steps: int | None = None
) -> Recipe:
    """Return how a network of the suite is trained: the same for all of its methods."""
    assert network.recipe is not None  # there if the suite has data
    return network.recipe.load().changed(lr=network.lr if lr is None else lr, steps=steps)


def original_key(network: SuiteNetwork, inputs: Inputs) -> str:
    """Return what tells the network that methods begin with from others."""
    return identify(_original(network, inputs))


def _row(
    suite: Suite,
    network: SuiteNetwork,
    method: SuiteMethod,
    budget: str | None,
    inputs: Inputs,
) -> list[Job]:
    original = original_key(network, inputs)
    row = {"network": network.name, "method": method.name, "budget": budget, "original": original}

    def start(seed: int) -> str:
        return _start(suite, network, method, budget, seed, inputs)

    def job(kind: str, seed: int, lr: float | None = None, **asked: Any) -> Job:
        its = start(seed)
        return Job(
            identify({"kind": kind, **row, "seed": seed, "lr": lr, "start": its, **asked}),
            kind, network.name, method.name, budget, seed, its, original,
            start(network.seeds[0]), lr,
        )  # fmt: skip

    if suite.data is None:
        wanted = [[one.runtime, one.threads, one.batch, one.rounds] for one in suite.latency]
        return [job("count", network.seeds[0], latency=wanted)]
    images: dict[str, Any] = {"train": inputs.train, "test": inputs.test}
    if not method.train:
        return [job("test", seed, trained=False, **images) for seed in network.seeds]
    common: dict[str, Any] = {"teacher": method.teacher, "validation": suite.data.validation}
    tune, jobs, rates = network.tune, [], None
    if tune is not None:
        recipe = _plain(recipe_of(network, steps=tune.steps))
        del recipe["lr"]
        rates = [list(tune.rates), tune.steps, tune.seed]
        jobs = [
            job("tune", tune.seed, lr, recipe=recipe, train=inputs.train, **common)
            for lr in tune.rates
        ]
    recipe = _plain(recipe_of(network))
    if tune is not None:
        del recipe["lr"]
    return jobs + [
        job("test", seed, trained=True, recipe=recipe, rates=rates, **common, **images)
        for seed in network.seeds
    ]


def _original(network: SuiteNetwork, inputs: Inputs) -> dict[str, Any]:
    return {
        **_network(network, inputs),
        "adapt": None if network.adapt is None else _adapt(network.adapt),
        "train": None if network.adapt is None else inputs.train,
    }


def _network(network: SuiteNetwork, inputs: Inputs) -> dict[str, Any]:
    return {
        "model": network.model,
        "args": network.model_args,
        "weights": (inputs.weights or {}).get(network.name),
        "pretrained": network.pretrained,
        "input": network.input,
    }


def _adapt(adapt: SuiteAdapt) -> dict[str, Any]:
    return {"recipe": _plain(adapt.recipe.load()), "seed": adapt.seed}


def _start(
    suite: Suite,
    network: SuiteNetwork,
    method: SuiteMethod,
    budget: str | None,
    seed: int,
    inputs: Inputs,
) -> str:
    asked: dict[str, Any] = {
        "kind": method.kind,
        "options": method.options,
        "start": method.start,
        "plan": (inputs.plans or {}).get(f"{method.name} {network.name}"),
        "budget": budget,
        "seed": seed,
        "images": None,
    }
    if suite.data is not None:
        asked["images"] = [inputs.train, suite.data.calibration if method.fits else None]
    if method.start == "scratch":
        bare = {"weights": None, "pretrained": False}
        return identify({**asked, "original": {**_network(network, inputs), **bare}})
    return identify({**asked, "original": _original(network, inputs)})


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return all that a recipe does."""
    plain = recipe.as_json()
    del plain["name"], plain["description"]
    return plain
