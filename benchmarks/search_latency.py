"""How well does a search foretell the latency of its finalists?

    python benchmarks/search_latency.py
    python benchmarks/search_latency.py --networks torchvision:mobilenet_v2

What a search does under a budget such as ``latency=0.7x@onnxruntime`` is done step by step: each
layer is timed with each of its settings, a few whole networks are measured, a correction is
learnt from them, and the finalists of several budgets are measured whole. The score has no part
in latency and is left out: the finalists are the exact optimum, and the plans next to it, of the
share of its multiply-adds that each layer loses (weighted at random, by the seed).
No finalist is among the networks that the correction was learnt from.

Times stay in the latency table, so an interrupted run goes on; results go to
``benchmarks/search/latency.json`` and ``latency.md``. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent / "search"
KEPT = HERE / "latency.json"
BETWEEN = (0.2, 0.5, 0.8)  # budgets, between the fastest plan and the original
FINALISTS = 4  # of each budget
SETTINGS = ("s2,d3", "s4,d3")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="torchvision:resnet50")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--table", type=Path, default=Path("build/search/latency.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="also what is in the record")
    options = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for network in options.networks.split(","):
        key = f"{network} on {options.runtime}"
        if key in kept and not options.again:
            continue
        kept[key] = measure(network, options.runtime, options.table, options.seed)
        aside = KEPT.with_suffix(".part")
        aside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        aside.replace(KEPT)
    (HERE / "latency.md").write_text(page(kept), encoding="utf-8")
    print(page(kept))


def measure(network: str, runtime: str, table: Path, seed: int) -> dict[str, Any]:
    """Return predicted and measured milliseconds of the finalists."""
    import numpy as np
    import torch

    from ghostify import looking
    from ghostify.cost.machine import fingerprint
    from ghostify.models.zoo import build
    from ghostify.searches.clock import Clocks
    from ghostify.searches.derive import derive_space
    from ghostify.searches.exact import best_assignment, least, neighbours
    from ghostify.searches.settle import problem_of
    from ghostify.searches.subject import Network
    from ghostify.spec import GhostSpec

    torch.set_num_threads(1)
    look = looking.look(build(network, seed=seed), seed=seed)
    images = torch.randn(2, *look.built.input_size, generator=torch.Generator().manual_seed(seed))
    clocks = Clocks(look, images, [runtime], table=table)
    space = derive_space(look.sites, ghosts=[GhostSpec.parse(one) for one in SETTINGS], prunes=())
    part = Network(look, {})
    plain = problem_of(part, space)
    clocks.time_layers(plain, say)
    key = f"latency@{runtime}"
    rng = np.random.default_rng(seed)
    losses = [
        rng.uniform(0.5, 1.5) * (one.max() - one) / (np.ptp(one) or 1.0)
        for one in plain.terms["macs"].tables
    ]

    def best(share: float, count: int, banned: set[str]) -> list[Any]:
        problem = problem_of(part, space, clocks.models(plain))
        limits = {key: share * problem.original[key]}
        first = best_assignment(problem, losses, limits).assignment
        rows = [first, *neighbours(problem, first, losses, limits, count + len(banned))]
        fresh = [row for row in rows if problem.plan(row).digest not in banned]
        return [(problem.plan(row), problem.cost(row)[key]) for row in fresh[:count]]

    def budgets() -> list[float]:
        timed = problem_of(part, space, clocks.models(plain))
        fastest = least(timed, key) / timed.original[key]
        return [round(fastest + one * (1 - fastest), 2) for one in BETWEEN]

    probes = [plain.plan(row) for row in plain.random(3, rng)]
    probes += [plan for share in budgets() for plan, _ in best(share, 1, set())]
    clocks.measure(probes, say)
    before = clocks.models(plain)
    clocks.learn(probes)
    shares = budgets()  # corrected: the lowest of those before may be out of reach
    known = {plan.digest for plan in probes}
    rows = []
    for share in shares:
        finalists = best(share, FINALISTS, known)
        times = clocks.measure([plan for plan, _ in finalists], say)
        original = clocks.models(plain)[runtime].original_ms
        uncorrected = problem_of(part, space, before)
        clocks.learn(probes)
        for (plan, foretold), timed in zip(finalists, times, strict=True):
            rows.append(
                {
                    "budget": f"latency={share}x@{runtime}",
                    "layers": len(plan),
                    "limit_ms": share * original,
                    "predicted_ms": foretold,
                    "uncorrected_ms": uncorrected.cost(uncorrected.assignment(plan))[key],
                    "measured_ms": timed[key],
                }
            )
            known.add(plan.digest)
    errors = [abs(one["predicted_ms"] / one["measured_ms"] - 1) for one in rows]
    plainly = [abs(one["uncorrected_ms"] / one["measured_ms"] - 1) for one in rows]
    return {
        "original_ms": clocks.models(plain)[runtime].original_ms,
        "choices": sum(plain.shape),
        "learnt_from": len(probes),
        "finalists": rows,
        "median_error": statistics.median(errors),
        "largest_error": max(errors),
        "median_error_uncorrected": statistics.median(plainly),
        "held": sum(one["measured_ms"] <= one["limit_ms"] for one in rows),
        "notes": list(clocks.notes),
        "machine": str(fingerprint()),
        "load": os.getloadavg()[0],
        "date": date.today().isoformat(),
        "seed": seed,
    }


def say(done: int, of: int, doing: str) -> None:
    print(f"\r{time.strftime('%H:%M:%S')} {done}/{of} {doing}    ", end="", flush=True)


def page(kept: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "# Latency of a search's finalists, foretold and measured",
        "",
        "Written by `python benchmarks/search_latency.py`. Finalists are the exact best plans",
        "under each budget; the correction was learnt from other networks. Milliseconds, batch 1,",
        "one thread.",
    ]
    for name, one in kept.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"Original {one['original_ms']:.2f} ms. Median error "
            f"**{100 * one['median_error']:.1f} %** over {len(one['finalists'])} finalists, "
            f"at most {100 * one['largest_error']:.1f} %; without correction "
            f"{100 * one['median_error_uncorrected']:.1f} %. "
            f"{one['held']} of {len(one['finalists'])} hold their budget as measured.",
            f"{one['date']}, load {one['load']:.1f}; {one['machine']}.",
            "",
            "| budget | layers converted | limit | predicted | measured | error |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['budget']} | {row['layers']} | {row['limit_ms']:.2f} "
            f"| {row['predicted_ms']:.2f} | {row['measured_ms']:.2f} "
            f"| {100 * (row['predicted_ms'] / row['measured_ms'] - 1):+.1f} % |"
            for row in one["finalists"]
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
