"""How well do scores that take no training foretell what a real fit gives?

    python benchmarks/search/ranking.py --model resnet20 --plans 12

Random plans at the multiply-adds of uniform s=2, d=3 (keep, s = 2, 3, 4 for every layer) are
scored by ``Scorer.free``, by every additive score, and by the divergence of the network after
``ghostify.convert`` and a fit of all its layers one after another, without gradient steps, on
the same images. The table gives Spearman's rank correlation with the latter. What is measured is
kept in the cache as it comes, and the same command goes on from there. ``--plans 0`` measures
the speed alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from recovery.plans import best_plan
from recovery.workshop import Workshop
from scipy.stats import spearmanr

import ghostify
from ghostify.cost.closed_form import ghost_macs
from ghostify.graph.calibrate import FitOptions, calibrate
from ghostify.plan import Plan
from ghostify.searches.choices import Choices, SearchSpace
from ghostify.searches.problem import make_problem
from ghostify.searches.scoring.pictures import draw
from ghostify.searches.scoring.scorer import ADDITIVE, Scorer
from ghostify.spec import ConvSite, GhostSpec

HERE = Path(__file__).parent
CHOICES = (None, GhostSpec(2, 3), GhostSpec(3, 3), GhostSpec(4, 3))
IMAGES = 512  # to fit, and as many to judge


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("build/recovery"))
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=HERE / "ranking.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shop = Workshop(options.data, options.cache, device="cpu", amp="none", compiled=False)
    teacher = shop.teacher(options.model)
    teacher.model.eval()
    pictures = draw(
        shop.images, shop.preprocess, calibration=IMAGES, held_back=IMAGES, seed=options.seed
    )
    scorer = Scorer(
        teacher.model, pictures.calibration[:2], pictures.calibration, pictures.held_back,
        pictures.labels, cache=options.cache / "layers", seed=options.seed,
    )  # fmt: skip
    uniform = ghostify.inspect(teacher, ratio=2, kernel=3)
    sites = [site for site in uniform.sites if site.name in uniform.plan.layers]
    plans = random_plans(sites, options.plans, options.seed)
    if not plans:
        write(options.report, options.model, [], speed(scorer, [Plan(uniform.plan.layers)]), {})
        return
    kept = options.cache / f"{options.model}-ranking-{options.seed}.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    specs = [spec for spec in CHOICES if spec is not None]
    choices = {site.name: specs for site in sites}
    tables = {kind: scorer.sensitivities(choices, kind=kind) for kind in ADDITIVE}
    rows: list[dict[str, float]] = []
    for plan in plans:
        if plan.digest not in known:
            known[plan.digest] = real(scorer, pictures.calibration, teacher.model, plan)
            aside = kept.with_suffix(".part")
            aside.write_text(json.dumps(known), encoding="utf-8")
            aside.replace(kept)
        found = scorer.free(plan)
        row = {
            "fit of the whole network": known[plan.digest],
            "free": found.divergence,
            "seconds": found.seconds,
        }
        for kind, table in tables.items():
            row[f"sum of {kind}"] = sum(table[name][spec] for name, spec in plan.layers.items())
        rows.append(row)
        print({name: round(value, 3) for name, value in row.items()}, flush=True)
    space = SearchSpace("", tuple(Choices(site.name, CHOICES) for site in sites))
    problem = make_problem(uniform.sites, space, total=uniform.before)
    best = {"uniform s=2, d=3": scorer.free(Plan(uniform.plan.layers)).divergence}
    for kind, table in tables.items():
        plan = best_plan(problem, table, uniform.after.macs)
        best[f"optimum of the sum of {kind}"] = scorer.free(plan).divergence
    write(options.report, options.model, rows, speed(scorer, plans[:5]), best)


def speed(scorer: Scorer, plans: Sequence[Plan]) -> float:
    """Return the processor's seconds for a plan, by the median, with layers in memory."""
    taken = []
    for plan in plans:
        scorer.free(plan)
    for plan in [*plans] * 3:
        began = time.process_time()
        scorer.free(plan)
        taken.append(time.process_time() - began)
    return sorted(taken)[len(taken) // 2]


def random_plans(sites: Sequence[ConvSite], count: int, seed: int) -> list[Plan]:
    """Draw plans within 1 % of the multiply-adds of uniform s=2, d=3."""
    generator = random.Random(seed)
    aim = sum(ghost_macs(site, GhostSpec(2, 3)) for site in sites)
    plans: list[Plan] = []
    while len(plans) < count:
        drawn = {site: generator.choice(CHOICES) for site in sites}
        macs = sum(site.macs if spec is None else ghost_macs(site, spec)
                   for site, spec in drawn.items())  # fmt: skip
        if abs(macs / aim - 1) < 0.01:
            plans.append(Plan({site.name: spec for site, spec in drawn.items() if spec}))
    return plans


def real(scorer: Scorer, images: torch.Tensor, original: torch.nn.Module, plan: Plan) -> float:
    """Return the divergence after a fit of all layers in turn."""
    work = FitOptions(block_steps=0, joint_steps=0)
    network = ghostify.convert(original, plan=plan, seed=0, verify=False, example=images[:1]).model
    calibrate(original, network, list(plan.layers), images.split(64), options=work)
    return scorer.judged(network).divergence


def write(
    path: Path,
    model: str,
    rows: Sequence[dict[str, float]],
    seconds: float,
    best: Mapping[str, float],
) -> None:
    """Put the table of one network into the report, in the place of the one that was there."""
    names = [
        name
        for name in (rows[0] if rows else ())
        if name not in ("fit of the whole network", "seconds")
    ]
    lines = [
        f"## {model}",
        "",
        f"{len(rows)} random plans at the multiply-adds of uniform s=2, d=3; {IMAGES} "
        f"images to fit, {IMAGES} others to judge by.",
        f"`Scorer.free`: {seconds:.2f} s of one core a plan, {1 / seconds:.2f} plans a second "
        f"(median; processor time, with fitted layers in memory; load {os.getloadavg()[0]:.1f} "
        "on two cores).",
        "",
        "| foretold by | Spearman against the fit of the whole network | against `Scorer.free` |",
        "|---|---|---|",
        *(
            f"| {name} | {_rank(rows, name, 'fit of the whole network')} "
            f"| {_rank(rows, name, 'free') if name != 'free' else ''} |"
            for name in names
        ),
        "",
        "| plan | free |",
        "|---|---|",
        *(f"| {name} | {value:.2f} |" for name, value in best.items()),
        "",
        "| fit of the whole network | free |",
        "|---|---|",
        *(f"| {row['fit of the whole network']:.2f} | {row['free']:.2f} |" for row in rows),
    ]
    if not rows:  # the speed alone
        lines = [lines[0], "", lines[3]]
    old = path.read_text(encoding="utf-8") if path.exists() else "# Foretelling a fit\n"
    parts = [part for part in old.split("\n## ") if not part.startswith(f"{model}\n")]
    parts = [part.rstrip("\n") + "\n" for part in parts]
    text = "\n## ".join(parts) + "\n" + "\n".join(lines) + "\n"
    aside = path.with_suffix(".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
    print("\n".join(lines))


def _rank(rows: Sequence[dict[str, float]], name: str, against: str) -> str:
    found = spearmanr([row[name] for row in rows], [row[against] for row in rows])
    return f"{found.statistic:.3f}"


if __name__ == "__main__":
    main()
