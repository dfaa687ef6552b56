"""What can be done with a search that was run: look at it, evaluate a trial again, serve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ghostify.errors import SearchError
from ghostify.plan import Plan
from ghostify.searches.agenda import DIRECTIONS, Start, is_done
from ghostify.searches.arguments import ArgumentSubject, open_arguments
from ghostify.searches.choices import SearchSpace
from ghostify.searches.climb import parse_climb, parse_training
from ghostify.searches.layout import Layout
from ghostify.searches.outcome import Outcome, measured_of
from ghostify.searches.run import About, read_run, refuse_other
from ghostify.searches.study.ledger import Ledger
from ghostify.searches.study.record import Record
from ghostify.searches.study.samplers import Parameters
from ghostify.searches.study.storage import open_storage, storage_url
from ghostify.searches.subject import Request, Subject, open_subject

__all__ = ["Rerun", "has_dashboard", "rerun", "serve_dashboard", "show", "storage_of"]

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rerun:
    """A trial that was evaluated once more."""

    record: Record
    score: Mapping[str, Any]

    @property
    def same(self) -> bool:
        """Whether the score is the same, bit for bit."""
        return bool(self.score.get("score") == self.record.score.get("score"))


def show(run: str | Path, *, storage: str | None = None) -> Outcome:
    """Return how a search stands, from its storage.

    Args:
        storage: its URL with the password, where it has one.

    Raises:
        SearchError: the directory is no search.
        StorageError: the storage cannot be reached.
    """
    path = Path(run)
    about = read_run(path)
    ledger = _ledger_of(path, about, storage)
    rungs = (parse_training if about.of_arguments else parse_climb)(about.settings["climb"])
    layout = Layout.from_json(about.variables)
    ordered = about.identity["parameters"] == "numbers"
    ledger.use(Parameters(layout, ordered=ordered))
    records, notes = ledger.records(), ledger.notes()
    ledger.close()
    start = tuple(Start(str(one[0]), tuple(one[1])) for one in notes.get("start", ()))
    return Outcome(
        model=about.model,
        budget=about.identity["budget"],
        limits=about.limits,
        original=about.original,
        objectives=ledger.objectives,
        rungs=rungs,
        layout=layout,
        records=tuple(records),
        measured=measured_of(notes, records, layout),
        finished=bool(records) and is_done(records, rungs, start),
    )


def rerun(
    run: str | Path,
    trial: int,
    *,
    storage: str | None = None,
    on_step: Step | None = None,
    report: Callable[[int, float], bool] | None = None,
) -> Rerun:
    """Evaluate one trial of a search again, from what is recorded of it.

    Raises:
        SearchError: there is no such trial, it has no score, or network and images are not
            what they were.
    """
    path, step = Path(run), on_step or _ignore
    about, now = read_run(path), show(run, storage=storage)
    by_number = {record.number: record for record in now.records}
    if trial not in by_number:
        raise SearchError(
            f"the search has no trial {trial}; its trials go from 0 to {len(by_number) - 1}"
        )
    record = by_number[trial]
    if not record.finished or record.assignment is None:
        raise SearchError(f"trial {trial} has no score (it is {record.state}); choose another")
    request = Request.from_json(about.request)
    torch.set_num_threads(int(about.settings["threads"]))
    subject: Subject | ArgumentSubject
    if about.of_arguments:
        subject = open_arguments(request, _space_of(about), step)
    else:
        subject = open_subject(request, step)
    mine = subject.identity()
    refuse_other(mine, {key: about.identity.get(key) for key in mine}, where=str(path))
    rung = next(one for one in now.rungs if one.kind == record.rung)
    plan: Any
    if about.of_arguments:
        plan = now.layout.arguments(record.assignment)
    else:
        layers = now.layout.plan(record.assignment)
        plan = Plan.from_json({"model": now.model, "layers": layers}, where=f"trial {trial}")
    step(f"scoring trial {trial}")
    scorer = subject.evaluator(path / "cache", device=str(about.settings["device"]))
    seed = request.seed if record.seed is None else record.seed
    judged = scorer.score(plan, rung, seed=seed, report=report or _go_on)
    return Rerun(record, judged.as_json())


def storage_of(run: str | Path, storage: str | None = None) -> str:
    """Return the URL of a search's storage.

    Raises:
        SearchError: the directory is no search, or the URL holds a password that it does not.
    """
    about = read_run(Path(run))
    url = str(about.settings["storage"])
    if storage is not None:
        return storage_url(storage, Path(run))
    if ":***@" in url:
        raise SearchError(f"{url} needs its password; give the whole URL by --storage")
    local = Path(run).resolve() / "study.db"
    if url.startswith("sqlite") and url.endswith("/study.db") and local.is_file():
        return f"sqlite:///{local}"  # the directory may have been moved
    return url


def has_dashboard() -> bool:
    """Return whether optuna-dashboard is installed."""
    return find_spec("optuna_dashboard") is not None


def serve_dashboard(url: str, *, host: str, port: int) -> None:
    """Serve optuna-dashboard on a storage, until the process is told to end.

    Raises:
        SearchError: the port is taken.
    """
    import optuna_dashboard

    try:
        optuna_dashboard.run_server(open_storage(url), host=host, port=port)
    except OSError as error:
        raise SearchError(
            f"port {port} of {host} cannot be used ({error.strerror}); take another by --port"
        ) from None


def _space_of(about: About) -> SearchSpace:
    """Return the arguments that a search chooses from."""
    values = {str(one["name"]): tuple(one["values"]) for one in about.variables}
    return SearchSpace(str(about.request["model"]), arguments=values)


def _ledger_of(run: Path, about: About, storage: str | None) -> Ledger:
    directions = _objectives_of(about)
    return Ledger(open_storage(storage_of(run, storage)), about.settings["study"], directions)


def _objectives_of(about: About) -> dict[str, str]:
    names = str(about.identity["objectives"]).split(", ")
    return {name: DIRECTIONS.get(name, "minimize") for name in names}


def _go_on(_step: int, _score: float) -> bool:
    return False


def _ignore(_step: str) -> None:
    return None
