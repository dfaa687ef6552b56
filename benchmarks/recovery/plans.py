"""Per-layer plans: an exact choice of every layer's ratio at a given number of multiply-adds.

    python benchmarks/recovery/plans.py --model resnet20

No labels are used. Each layer is fitted alone, with every ratio, in the network that is
otherwise the original; its cost is the variance that the Ghost module misses, or what it does
to the network's output. A plan that minimises the sum of such costs is found exactly; of the
plans by different costs, that whose fitted network says most nearly what the original says, on
images that the fit has not seen (a fit without gradient steps), is written to ``MODEL_plan.yaml``.
The work is that of ``ghostify.searches``; what was fitted stays in the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

import ghostify
from ghostify.graph.fit_options import FitOptions
from ghostify.plan import Plan
from ghostify.searches.choices import Choices, SearchSpace
from ghostify.searches.exact import best_assignment
from ghostify.searches.problem import Problem, make_problem
from ghostify.searches.scoring.score import Options
from ghostify.searches.scoring.scorer import ADDITIVE, Scorer
from ghostify.spec import GhostSpec, LayerSpec
from recovery.study import plan_path
from recovery.workshop import Workshop

RATIOS = (2, 3, 4)
KERNEL = 3
FITTING, JUDGING = 512, 512  # images
COSTS = {
    "error": "sum over layers of the variance missed, as a share",
    "error squared": "sum over layers of the square of that share",
    "divergence": "sum of the divergence of the output that each layer alone causes",
    "root of divergence": "sum of square roots of the divergence that each layer alone causes",
}

Costs = Mapping[str, Mapping[LayerSpec, float]]
"""By layer and setting."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("build/recovery"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shop = Workshop(options.data, options.cache, device=options.device, amp="bf16", compiled=False)
    teacher = shop.teacher(options.model)
    teacher.model.eval()
    uniform = ghostify.inspect(teacher, ratio=2, kernel=KERNEL)
    settings = (None, *(GhostSpec(ratio, KERNEL) for ratio in RATIOS))
    space = SearchSpace("", tuple(Choices(name, settings) for name in uniform.plan))
    problem = make_problem(uniform.sites, space, total=uniform.before)
    scorer = make_scorer(shop, teacher.model, options.cache, options.seed)
    plans = {"uniform": Plan(uniform.plan.layers)}
    for kind in ADDITIVE:
        costs = scorer.sensitivities(problem.layer_choices(), kind=kind, on_progress=show)
        plans[kind] = best_plan(problem, costs, uniform.after.macs)
    scores = {}
    for kind, plan in plans.items():
        scores[kind] = scorer.distilled(plan, steps=0).divergence
        print(f"{kind:18} divergence {scores[kind]:.4f}  {_line(plan)}", flush=True)
    winner = min(COSTS, key=lambda kind: scores[kind])
    order = [site.name for site in uniform.sites]
    path = plan_path(options.model)
    assert path is not None
    write(path, options.model, plans[winner], order, winner, scores)


def make_scorer(shop: Workshop, model: torch.nn.Module, cache: Path, seed: int) -> Scorer:
    """Return what judges plans: by images that the fit has not seen, without gradient steps."""
    images = torch.cat(list(shop.calibration(seed, FITTING + JUDGING)))
    seen, unseen = images[:FITTING], images[FITTING:]
    return Scorer(
        model,
        seen[:2],
        seen,
        unseen,
        cache=cache / "layers",
        seed=seed,
        device=shop.device,
        options=Options(fit=FitOptions(block_steps=0, joint_steps=0)),
    )


def best_plan(problem: Problem, costs: Costs, macs: int) -> Plan:
    """Return the plan of the smallest sum of costs that takes at most so many multiply-adds."""
    found = best_assignment(problem, problem.losses(costs), {"macs": float(macs)})
    return problem.plan(found.assignment)


def show(done: int, of: int, what: str) -> None:
    if what and done % len(RATIOS) == 0:
        print(f"{done} of {of}: {what}", file=sys.stderr, flush=True)


def write(
    path: Path,
    model: str,
    plan: Plan,
    order: Sequence[str],
    winner: str,
    scores: Mapping[str, float],
) -> None:
    """Write a plan that ``ghostify convert --plan`` reads."""
    judged = ", ".join(f"{cost} {score:.4f}" for cost, score in scores.items())
    lines = [
        f"# {model} at the multiply-adds of uniform s=2, d=3: the exact minimum of the",
        f"# {COSTS[winner]}.",
        "# Layers that are not named stay as they are. Divergence of the fitted network's output",
        "# (T=4, unseen images, no labels) by plan:",
        f"# {judged}.",
        f"model: {model}_cifar",
        "layers:",
        *(f"  {name}: {plan.layers[name]}" for name in order if name in plan.layers),
    ]
    aside = path.with_suffix(".part")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(path)


def _line(plan: Plan) -> str:
    return " ".join(f"{name}:{spec}" for name, spec in plan.layers.items())


if __name__ == "__main__":
    main()
