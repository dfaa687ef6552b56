"""The rungs of a search, from cheap to dear: how many plans are tried how thoroughly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from ghostify.errors import SearchError, nearest

__all__ = ["KINDS", "Rung", "parse_climb", "parse_training", "write_climb"]

KINDS = ("free", "distil", "train")
"""Without training; after a few steps of distillation; after a whole recipe."""

STEPS = 391
"""Of distillation, where none are given: an epoch of 50,000 images."""

SCRATCH = "cifar-resnet"
"""The recipe of networks that have no weights yet."""

_PART = re.compile(
    r"(?P<kind>\w+)=(?P<count>\d+)(x(?P<steps>\d+))?(@(?P<recipe>[^,\s]+))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung: ``count`` plans, the best of the rung below, are scored in one way."""

    kind: str
    count: int
    steps: int | None = None  # of training; None: as many as the recipe says
    recipe: str = ""  # of a whole training; none: the one that its length asks for

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SearchError(
                f"a rung is one of {', '.join(KINDS)} (got {self.kind!r})"
                + nearest(self.kind, KINDS)
            )
        if self.count < 1:
            raise SearchError(f"{self.kind}={self.count}: a rung takes at least one plan")
        if self.steps is not None and self.steps < 1:
            raise SearchError(f"{self}: a training takes at least one step")

    def __str__(self) -> str:
        steps = "" if self.steps is None else f"x{self.steps}"
        recipe = f"@{self.recipe}" if self.recipe else ""
        return f"{self.kind}={self.count}{steps}{recipe}"

    @property
    def way(self) -> str:
        """What decides a score beside the plan: equal ways give comparable scores."""
        return f"{self.kind}{'' if self.steps is None else self.steps}{self.recipe and '@'}" + (
            self.recipe
        )


def parse_climb(text: str | None, *, trials: int | None = None) -> tuple[Rung, ...]:
    """Read ``free=200,distil=8x391,train=2@distil-long``.

    Args:
        text: the rungs, or None for the first alone.
        trials: plans of the first rung, where the text does not say; 100 without both.

    Raises:
        SearchError: it is not written like that, or a rung is larger than the one below.
    """
    rungs: dict[str, Rung] = {}
    for part in (text or "").replace(" ", "").split(","):
        if not part:
            continue
        match = _PART.fullmatch(part)
        if match is None:
            raise SearchError(
                "a climb is written free=200,distil=8x391,train=2@distil-long "
                f"(got {part!r} in {text!r})"
            )
        kind, steps, recipe = match["kind"], match["steps"], match["recipe"]
        if kind in rungs:
            raise SearchError(f"--climb names {kind} twice; leave one out")
        if (steps and kind == "free") or (recipe and kind != "train"):
            raise SearchError(
                f"{part}: steps belong to distil (distil=8x391) and train, a recipe to train "
                "(train=2@distil-long)"
            )
        rungs[kind] = Rung(
            kind,
            int(match["count"]),
            int(steps) if steps else (STEPS if kind == "distil" else None),
            recipe or "",
        )
    if trials is not None and "free" in rungs and rungs["free"].count != trials:
        raise SearchError(
            f"--trials {trials} and --climb free={rungs['free'].count} contradict each other; "
            "leave one out"
        )
    rungs.setdefault("free", Rung("free", 100 if trials is None else trials))
    found = tuple(rungs[kind] for kind in KINDS if kind in rungs)
    for lower, upper in pairwise(found):
        if upper.count > lower.count:
            raise SearchError(
                f"--climb takes {upper.count} plans to {upper.kind}, but only {lower.count} come "
                f"from {lower.kind}; take at most {lower.count}"
            )
    return found


def parse_training(text: str | None, *, trials: int | None = None) -> tuple[Rung, ...]:
    """Read the rung of a search of arguments, ``train=12x391@cifar-resnet``.

    Networks of other arguments have no weights, so that each is trained from scratch; there is
    no cheaper score that would be honest.

    Raises:
        SearchError: another rung is asked for, or none.
    """
    told = "a search of arguments trains each network from scratch; give --climb train=N@RECIPE"
    match = _PART.fullmatch((text or "").replace(" ", ""))
    if match is None or match["kind"] != "train":
        raise SearchError(f"{told}, or with fewer steps train=NxSTEPS@RECIPE (got {text!r})")
    count, steps = int(match["count"]), match["steps"]
    if trials is not None and trials != count:
        raise SearchError(
            f"--trials {trials} and --climb train={count} contradict each other; leave --trials out"
        )
    return (Rung("train", count, int(steps) if steps else None, match["recipe"] or SCRATCH),)


def write_climb(rungs: tuple[Rung, ...]) -> str:
    """Write rungs as :func:`parse_climb` reads them."""
    return ",".join(map(str, rungs))
