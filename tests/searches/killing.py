"""Let a team of workers do a search while random ones of them are killed in mid-trial."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import search_fakes as fakes

from ghostify.searches.agenda import best_of, standing_of
from ghostify.searches.study.ledger import Ledger
from ghostify.searches.study.record import Record, chains, is_final
from ghostify.searches.study.storage import Patience, open_storage
from ghostify.searches.team import Crew, Member, run_team
from ghostify.searches.worker import Search

__all__ = ["Massacre", "massacre"]


@dataclass(frozen=True)
class Massacre:
    """What is left to say after a search in which workers were killed."""

    through: bool
    killed: int
    tickets: int
    final: int  # tickets with an end
    scored: int  # tickets with exactly one score
    lost: int  # trials that were closed and never queued again
    doubled: int  # trials that were queued again more than once
    void: int  # trials that stood twice and were not evaluated
    evaluations: int  # scores that were begun
    infeasible: int
    best_again: bool  # the best plan's score comes out the same
    seconds: float

    def check(self, kills: int) -> None:
        """Assert that nothing was lost and nothing done twice."""
        assert self.through
        assert self.killed == kills
        assert self.final == self.scored == self.tickets
        assert self.lost == self.doubled == self.infeasible == 0
        assert self.tickets <= self.evaluations <= self.tickets + kills
        assert self.best_again

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def massacre(
    url: str,
    folder: Path,
    *,
    kills: int,
    trials: int,
    workers: int = 4,
    seconds: float = 0.4,
    seed: int = 0,
    on_running: Any = None,
) -> Massacre:
    """Search ``trials`` plans with a team, and kill a worker that has a trial, time and again.

    Args:
        seconds: that a score takes.
        on_running: called once in a thread of its own while the search is under way.
    """
    search = fakes.search(trials=trials, seed=seed)
    ledger = Ledger(open_storage(url), "kills", search.objectives, pace=fakes.PACE)
    watcher = Ledger(
        open_storage(url, patience=Patience(later_s=120)), "kills", search.objectives,
        pace=fakes.PACE,
    )  # fmt: skip
    watcher.use(search.parameters())
    log = folder / "evaluations.jsonl"
    log.touch()
    crew = Crew(
        fakes.prepare,
        (url, "kills", search, str(log), seconds),
        tuple(Member(number, workers, 1) for number in range(workers)),
    )
    killed: list[int] = []
    over = threading.Event()
    rng = random.Random(seed)

    def kill() -> None:
        while len(killed) < kills and not over.wait(rng.uniform(0.05, 0.6)):
            busy = [
                one for one in watcher.records()
                if one.state == "running" and one.worker and one.assignment is not None
                and one.number not in killed
            ]  # fmt: skip
            if busy:
                victim = rng.choice(busy)
                try:
                    os.kill(victim.worker["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed.append(victim.number)

    threads = [threading.Thread(target=kill)]
    if on_running is not None:
        threads.append(threading.Thread(target=on_running))
    began = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        through = run_team(ledger, search, crew)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    records = ledger.records()
    for one in (ledger, watcher):
        one.close()
    return _told(through, len(killed), records, search, log, time.monotonic() - began)


def _told(
    through: bool, killed: int, records: list[Record], search: Search, log: Path, seconds: float
) -> Massacre:
    attempts = chains(records)
    retries = collections.Counter(
        one.retry_of for one in records if one.retry_of is not None and one.state != "void"
    )
    best = best_of(records, search.rungs)
    assert best is not None
    assert best.assignment is not None
    assert standing_of(records, search.rungs).final == len(attempts)
    plan = search.problem.plan(fakes.array(best.assignment))
    return Massacre(
        through=through,
        killed=killed,
        tickets=search.rungs[0].count,
        final=sum(map(is_final, attempts.values())),
        scored=sum(sum(one.finished for one in some) == 1 for some in attempts.values()),
        lost=sum(one.state == "failed" and one.number not in retries for one in records),
        doubled=sum(count > 1 for count in retries.values()),
        void=sum(one.state == "void" for one in records),
        evaluations=len([json.loads(line) for line in log.read_text().splitlines()]),
        infeasible=sum(not one.feasible for one in records if one.finished),
        best_again=fakes.divergence(plan) == best.score["divergence"],
        seconds=round(seconds, 1),
    )


if __name__ == "__main__":
    sys.exit("this module is for tests/searches/test_distributed.py and benchmarks/search_kills.py")
