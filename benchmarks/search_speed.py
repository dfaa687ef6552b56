"""How fast a search can look at plans: their costs, their repair, and their training-free score.

    python benchmarks/search_speed.py --data ../shared/data
    python benchmarks/search_speed.py --parts costs,repairs

1. ``costs``: closed-form costs of random plans, many at once, and thop's for a few of them
   (which builds and runs each network) beside them.
2. ``repairs``: the exact best plan, its neighbours and repairs of random plans.
3. ``trials``: a training-free trial (fitted layers from the cache put together, one pass over
   the images held back) beside building the network, fitting all of its Ghost modules,
   profiling it by thop and the same pass over the same images, each time; by turns.

Each part is kept in ``benchmarks/search/speed.json`` as soon as it is measured and is not
measured again, unless ``--again`` says so; the table goes to ``benchmarks/search/speed.md``.
Without ``--data`` and checkpoints below it, part 3 is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent / "search"
KEPT = HERE / "speed.json"
NETWORKS = ("resnet56_cifar", "resnet50")
TRAINED = {"resnet20_cifar": "resnet20-12fca82f.th", "resnet56_cifar": "resnet56-4bfd9763.th"}
PLANS = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default="costs,repairs,trials")
    parser.add_argument("--networks", default="resnet20_cifar", help="of the part trials")
    parser.add_argument("--data", type=Path, help="a folder with checkpoints and cifar10-subset")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    wanted = options.parts.split(",")
    jobs: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in NETWORKS:
        if "costs" in wanted:
            jobs[f"costs {name}"] = lambda name=name: costs(name, options.rounds, options.seed)
        if "repairs" in wanted:
            jobs[f"repairs {name}"] = lambda name=name: repairs(name, options.seed)
    if "trials" in wanted and options.data is not None:
        for name in options.networks.split(","):
            jobs[f"trials {name}"] = lambda name=name: trials(
                name, options.data, options.rounds, options.seed
            )
    HERE.mkdir(exist_ok=True)
    known: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name, job in jobs.items():
        if name in known and not options.again:
            continue
        known[name] = {**job(), **surroundings(), "seed": options.seed}
        print(name, known[name], flush=True)
        aside = KEPT.with_suffix(".part")
        aside.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        aside.replace(KEPT)
    (HERE / "speed.md").write_text(page(known), encoding="utf-8")


def problem_of(name: str) -> Any:
    """Return a network's shipped search space with its costs, pruning included."""
    import torch

    import ghostify
    from ghostify.models.zoo import build
    from ghostify.pruners.groups import prunable
    from ghostify.searches.problem import make_problem
    from ghostify.searches.space import load_space

    torch.set_num_threads(1)
    built = build(name, seed=0)
    found = ghostify.inspect(built)
    shrinking = prunable(built.model.eval(), torch.zeros(1, *built.input_size))
    problem = make_problem(found.sites, load_space(name), total=found.before, prunable=shrinking)
    return built, problem


def costs(name: str, rounds: int, seed: int) -> dict[str, Any]:
    import numpy as np

    import ghostify
    from ghostify.cost.macs import second_opinion
    from ghostify.graph.probe import Probe, as_call
    from ghostify.models.zoo import example_input

    built, problem = problem_of(name)
    plans = problem.random(PLANS, np.random.default_rng(seed))
    problem.costs(plans)
    fast, slow = [], []
    image = example_input(built)[0]
    for place in range(rounds):
        began = time.perf_counter()
        problem.costs(plans)
        fast.append(PLANS / (time.perf_counter() - began))
        began = time.perf_counter()
        network = ghostify.convert(built, plan=problem.plan(plans[place]), verify=False).model
        second_opinion(Probe(network, as_call(image)), ())
        slow.append(1 / (time.perf_counter() - began))
    return {
        "variables": len(problem.variables),
        "choices": sum(problem.shape),
        "plans_per_s": statistics.median(fast),
        "thop_plans_per_s": statistics.median(slow),
    }


def repairs(name: str, seed: int) -> dict[str, Any]:
    import numpy as np

    from ghostify.searches.exact import best_assignment, neighbours, repair

    _, problem = problem_of(name)
    rng = np.random.default_rng(seed)
    losses = []
    for table in problem.terms["macs"].tables:  # the more a choice saves, the more it loses
        saved = (table.max() - table) / (np.ptp(table) or 1)
        losses.append(rng.random() * saved * (0.7 + 0.6 * rng.random(len(table))))
    limits = {"macs": 0.4 * problem.original["macs"]}
    best = best_assignment(problem, losses, limits)
    began = time.perf_counter()
    others = neighbours(problem, best.assignment, losses, limits, 8)
    each = (time.perf_counter() - began) / max(1, len(others))
    found: dict[str, Any] = {"best_s": best.seconds, "gap": best.gap, "neighbour_s": each}
    asked = problem.random(400, rng)
    asked = asked[~problem.feasible(asked, limits)][:100]
    for kind, weights in (("fewest", None), ("weighted", losses)):
        times = []
        for row in asked:
            began = time.perf_counter()
            repair(problem, row, limits, weights=weights)
            times.append(1e3 * (time.perf_counter() - began))
        found[f"{kind}_ms"] = statistics.median(times)
        found[f"{kind}_most_ms"] = max(times)
    return found


