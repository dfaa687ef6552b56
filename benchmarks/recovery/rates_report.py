"""A table of runs at several rates: what each gives, and what a fair choice among them gives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recovery.choice import by_the_other_half
from recovery.records import read
from recovery.study import METHODS, MODELS, NAMES

Record = dict[str, Any]
Rate = tuple[bool, float]

_HEAD = """\
# Recovery at several learning rates

Accuracy in percent on the 10,000 JPEG test images of CIFAR-10 after distillation, by learning rate;
seeds 0, 1, ... one after the other. Held: batch norms keep the fitted statistics in all steps.

The last column is the accuracy of seed 0 at the best of these rates, chosen without the images that
judge it: by one half of the test images for the other half, and the other way round. Best in bold.
"""


def report_rates(path: Path) -> None:
    """Write README.md beside the records of runs at given rates."""
    records = [record for record in read(path) if record["kind"] == "test"]
    notes = path.parent / "notes.md"
    lines = [_HEAD]
    for model, steps in sorted(
        {(record["model"], record["steps"]) for record in records},
        key=lambda key: (MODELS.index(key[0]), key[1]),
    ):
        mine = [r for r in records if (r["model"], r["steps"]) == (model, steps)]
        lines += _table(f"{NAMES[model]}, {steps:,} steps", mine)
    if notes.exists():
        lines += [notes.read_text(encoding="utf-8").strip(), ""]
    lines += [_made(records), ""]
    path.with_name("README.md").write_text("\n".join(lines), encoding="utf-8")


def _table(title: str, records: list[Record]) -> list[str]:
    rates = sorted({_rate_of(record) for record in records})
    names = [f"{lr:g} held" if held else f"{lr:g}" for held, lr in rates]
    lines = [
        f"## {title} (adapted original: {records[0]['teacher_top1']:.1f})",
        "",
        "| method | " + " | ".join(names) + " | chosen |",
        "|---|" + "---|" * (len(rates) + 1),
    ]
    rows = {}
    for method in METHODS:
        made = [record for record in records if record["method"] == method]
        if made:
            rows[method] = made
    fair = {
        method: by_the_other_half([r for r in made if r["seed"] == 0])
        for method, made in rows.items()
    }
    top = max((value for value in fair.values() if value is not None), default=None)
    for method, made in rows.items():
        cells = [_cell([r for r in made if _rate_of(r) == rate]) for rate in rates]
        value = fair[method]
        last = "-" if value is None else f"{value:.2f}"
        lines.append(
            f"| {METHODS[method]} | {' | '.join(cells)} | "
            + (f"**{last}** |" if value == top else f"{last} |")
        )
    return [*lines, ""]


def _cell(records: list[Record]) -> str:
    ordered = sorted(records, key=lambda record: int(record["seed"]))
    return ", ".join(f"{record['top1']:.2f}" for record in ordered) or "-"


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
