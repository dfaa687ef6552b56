"""``ghostify search show``, ``rerun`` and ``dashboard``: what is done with a search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ghostify import searched
from ghostify.cli import interrupt, render
from ghostify.cli.search_progress import SearchBar
from ghostify.errors import SearchError, StorageError
from ghostify.searches.outcome import Outcome

__all__ = ["open_dashboard", "print_outcome", "rerun_trial", "show_run"]


def show_run(run: Path, *, storage: str | None, as_json: bool, quiet: bool) -> int:
    """Show how a search stands; return the exit code."""
    try:
        found = searched.show(run, storage=storage)
    except StorageError as error:
        return _show_written(run, error, as_json=as_json)
    if as_json:
        render.print_json(found.as_json())
    elif not quiet:
        print_outcome(found)
    return 0


def rerun_trial(run: Path, trial: int, *, storage: str | None, as_json: bool, quiet: bool) -> int:
    """Evaluate one trial again; return the exit code.

    Raises:
        SearchError: its score comes out otherwise.
    """
    with SearchBar(quiet=quiet or as_json) as bar:
        found = searched.rerun(
            run, trial, storage=storage, on_step=bar.step, report=_check_interrupt
        )
    measure = found.record.measure
    told, mine = found.record.score[measure], found.score[measure]
    if as_json:
        render.print_json(
            {
                "trial": trial,
                "rung": found.record.rung,
                "same": found.same,
                "recorded": dict(found.record.score),
                "now": dict(found.score),
            }
        )
    elif not quiet and found.same:
        render.page(f"trial {trial}: {measure} {mine!r}, as recorded")
    if not found.same:
        raise SearchError(
            f"trial {trial} was recorded with {measure} {told!r} and gives {mine!r} now; another "
            "machine, device or version of torch may be the reason"
        )
    return 0


def open_dashboard(run: Path, *, storage: str | None, host: str, port: int) -> int:
    """Serve optuna-dashboard until a signal comes; return the exit code.

    Raises:
        SearchError: it is not installed, or the port is taken.
    """
    url = searched.storage_of(run, storage)
    if not searched.has_dashboard():
        raise SearchError("optuna-dashboard is not installed; pip install 'ghostify[dashboard]'")
    render.notes([f"http://{host}:{port}/ until Ctrl-C"])
    searched.serve_dashboard(url, host=host, port=port)
    interrupt.check()
    return 0


def print_outcome(found: Outcome) -> None:
    """Print the best plan beside the starts, and how the search went."""
    value = found.as_json()
    table = Table(header_style="bold", pad_edge=False, box=None)
    measure = "divergence" if found.best is None else found.best.measure
    for title in ("", "trial", "rung", measure, "top-1", *found.original):
        table.add_column(title, justify="left" if title in ("", "rung") else "right", no_wrap=True)
    rows: dict[str, Mapping[str, Any] | None] = {
        "best": value["best"],
        "additive optimum": value["exact"],
        "uniform": value["uniform"],
    }
    for name, row in rows.items():
        if row is not None:
            table.add_row(name, str(row["trial"]), row["rung"], *_figures(row, found))
    if len(found.objectives) > 1:
        for row in value["pareto"]:
            table.add_row("Pareto front", str(row["trial"]), row["rung"], *_figures(row, found))
    best = value["best"]
    parts: list[Any] = [table] if best is not None else ["no plan has a score yet"]
    if best is not None:
        chosen = best.get("arguments")
        parts.append(_plan_table(best["plan"]) if chosen is None else _arguments(chosen))
    parts.append(
        f"\n{escape(value['model'])}, {escape(value['budget'])}: {value['trials']} trials, "
        f"{value['feasible']} feasible, {value['infeasible']} infeasible "
        f"({value['repaired']} were repaired before they were tried)"
    )
    render.page(*parts)
    remarks = [found.sentence] if found.sentence else []
    for key, text in (
        ("met_again", "plans met again and not scored twice"),
        ("pruned", "trainings ended early"),
        ("retried", "trials queued again after their worker was lost or interrupted"),
        ("failed", "plans that could not be scored"),
    ):
        if value[key]:
            remarks.append(f"{value[key]} {text}")
    if not found.finished:
        remarks.append("the search is not through; the same command goes on with it")
    render.notes(remarks)


def _figures(row: Mapping[str, Any], found: Outcome) -> list[str]:
    top1 = row["top1"]
    lost = row.get("divergence", row.get("loss"))
    cells = [f"{lost:.4f}", "" if top1 is None else f"{top1:.2f} %"]
    for name, whole in found.original.items():
        value = float(row[name])
        if name.startswith("latency@"):
            measured = row.get("measured", {}).get(name)
            shown = f"{value:.3g} ms" if measured is None else f"{measured:.3g} ms measured"
        else:
            shown = render.amount(round(value))
        cells.append(f"{shown} ({value / whole:.3f}x)")
    return cells


def _plan_table(plan: Mapping[str, str]) -> str:
    """Say which settings the plan gives to which layers."""
    by_setting: dict[str, list[str]] = {}
    for layer, setting in plan.items():
        by_setting.setdefault(setting, []).append(layer)
    lines = [
        f"  {setting:8} {', '.join(map(escape, layers))}"
        for setting, layers in sorted(by_setting.items())
    ]
    return "\nbest plan (other layers stay as they are):\n" + "\n".join(lines)


def _arguments(arguments: Mapping[str, Any]) -> str:
    given = "  ".join(f"{name}={value}" for name, value in arguments.items())
    return f"\nbest arguments: {escape(given)}"


def _show_written(run: Path, error: StorageError, *, as_json: bool) -> int:
    """Show what was written last, where the storage cannot be reached."""
    file = run / "outcome.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise error from None
    render.notes([f"{error}; this is what {file} holds"])
    if as_json:
        render.print_json(value)
    else:
        best = value.get("best") or {}
        told = f"best score {best['score']:.4f}" if best else "no plan has a score yet"
        render.page(f"{value['model']}, {value['budget']}: {value['trials']} trials, {told}")
    return 0


def _check_interrupt(_step: int, _score: float) -> bool:
    interrupt.check()
    return False
