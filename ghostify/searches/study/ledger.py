"""The book of a search that any number of workers share: what is to be done, and by whom.

Every planned evaluation is a trial that waits, with a ticket. A worker takes one by the only
step that a storage does atomically, from waiting to running. A trial whose worker is lost is
closed, which only one of those that notice can do, and queued again under the next ticket of
its kind. Two processes may still queue the same ticket, when the answer of a server is lost,
say: then the earlier trial counts, and whoever takes the later one closes it unevaluated.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ghostify.errors import SearchError, nearest
from ghostify.searches.study.record import Record, base_of, chains, given_up, record_of
from ghostify.searches.study.samplers import Feasible, Parameters
from ghostify.searches.study.storage import calm, close_storage
from ghostify.searches.study.worker_name import is_gone, this_process

__all__ = ["PRUNERS", "Claim", "Ledger", "Pace", "Ticket"]

_log = logging.getLogger(__name__)

PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "median": lambda: MedianPruner(n_startup_trials=2, n_min_trials=2),
    "halving": lambda: SuccessiveHalvingPruner(reduction_factor=2),
    "none": NopPruner,
}
"""What ends a training whose scores on the way are poor, by name."""

_FEW = 12  # trials that say nothing about importance
_FIXED = "fixed_params"  # what Optuna calls the parameters of a trial that waits


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a worker says that it is there, and how long it may be silent."""

    beat_s: float = 10.0
    grace_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < 2 * self.beat_s <= self.grace_s:
            raise SearchError(
                f"a worker must be heard of twice within its grace (got a beat each {self.beat_s} "
                f"s and {self.grace_s} s of grace); let grace be longer"
            )


@dataclass(frozen=True, slots=True)
class Ticket:
    """One evaluation that is to be done; without an assignment, a sampler proposes."""

    name: str
    rung: str
    origin: str = ""
    assignment: tuple[int, ...] | None = None
    source: int | None = None  # the trial of the rung below


class Claim:
    """A trial that this worker has taken, and nobody else."""

    def __init__(self, identity: int, record: Record) -> None:
        self.identity, self.record = identity, record
        self.trial: optuna.Trial | None = None  # from when it is asked for its plan
        self.lost = False  # closed by others, who thought that this worker was


