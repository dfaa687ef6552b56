"""Read the directories of comparisons: their records, their suites, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostify.errors import GhostifyError, RecordError
from ghostify.reports.results import Result, summed_up, wish_of
from ghostify.runs.record import RunRecord
from ghostify.runs.store import open_runs

if TYPE_CHECKING:
    from ghostify.runs.suite import Suite

__all__ = ["SUITE", "Gathered", "gather"]

SUITE = "suite.yaml"
"""The copy of the suite in the directory of a comparison."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one or several comparisons have to tell."""

    names: tuple[str, ...]  # of the directories
    records: tuple[RunRecord, ...]  # each run once, without what the suites no longer ask for
    results: tuple[Result, ...]  # in the suites' order
    suites: tuple[Suite, ...]  # of the directories that have one
    missing: tuple[str, ...] = ()  # what a suite asks for and no record shows
    remarks: tuple[str, ...] = ()  # what was left out, and why
    raw: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)  # files to copy


@dataclass(frozen=True, slots=True)
class _Source:
    """One directory."""

    name: str
    records: tuple[RunRecord, ...]
    suite: Suite | None
    content: bytes  # of its records
    suite_text: bytes | None


def gather(paths: Sequence[str | Path]) -> Gathered:
    """Read the records of one or several directories that ``ghostify compare`` wrote.

    Runs that a directory's suite no longer asks for are left out with a remark, as are lines
    that are no whole records. Rows of one name that were made in different ways in two
    directories stay apart, and are told apart by the directories' names.

    Raises:
        RecordError: no directory is given, one holds no records, or records of another format.
    """
    if not paths:
        raise RecordError("a report needs a directory that ghostify compare wrote; give one")
    remarks: list[str] = []
    sources = [_read(Path(path), remarks, several=len(paths) > 1) for path in paths]
    variants, kept = _joined(sources, remarks)
    suites = tuple(source.suite for source in sources if source.suite is not None)
    results = summed_up(kept, variants=variants, order=_Order(suites) if suites else None)
    return Gathered(
        names=tuple(source.name for source in sources),
        records=kept,
        results=results,
        suites=suites,
        missing=_missing(suites, kept),
        remarks=tuple(remarks + _unequal(results)),
        raw=_raw(sources),
    )


class _Order:
    """Sorts rows as the suites list networks, budgets and methods."""

    def __init__(self, suites: Sequence[Suite]) -> None:
        self.networks = _places(one.name for suite in suites for one in suite.networks)
        self.methods = _places(one.name for suite in suites for one in suite.methods)
        self.budgets = _places(
            one for suite in suites for network in suite.networks for one in network.budgets
        )

    def __call__(self, record: RunRecord) -> tuple[Any, ...]:
        return (
            self.networks.get(record.network, len(self.networks)),
            record.network,
            self.methods.get(record.method, len(self.methods)),
            record.method,
            self.budgets.get(record.budget or "", len(self.budgets)),
            record.budget or "",
        )


