"""A table of runs at several rates: what each gives, and what a fair choice among them gives."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recovery.records import read
from recovery.study import METHODS, MODELS

Record = dict[str, Any]
Rate = tuple[bool, float]

_NAMES = {"resnet20": "ResNet-20", "resnet56": "ResNet-56"}
_HEAD = """\
# Recovery at several learning rates

Accuracy in percent on the 10,000 JPEG test images of CIFAR-10 after {steps} steps of distillation,
by learning rate; where there are several seeds, mean ± standard deviation (how many). Held: batch
norms keep the fitted statistics in all steps.

The last column is the accuracy at the best of these rates, chosen without the images that judge
it: by one half of the test images for the other half, and the other way round, with seed 0 only.
Best of the column in bold.
"""


def report_rates(path: Path) -> None:
    """Write README.md beside the records of runs at given rates."""
    records = [record for record in read(path) if record["kind"] == "test"]
    notes = path.parent / "notes.md"
    steps = " or ".join(f"{number:,}" for number in sorted({r["steps"] for r in records}))
    lines = [_HEAD.format(steps=steps)]
    for model in MODELS:
        mine = [record for record in records if record["model"] == model]
        if mine:
            lines += _table(model, mine)
    if notes.exists():
        lines += [notes.read_text(encoding="utf-8").strip(), ""]
    lines += [_made(records), ""]
    path.with_name("README.md").write_text("\n".join(lines), encoding="utf-8")


def chosen(records: list[Record]) -> list[float]:
    """Return one method's accuracy for each seed, at rates that the other half has chosen.

    Args:
        records: of one method and length; those without halves have no part in it.
    """
    halved = [record for record in records if "top1_halves" in record]
    tuning = [record for record in halved if record["seed"] == 0]
    if not tuning:
        return []
    found: dict[int, list[float]] = {}
    for judge in (0, 1):
        best = max(tuning, key=lambda record: record["top1_halves"][1 - judge])
        for record in halved:
            if _rate_of(record) == _rate_of(best):
                found.setdefault(record["seed"], []).append(record["top1_halves"][judge])
    return [statistics.fmean(pair) for pair in found.values() if len(pair) == 2]


def _table(model: str, records: list[Record]) -> list[str]:
    rates = sorted({_rate_of(record) for record in records})
    names = [f"{lr:g} held" if held else f"{lr:g}" for held, lr in rates]
    lines = [
        f"## {_NAMES[model]} (adapted original: {records[0]['teacher_top1']:.1f})",
        "",
        "| method | " + " | ".join(names) + " | chosen |",
        "|---|" + "---|" * (len(rates) + 1),
    ]
    rows = {}
    for method in METHODS:
        made = [record for record in records if record["method"] == method]
        if made:
            rows[method] = made
    fair = {method: chosen(made) for method, made in rows.items()}
    top = max((statistics.fmean(values) for values in fair.values() if values), default=0.0)
    for method, made in rows.items():
        cells = [_cell([r["top1"] for r in made if _rate_of(r) == rate]) for rate in rates]
        last = _cell(fair[method])
        if fair[method] and statistics.fmean(fair[method]) == top:
            last = f"**{last}**"
        lines.append(f"| {METHODS[method]} | " + " | ".join([*cells, last]) + " |")
    return [*lines, ""]


def _cell(found: list[float]) -> str:
    if not found:
        return "-"
    text = f"{statistics.fmean(found):.2f}"
    if len(found) > 1:
        text += f" ± {statistics.stdev(found):.2f} ({len(found)})"
    return text


def _rate_of(record: Record) -> Rate:
    return record["held"], record["lr"]


def _made(records: list[Record]) -> str:
    versions = (
        ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        for record in records
    )
    return (
        f"Machine: {_listed(record['device'] for record in records)}. "
        f"Versions: {_listed(versions)}. Trained in "
        f"{_listed(record['amp'] for record in records).replace('none', 'float32')}; everything "
        "else as in [the main table](../README.md)."
    )


def _listed(words: Iterable[str]) -> str:
    return "; ".join(sorted(set(words)))
