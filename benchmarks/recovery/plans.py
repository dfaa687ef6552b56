"""Per-layer plans: an exact choice of every layer's ratio at a given number of multiply-adds.

    python benchmarks/recovery/plans.py --model resnet20

No labels are used. Each layer is fitted alone, with every ratio, in the network that is
otherwise the original; its cost is the variance that the Ghost module misses, or what it does
to the network's output. A plan that minimises the sum of such costs is found exactly; of the
plans by different costs, that whose fitted network says most nearly what the original says, on
images that the fit has not seen (a fit without gradient steps), is written to ``MODEL_plan.yaml``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from scipy.optimize import LinearConstraint, milp
from torch import Tensor, nn

import ghostify
from ghostify.cost.closed_form import ghost_macs
from ghostify.graph.fit import inherit, set_filters
from ghostify.graph.fit_options import FitOptions
from ghostify.graph.layer_fit import choose_ghosts, importance, solve
from ghostify.graph.streams import normalisation_behind
from ghostify.models.zoo import Built
from ghostify.nn.ghost import GhostModule
from ghostify.plan import Plan
from ghostify.spec import ConvSite, GhostSpec
from ghostify.train.distil import logits_loss
from recovery.study import plan_path
from recovery.workshop import Workshop

RATIOS = (2, 3, 4)
KERNEL = 3
TEMPERATURE = 4.0
IMAGES = 256  # to see what one layer does to the output
POSITIONS = 1 << 16  # of a layer's output, to fit it
JUDGING = 512  # to judge a whole plan
COSTS = {
    "error": "sum over layers of the variance missed, as a share",
    "error squared": "sum over layers of the square of that share",
    "divergence": "sum of the divergence of the output that each layer alone causes",
    "root of divergence": "sum of square roots of the divergence that each layer alone causes",
}

Costs = dict[str, dict[str, dict[int, float]]]
"""By cost, layer and ratio."""

Measured = dict[str, dict[str, tuple[float, float]]]
"""By layer and ratio: the share of the variance that is missed, and the divergence."""


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
    teacher.model.to(options.device).eval()
    uniform = ghostify.inspect(teacher, ratio=2, kernel=KERNEL)
    layers = list(uniform.plan)
    sites = [site for site in uniform.sites if site.name in layers]
    spare = sum(ghost_macs(site, uniform.plan.layers[site.name]) for site in sites)
    kept = options.cache / f"{options.model}-costs.json"
    if not kept.exists():
        measured = measure(shop, teacher.model, sites, seed=options.seed)
        kept.write_text(json.dumps(measured), encoding="utf-8")
    costs = costs_of(json.loads(kept.read_text(encoding="utf-8")))
    plans = {"uniform": Plan(uniform.plan.layers)}
    plans |= {cost: best_plan(sites, table, spare) for cost, table in costs.items()}
    scores = {}
    for cost, plan in plans.items():
        scores[cost] = judge(shop, teacher, plan, seed=options.seed)
        print(f"{cost:15} divergence {scores[cost]:.4f}  {_line(plan)}", flush=True)
    winner = min(COSTS, key=lambda cost: scores[cost])
    write(plan_path(options.model), options.model, plans[winner], sites, winner, scores)


def measure(shop: Workshop, model: nn.Module, sites: list[ConvSite], *, seed: int) -> Measured:
    """Fit each layer alone with each ratio, and see what is lost."""
    images = torch.cat(list(shop.calibration(seed, IMAGES))).to(next(model.parameters()).device)
    with torch.no_grad():
        told = model(images)
    norms = normalisation_behind(model, images[:2], [site.name for site in sites])
    measured: Measured = {}
    for site in sites:
        found = measured[site.name] = {}
        conv = model.get_submodule(site.name)
        assert isinstance(conv, nn.Conv2d)
        enough = -(-POSITIONS // site.pixels)
        sources, aims = _around(model, conv, images[:enough])
        norm = model.get_submodule(norms[site.name]) if site.name in norms else None
        for ratio in RATIOS:
            error, ghost, mean = _fitted(conv, ratio, sources, aims, norm)

            def instead(
                _conv: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor,
                ghost: nn.Module = ghost, mean: Tensor = mean,
            ) -> Tensor:  # fmt: skip
                return ghost(inputs[0]) - mean.view(1, -1, 1, 1)  # type: ignore[no-any-return]

            handle = conv.register_forward_hook(instead)
            with torch.no_grad():
                divergence = float(logits_loss(model(images), told, temperature=TEMPERATURE))
            handle.remove()
            found[str(ratio)] = error, divergence
        shown = ", ".join(f"s{ratio} {one[0]:.3f} {one[1]:.4f}" for ratio, one in found.items())
        print(f"{site.name}: {shown}", flush=True)
    return measured


def costs_of(measured: Measured) -> Costs:
    """Return what each kind of cost says of each layer and ratio."""
    costs: Costs = {cost: {name: {1: 0.0} for name in measured} for cost in COSTS}
    for name, by_ratio in measured.items():
        for ratio, (error, divergence) in by_ratio.items():
            of = {
                "error": error,
                "error squared": error**2,
                "divergence": divergence,
                "root of divergence": divergence**0.5,
            }
            for cost, value in of.items():
                costs[cost][name][int(ratio)] = value
    return costs


def best_plan(sites: list[ConvSite], costs: dict[str, dict[int, float]], spare: int) -> Plan:
    """Return the plan of the smallest sum of costs that takes at most ``spare`` multiply-adds."""
    choices = [
        (site, ratio, site.macs if ratio == 1 else ghost_macs(site, GhostSpec(ratio, KERNEL)))
        for site in sites
        for ratio in (1, *RATIOS)
    ]
    value = np.array([costs[site.name][ratio] for site, ratio, _ in choices])
    macs = np.array([[macs for _, _, macs in choices]], dtype=float)
    once = np.array([[site is one for site, _, _ in choices] for one in sites], dtype=float)
    found = milp(
        value,
        integrality=np.ones(len(choices)),
        bounds=(0, 1),
        constraints=[LinearConstraint(macs, ub=spare), LinearConstraint(once, 1, 1)],
    )
    chosen = [choice for choice, taken in zip(choices, found.x, strict=True) if taken > 0.5]
    return Plan({site.name: GhostSpec(ratio, KERNEL) for site, ratio, _ in chosen if ratio > 1})


def judge(shop: Workshop, teacher: Built, plan: Plan, *, seed: int) -> float:
    """Return the divergence of the fitted network's softened output on images it has not seen."""
    network = ghostify.convert(teacher, plan=plan, seed=seed, verify=False).model
    shop.fit(teacher.model, network, list(plan), seed, quick=True)
    teacher.model.to(shop.device).eval()
    network.to(shop.device).eval()
    unseen = list(shop.calibration(seed + 1000, JUDGING))
    with torch.no_grad():
        losses = [
            logits_loss(network(images), teacher.model(images), temperature=TEMPERATURE)
            for images in (batch.to(shop.device) for batch in unseen)
        ]
    return float(torch.stack(losses).mean())


