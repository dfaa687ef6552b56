"""The Python interface: search the best plan of a network under a hard budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ghostify.cost.budget import Budget
from ghostify.errors import SearchError, nearest
from ghostify.models.zoo import Built
from ghostify.plan import Plan
from ghostify.provenance import provenance
from ghostify.searches.agenda import DIRECTIONS
from ghostify.searches.architecture import Architecture
from ghostify.searches.arguments import (
    ArgumentSubject,
    limits_of,
    open_arguments,
    settle_arguments,
)
from ghostify.searches.charts import draw_all
from ghostify.searches.climb import Rung, parse_climb, parse_training, write_climb
from ghostify.searches.exact import check_possible
from ghostify.searches.finalists import measure_finalists
from ghostify.searches.layout import Layout
from ghostify.searches.outcome import Outcome, measured_of, plan_text, write_outcome
from ghostify.searches.problem import Problem
from ghostify.searches.run import RUN_FILE, About, open_run, put, put_json, refuse_other
from ghostify.searches.settle import Settled, Wish, problem_of, settle
from ghostify.searches.space import load_space
from ghostify.searches.study.ledger import PRUNERS, Ledger, Pace
from ghostify.searches.study.record import Record
from ghostify.searches.study.samplers import Parameters, check_sampler
from ghostify.searches.study.storage import Patience, masked, open_storage, storage_url
from ghostify.searches.subject import (
    Network,
    Request,
    Subject,
    members_of,
    open_subject,
)
from ghostify.searches.team import Crew, Member, run_alone, run_team
from ghostify.searches.worker import Evaluator, Search, Worker
from ghostify.train.recipe import load_recipe

__all__ = ["Found", "search"]

Step = Callable[[str], None]
Progress = Callable[[int, int, str], None]
OnLook = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A search as it was left: its outcome, and where it is written."""

    outcome: Outcome
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Record | None:
        """The best trial."""
        return self.outcome.best

    @property
    def plan(self) -> Plan | None:
        """The best plan."""
        best = self.best
        if best is None or best.assignment is None or self.outcome.layout.values:
            return None
        layers = self.outcome.layout.plan(best.assignment)
        return Plan.from_json({"model": self.outcome.model, "layers": layers})

    @property
    def arguments(self) -> dict[str, Any] | None:
        """The best arguments, where these were searched."""
        best = self.best
        if best is None or best.assignment is None or not self.outcome.layout.values:
            return None
        return self.outcome.layout.arguments(best.assignment)


