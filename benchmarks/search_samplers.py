"""Which way of proposing plans finds the best one in the fewest trials?

    python benchmarks/search_samplers.py --data ../shared/data

Each way searches the same network under the same budget, the multiply-adds of uniform s = 2,
d = 3, by the score that takes no training, with several seeds. Images and fitted layers are the
same for all; the seed is the sampler's. Ways that begin with ``exact`` are given the knapsack's
optimum of what single layers lose, its neighbours and the best uniform plan first; the others
are not, nor are their repairs guided by these losses.

A study is kept in ``benchmarks/search/samplers.jsonl`` as soon as it is through, and is not run
again; the same command goes on. Scores of plans are kept in the cache, since the same plan always
has the same score. In the end the figure, ``samplers.md`` and the counts are made anew: trials
evaluated beyond the budget, and predicted multiply-adds against those that are counted in
networks that were really converted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent / "search"
KEPT = HERE / "samplers.jsonl"
CHECKPOINTS = {
    "resnet20_cifar": "resnet20-12fca82f.th",
    "resnet56_cifar": "resnet56-4bfd9763.th",
}
WAYS = {  # name: sampler, exact start
    "exact+guided": ("guided", True),
    "exact+tpe": ("tpe", True),
    "tpe": ("tpe", False),
    "gp": ("gp", False),
    "nsga2": ("nsga2", False),
    "random": ("random", False),
}
LABELS = {
    "exact+guided": "knapsack start + guided",
    "exact+tpe": "knapsack start + TPE",
    "tpe": "TPE",
    "gp": "GP",
    "nsga2": "NSGA-II",
    "random": "random",
}
COLOURS = {
    "exact+guided": "#D55E00",
    "exact+tpe": "#0072B2",
    "tpe": "#56B4E9",
    "gp": "#009E73",
    "nsga2": "#CC79A7",
    "random": "#666666",
}
HELD_BACK = 256  # images that plans are judged by
COUNTED = 3  # plans of each study that are converted and counted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with checkpoints and cifar10-subset")
    parser.add_argument("--network", default="resnet20_cifar", choices=sorted(CHECKPOINTS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--cache", type=Path, default=Path("build/search"))
    parser.add_argument("--report", action="store_true", help="only make figure and page anew")
    options = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    kept = read()
    done = {(one["network"], one["way"], one["seed"], one["trials"]) for one in kept}
    todo = [
        (way, seed)
        for seed in range(options.seeds)
        for way in options.ways.split(",")
        if (options.network, way, seed, options.trials) not in done
    ]
    if todo and not options.report:
        if options.data is None:
            sys.exit("--data FOLDER is needed: it has checkpoints/ and cifar10-subset/")
        arena = Arena(options.network, options.data, options.cache)
        for way, seed in todo:
            record = arena.study(way, seed, options.trials)
            with KEPT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            best = min(record["divergences"])
            print(f"{way:14} seed {seed}: {best:.4f} in {record['seconds']:.0f} s", flush=True)
    write_page(read())


class Arena:
    """One network with its images, budget and losses, in which all ways compete."""

    def __init__(self, network: str, data: Path, cache: Path) -> None:
        import torch

        from ghostify import looking
        from ghostify.searches.settle import problem_of
        from ghostify.searches.subject import Request, open_subject

        torch.set_num_threads(1)
        self.network = network
        folder = cache / network
        folder.mkdir(parents=True, exist_ok=True)
        request = Request(
            network,
            weights=data / "checkpoints" / CHECKPOINTS[network],
            data=data / "cifar10-subset",
            held_back=HELD_BACK,
            seed=0,
        )
        self.subject = open_subject(request, lambda step: print(step, file=sys.stderr))
        self.scorer = self.subject.scorer(folder / "cache")
        self.problem = problem_of(self.subject.network, self.subject.network.space(None))
        uniform = looking.inspect(self.subject.look.built, ratio=2, kernel=3)
        self.limits = {"macs": float(uniform.after.macs)}
        found = self.scorer.sensitivities(self.problem.layer_choices())
        self.losses = self.problem.losses(found)
        self._scores = folder / "scores.jsonl"
        self._known: dict[str, dict[str, Any]] = {}
        if self._scores.exists():
            for line in self._scores.read_text(encoding="utf-8").splitlines():
                one = json.loads(line)
                self._known[one["plan"]] = one

    def divergence(self, plan: Any) -> dict[str, Any]:
        """Return what a plan scores, which is found out once."""
        if plan.digest not in self._known:
            score = self.scorer.free(plan)
            one = {"plan": plan.digest, "divergence": score.divergence, "top1": score.top1}
            self._known[plan.digest] = one
            with self._scores.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
        return self._known[plan.digest]

    def score(self, plan: Any, rung: Any, *, seed: int, report: Any) -> Any:
        """Score as an evaluator of a search does."""
        from ghostify.searches.scoring.score import Score

        found = self.divergence(plan)
        return Score(divergence=found["divergence"], top1=found["top1"])

    def study(self, way: str, seed: int, trials: int) -> dict[str, Any]:
        """Run one study; return its record."""
        import dataclasses

        from optuna.storages import InMemoryStorage

        from ghostify.searches.climb import Rung
        from ghostify.searches.opening import exact_start, uniform_start
        from ghostify.searches.study.ledger import Ledger
        from ghostify.searches.team import run_alone
        from ghostify.searches.worker import Search, Worker

        sampler, exact = WAYS[way]
        search = Search(
            self.problem, self.limits, (Rung("free", trials),), {"score": "maximize"},
            sampler=sampler, seed=seed,
        )  # fmt: skip
        if exact:
            first = exact_start(self.problem, self.losses, self.limits, 8)
            uniform = uniform_start(self.problem, self.losses, self.limits)
            start = {one.assignment: one for one in (first[0], *uniform, *first[1:])}
            search = dataclasses.replace(search, weights=self.losses, start=tuple(start.values()))
        began = time.monotonic()
        ledger = Ledger(InMemoryStorage(), f"{way} {seed}", search.objectives)
        ledger.use(search.parameters())
        run_alone(ledger, search, Worker(ledger, search, self))
        seconds = time.monotonic() - began
        records = ledger.records()
        finished = [one for one in records if one.finished]
        best = min(finished, key=lambda one: float(one.score["divergence"]))
        shown = list({one.number: one for one in (best, finished[0], finished[-1])}.values())
        return {
            "network": self.network,
            "way": way,
            "seed": seed,
            "trials": trials,
            "limit": self.limits["macs"],
            "original": self.problem.original["macs"],
            "divergences": [float(one.score["divergence"]) for one in finished],
            "top1": [one.score["top1"] for one in finished],
            "origins": [one.origin for one in finished],
            "macs": [one.costs["macs"] for one in finished],
            "infeasible": sum(one.costs["macs"] > self.limits["macs"] for one in finished),
            "evaluated": sum(one.evaluated for one in records),
            "failed": sum(one.state == "failed" for one in records),
            "repaired": sum(bool(one.repaired) for one in records),
            "counted": [[one.costs["macs"], self.count(one.assignment)] for one in shown[:COUNTED]],
            "plan": self.problem.plan(_array(best.assignment)).as_json()["layers"],
            "seconds": seconds,
            "date": date.today().isoformat(),
        }

    def count(self, assignment: Sequence[int] | None) -> int:
        """Convert the network, and let the counter go through what came out."""
        import ghostify

        plan = self.problem.plan(_array(assignment))
        built = self.subject.look.built
        made = ghostify.convert(built, plan=plan, verify=False)
        return ghostify.inspect(made.model, input_size=built.input_size).before.macs


def _array(assignment: Sequence[int] | None) -> Any:
    import numpy as np

    return np.array(assignment, dtype=np.int64)


def read() -> list[dict[str, Any]]:
    if not KEPT.exists():
        return []
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]


def write_page(kept: Sequence[Mapping[str, Any]]) -> None:
    """Make figures and page anew."""
    lines = [
        "# Samplers: best so far against trials",
        "",
        "Written by `python benchmarks/search_samplers.py --data ../shared/data`; see there for",
        "what is compared. Divergence from the original (T = 4) on images held back, without",
        "training; lower is better. Mean over seeds, with the smallest and largest.",
    ]
    for network, trials in dict.fromkeys((one["network"], one["trials"]) for one in kept):
        mine = [one for one in kept if (one["network"], one["trials"]) == (network, trials)]
        ways = {
            way: [one for one in mine if one["way"] == way]
            for way in WAYS
            if any(one["way"] == way for one in mine)
        }
        draw(network, ways, trials)
        lines += ["", f"## {network}, {trials} trials", "", *table(ways, trials)]
        share = mine[0]["limit"] / mine[0]["original"]
        counted = [pair for one in mine for pair in one["counted"]]
        same = sum(predicted == found for predicted, found in counted)
        evaluated = sum(one["evaluated"] for one in mine)
        beyond = sum(one["infeasible"] for one in mine)
        repaired = sum(one["repaired"] for one in mine)
        lines += [
            "",
            f"Budget: {mine[0]['limit']:,.0f} multiply-adds, {share:.4f}x, as uniform s = 2 costs. "
            f"{HELD_BACK} images held back.",
            f"{beyond} of {evaluated:,} plans that were evaluated exceed it; {repaired:,} "
            "proposals were changed to hold it.",
            f"Predicted multiply-adds equal those counted in {same} of {len(counted)} networks "
            "that were converted.",
            "",
            f"![best so far](samplers-{network}.svg)",
        ]
    (HERE / "samplers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(ways: Mapping[str, Sequence[Mapping[str, Any]]], trials: int) -> list[str]:
    """Return the rows: where each way stands, and when it has reached random's last value."""
    places = sorted({1, trials // 10, trials // 4, trials // 2, trials})
    titles = "".join(f" after {place} |" for place in places)
    aim = None
    if "random" in ways:
        aim = statistics.mean(min(one["divergences"]) for one in ways["random"])
    lines = [
        f"| way | seeds |{titles} trials to random's last | s a trial |",
        "|---|---|" + "---|" * len(places) + "---|---|",
    ]
    for way, records in ways.items():
        cells = []
        for place in places:
            best = [min(one["divergences"][:place]) for one in records]
            spread = f" ({min(best):.2f}-{max(best):.2f})" if max(best) > min(best) else ""
            cells.append(f" {statistics.mean(best):.3f}{spread} |")
        when = f"{trials}" if way == "random" else "" if aim is None else reached(records, aim)
        seconds = statistics.median(one["seconds"] / trials for one in records)
        lines.append(f"| {LABELS[way]} | {len(records)} |{''.join(cells)} {when} | {seconds:.1f} |")
    lines += [
        "",
        "Seconds a trial are by the clock of a machine that had other work; scores that were known",
        "took none.",
    ]
    return lines


def reached(records: Sequence[Mapping[str, Any]], aim: float) -> str:
    """Say after how many trials each seed was as good; the most of them."""
    found = []
    for one in records:
        good = [place for place, loss in enumerate(one["divergences"], 1) if loss <= aim]
        if not good:
            return "not by all seeds"
        found.append(good[0])
    return f"{max(found)}" if len(set(found)) == 1 else f"{min(found)} to {max(found)}"


def draw(network: str, ways: Mapping[str, Sequence[Mapping[str, Any]]], trials: int) -> None:
    """Draw the best so far, mean and range over seeds."""
    import io

    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axis = figure.subplots()
    numbers = np.arange(1, trials + 1)
    for way, records in ways.items():
        best = np.array([np.minimum.accumulate(one["divergences"][:trials]) for one in records])
        label = f"{LABELS[way]} ({len(records)} seeds)"
        axis.step(numbers, best.mean(0), where="post", color=COLOURS[way], label=label)
        if len(records) > 1:
            axis.fill_between(
                numbers, best.min(0), best.max(0), step="post", color=COLOURS[way], alpha=0.15
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("trials")
    axis.set_ylabel("divergence from the original, best so far")
    axis.set_title(f"{network} at the multiply-adds of uniform s = 2", fontsize=10)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8, loc="upper right")
    with mpl.rc_context({"svg.hashsalt": "ghostify", "svg.fonttype": "none"}):
        for suffix in ("svg", "png"):
            buffer = io.BytesIO()
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(buffer, format=suffix, metadata=metadata)
            (HERE / f"samplers-{network}.{suffix}").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
