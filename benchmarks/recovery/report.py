"""Tables and a figure of the records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recovery.choice import at_best_rate
from recovery.records import read
from recovery.study import FITTED, METHODS, MODELS, NAMES

_COLOURS = {"ghost": "tab:blue", "l1": "tab:orange", "group": "tab:green", "mixed": "tab:red"}
_STYLES: dict[str, Any] = {
    "": ":", "random": ":", "bn": "--", "fit": "--", "quarters": "--", "rec": "-", "plan": "-",
    "search": "-.", "tpe": (0, (1, 3)),
}  # fmt: skip

Record = dict[str, Any]
Runs = dict[tuple[str, str, int], list[Record]]  # by network, method and steps


def report(path: Path) -> None:
    """Write README.md, recovery.png and recovery.svg beside the records.

    Of runs at other rates, in ``late_rates`` beside them, those at the best rate count.
    """
    records = read(path) + read(path.parent / "late_rates" / path.name)
    folder = path.parent
    notes = folder / "notes.md"
    runs = _runs(record for record in records if record["kind"] == "test")
    text = _readme(records, runs, notes.read_text(encoding="utf-8") if notes.exists() else "")
    (folder / "README.md").write_text(text, encoding="utf-8")
    _figure(runs, folder)


def _runs(tests: Iterable[Record]) -> Runs:
    runs: Runs = {}
    for record in tests:
        runs.setdefault((record["model"], record["method"], record["steps"]), []).append(record)
    return {key: at_best_rate(found) for key, found in runs.items()}


def _readme(records: list[Record], runs: Runs, notes: str) -> str:
    lines = [
        "# Recovery: accuracy after so many steps of distillation, at equal multiply-adds",
        "",
        "Accuracy in percent on the 10,000 JPEG test images of CIFAR-10, mean ± standard deviation",
        "over seeds (how many; the seed decides data order, calibration images and random start).",
        "Best of a column in bold; a dash: not run. A step takes 128 images, 391 are one epoch.",
        "Rates are those tuned at 98 steps, or, where that gives seed 0 more, one of",
        "[late_rates](late_rates/README.md), which says how far that choice can be trusted.",
        "",
    ]
    for model in MODELS:
        if any(key[0] == model for key in runs):
            lines += _table(model, runs)
    lines += ["![accuracy against steps](recovery.svg)", ""]
    if notes:
        lines += [notes.strip(), ""]
    lines += _method(records)
    return "\n".join(lines)


def _table(model: str, runs: Runs) -> list[str]:
    columns = sorted({steps for name, _, steps in runs if name == model})
    cells = {
        (method, steps): _top1(runs.get((model, method, steps), []))
        for method in METHODS
        for steps in columns
    }
    lines = [
        f"## {NAMES[model]} (adapted original: {_teacher(model, runs):.1f})",
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
        made = [record for steps in columns for record in runs.get((model, method, steps), [])]
        if not made:
            continue
        row = [name, f"{made[0]['macs'] / 1e6:.2f}", f"{made[0]['params']:,}"]
        for steps in columns:
            found = cells[method, steps]
            row.append(_cell(found, bold=bool(found) and statistics.fmean(found) == best[steps]))
        lines.append("| " + " | ".join(row) + " |")
    return [*lines, ""]


def _top1(records: Iterable[Record]) -> list[float]:
    return [record["top1"] for record in records]


def _teacher(model: str, runs: Runs) -> float:
    first = next(found for key, found in runs.items() if key[0] == model and found)
    return float(first[0]["teacher_top1"])


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


def _figure(runs: Runs, folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "recovery"
    from matplotlib import pyplot

    models = [model for model in MODELS if any(key[0] == model for key in runs)]
    figure, axes = pyplot.subplots(
        2, len(models), figsize=(6 * len(models), 8), squeeze=False, height_ratios=(3, 1)
    )
    for (near, whole), model in zip(axes.T, models, strict=True):
        mine = {key[1:]: _top1(found) for key, found in runs.items() if key[0] == model and found}
        teacher = _teacher(model, runs)
        for axis in (near, whole):
            _curves(axis, mine)
            axis.axhline(teacher, color="grey", linewidth=0.8)
            axis.set_ylabel("accuracy, %")
        fitted = (top1 for (method, _), found in mine.items() if method in FITTED for top1 in found)
        highest = max(teacher, *(top1 for found in mine.values() for top1 in found))
        near.set_ylim(min(fitted) - 0.3, highest + 0.3)
        near.set_title(f"{NAMES[model]}, equal multiply-adds (grey: original)")
        whole.set_ylim(0, 100)
        whole.set_xlabel("steps of distillation")
    shown: dict[str, Any] = {}
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    rows = -(-len(shown) // 3)
    figure.legend(shown.values(), shown.keys(), fontsize=8, ncols=3, loc="lower center")
    figure.tight_layout(rect=(0, 0.025 * rows, 1, 1))
    figure.savefig(folder / "recovery.png", dpi=150, metadata={"Software": None})
    figure.savefig(folder / "recovery.svg", metadata={"Date": None})


def _curves(axis: Any, cells: dict[tuple[str, int], list[float]]) -> None:
    """Draw one network's accuracies, by method and steps, with the spread of their seeds."""
    columns = sorted({steps for _, steps in cells})
    places = {steps: place for place, steps in enumerate(columns)}
    for method, name in METHODS.items():
        points = [(steps, cells[method, steps]) for steps in columns if (method, steps) in cells]
        if not points:
            continue
        kind, _, how = method.partition("-")
        axis.errorbar(
            [places[steps] for steps, _ in points],
            [statistics.fmean(found) for _, found in points],
            yerr=[statistics.stdev(found) if len(found) > 1 else 0 for _, found in points],
            label=name, color=_COLOURS[kind], linestyle=_STYLES[how], marker="o",
            markersize=3, capsize=2,
        )  # fmt: skip
    axis.set_xticks(list(places.values()), [f"{steps:,}" for steps in columns])