def write(
    path: Path, model: str, plan: Plan, sites: list[ConvSite], winner: str, scores: dict[str, float]
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
        *(f"  {site.name}: {plan.layers[site.name]}" for site in sites if site.name in plan.layers),
    ]
    aside = path.with_suffix(".part")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(path)


def _around(model: nn.Module, conv: nn.Conv2d, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return what a convolution reads and what it gives, batch by batch."""
    sources: list[Tensor] = []
    aims: list[Tensor] = []

    def listen(_conv: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sources.append(inputs[0].clone())
        aims.append(output.clone())

    handle = conv.register_forward_hook(listen)
    with torch.no_grad():
        for batch in images.split(64):
            model(batch)
    handle.remove()
    return sources, aims


def _fitted(
    conv: nn.Conv2d,
    ratio: int,
    sources: list[Tensor],
    aims: list[Tensor],
    norm: nn.Module | None,
) -> tuple[float, GhostModule, Tensor]:
    """Fit one Ghost module; return its relative error, itself, and the mean of its miss."""
    ghost = GhostModule.from_conv(conv, GhostSpec(ratio, KERNEL)).requires_grad_(False)

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(sources, aims, strict=True)

    weights = importance(norm, conv.out_channels, conv.weight)
    pairing, filters = choose_ghosts(ghost, aims, weights)
    inherit(ghost, conv, pairing)
    set_filters(ghost, filters)
    _, error, mean = solve(ghost, pairing, stream, weights, FitOptions())
    order = torch.tensor(pairing.order, device=mean.device)
    ghost.reorder(order)
    return error, ghost, mean[order].to(conv.weight.dtype)


def _line(plan: Plan) -> str:
    return " ".join(f"{name}:{spec.ratio}" for name, spec in plan.layers.items())


if __name__ == "__main__":
    main()