class Ledger:
    """One study in one storage.

    Args:
        objectives: names and directions ("maximize", "minimize") of what the study optimises.

    Raises:
        SearchError: there is a study of this name with other objectives.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        objectives: Mapping[str, str],
        *,
        pruner: str = "median",
        pace: Pace | None = None,
    ) -> None:
        if pruner not in PRUNERS:
            raise SearchError(
                f"no pruner is called {pruner!r}"
                + (nearest(pruner, PRUNERS) or f"; choose from {', '.join(PRUNERS)}")
            )
        self.name, self.objectives, self.pace = name, dict(objectives), pace or Pace()
        self._storage = storage
        self._pruner = PRUNERS[pruner]() if len(objectives) == 1 else NopPruner()
        self.created = name not in _names(storage)
        directions = list(objectives.values())
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[optuna.study.StudyDirection[one.upper()] for one in directions],
            load_if_exists=True,
            pruner=self._pruner,
        )
        theirs = [direction.name.lower() for direction in self._study.directions]
        if theirs != directions:
            raise SearchError(
                f"the study {name!r} optimises {len(theirs)} objectives ({', '.join(theirs)}), not "
                f"{', '.join(f'{d} {o}' for o, d in objectives.items())}; name another by --study"
            )
        if self.created:
            with calm():
                self._study.set_metric_names(list(objectives))
        self._id = storage.get_study_id_from_name(name)
        self._parameters: Parameters | None = None
        self._me = this_process()
        self._heard: dict[int, tuple[Any, float]] = {}
        self._looked = time.monotonic()

    def close(self) -> None:
        """Give up the connections to the storage."""
        close_storage(self._storage)

    # What belongs to the whole study

    def notes(self) -> dict[str, Any]:
        """Return what was noted down about the study."""
        return dict(self._storage.get_study_user_attrs(self._id))

    def note(self, key: str, value: Any) -> None:
        """Note something down about the study, as plain values."""
        self._storage.set_study_user_attr(self._id, key, value)

    def use(self, parameters: Parameters) -> None:
        """Say how assignments are written in this study."""
        self._parameters = parameters

    def records(self) -> list[Record]:
        """Return all trials, by number."""
        return [record_of(trial, self._assignment(trial)) for trial in self._trials()]

    def importances(self, rung: str) -> dict[str, float]:
        """Return how much each variable decides whether a plan is among the best of a rung.

        Empty where there are too few trials to tell.
        """
        finished = [
            trial for trial in self._trials(TrialState.COMPLETE)
            if trial.user_attrs.get("rung") == rung and trial.params
        ]  # fmt: skip
        if len(finished) < _FEW:
            return {}
        aside = optuna.create_study(direction="maximize")
        for trial in finished:
            aside.add_trial(
                create_trial(
                    value=float(trial.user_attrs["score"]["score"]),
                    params=trial.params,
                    distributions=trial.distributions,
                )
            )
        with calm(), contextlib.suppress(ValueError, RuntimeError):  # all alike, say
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(aside, evaluator=evaluator))
        return {}

    # What is to be done

    def queue(self, tickets: Sequence[Ticket], *, seed: int | None = None) -> None:
        """Let trials wait for a worker."""
        for ticket in tickets:
            fixed = None
            if ticket.assignment is not None:
                fixed = self._named().values(ticket.assignment)
            self._queue(
                {
                    "ticket": ticket.name,
                    "rung": ticket.rung,
                    "origin": ticket.origin,
                    **({} if ticket.source is None else {"source": ticket.source}),
                    **({} if seed is None else {"seed": seed}),
                },
                fixed,
            )

    def claim(self) -> Claim | None:
        """Take the first trial that waits, if there is one."""
        for waiting in self._trials(TrialState.WAITING):
            identity = waiting._trial_id
            try:
                if not self._storage.set_trial_state_values(identity, TrialState.RUNNING):
                    continue
            except UpdateFinishedTrialError:
                continue
            self._storage.set_trial_user_attr(identity, "worker", self._me)
            if self._is_double(waiting):
                self._close(identity, void="this ticket was queued twice")
                continue
            return Claim(identity, record_of(waiting, self._assignment(waiting)))
        return None

    def heal(self) -> int:
        """Queue again what lost workers have left; return how many trials that were."""
        now = time.monotonic()
        if now - self._looked > self.pace.grace_s / 2:
            self._heard.clear()  # nobody could be heard of: the storage was away, or we were
        self._looked = now
        healed = 0
        trials = self._trials()
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            silent = self._silent(trial, now, ("beat", trial.user_attrs.get("beat")))
            if is_gone(trial.user_attrs.get("worker", {})) or silent:
                try:
                    closed = self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                except UpdateFinishedTrialError:
                    continue
                if closed:
                    healed += self._again(trial)
        for attempts in chains([record_of(trial, None) for trial in trials]).values():
            last = attempts[-1]
            if last.state == "failed" and not given_up(attempts):  # but was it queued again?
                trial = trials[last.number]
                if self._silent(trial, now, "closed"):
                    healed += self._again(trial)
        return healed

    @contextlib.contextmanager
    def beating(self, claim: Claim) -> Iterator[None]:
        """Let others know, all through the block, that the trial is being worked on."""
        done = threading.Event()
        identity = claim.identity

        def beat() -> None:
            count = 0
            while not done.wait(self.pace.beat_s):
                count += 1
                try:
                    self._storage.set_trial_user_attr(identity, "beat", count)
                except UpdateFinishedTrialError:
                    claim.lost = not done.is_set()
                    break
                except Exception as error:  # the work itself goes on; so does the next beat
                    _log.warning("trial %d: %s", claim.record.number, error)
            with contextlib.suppress(Exception):
                self._storage.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=1.0)

    # What comes of a claim

    def ask(self, claim: Claim, sampler: Feasible) -> tuple[int, ...]:
        """Settle what a claimed trial evaluates, and write it down."""
        parameters = self._named()
        self._study.sampler = sampler
        trial = claim.trial = optuna.Trial(self._study, claim.identity)
        for name, choices in zip(parameters.names, parameters.written, strict=True):
            if parameters.ordered:
                trial.suggest_int(name, 0, len(choices) - 1)
            else:
                trial.suggest_categorical(name, choices)
        if sampler.asked is not None and sampler.asked.repaired:
            wanted = parameters.values(sampler.asked.wanted)
            given = parameters.values(sampler.asked.evaluated)
            trial.set_user_attr(
                "repaired",
                {
                    name: [wanted[name], given[name]]
                    for name in given
                    if wanted[name] != given[name]
                },
            )
        return parameters.assignment(trial.params)

    def report(self, claim: Claim, step: int, score: float) -> bool:
        """Note down a score on the way; return whether the training should end."""
        if len(self.objectives) > 1 or claim.lost or claim.trial is None:
            return claim.lost
        with contextlib.suppress(UpdateFinishedTrialError):
            claim.trial.report(score, step)
            return claim.trial.should_prune()
        claim.lost = True
        return True

    def finish(
        self,
        claim: Claim,
        values: Sequence[float] | None,
        *,
        costs: Mapping[str, float],
        excess: Mapping[str, float],
        score: Mapping[str, Any],
        same_as: int | None = None,
    ) -> bool:
        """Close a claimed trial with its values, or without as pruned.

        Returns:
            False if others had closed it meanwhile, so that this result does not count.
        """
        trial, identity = claim.trial, claim.identity
        assert trial is not None, "Ledger.ask comes first"
        try:
            trial.set_user_attr("costs", dict(costs))
            for key, value in excess.items():
                trial.set_constraint(key, value)
            trial.set_user_attr("score", dict(score))
            if same_as is not None:
                trial.set_user_attr("same_as", same_as)
            state = TrialState.PRUNED if values is None else TrialState.COMPLETE
            with calm():
                self._study.tell(trial, None if values is None else list(values), state=state)
        except (UpdateFinishedTrialError, ValueError):
            now = self._storage.get_trial(identity)
            if not now.state.is_finished():
                raise
            # Ours, if the answer to the same call was lost on its way.
            return now.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return True

    def give_back(self, claim: Claim, *, error: str = "") -> None:
        """Close a claimed trial that was not finished, and queue it again."""
        trial = self._storage.get_trial(claim.identity)
        if self._close(trial._trial_id, error=error):
            if error:
                trial.user_attrs["error"] = error
            self._again(trial)

    # Within

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        found = self._storage.get_all_trials(self._id, deepcopy=False, states=states or None)
        return sorted(found, key=lambda trial: trial.number)

    def _named(self) -> Parameters:
        assert self._parameters is not None, "Ledger.use comes first"
        return self._parameters

    def _assignment(self, trial: FrozenTrial) -> tuple[int, ...] | None:
        values = trial.params or trial.system_attrs.get(_FIXED) or {}
        parameters = self._parameters
        if parameters is None or any(name not in values for name in parameters.names):
            return None
        return parameters.assignment(values)

    def _queue(self, attributes: Mapping[str, Any], fixed: Mapping[str, Any] | None) -> None:
        self._storage.create_new_trial(
            self._id,
            create_trial(
                state=TrialState.WAITING,
                user_attrs=dict(attributes),
                system_attrs={} if fixed is None else {_FIXED: dict(fixed)},
            ),
        )

    def _is_double(self, trial: FrozenTrial) -> bool:
        ticket = trial.user_attrs["ticket"]
        return any(
            other.number < trial.number and other.user_attrs.get("ticket") == ticket
            for other in self._trials()
        )

    def _close(self, identity: int, **why: str) -> bool:
        try:
            for key, text in why.items():
                if text:
                    self._storage.set_trial_user_attr(identity, key, text)
            return self._storage.set_trial_state_values(identity, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False

    def _silent(self, trial: FrozenTrial, now: float, sign: Any) -> bool:
        """Return whether nothing has been heard of a trial for as long as we have listened."""
        last, since = self._heard.get(trial.number, (None, now))
        if last != sign:
            self._heard[trial.number] = sign, now
            return False
        return now - since > self.pace.grace_s

    def _again(self, trial: FrozenTrial) -> bool:
        """Queue a closed trial again, unless it was or has failed too often."""
        ticket = base_of(trial.user_attrs["ticket"])
        attempts = chains([record_of(one, None) for one in self._trials()])[ticket]
        if attempts[-1].number != trial.number or given_up(attempts):
            return False
        kept = ("rung", "origin", "source", "seed")
        attempt = int(trial.user_attrs.get("attempt", 0)) + 1
        attributes = {key: trial.user_attrs[key] for key in kept if key in trial.user_attrs}
        attributes |= {
            "ticket": f"{ticket}~{attempt}",
            "attempt": attempt,
            "retry_of": trial.number,
        }
        fixed = trial.system_attrs.get(_FIXED)
        if self._parameters is not None and len(trial.params) == len(self._parameters.names):
            fixed = dict(trial.params)
        self._queue(attributes, fixed)
        return True


def _names(storage: BaseStorage) -> set[str]:
    return {study.study_name for study in storage.get_all_studies()}
