"""How a comparison was made, in paragraphs and as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ghostify.published.tables import CITATION, PublishedTable
from ghostify.reports.gather import Gathered
from ghostify.reports.results import Result
from ghostify.reports.significance import Verdict, trained_top1
from ghostify.runs.record import RunRecord

__all__ = ["methods", "provenance"]

_OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}


def methods(
    gathered: Gathered, verdicts: Mapping[str, Verdict], published: Sequence[PublishedTable]
) -> tuple[str, ...]:
    """Return paragraphs: what was run and how, on which images and machine, how it was judged."""
    records = [one for one in gathered.records if one.kind != "tune"]
    tuned = [one for one in gathered.records if one.kind == "tune"]
    trained = [one for one in records if one.steps]
    found = [_what(gathered.results, records)]
    if trained:
        found.append(_training(trained, gathered))
    if any(one.original_top1 is not None or one.top1 is not None for one in records):
        found.append(_data(records, gathered))
    if tuned:
        found.append(_tuning(tuned))
    found.append(_machine(records))
    found += _latency(records)
    found += _judgement(gathered.results, verdicts)
    if published:
        names = ", ".join(f"Table {one.name.removeprefix('table')}" for one in published)
        found.append(
            f"Figures marked † are published, not measured: {names} of {CITATION}. All others are "
            "from the run records beside this report."
        )
    else:
        found.append("All figures are from the run records beside this report; none is published.")
    found += [note for suite in gathered.suites for note in suite.report.notes]
    return tuple(found)


def provenance(gathered: Gathered) -> dict[str, Any]:
    """Return what the records say of versions, machines, images, weights and dates."""
    records = gathered.records
    found: dict[str, Any] = {}
    for name in ("versions", "machine", "data", "test", "weights"):
        values = _different(one.provenance.get(name) for one in records)
        if values:
            found[name] = values[0] if len(values) == 1 else values
    dates = sorted(one.created for one in records if one.created)
    if dates:
        found["first record"], found["last record"] = dates[0], dates[-1]
    found["training, hours"] = round(math.fsum(one.seconds for one in records) / 3600, 2)
    found["records"] = len(records)
    return found


def _what(results: Sequence[Result], records: Sequence[RunRecord]) -> str:
    networks = list(dict.fromkeys(one.network for one in results))
    names = list(dict.fromkeys(one.name for one in results))
    seeds = {
        network: sorted({r.seed for one in results if one.network == network for r in one.records})
        for network in networks
    }
    alike = len({tuple(one) for one in seeds.values()}) == 1
    told = (
        _seeds(seeds[networks[0]])
        if alike
        else "; ".join(f"{network}: {_seeds(one)}" for network, one in seeds.items())
    )
    budgets = list(dict.fromkeys(one.first.budget for one in results if one.first.budget))
    under = (
        f", under the budget {' and '.join(budgets)} where a method takes one" if budgets else ""
    )
    runs = f"{len(records)} run{'s' * (len(records) != 1)}"
    return (
        f"{runs}: {len(names)} method{'s' * (len(names) != 1)} ({', '.join(names)}) on "
        f"{', '.join(networks)}{under}; {told}. Multiply-adds (MACs, the paper's FLOPs) and "
        "parameters are counted on the networks themselves."
    )


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"


def _training(trained: Sequence[RunRecord], gathered: Gathered) -> str:
    ways: dict[str, list[RunRecord]] = {}
    for one in trained:
        recipe = {key: value for key, value in one.recipe.items() if key != "lr"}
        ways.setdefault(json.dumps([recipe, one.steps], sort_keys=True, default=str), []).append(
            one
        )
    told = []
    for mine in ways.values():
        networks = ", ".join(dict.fromkeys(one.label or one.network for one in mine))
        told.append(f"{networks}: {_recipe(mine[0])}")
    teachers = {one.teacher for one in trained}
    if teachers == {None}:
        taught = "All learnt from labels alone."
    elif len(teachers) == 1:
        taught = (
            "All were taught by the original network."
            if teachers == {"original"}
            else f"All were taught by {teachers.pop()}."
        )
    else:
        taught = "Not all had the same teacher: the table marks which."
    same = "Every method is trained by the same recipe and for as long, dense networks too. "
    alike = len(ways) == 1 or len(ways) == len({one.network for one in trained})
    took = _time(math.fsum(one.seconds for one in gathered.records))
    return f"{same if alike else ''}{'; '.join(told)}. {taught} All training together took {took}."


def _recipe(record: RunRecord) -> str:
    recipe = record.recipe
    name = recipe.get("name")
    parts = [f"recipe {name}"] if name else []
    size = recipe.get("batch_size")
    images = f" of {size} images" if size else ""
    epochs = f" ({record.epochs:.3g} epoch{'s' * (record.epochs != 1)})" if record.epochs else ""
    parts.append(f"{record.steps:,} steps{images}{epochs}")
    if recipe.get("optimizer"):
        parts.append(f"{_OPTIMIZERS.get(recipe['optimizer'], recipe['optimizer'])}")
    if recipe.get("schedule"):
        parts.append(f"{recipe['schedule']} schedule")
    if recipe.get("weight_decay"):
        parts.append(f"weight decay {recipe['weight_decay']:g}")
    if record.teacher and recipe.get("alpha"):
        parts.append(f"distillation with T = {recipe.get('temperature', 4):g}, "
                     f"alpha = {recipe['alpha']:g}")  # fmt: skip
        if recipe.get("feature_weight"):
            parts.append(f"features weighted by {recipe['feature_weight']:g}")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _data(records: Sequence[RunRecord], gathered: Gathered) -> str:
    parts = []
    for name, what in (("data", "Training images"), ("test", "test images")):
        for value in _different(one.provenance.get(name) for one in records):
            if isinstance(value, Mapping):
                parts.append(f"{what}: {_images(value)}")
    calibrations = sorted(
        {suite.data.calibration for suite in gathered.suites if suite.data is not None}
    )
    if calibrations:
        count = " or ".join(f"{one:,}" for one in calibrations)
        parts.append(f"fitted methods see {count} of the training images, without labels")
    tests = _different(one.provenance.get("test") for one in records)
    images = tests[0].get("images") if tests and isinstance(tests[0], Mapping) else None
    text = "; ".join(parts) + "." if parts else "The records do not say which images were used."
    if images:
        error = 196 * math.sqrt(0.09 / images)  # of 90 %
        text += (
            f" Accuracy is the share of {images:,} test images. An interval over seeds does not "
            f"tell how other test images would do: at 90 % that alone is ± {error:.2f} points, "
            "though much the same ones for all methods."
        )
    return text


def _images(value: Mapping[str, Any]) -> str:
    name, images = value.get("name") or "unnamed", value.get("images")
    digest = str(value.get("digest") or value.get("hash") or "")
    count = f", {images:,} images" if isinstance(images, int) else ""
    return f"{name}{count}" + (f" (digest {digest[:12]})" if digest else "")


def _tuning(tuned: Sequence[RunRecord]) -> str:
    rates = ", ".join(f"{rate:g}" for rate in sorted({one.lr for one in tuned if one.lr}))
    steps = " or ".join(f"{step:,}" for step in sorted({one.steps for one in tuned}))
    held = sorted(
        {
            value["images"]
            for one in tuned
            if isinstance(value := one.provenance.get("test"), Mapping) and value.get("images")
        }
    )
    on = f"{' or '.join(f'{one:,}' for one in held)} " if held else ""
    return (
        f"The learning rate was chosen for each method from the same grid ({rates}) by {steps} "
        f"steps and the accuracy on {on}images held back from training, never on test images; the "
        "final runs train on all training images."
    )


def _machine(records: Sequence[RunRecord]) -> str:
    machines = _different(one.provenance.get("machine") for one in records)
    versions = _different(one.provenance.get("versions") for one in records)
    told = [
        ", ".join(f"{key} {value}" for key, value in one.items() if value is not None)
        for one in machines
        if isinstance(one, Mapping)
    ]
    made = [
        ", ".join(f"{key} {value}" for key, value in one.items())
        for one in versions
        if isinstance(one, Mapping)
    ]
    on = f"Machine: {'; or '.join(told)}." if told else "The records do not name the machine."
    return on + (f" Versions: {'; or '.join(made)}." if made else "")


def _latency(records: Sequence[RunRecord]) -> list[str]:
    wishes = sorted(
        {
            (one.runtime, one.device, one.threads, one.batch)
            for record in records
            for one in record.latencies
        }
    )
    if not wishes:
        return []
    told = "; ".join(
        f"{runtime} on {device} ({threads} thread{'s' * (threads != 1)}, batch {batch})"
        for runtime, device, threads, batch in wishes
    )
    return [
        f"Latencies are medians of single runs, all networks of one name in turns with their "
        f"original: {told}."
    ]


def _judgement(results: Sequence[Result], verdicts: Mapping[str, Verdict]) -> list[str]:
    if not any(trained_top1(one) for one in results):
        return []
    text = (
        "Accuracy is that of the last epoch; the best epoch is told beside it only, since the test "
        "images choose it. "
    )
    if any(len(trained_top1(one)) > 1 for one in results):
        text += (
            "± is half the 95 % confidence interval of the mean over seeds, by Student's t. It "
            "covers what the seed decides: calibration images, new weights, order of the batches. "
        )
    else:
        text += "One seed each: there are no intervals, and no test can be made. "
    if any(one.difference.p is not None for one in verdicts.values()):
        text += (
            "Methods are compared with the reference by Welch's t-test, which assumes neither "
            "equal variances (a random start varies more than a fitted one) nor equal numbers of "
            "seeds. Runs are not paired by seed: different networks make different use of one "
            "seed, and with few seeds pairing would give up half of the degrees of freedom. Within "
            "a network the p-values are corrected after Holm."
        )
    return [text.strip()]


def _different(values: Iterable[Any]) -> list[Any]:
    """Return the values that differ, in a fixed order, without None."""
    found: dict[str, Any] = {}
    for value in values:
        if value is not None:
            plain = json.loads(json.dumps(value, sort_keys=True, default=_plain))
            found[json.dumps(plain, sort_keys=True)] = plain
    return [found[key] for key in sorted(found)]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
