"""Tables and a figure of the records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recovery.study import METHODS, MODELS, NAMES

_COLOURS = {"ghost": "tab:blue", "l1": "tab:orange", "group": "tab:green", "mixed": "tab:red"}
_STYLES = {
    "": ":", "random": ":", "bn": "--", "fit": "--", "quarters": "--", "rec": "-", "plan": "-",
    "search": "-.",
}  # fmt: skip

Record = dict[str, Any]


def report(path: Path) -> None:
    """Write README.md, recovery.png and recovery.svg beside the records."""
    from recovery.records import read

    records = read(path)
    folder = path.parent
    notes = folder / "notes.md"
    text = _readme(records, notes.read_text(encoding="utf-8") if notes.exists() else "")
    (folder / "README.md").write_text(text, encoding="utf-8")
    _figure(records, folder)


def _readme(records: list[Record], notes: str) -> str:
    tests = [record for record in records if record["kind"] == "test"]
    lines = [
        "# Recovery: accuracy after so many steps of distillation, at equal multiply-adds",
        "",
        "Accuracy in percent on the 10,000 JPEG test images of CIFAR-10, mean ± standard deviation",
        "over seeds (how many; the seed decides data order, calibration images and random start).",
        "Best of a column in bold; a dash: not run. A step takes 128 images, 391 are one epoch.",
        "",
    ]
    for model in MODELS:
        mine = [record for record in tests if record["model"] == model]
        if mine:
            lines += _table(model, mine)
    lines += ["![accuracy against steps](recovery.svg)", ""]
    if notes:
        lines += [notes.strip(), ""]
    lines += _method(records)
    return "\n".join(lines)


def _table(model: str, tests: list[Record]) -> list[str]:
    columns = sorted({record["steps"] for record in tests})
    cells = {
        (method, steps): [
            record["top1"]
            for record in tests
            if record["method"] == method and record["steps"] == steps
        ]
        for method in METHODS
        for steps in columns
    }
    teacher = tests[0]["teacher_top1"]
    lines = [
        f"## {NAMES[model]} (adapted original: {teacher:.1f})",
        "",
        "| method | MMACs | parameters | "
        + " | ".join(f"{steps:,} steps" for steps in columns)
        + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    best = {
        steps: max(statistics.fmean(cells[method, steps] or [0]) for method in METHODS)
        for steps in columns
    }
    for method, name in METHODS.items():
        made = [record for record in tests if record["method"] == method]
        if not made:
            continue
        row = [name, f"{made[0]['macs'] / 1e6:.2f}", f"{made[0]['params']:,}"]
        for steps in columns:
            found = cells[method, steps]
            row.append(_cell(found, bold=bool(found) and statistics.fmean(found) == best[steps]))
        lines.append("| " + " | ".join(row) + " |")
    return [*lines, ""]


def _cell(found: list[float], *, bold: bool) -> str:
    if not found:
        return "-"
    text = f"{statistics.fmean(found):.2f}"
    if len(found) > 1:
        text += f" ± {statistics.stdev(found):.2f}"
    return (f"**{text}**" if bold else text) + f" ({len(found)})"


def _method(records: list[Record]) -> list[str]:
    tunes = [record for record in records if record["kind"] == "tune"]
    lines = [
        "## How it was made",
        "",
        "`python benchmarks/recovery.py` (see its head), then `--report`. The checkpoints were",
        "adapted to the JPEG training images for one epoch; that network was converted or pruned,",
        'and is the teacher. Recipe "distil" for all (AdamW, logits at T=4, alpha 0.9, features',
        "after each stage, cosine, clipped gradients); 3,000 unlabelled training images wherever a",
        "method calibrates. Pruning takes maps inside the residual blocks, by torch-pruning's",
        "ratio bisected to the multiply-adds of uniform s=2, d=3 (every convolution but the",
        "first) within 1 %, counted by torch. Reconstruction of pruned networks is the same code",
        "as the refinement of Ghost networks: blockwise, then all blocks together. Trained in "
        + ", ".join(sorted({record["amp"] for record in records})).replace("none", "float32")
        + ",",
        "measured in float32.",
        "",
        "Machine: " + "; ".join(sorted({record["device"] for record in records})) + ". "
        "Versions: "
        + "; ".join(
            sorted({", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in records})
        )
        + ".",
        "",
        "### Learning rates",
        "",
        "Validation accuracy (the last 5,000 training images, left out of these runs). The grid is",
        "searched outwards from two neighbours as long as the better end leads on. Held: batch",
        "norms keep the fitted statistics in all steps.",
        "",
        "| network | method | steps | " + " | ".join(_rate(key) for key in _rates(tunes)) + " |",
        "|---|---|---|" + "---|" * len(_rates(tunes)),
    ]
    groups = sorted(
        {(r["model"], r["method"], r["steps"]) for r in tunes},
        key=lambda key: (key[0], list(METHODS).index(key[1]), key[2]),
    )
    for model, method, steps in groups:
        found = {
            (r["held"], r["lr"]): r["val_top1"]
            for r in tunes
            if (r["model"], r["method"], r["steps"]) == (model, method, steps)
        }
        cells = [
            (f"**{found[key]:.2f}**" if found[key] == max(found.values()) else f"{found[key]:.2f}")
            if key in found
            else "-"
            for key in _rates(tunes)
        ]
        lines.append(
            f"| {NAMES[model]} | {METHODS[method]} | {steps} | " + " | ".join(cells) + " |"
        )
    return [*lines, ""]


def _rates(tunes: Iterable[Record]) -> list[tuple[bool, float]]:
    return sorted({(record["held"], record["lr"]) for record in tunes})


def _rate(key: tuple[bool, float]) -> str:
    return f"{key[1]:g}" + (" held" if key[0] else "")


def _figure(records: list[Record], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "recovery"
    from matplotlib import pyplot

    tests = [record for record in records if record["kind"] == "test"]
    models = [model for model in MODELS if any(record["model"] == model for record in tests)]
    figure, axes = pyplot.subplots(1, len(models), figsize=(6 * len(models), 4.5), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        mine = [record for record in tests if record["model"] == model]
        steps = sorted({record["steps"] for record in mine})
        places = {step: place for place, step in enumerate(steps)}
        for method, name in METHODS.items():
            points = [
                (step, [r["top1"] for r in mine if (r["method"], r["steps"]) == (method, step)])
                for step in steps
            ]
            points = [(step, found) for step, found in points if found]
            if not points:
                continue
            kind, _, how = method.partition("-")
            axis.errorbar(
                [places[step] for step, _ in points],
                [statistics.fmean(found) for _, found in points],
                yerr=[statistics.stdev(found) if len(found) > 1 else 0 for _, found in points],
                label=name, color=_COLOURS[kind], linestyle=_STYLES[how], marker="o",
                markersize=3, capsize=2,
            )  # fmt: skip
        axis.axhline(mine[0]["teacher_top1"], color="grey", linewidth=0.8)
        axis.set_xticks(list(places.values()), [f"{step:,}" for step in steps])
        axis.set_xlabel("steps of distillation")
        axis.set_ylabel("accuracy, %")
        axis.set_ylim(max(50, min(r["top1"] for r in mine) - 0.5), mine[0]["teacher_top1"] + 0.5)
        axis.set_title(f"{NAMES[model]}, equal multiply-adds (grey: original)")
    shown: dict[str, Any] = {}
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    rows = -(-len(shown) // 3)
    figure.legend(shown.values(), shown.keys(), fontsize=8, ncols=3, loc="lower center")
    figure.tight_layout(rect=(0, 0.045 * rows, 1, 1))
    figure.savefig(folder / "recovery.png", dpi=150, metadata={"Software": None})
    figure.savefig(folder / "recovery.svg", metadata={"Date": None})