def search(
    model: str | nn.Module | Built,
    data: str | Path | None = None,
    *,
    budget: str | Budget,
    output: str | Path,
    weights: str | Path | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    split: str | None = None,
    images: Mapping[str, Any] | None = None,
    input_size: tuple[int, ...] | None = None,
    calibration: int | None = None,
    held_back: int | None = None,
    space: str | Path | None = None,
    trials: int | None = None,
    climb: str | None = None,
    sampler: str | None = None,
    pruner: str = "median",
    pareto: Sequence[str] | None = None,
    warm: Iterable[str | Path] = (),
    exact: bool = True,
    storage: str | None = None,
    study: str | None = None,
    workers: int = 1,
    readers: int = 0,
    device: str = "auto",
    table: str | Path | None = None,
    pace: Pace | None = None,
    seed: int = 0,
    on_step: Step | None = None,
    on_progress: Progress | None = None,
    on_look: OnLook | None = None,
    on_wait: Step | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Search the plan that stays nearest to the original under a budget that it must hold.

    The same call goes on with a search that was left; on another machine with the same
    ``storage`` and ``study`` it joins in. Not one plan beyond the budget is evaluated.

    Args:
        data: images, as for :func:`ghostify.finetune`; the score itself needs no labels.
            Without, images are synthesised.
        budget: such as ``"macs=0.5x,latency=12ms@onnxruntime"``.
        output: directory of the run.
        weights, pretrained, model_args, images: as for :func:`ghostify.train`.
        calibration, held_back: numbers of images that layers are fitted to, and of those that
            plans are judged by.
        space: a search space by name or file; without, one is derived from the network. If
            it has arguments of the function that builds the network, each trial trains a
            network from scratch, as ``climb="train=12x391@cifar-resnet"`` says.
        trials, climb: how many plans are tried how thoroughly, such as
            ``"free=200,distil=8x391,train=2@distil-long"``.
        sampler: by name, as in :data:`ghostify.searches.study.samplers.SAMPLERS`; without,
            "guided" where plans are weighed by one objective, else "tpe".
        pruner: that ends poor trainings: "median", "halving" or "none".
        pareto: objectives to weigh against each other, such as ``("macs", "top1")``.
        warm: plan files, artefacts or finished searches to begin with.
        exact: begin with the exact optimum of what single layers lose, and its neighbours.
        storage: URL of a database, ``grpc://host:port``, or a file; SQLite in ``output``
            without.
        study: name in the storage.
        workers: processes of this command.
        table: file of latencies, where the budget limits one.
        pace: how soon a worker that is silent counts as lost.
        on_look: called often with how the search stands.
        should_stop: asked often; work under way is then queued again.

    Raises:
        GhostifyError: whatever does not fit, in one sentence.
    """
    step = on_step or _ignore
    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    wanted = None if space is None else load_space(space)
    of_arguments = wanted is not None and bool(wanted.arguments)
    read = parse_training if of_arguments else parse_climb
    rungs = read(climb, trials=trials)
    for rung in rungs:
        if rung.recipe:
            load_recipe(rung.recipe, steps=rung.steps)  # refused now rather than after hours
    objectives = _objectives(pareto, limits)
    if sampler is None:
        sampler = "tpe" if of_arguments or len(objectives) > 1 else "guided"
    check_sampler(sampler, len(objectives))
    if workers > 1 and not isinstance(model, str):
        raise SearchError(
            "several workers need a network that goes by name, since each builds its own; give a "
            "name, or take one worker"
        )
    _known("pruner", pruner, PRUNERS)
    members = members_of(workers, device)
    path = Path(output)
    before = open_run(path)
    request = Request(
        model,
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        model_args=dict(model_args or {}),
        data=None if data is None else Path(data),
        split=split,
        images=dict(images or {}),
        input_size=input_size,
        calibration=calibration,
        held_back=held_back,
        seed=seed,
        readers=readers,
    )
    url = storage_url(storage, path)
    settings: dict[str, Any] = {
        "storage": masked(url),
        "study": study or ("search" if storage is None else _name_of(model)),
        "climb": write_climb(rungs),
        "sampler": sampler,
        "pruner": pruner,
        "exact": exact,
        "workers": workers,
        "threads": members[0].threads,
        "device": members[0].device,
    }
    step("opening the storage")
    patience = Patience(on_wait=on_wait)
    ledger = Ledger(
        open_storage(url, patience=patience),
        settings["study"],
        objectives,
        pruner=pruner,
        pace=pace,
    )
    subject: Subject | ArgumentSubject
    if of_arguments:
        assert wanted is not None
        _check_arguments(objectives, sampler, warm)
        subject = open_arguments(
            request, wanted, step, on_architecture=lambda made: limits_of(made, limits)
        )
        layout = Layout.of(subject.architecture)
    else:
        subject = open_subject(
            request, step, on_network=lambda network: _check_budget(network, space, limits),
            on_progress=on_progress,
        )  # fmt: skip
        _check_objectives(objectives, rungs, subject)
        wanted = subject.network.space(space)
        plain = problem_of(subject.network, wanted)
        layout = Layout.of(plain)
    identity = {
        **subject.identity(),
        "space": f"{len(layout.names)} choices, {layout.plans:.3g} plans ({layout.digest})",
        "budget": str(limits),
        "objectives": ", ".join(objectives),
        "parameters": "numbers" if Parameters.are_ordered(sampler) else "names",
        "seed": seed,
    }
    if before is not None:
        refuse_other(identity, before.identity, where=str(path))
    notes = ledger.notes()
    if "identity" in notes:
        refuse_other(identity, notes["identity"], where=f"the study {ledger.name!r}")
    ledger.note("identity", identity)
    if isinstance(subject, ArgumentSubject):
        settled = Settled(
            settle_arguments(ledger, subject, limits, rungs, objectives, sampler=sampler, seed=seed)
        )
    else:
        wish = Wish(
            limits, rungs, objectives, sampler, seed, tuple(warm), exact,
            None if table is None else Path(table),
        )  # fmt: skip
        settled = settle(
            ledger, subject, plain, wanted, wish,
            cache=path / "cache", device=members[0].device, step=step, on_progress=on_progress,
        )  # fmt: skip
    found, clocks, scorer = settled.search, settled.clocks, settled.scorer
    about = About(
        identity=identity,
        settings=settings,
        request=request.as_json(),
        variables=tuple(Layout.of(found.problem).as_json()),
        original=found.problem.original,
        limits=found.limits,
        provenance=provenance(torch.device(members[0].device)),
    )
    put_json(path / RUN_FILE, about.as_json())

    def outcome(records: Sequence[Record], *, finished: bool = False) -> Outcome:
        return _outcome(about, found, records, ledger.notes() if clocks else {}, finished)

    shown: list[int] = []

    def look(records: Sequence[Record]) -> None:
        now = outcome(records)
        best = now.best
        if best is not None and shown[-1:] != [best.number]:
            shown.append(best.number)
            _keep_best(now, path)
        if on_look is not None:
            on_look(now)

    ledger.use(found.parameters())
    step("searching")
    if workers == 1:
        evaluator: Evaluator = scorer or subject.evaluator(path / "cache", device=members[0].device)
        worker = Worker(ledger, found, evaluator, should_stop=should_stop)
        through = run_alone(ledger, found, worker, should_stop=should_stop, on_look=look)
    else:
        del scorer
        arguments = (request, url, settings["study"], found, path / "cache", pruner, pace)
        crew = Crew(_prepare_worker, arguments, members)
        through = run_team(ledger, found, crew, should_stop=should_stop, on_look=look)
    if through and clocks is not None:
        last_word = subject.evaluator(path / "cache", device=members[0].device)
        measure_finalists(ledger, found, clocks, last_word, outcome, step, on_progress)
    records = ledger.records()
    step("writing the results")
    last = outcome(records, finished=through)
    told = found.problem.notes if isinstance(found.problem, Problem) else ()
    remarks = (*subject.notes, *told, *settled.notes, *(clocks.notes if clocks else ()))
    last = dataclasses.replace(last, notes=remarks)
    write_outcome(last, path)
    draw_all(last, ledger.importances(rungs[0].kind), path / "pictures")
    ledger.close()
    return Found(last, path, remarks)


def _prepare_worker(
    member: Member,
    request: Request,
    url: str,
    name: str,
    search: Search,
    cache: Path,
    pruner: str,
    pace: Pace | None,
) -> tuple[Ledger, Search, Evaluator]:
    """Make one of several workers ready, in its own process."""
    torch.set_num_threads(member.threads)
    ledger = Ledger(
        open_storage(url, patience=Patience(first_s=60.0)),
        name,
        search.objectives,
        pruner=pruner,
        pace=pace,
    )
    subject: Subject | ArgumentSubject
    if isinstance(search.problem, Architecture):
        space = search.problem.space
        subject = open_arguments(request, space, _ignore, architecture=search.problem)
    else:
        subject = open_subject(request, _ignore)
    return ledger, search, subject.evaluator(cache, device=member.device)


def _keep_best(outcome: Outcome, folder: Path) -> None:
    best = outcome.best
    assert best is not None
    put(folder / "best.yaml", plan_text(outcome, best).encode())


def _outcome(
    about: About,
    search: Search,
    records: Sequence[Record],
    notes: Mapping[str, Any],
    finished: bool,
) -> Outcome:
    layout = Layout.from_json(about.variables)
    return Outcome(
        model=about.model,
        budget=about.identity["budget"],
        limits=search.limits,
        original=search.problem.original,
        objectives=search.objectives,
        rungs=search.rungs,
        layout=layout,
        records=tuple(records),
        measured=measured_of(notes, records, layout),
        finished=finished,
    )


def _objectives(pareto: Sequence[str] | None, budget: Budget) -> dict[str, str]:
    """Return what is optimised, with its direction."""
    if not pareto:
        return {"score": "maximize"}
    known = [*DIRECTIONS, *(f"latency@{name}" for name in budget.runtimes)]
    for name in pareto:
        _known("objective", name, known)
    if len(set(pareto)) != len(pareto) or len(pareto) < 2:
        raise SearchError(
            f"--pareto weighs two different things or more (got {','.join(pareto)}); write "
            "--pareto macs,score"
        )
    return {name: DIRECTIONS.get(name, "minimize") for name in pareto}


def _check_budget(network: Network, space: str | Path | None, budget: Budget) -> None:
    """Refuse at once what no plan holds; latencies are not known yet."""
    problem = problem_of(network, network.space(space))
    known = tuple(limit for limit in budget.limits if not limit.runtime)
    if not known:
        return
    check_possible(problem, Budget(known).absolute(problem.original))


def _check_objectives(
    objectives: Mapping[str, str], rungs: Sequence[Rung], subject: Subject
) -> None:
    if "top1" in objectives and subject.pictures.labels is None:
        raise SearchError(
            "top1 needs labelled images; give them by --data, or weigh score, which needs none"
        )
    if len(rungs) > 1 and subject.pictures.supply is None:
        raise SearchError(
            f"--climb {write_climb(tuple(rungs))} trains, which needs images; give them by --data"
        )


def _check_arguments(
    objectives: Mapping[str, str], sampler: str, warm: Iterable[str | Path]
) -> None:
    if "divergence" in objectives:
        raise SearchError(
            "networks of other arguments have no original to diverge from; weigh score, which is "
            "the negative loss on images held back, or top1"
        )
    if sampler == "guided":
        raise SearchError("guided models what layers lose, not arguments; take --sampler tpe")
    if list(warm):
        raise SearchError("a search of arguments does not begin from plans; leave --warm-start out")


def _known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise SearchError(
            f"no {what} is called {name!r}"
            + (nearest(name, known) or f"; choose from {', '.join(known)}")
        )


def _name_of(model: object) -> str:
    return model if isinstance(model, str) else type(model).__name__


def _ignore(_step: str) -> None:
    return None
