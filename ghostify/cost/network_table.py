"""What one network takes by any plan: its layers timed in their surroundings, and added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from ghostify.cost.correction import Correction, fit_correction
from ghostify.cost.latency import measure
from ghostify.cost.table import LatencyTable, LayerTime, NetworkTime
from ghostify.cost.workbench import Bench
from ghostify.errors import GhostifyError, TableError
from ghostify.graph.rewrite import rewrite
from ghostify.graph.windows import Window, cut_windows
from ghostify.plan import Plan
from ghostify.runtimes.base import Session
from ghostify.spec import ConvSite, GhostSpec

__all__ = ["NetworkTable", "Progress"]

Progress = Callable[[int, int, str], None]

_ROUNDS, _SECONDS, _WARM_UP_S = 25, 0.3, 0.05  # per piece of a network
_WHOLE_ROUNDS = 15
_AT_ONCE = 8  # whole networks in memory


class NetworkTable:
    """The times of one network's layers under the conditions of one bench.

    Args:
        example: the arguments of one forward pass, with as many images as the bench says.
        sites: its convolutions, as ``inspect`` finds them.
    """

    def __init__(
        self,
        table: LatencyTable,
        model: nn.Module,
        example: Sequence[Tensor],
        sites: Sequence[ConvSite],
        bench: Bench,
    ) -> None:
        self.table = table
        self.bench = bench
        self._model = model
        self._example = tuple(example)
        self._sites = {site.name: site for site in sites}
        self._windows = cut_windows(model, example, sites)
        self._correction: Correction | None = None
        self._untimed: dict[str, str] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about these times."""
        found = [self._windows.note] if self._windows.note else []
        if self._untimed:
            name, why = next(iter(self._untimed.items()))
            found.append(f"{len(self._untimed)} layers could not be timed, such as {name}: {why}")
        return (*self.table.notes, *found)

    def missing(self, choices: Mapping[str, Iterable[GhostSpec]]) -> int:
        """Return how many pieces of the network :meth:`ensure` would have to time."""
        return len(self._wanted(choices))

    def ensure(
        self, choices: Mapping[str, Iterable[GhostSpec]], *, on_progress: Progress | None = None
    ) -> None:
        """Time what the table lacks: each layer by name with each of its settings.

        Layers that are alike and stand in like surroundings are timed once. Each piece is kept
        as soon as it is timed. A piece that the runtime cannot take is noted and left out.

        Args:
            on_progress: called with the pieces done, of how many, and what begins now.
        """
        wanted = self._wanted(choices)
        began = time.monotonic()
        for done, (window, specs) in enumerate(wanted.values()):
            if on_progress is not None:
                on_progress(done, len(wanted), f"timing layers{_left(began, done, len(wanted))}")
            self._time(window, specs)
        if on_progress is not None and wanted:
            on_progress(len(wanted), len(wanted), "timing layers")

    def time_of(self, name: str, spec: GhostSpec) -> LayerTime | None:
        """Return the times of one layer's surroundings, if the table has them."""
        window = self._windows.by_layer.get(name)
        if window is None:
            return None
        return self.table.layer(window.key, spec, self.bench.conditions)

    def gain_ms(self, name: str, spec: GhostSpec) -> float | None:
        """Return what the Ghost module saves in all calls of a layer, if the table knows."""
        found = self.time_of(name, spec)
        return None if found is None else found.gain_ms * max(1, self._sites[name].calls)

    def measure(
        self,
        plans: Sequence[Plan],
        *,
        rounds: int = _WHOLE_ROUNDS,
        on_progress: Progress | None = None,
    ) -> list[NetworkTime]:
        """Return the times of whole networks, which are measured where the table has none.

        The original is measured in turns with them; its own plan is the empty one.
        """
        left = {plan.digest: plan for plan in plans if len(plan) and self._whole(plan) is None}
        if self._whole(Plan.empty()) is None:
            left = {"": Plan.empty()} | left
        waiting = list(left.values())
        began, count = time.monotonic(), len(waiting)
        while waiting:
            some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            sessions: dict[str, Session] = {}
            done = count - len(some) - len(waiting)
            try:
                some = [plan for plan in some if len(plan)]
                for number, plan in enumerate([Plan.empty(), *some]):
                    if on_progress is not None:
                        doing = f"timing networks{_left(began, done, count)}"
                        on_progress(done + max(0, number - 1), count, doing)
                    name = str(number)
                    sessions[name] = self._ready(plan)
                found = measure(sessions, rounds=rounds)
                original, spread = found["0"].median_ms, found["0"].iqr_ms
                if self._whole(Plan.empty()) is None:
                    self._keep(Plan.empty(), NetworkTime(original, original, spread, ""))
                for number, plan in enumerate(some, 1):
                    one = found[str(number)]
                    timed = NetworkTime(original, one.median_ms, one.iqr_ms, "")
                    self._keep(plan, timed)
            finally:
                for session in sessions.values():
                    session.close()
        self._correction = None
        times = [self._whole(plan) for plan in plans]
        assert all(times)
        return [one for one in times if one is not None]

    def calibrate(self, plans: Sequence[Plan]) -> Correction:
        """Fit the correction on whole networks that have been measured.

        Raises:
            TableError: none of them has, or a layer of theirs has not been timed.
        """
        pairs = []
        base = self._base()
        for plan in plans:
            timed = self._whole(plan)
            if timed is not None:
                pairs.append((self._summed(plan, base), base * timed.ms / timed.original_ms))
        if not pairs:
            raise TableError("a correction needs a measured network; measure some first")
        self._correction = fit_correction(pairs)
        return self._correction

    def predict(self, plan: Plan) -> float:
        """Return the milliseconds that a network by some plan is expected to take.

        It is the original's time, less what each layer saves, corrected as
        :meth:`calibrate` has found; the original must have been measured.

        Raises:
            TableError: the original or a layer of the plan has not been timed.
        """
        correction = self._correction or Correction()
        return correction.apply(self._summed(plan, self._base()))

    def _base(self) -> float:
        timed = self._whole(Plan.empty())
        if timed is None:
            raise TableError(
                "the latency table does not hold the original network; measure Plan.empty() first"
            )
        return timed.ms

    def _summed(self, plan: Plan, base: float) -> float:
        total = base
        for name, spec in plan.ghosts.items():
            gain = self.gain_ms(name, spec)
            if gain is None:
                raise TableError(
                    f"the latency table does not hold {name} with {spec} on "
                    f"{self.bench.conditions.runtime}; let it be timed first"
                )
            total -= gain
        return total

    def _keep(self, plan: Plan, timed: NetworkTime) -> None:
        self.table.add_whole(self._windows.network, plan, self.bench.conditions, timed)

    def _whole(self, plan: Plan) -> NetworkTime | None:
        return self.table.whole(self._windows.network, plan, self.bench.conditions)

    def _ready(self, plan: Plan) -> Session:
        model = rewrite(self._model, Plan(plan.layers)).model.eval()
        return self.bench.session(model, self._example, draft=False)

    def _wanted(
        self, choices: Mapping[str, Iterable[GhostSpec]]
    ) -> dict[str, tuple[Window, list[GhostSpec]]]:
        wanted: dict[str, tuple[Window, list[GhostSpec]]] = {}
        for name, specs in choices.items():
            window = self._windows.by_layer.get(name)
            if window is None or name in self._untimed:
                continue
            for spec in specs:
                if self.table.layer(window.key, spec, self.bench.conditions) is None:
                    listed = wanted.setdefault(window.key, (window, []))[1]
                    if spec not in listed:
                        listed.append(spec)
        return wanted

    def _time(self, window: Window, specs: Sequence[GhostSpec]) -> None:
        """Time one piece with its layer dense and as each Ghost module, in turns."""
        sessions: dict[str, Session] = {}
        try:
            for spec in (None, *specs):
                made = window.build(spec)
                name = "" if spec is None else str(spec)
                sessions[name] = self.bench.session(made, window.example(), draft=True)
            found = measure(
                sessions,
                rounds=_ROUNDS,
                seconds=_SECONDS * len(sessions),
                warm_up_s=_WARM_UP_S,
                tries=1,
            )
        except GhostifyError as error:
            names = [
                one for one, other in self._windows.by_layer.items() if other.key == window.key
            ]
            self._untimed.update(dict.fromkeys(names, str(error)))
            return
        finally:
            for session in sessions.values():
                session.close()
        dense = found[""]
        for spec in specs:
            ghost = found[str(spec)]
            timed = LayerTime(dense.median_ms, ghost.median_ms, max(dense.iqr_ms, ghost.iqr_ms), "")
            self.table.add_layer(window, spec, self.bench.conditions, timed)


def _left(began: float, done: int, of: int) -> str:
    """Say how long the rest will take, once that can be told."""
    if not done:
        return ""
    seconds = (time.monotonic() - began) / done * (of - done)
    shown = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f", about {shown} left"