def trials(name: str, data: Path, rounds: int, seed: int) -> dict[str, Any]:
    import numpy as np
    import torch

    import ghostify
    from ghostify.cost.macs import second_opinion
    from ghostify.graph.fit_options import FitOptions
    from ghostify.graph.probe import Probe, as_call
    from ghostify.models.zoo import build
    from ghostify.searches.settle import problem_of as problem_in
    from ghostify.searches.subject import Request, open_subject
    from ghostify.train.distil import logits_loss

    torch.set_num_threads(1)
    request = Request(
        name,
        weights=data / "checkpoints" / TRAINED[name],
        data=data / "cifar10-subset" / "train.parquet",
        calibration=256,
        held_back=512,
        seed=seed,
    )
    subject = open_subject(request, lambda _step: None)
    space = ghostify.load_space(name)
    problem = problem_in(subject.network, space)
    state = subject.model.state_dict()
    pictures = subject.pictures
    with torch.no_grad():
        told = [subject.model(batch) for batch in pictures.held_back.split(64)]

    def anew(plan: Any) -> float:
        """Build, fit, profile and judge one plan as if nothing was known."""
        model = build(name, seed=seed).model
        model.load_state_dict(state)
        network = ghostify.convert(
            model.eval(),
            plan=plan,
            calibration=[pictures.calibration],
            fit=FitOptions(block_steps=0, joint_steps=0),
            verify=False,
        ).model.eval()
        second_opinion(Probe(network, as_call(pictures.held_back[:1])), ())
        with torch.no_grad():
            losses = [
                logits_loss(network(batch), one, temperature=4.0) * len(batch)
                for batch, one in zip(pictures.held_back.split(64), told, strict=True)
            ]
        return float(torch.stack(losses).sum()) / len(pictures.held_back)

    # Ghosts only: a conversion that also prunes takes another way through the fit.
    ghosts = [
        [k for k, one in enumerate(v.choices) if one is None or hasattr(one, "cheap")]
        for v in problem.variables
    ]
    rng = np.random.default_rng(seed)
    plans = [
        problem.plan(np.array([rng.choice(choices) for choices in ghosts])) for _ in range(rounds)
    ]
    quick, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        scorer = subject.scorer(Path(folder))
        choices = {
            layer: [one for one in specs if hasattr(one, "cheap")]
            for layer, specs in problem.layer_choices().items()
        }
        began = time.perf_counter()
        scorer.sensitivities(choices)
        filling = time.perf_counter() - began
        scorer.free(plans[0])
        for plan in plans:
            began = time.perf_counter()
            scorer.free(plan)
            quick.append(time.perf_counter() - began)
            began = time.perf_counter()
            anew(plan)
            whole.append(time.perf_counter() - began)
    return {
        "fitted_layers": sum(map(len, choices.values())),
        "filling_s": filling,
        "trial_s": statistics.median(quick),
        "anew_s": statistics.median(whole),
        "rounds": rounds,
    }


def surroundings() -> dict[str, Any]:
    from ghostify.cost.machine import fingerprint

    names = ("ghostify", "torch", "numpy", "scipy", "thop")
    return {
        "date": str(date.today()),
        "machine": str(fingerprint()),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {name: metadata.version(name) for name in names},
    }


def page(known: dict[str, Any]) -> str:
    lines = [
        "# How fast a search looks at plans",
        "",
        "Written by `python benchmarks/search_speed.py --data ../shared/data`; medians. Each row "
        "was measured on one thread; *load* is the machine's at the end of its measurement.",
        "",
    ]
    lines += table(
        known,
        "costs",
        "Closed-form MACs, parameters and size of random plans, beside building each network "
        "and profiling it by thop.",
        ("network", "variables", "choices", "plans/s", "by thop, plans/s", "ratio"),
        lambda one: (
            one["variables"],
            one["choices"],
            f"{one['plans_per_s']:,.0f}",
            f"{one['thop_plans_per_s']:.2f}",
            f"{one['plans_per_s'] / one['thop_plans_per_s']:,.0f}x",
        ),
    )
    lines += table(
        known,
        "repairs",
        "At 0.4x MACs, pruning among the choices: the proven best plan of additive losses, each "
        "of its neighbours, and repairs of random plans (fewest changes; weighted by losses).",
        ("network", "best, s", "neighbour, s", "fewest, ms (worst)", "weighted, ms (worst)"),
        lambda one: (
            f"{one['best_s']:.2f}",
            f"{one['neighbour_s']:.2f}",
            f"{one['fewest_ms']:.1f} ({one['fewest_most_ms']:.0f})",
            f"{one['weighted_ms']:.1f} ({one['weighted_most_ms']:.0f})",
        ),
    )
    lines += table(
        known,
        "trials",
        "A training-free trial (256 images to fit, 512 held back) from cached layers, beside "
        "building, fitting and profiling by thop each time, and the same judgement.",
        ("network", "fitting all choices once, s", "trials/s", "anew, trials/s", "ratio"),
        lambda one: (
            f"{one['filling_s']:.0f} ({one['fitted_layers']})",
            f"{1 / one['trial_s']:.2f}",
            f"{1 / one['anew_s']:.3f}",
            f"{one['anew_s'] / one['trial_s']:.0f}x",
        ),
    )
    return "\n".join(lines)


def table(
    known: dict[str, Any],
    part: str,
    what: str,
    heads: tuple[str, ...],
    row: Callable[[dict[str, Any]], tuple[Any, ...]],
) -> list[str]:
    found = {name.partition(" ")[2]: one for name, one in known.items() if name.startswith(part)}
    if not found:
        return []
    heads = (*heads, "load", "date")
    lines = ["", what, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, one in found.items():
        load = "" if one["load"] is None else f"{one['load']:.1f}"
        cells = (name, *map(str, row(one)), load, one["date"])
        lines.append(f"| {' | '.join(cells)} |")
    about = next(iter(found.values()))
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return [*lines, "", f"{about['machine']}; seed {about['seed']}; {versions}.", ""]


if __name__ == "__main__":
    main()
