"""Table 7 and Fig. 7: GhostNet beside other small networks, as far as it can be measured here.

    python benchmarks/table7.py

Parameters and multiply-adds are computed; the latency of one image on one thread is measured,
on each runtime with all networks in turns; the accuracies are the published ones. What is done
is kept in reports/table7/table7.json, so an interrupted run goes on with the next runtime;
``--again`` first forgets what is there of the runtimes, ``--report`` only draws and writes.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gc
import io
import json
import os
import statistics
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from table7_networks import NETWORKS, Network, build

from ghostify.cost.latency import measure
from ghostify.cost.machine import fingerprint
from ghostify.cost.macs import count_params
from ghostify.errors import GhostifyError
from ghostify.runtimes import find_runtime
from ghostify.runtimes.base import Session
from ghostify.timing import Subject, ready_on, subject_of

FOLDER = Path(__file__).parents[1] / "reports" / "table7"
RUNTIMES = ("torch", "onnxruntime", "openvino")
PACKAGES = ("ghostify", "torch", "torchvision", "timm", "pytorchcv")
SEED = 0
DIFFERS = 0.03  # from the published figure by more: told in a note

NOTES = {
    "GhostNet 1.3x": "the authors' own network has 227.0 M as well (its widths are rounded to the "
    "nearest multiple of 4); rounding those of the expansions down gives 225.8 M. The paper's "
    "parameters, here and in the other two, are without those of batch norms: 7.33 M",
    "MobileNetV2 0.6x": "torchvision rounds widths to multiples of 8, and never down by more "
    "than a tenth: 24 maps in the stem for 19.2, 16 in the first block for 9.6",
    "FBNet-B": "built here of timm's blocks (`benchmarks/table7_networks.py`); the packages have "
    "FBNet-C only",
    "FE-Net 1.0x": "in no package: nothing of it is measured or computed here",
    "MobileNetV3 Small 0.75x": "with 1280 maps before the classifier, as in the first version of "
    "MobileNetV3, it would have 2.41 M parameters; the final version, which timm has, has 1024",
    "ShuffleNetV1 0.5x (g=8)": "a stem of 12 maps in place of 24 would take 4 M multiply-adds "
    "less, but its first unit could not divide 180 maps into 8 groups",
}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    file = options.out / "table7.json"
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"seed": SEED, "counts": {}, "runs": {}}
    if file.is_file():
        report = json.loads(file.read_text())
    if options.again:
        report["counts"] = {}
        for runtime in options.runtimes:
            report["runs"].pop(runtime, None)
        _keep(report, file)
    if not options.report:
        _count(report, file)
        for runtime in options.runtimes:
            if runtime not in report["runs"]:
                report["runs"][runtime] = _measured(runtime, options)
                report["runs"] = dict(sorted(report["runs"].items(), key=_place))
                _keep(report, file)
    (options.out / "table7.csv").write_text(_csv(report), encoding="utf-8")
    (options.out / "README.md").write_text(_page(report), encoding="utf-8")
    _figures(report, options.out)
    print(f"wrote {options.out / 'README.md'}")


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    runtime, _ = item
    return (RUNTIMES.index(runtime) if runtime in RUNTIMES else len(RUNTIMES), runtime)


def _count(report: dict[str, Any], file: Path) -> None:
    for network in NETWORKS:
        if network.source is None or network.name in report["counts"]:
            continue
        subject = _subject(network)
        report["counts"][network.name] = {
            "built_from": network.built_from,
            "params": count_params(subject.model),
            "macs": subject.macs,
        }
        _keep(report, file)
        print(f"counted {network.name}", flush=True)


def _subject(network: Network) -> Subject:
    return subject_of(build(network, seed=SEED), seed=SEED)


def _measured(runtime: str, options: Any) -> dict[str, Any]:
    """Measure all networks in turns on one runtime."""
    adapter = find_runtime(runtime)
    sessions, failed, differences = {}, {}, {}
    try:
        for network in NETWORKS:
            if network.source is None:
                continue
            print(f"preparing {network.name} for {runtime}", flush=True)
            subject = _subject(network)
            try:
                session, _ = ready_on(adapter, subject, threads=options.threads, optimize=True)
                sessions[network.name] = session
                differences[network.name] = _difference(session, subject)
            except GhostifyError as error:
                failed[network.name] = str(error)
                print(f"  fails: {error}", flush=True)
        print(f"measuring {len(sessions)} networks on {runtime}", flush=True)
        found = measure(sessions, rounds=options.rounds, tries=options.tries)
    finally:
        for session in sessions.values():
            session.close()
        gc.collect()
    return {
        "version": adapter.version(),
        "device": adapter.device(),
        "threads": options.threads,
        "batch": 1,
        "rounds": options.rounds,
        "seed": SEED,
        "taken": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": fingerprint().as_json(),
        "load": list(os.getloadavg()),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "failed": failed,
        "latency": {
            name: {
                "median_ms": round(one.median_ms, 4),
                "iqr_ms": round(one.iqr_ms, 4),
                "noisy": one.noisy,
                "tries": one.tries,
                "max_difference": differences[name],
                "ms": [round(value, 4) for value in one.ms],
            }
            for name, one in found.items()
        },
    }


def _difference(session: Session, subject: Subject) -> float:
    """Return how far what is timed is from the network in torch, relative to its outputs."""
    with torch.no_grad():
        expected = subject.model(*subject.example)
    (found,) = session.run(*subject.example)
    return float((found - expected).abs().max() / expected.abs().max())


def _keep(report: dict[str, Any], file: Path) -> None:
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    aside.replace(file)


def _csv(report: dict[str, Any]) -> str:
    runs = report["runs"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = [f"measured_{runtime}_{what}" for runtime in runs for what in ("ms", "iqr_ms")]
    facts = ["network", "family", "built_from", "computed_params", "computed_macs"]
    published = ["published_params_M", "published_macs_M", "published_top1", "published_top5"]
    writer.writerow([*facts, *published, *times])
    for network in NETWORKS:
        counted = report["counts"].get(network.name, {})
        row = [network.name, network.family, network.built_from]
        row += [counted.get("params", ""), counted.get("macs", "")]
        row += [network.params_m, network.macs_m, network.top1, network.top5 or ""]
        for run in runs.values():
            time = run["latency"].get(network.name, {})
            row += [time.get("median_ms", ""), time.get("iqr_ms", "")]
        writer.writerow(row)
    return text.getvalue()


def _page(report: dict[str, Any]) -> str:
    runs = report["runs"]
    heads = ["network", "parameters (published)", "MACs (published)", "top-1 / top-5, published"]
    heads += [f"{runtime}, ms" for runtime in runs]
    lines = [
        "# Table 7 and Fig. 7: GhostNet beside other small networks",
        "",
        "Parameters (all of them, batch norms' too) and multiply-adds at 1x3x224x224 are computed "
        "here; figures in brackets and **all accuracies are the paper's (Table 7), not measured**. "
        "Milliseconds are measured here: median ± interquartile range of one image on one thread, "
        f"random weights (seed {report['seed']}), each runtime with all networks in turns and "
        "after ghostify's passes for it. ~ marks a spread above a tenth of the median.",
        *_checked(report),
        "",
        f"| {' | '.join(heads)} |",
        f"|---|{'---:|' * (len(heads) - 1)}",
        *(_row(network, report) for network in NETWORKS),
        "",
        "![accuracy against multiply-adds](accuracy_macs.svg)",
        "",
        "![accuracy against latency](accuracy_latency.svg)",
        "",
        "## Where the counts differ from the published ones",
        "",
        *_differences(report),
        "",
        "## How it was measured",
        "",
    ]
    for runtime, run in runs.items():
        machine = run["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines.append(
            f"- **{runtime}** {run['version']}: {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['os']}, Python {machine['python']}; {run['threads']} thread, batch "
            f"{run['batch']}, {run['rounds']} rounds, seed {run['seed']}, {run['taken']}, load "
            f"average {run['load'][0]:.1f} at the end; {versions}."
        )
        if run["load"][0] > machine["cores"]:
            lines.append("  - **The machine was busy: these times are rough.** Measure again.")
        lines += [f"  - {name} could not be run: {why}" for name, why in run["failed"].items()]
    lines += [
        "",
        "`python benchmarks/table7.py --again` measures anew; `table7.json` has every sample, "
        "`table7.csv` the table.",
        "",
    ]
    return "\n".join(lines)


def _checked(report: dict[str, Any]) -> Iterable[str]:
    found = [
        one["max_difference"] for run in report["runs"].values() for one in run["latency"].values()
    ]
    if found:
        yield f"What was timed is within {max(found):.0e} of the largest output of eager torch."


def _row(network: Network, report: dict[str, Any]) -> str:
    counted = report["counts"].get(network.name)
    name = f"**{network.name}**" if network.family == "GhostNet" else network.name
    params, macs = "-", "-"
    if counted:
        params, macs = f"{counted['params'] / 1e6:.2f} M", f"{counted['macs'] / 1e6:.1f} M"
    top5 = f"{network.top5:.1f}" if network.top5 else "-"
    cells = [name, f"{params} ({network.params_m})", f"{macs} ({network.macs_m:.0f})"]
    cells.append(f"{network.top1:.1f} / {top5}")
    for run in report["runs"].values():
        time = run["latency"].get(network.name)
        noisy = "~" if time and time["noisy"] else ""
        cells.append(f"{noisy}{time['median_ms']:.2f} ± {time['iqr_ms']:.2f}" if time else "-")
    return f"| {' | '.join(cells)} |"


def _differences(report: dict[str, Any]) -> Iterable[str]:
    for network in NETWORKS:
        counted = report["counts"].get(network.name)
        parts = []
        for what, mine, published in (
            ("parameters", counted and counted["params"] / 1e6, network.params_m),
            ("MACs", counted and counted["macs"] / 1e6, network.macs_m),
        ):
            if mine and abs(mine / published - 1) > DIFFERS:
                parts.append(f"{what} {100 * (mine / published - 1):+.0f} %")
        note = NOTES.get(network.name)
        if parts or note:
            source = f" ({network.built_from})" if parts else ""
            told = "; ".join([*parts, *([note] if note else [])])
            yield f"- {network.name}{source}: {told}."


_STYLES = {
    "GhostNet": ("#d62728", "*"),
    "MobileNetV1": ("#7f7f7f", "v"),
    "MobileNetV2": ("#1f77b4", "o"),
    "MobileNetV3 Small": ("#17becf", "s"),
    "MobileNetV3 Large": ("#17becf", "D"),
    "ShuffleNetV1": ("#8c564b", "<"),
    "ShuffleNetV2": ("#2ca02c", ">"),
    "MnasNet": ("#9467bd", "P"),
    "FBNet": ("#e377c2", "X"),
    "ProxylessNAS": ("#bcbd22", "p"),
    "FE-Net": ("#000000", "h"),
}


def _figures(report: dict[str, Any], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "table7"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    computed = {name: one["macs"] / 1e6 for name, one in report["counts"].items()}
    _draw(axes, computed)
    for network in NETWORKS:  # the published figure, joined to the computed one
        colour, _ = _STYLES[network.family]
        axes.plot(
            [network.macs_m, computed.get(network.name, network.macs_m)],
            [network.top1] * 2,
            color=colour,
            linewidth=0.8,
        )
        axes.plot(network.macs_m, network.top1, "o", mfc="none", mec=colour, ms=11, mew=0.8)
    axes.plot([], [], "o", mfc="none", mec="black", ms=11, mew=0.8, label="published MACs")
    axes.plot([], [], "o", mfc="none", mec=_STYLES["FE-Net"][0], ms=0, label="(FE-Net: only that)")
    axes.set_xlabel("million multiply-adds at 224x224: filled marks computed here, rings published")
    figure.legend(fontsize=8, loc="outside right center")
    axes.set_title("Accuracy against multiply-adds", fontsize=11)
    _save(figure, folder / "accuracy_macs")

    runs = report["runs"]
    if runs:
        figure, panels = pyplot.subplots(
            1, len(runs), figsize=(2 + 4.5 * len(runs), 5), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axes, (runtime, run) in zip(panels[0], runs.items(), strict=True):
            _draw(axes, {name: one["median_ms"] for name, one in run["latency"].items()})
            for name, one in run["latency"].items():
                network = next(each for each in NETWORKS if each.name == name)
                low, _, high = statistics.quantiles(one["ms"], n=4, method="inclusive")
                colour, _ = _STYLES[network.family]
                axes.plot([low, high], [network.top1] * 2, color=colour, linewidth=0.8)
            axes.set_xlabel("ms, one image, one thread: measured here")
            axes.set_title(f"{runtime} {run['version']}", fontsize=10)
            axes.set_xlim(left=0)
        for axes in panels[0][1:]:
            axes.set_ylabel("")
        handles = panels[0][0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=8, loc="outside right center")
        first = next(iter(runs.values()))
        software = ", ".join(f"{name} {first['versions'][name]}" for name in ("ghostify", "torch"))
        figure.suptitle(
            "Accuracy against latency; bars: interquartile range\n"
            f"{first['machine']['cpu']}, {software}, seed {first['seed']}",
            fontsize=10,
        )
        _save(figure, folder / "accuracy_latency")


def _draw(axes: Any, places: dict[str, float]) -> None:
    for family, (colour, marker) in _STYLES.items():
        points = sorted(
            (places[each.name], each.top1, each.name)
            for each in NETWORKS
            if each.family == family and each.name in places
        )
        if not points:
            continue
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            marker=marker,
            color=colour,
            markersize=12 if family == "GhostNet" else 6,
            linewidth=2 if family == "GhostNet" else 1,
            label=family,
        )
        if family == "GhostNet":
            for x, y, name in points:
                axes.annotate(
                    name.split()[-1], (x, y), textcoords="offset points", xytext=(-4, 9),
                    color=colour, fontsize=9, ha="right",
                )  # fmt: skip
    axes.set_ylim(58, 77)
    axes.set_ylabel("top-1 on ImageNet, %: published, not measured")
    axes.grid(alpha=0.3)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tries", type=int, default=3, help="of all rounds, while noisy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--again", action="store_true", help="measure what is there already too")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