def _places(names: Any) -> dict[str, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _read(path: Path, remarks: list[str], *, several: bool) -> _Source:
    store = open_runs(path)
    stored = store.read()
    name = path.resolve().name if path.is_dir() else path.resolve().stem
    where = f"{name}: " if several else ""
    remarks += [f"{where}{remark}" for remark in stored.remarks]
    if not stored.records:
        why = "no whole record" if stored.remarks else "no record yet"
        raise RecordError(f"{store.path} holds {why}; let ghostify compare finish a run first")
    suite, text = _suite(store.path.parent / SUITE, where, remarks)
    records = stored.records
    if suite is not None:
        records = _asked(records, suite)
        if len(records) < len(stored.records):
            left = len(stored.records) - len(records)
            runs = "1 run that the suite no longer asks for is" if left == 1 else (
                f"{left} runs that the suite no longer asks for are"
            )  # fmt: skip
            remarks.append(f"{where}{runs} left out")
        if not records:
            raise RecordError(
                f"{store.path} holds no run that {SUITE} beside it asks for; "
                "let ghostify compare finish a run first"
            )
    return _Source(name, _latest(records, where, remarks), suite, store.path.read_bytes(), text)


def _suite(path: Path, where: str, remarks: list[str]) -> tuple[Suite | None, bytes | None]:
    if not path.is_file():
        return None, None
    from ghostify.runs.suite_file import load_suite

    try:
        return load_suite(path, files=False), path.read_bytes()
    except (GhostifyError, OSError) as error:
        remarks.append(
            f"{where}the suite beside the records cannot be read ({error}); all is shown"
        )
        return None, None


def _asked(records: Sequence[RunRecord], suite: Suite) -> tuple[RunRecord, ...]:
    """Return the records of runs that the suite has now."""
    networks = {one.name: one for one in suite.networks}
    methods = {one.name: one for one in suite.methods}

    def wanted(record: RunRecord) -> bool:
        network, method = networks.get(record.network), methods.get(record.method)
        if network is None or method is None or record.network not in method.networks:
            return False
        if _text(record.settings) != _text(method.settings):
            return False
        if record.budget is not None and record.budget not in network.budgets:
            return False
        if record.kind == "tune":
            return network.tune is not None and record.lr in network.tune.rates
        return record.kind == "count" or record.seed in network.seeds

    return tuple(record for record in records if wanted(record))


def _latest(records: Sequence[RunRecord], where: str, remarks: list[str]) -> tuple[RunRecord, ...]:
    """Let the newest record stand where one run was made twice, by other settings each time."""
    newest: dict[tuple[Any, ...], RunRecord] = {}
    for record in records:
        rate = record.lr if record.kind == "tune" else None
        key = (record.kind, record.network, record.method, record.budget, record.seed, rate)
        if key in newest:
            remarks.append(
                f"{where}{record.network}, {record.method}, seed {record.seed}: an older run by "
                "other settings is left out"
            )
        newest[key] = record
    return tuple(newest.values())


def _joined(
    sources: Sequence[_Source], remarks: list[str]
) -> tuple[dict[str, str], tuple[RunRecord, ...]]:
    """Return names for what must stay apart, and all records, each once."""
    kept: dict[str, tuple[str, RunRecord]] = {}
    for source in sources:
        for record in source.records:
            if record.id in kept:
                continue  # the same run, copied
            kept[record.id] = (source.name, record)
    wishes: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    seeds: dict[tuple[str, str, str, int], int] = {}
    for name, record in kept.values():
        row = (record.network, record.method, record.budget or "")
        wishes.setdefault(row, {}).setdefault(name, set())
        if record.kind != "tune":
            wishes[row][name].add(wish_of(record))
            seeds[(*row, record.seed)] = seeds.get((*row, record.seed), 0) + 1
    apart = {
        row
        for row, found in wishes.items()
        if len(found) > 1
        and (
            len(set().union(*found.values())) > 1
            or any(count > 1 for key, count in seeds.items() if key[:3] == row)
        )
    }
    variants = {
        record.id: name
        for name, record in kept.values()
        if (record.network, record.method, record.budget or "") in apart
    }
    if apart:
        remarks.append(
            "methods of one name that were made in different ways stand in rows of their own, "
            "with the name of their directory"
        )
    return variants, tuple(record for _, record in kept.values())


def _missing(suites: Sequence[Suite], records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Say what was asked for and is not there, a sentence for each row."""
    done = {
        (one.network, one.method, one.budget, one.seed) for one in records if one.kind != "tune"
    }
    found = []
    for suite in suites:
        for network in suite.networks:
            for method in suite.methods_of(network.name):
                budgets = network.budgets if method.takes_budget else (None,)
                for budget in budgets:
                    lost = [
                        seed
                        for seed in (network.seeds if suite.data is not None else ())
                        if (network.name, method.name, budget, seed) not in done
                    ]
                    any_there = any(key[:3] == (network.name, method.name, budget) for key in done)
                    if suite.data is None and any_there:
                        continue
                    if lost or not any_there:
                        under = f" at {budget}" if budget else ""
                        which = "" if not any_there else ", " + _seeds(lost)
                        found.append(f"{network.label}, {method.label}{under}{which}")
    return tuple(dict.fromkeys(found))


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


def _unequal(results: Sequence[Result]) -> list[str]:
    """Say where the rows of one network were not trained alike."""
    found = []
    for network in dict.fromkeys(result.network for result in results):
        trained = [
            record
            for result in results
            if result.network == network
            for record in result.records
            if record.kind == "test" and record.steps
        ]
        ways = {
            _text({key: one for key, one in record.recipe.items() if key != "lr"})
            + f" {record.steps}"
            for record in trained
        }
        if len(ways) > 1:
            found.append(
                f"{network}: the rows were not all trained by the same recipe and number of steps, "
                "so they do not compare like with like"
            )
    return found


def _raw(sources: Sequence[_Source]) -> tuple[tuple[str, bytes], ...]:
    """Return the files to lay beside the report: the records as they are, and the suites."""
    whole = b"".join(
        content if content.endswith(b"\n") or number == len(sources) else content + b"\n"
        for number, content in enumerate((source.content for source in sources), start=1)
    )
    files = [("records.jsonl", whole)]
    for number, source in enumerate(sources, start=1):
        if source.suite_text is not None:
            name = SUITE if len(sources) == 1 else f"suite-{number}.yaml"
            files.append((name, source.suite_text))
    return tuple(files)


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, default=_listed)


def _listed(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
