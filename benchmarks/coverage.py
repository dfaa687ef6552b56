"""Convert one network of every family of CNNs at s = 2, d = 3, and record what becomes of it.

What is converted, with the default rules and full verification (``ghostify.convert(name)``):

- timm: the variant with the fewest parameters of every architecture family. A family is a
  module of ``timm.models`` and the stem of an architecture name: its leading words, up to the
  first that is a size or a number (``SIZES``, ``b0``, ``224``), with a size at the end of the
  last word cut off. So efficientnet.py falls into efficientnet, mobilenetv2, mixnet, ...,
  resnet.py into resnet, seresnet, wide_resnet, .... A family counts as a CNN if that variant
  holds at least two ``nn.Conv2d``; those with fewer (transformers and MLPs behind a patch
  embedding) are listed and left alone.
- torchvision: all classification and segmentation networks.
- detection backbones of torchvision, built in memory; its full detectors where its compiled
  operators can be loaded.

Each network is one line of ``coverage/results.jsonl``; a second run skips those in there. The
work is done in a process of its own, one network after the other, which is replaced when
ghostify's code changes, when it grows or dies, or after ten minutes on one network.

    python benchmarks/coverage.py                            # all that is missing, then the table
    python benchmarks/coverage.py --redo 'timm:resnet*'      # once more
    python benchmarks/coverage.py --table                    # only coverage/README.md
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "coverage"
SOURCES = Path(__file__).resolve().parents[1] / "ghostify"

SEED = 0
TIMEOUT_S = 600
MEMORY_GIB = 16
KEEP_GIB = 8  # a worker that holds more than this afterwards is replaced
POLL_S = 0.05
MIN_CONVS = 2  # a single one is a patch embedding
TARGET = 98.0  # per cent

SIZES = re.compile(
    r"x*(?:zepto|atto|femto|pico|nano|micro|mini|tiny|ti|small|little|medium|base|large|big|"
    r"huge|gigantic|giant|enormous|wee|pwee|[a-z])"
)
_VERSION = re.compile(r"[a-z]*v\d")
_INNER_NUMBER = re.compile(r"[a-z]+\d(?=[a-z]{2})[a-z]+")

GROUPS = {
    "timm": "timm, smallest of each family",
    "classification": "torchvision classification",
    "segmentation": "torchvision segmentation",
    "backbone": "torchvision detection backbones",
    "detector": "torchvision detectors",
}
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet_fpn_backbone(resnet18)": ("resnet_fpn_backbone", {"backbone_name": "resnet18"}),
    "resnet_fpn_backbone(resnet50)": ("resnet_fpn_backbone", {"backbone_name": "resnet50"}),
    "mobilenet_backbone(mobilenet_v3_large)": (
        "mobilenet_backbone",
        {"backbone_name": "mobilenet_v3_large", "fpn": True},
    ),
}
GOOD = ("converted", "nothing_to_convert")
OUTCOMES = (*GOOD, "failed", "timeout", "out_of_memory", "crash", "not_run")


@dataclass(frozen=True, slots=True)
class Network:
    """What is to be converted."""

    name: str  # as ghostify takes it, with its source
    group: str
    family: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a network; the figures are None where it was not converted."""

    name: str
    group: str
    family: str
    outcome: str
    reason: str = ""
    traced_by: str = ""  # "fx" or "hooks"
    replaced: int | None = None
    skipped: int | None = None
    params_before: int | None = None
    params_after: int | None = None
    macs_before: int | None = None
    macs_after: int | None = None
    train_note: str = ""  # why train mode was not checked
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_mib: int = 0  # resident memory of the process, sampled
    code: str = ""  # digest of ghostify's sources
    finished: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of timm, and its smallest variant."""

    key: str  # module/stem
    members: int
    name: str
    params: int
    convs: int


def main() -> int:
    options = _options()
    HERE.mkdir(exist_ok=True)
    if options.table:
        _write_table(_read_results())
        return 0
    known = _read_results()
    worker = Worker()
    try:
        networks = [*_timm_networks(worker), *worker.ask("networks", timeout_s=TIMEOUT_S)]
        wanted = [
            network
            for network in networks
            if (known.get(network.name) is None or _matches(network.name, options.redo))
            and (not options.only or _matches(network.name, options.only))
        ][: options.limit]
        for network in _progress(wanted):
            known[network.name] = _run(worker, network)
            _append(known[network.name])
    except KeyboardInterrupt:
        worker.stop(kill=True)
        print("interrupted; run again to go on", file=sys.stderr)
        return 130
    finally:
        worker.stop()
    missing = [network for network in networks if network.name not in known]
    known |= {
        network.name: Result(**asdict(network), outcome="not_run", reason="not run yet")
        for network in missing
    }
    return _write_table(known)


# --- the networks ---------------------------------------------------------------------------


def stem(name: str) -> str:
    """Return the part of an architecture's name that its variants have in common."""
    words: list[str] = []
    for word in name.split("_"):
        if _VERSION.fullmatch(word) or (
            word.isalpha() and (not words or not SIZES.fullmatch(word))  # tiny_vit
        ):
            words.append(word)
            continue
        match = _INNER_NUMBER.match(word) or re.match(r"[a-z]+", word)
        letters = match.group() if match else ""
        if len(letters) >= 3 and not SIZES.fullmatch(letters) and letters not in _SUFFIXES:
            words.append(letters)
            if letters == word:
                continue
        break
    return "_".join(words)


_SUFFIXES = frozenset({"patch", "window", "reg"})  # vit_base_patch16, swin_window7


def _timm_networks(worker: Worker) -> list[Network]:
    """Return the smallest variant of each family that is a CNN."""
    return [
        Network(f"timm:{family.name}", "timm", family.key)
        for family in _families(worker)
        if family.convs >= MIN_CONVS
    ]


def _families(worker: Worker) -> list[Family]:
    """Choose the smallest variants, or read which were chosen by an earlier run."""
    cache = HERE / "families.json"
    saved = json.loads(cache.read_text()) if cache.exists() else {}
    if saved.get("timm") != version("timm"):
        saved = {"timm": version("timm"), "families": [], "no_size": {}}
    done = {one["key"]: Family(**one) for one in saved["families"]}
    members: dict[str, list[str]] = {}
    for module, name in worker.ask("architectures", timeout_s=TIMEOUT_S):
        members.setdefault(f"{module}/{stem(name)}", []).append(name)
    for key, names in _family_progress(members, done):
        sizes = {}
        for name in names:
            try:
                sizes[name] = worker.ask("size", name, timeout_s=120)
            except WorkerLostError as error:
                saved["no_size"][name] = str(error)
        if sizes:
            smallest = min(sizes, key=lambda name: (sizes[name][0], name))
            done[key] = Family(key, len(names), smallest, *sizes[smallest])
        else:  # it gets its chance, and its outcome
            done[key] = Family(key, len(names), names[0], 0, MIN_CONVS)
        saved["families"] = [asdict(done[known]) for known in sorted(done)]
        _write(cache, json.dumps(saved, indent=1) + "\n")
    return [done[key] for key in sorted(members)]


def _architectures() -> list[tuple[str, str]]:
    """List timm's architectures with the module that each is defined in."""
    timm = _library("timm")
    registry = sys.modules["timm.models._registry"]
    return [(registry._model_to_module[name], name) for name in timm.list_models()]


def _size(name: str) -> tuple[int, int]:
    """Count an architecture's parameters and convolutions, if possible without its weights."""
    import torch

    timm = _library("timm")
    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except Exception:  # some compute with their initial values
        model = timm.create_model(name)
    convs = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    return sum(parameter.numel() for parameter in model.parameters()), convs


def _torchvision_networks() -> list[Network]:
    models = _library("torchvision.models")
    listed = [
        *((models, "classification"), (models.segmentation, "segmentation")),
        (models.detection, "detector"),
    ]
    named = [
        Network(f"torchvision:{name}", group, "torchvision")
        for module, group in listed
        for name in models.list_models(module=module)
    ]
    return named + [Network(name, "backbone", "torchvision") for name in BACKBONES]


def _library(name: str) -> Any:
    from ghostify.models.torchvision_import import import_beside_torchvision

    return import_beside_torchvision(name)


# --- one network ----------------------------------------------------------------------------


def _run(worker: Worker, network: Network) -> Result:
    started = time.monotonic()
    outcome: dict[str, Any]
    try:
        outcome = worker.ask("convert", network, timeout_s=TIMEOUT_S)
    except WorkerLostError as error:
        outcome = {"outcome": error.outcome, "reason": str(error)}
    return Result(
        **asdict(network),
        **outcome,
        seconds=round(time.monotonic() - started, 2),
        peak_mib=worker.peak_mib,
        code=worker.code,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _convert(network: Network) -> dict[str, Any]:
    """Convert one network; whatever happens becomes an outcome."""
    import ghostify

    if network.group == "detector":
        _library("torchvision.models")
        if not sys.modules["torchvision.extension"]._has_ops():
            return {"outcome": "not_run", "reason": "torchvision's compiled operators are missing"}
    try:
        conversion = _converted(network)
    except ghostify.GhostifyError as error:
        nothing = str(error).startswith("nothing would be converted")
        return {"outcome": "nothing_to_convert" if nothing else "failed", "reason": str(error)}
    except Exception as error:  # a bug: that is what is looked for
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        line = (str(error).strip().splitlines() or [""])[0]
        return {"outcome": "crash", "reason": f"{type(error).__name__}: {line} ({place})"}
    ghosts = sum(isinstance(module, ghostify.GhostModule) for module in conversion.model.modules())
    wrong = ""
    if not conversion.replaced:
        wrong = "it counts as converted, but nothing was replaced"
    elif ghosts < len(conversion.replaced):
        wrong = f"{len(conversion.replaced)} replaced, but only {ghosts} Ghost modules found"
    notes = conversion.notes
    return {
        "outcome": "failed" if wrong else "converted",
        "reason": wrong,
        "traced_by": "hooks" if any("run with hooks" in note for note in notes) else "fx",
        "replaced": len(conversion.replaced),
        "skipped": len(conversion.skipped),
        "params_before": conversion.before.params,
        "params_after": conversion.after.params,
        "macs_before": conversion.before.macs,
        "macs_after": conversion.after.macs,
        "train_note": next((note for note in notes if note.startswith("train mode")), ""),
        "notes": notes,
    }


def _converted(network: Network) -> Any:
    import torch

    import ghostify

    if network.group != "backbone":
        return ghostify.convert(network.name, seed=SEED)
    utilities = _library("torchvision.models.detection.backbone_utils")
    function, arguments = BACKBONES[network.name]
    torch.manual_seed(SEED)
    backbone = getattr(utilities, function)(weights=None, **arguments)
    return ghostify.convert(backbone, example=torch.randn(1, 3, 224, 224), seed=SEED)


# --- the process that does the work -----------------------------------------------------------


class WorkerLostError(Exception):
    """The worker gave no answer, for the reason that ``outcome`` names."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Worker:
    """A process that runs one task at a time, watched from outside.

    It is started when it is first needed, and again after it was lost, after ghostify's
    sources have changed, and when it holds more than ``KEEP_GIB``.
    """

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None
        self.peak_mib = 0
        self.code = ""

    def ask(self, task: str, *arguments: Any, timeout_s: float) -> Any:
        """Run a task in the process and return its answer.

        Raises:
            WorkerLostError: the process died, or was ended for its time or memory.
        """
        pipe = self._ready()
        pipe.send((task, arguments))
        return self._answer(pipe, timeout_s)

    def stop(self, *, kill: bool = False) -> None:
        """End the process, which leaves by itself unless it is busy."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            if not kill:
                self._process.join(10)
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _ready(self) -> Connection:
        code = _digest(SOURCES)
        if code != self.code or self._resident_gib() > KEEP_GIB:
            self.stop()
        for _ in range(60):  # somebody may be in the middle of an edit
            if self._pipe is not None:
                return self._pipe
            self.code = _digest(SOURCES)
            with contextlib.suppress(WorkerLostError):
                self._start()
                continue
            time.sleep(5)
        raise SystemExit("the worker does not start; see the messages above")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._answer(mine, 120)
        self._pipe = mine

    def _answer(self, pipe: Connection, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        peak = 0.0
        try:
            while not pipe.poll(POLL_S):
                peak = max(peak, self._resident_gib())
                self.peak_mib = round(peak * 1024)
                if peak > MEMORY_GIB:
                    raise WorkerLostError("out_of_memory", f"needs more than {MEMORY_GIB} GiB")
                if time.monotonic() > deadline:
                    raise WorkerLostError("timeout", f"takes longer than {timeout_s:g} s")
            self.peak_mib = round(max(peak, self._resident_gib()) * 1024)
            return pipe.recv()
        except EOFError:
            self._process.join()
            reason = f"the process died with exit code {self._process.exitcode}"
            self.stop()
            raise WorkerLostError("crash", reason) from None
        except WorkerLostError:
            self.stop(kill=True)
            raise

    def _resident_gib(self) -> float:
        if self._process is None:
            return 0.0
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _serve(pipe: Connection) -> None:
    """Answer tasks until the pipe closes."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    import ghostify.converting  # noqa: F401  # a broken import shows here

    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            task, arguments = pipe.recv()
            pipe.send(_TASKS[task](*arguments))
            _give_back_memory()


def _give_back_memory() -> None:
    """Return what is free to the system, so that the next network's peak is its own."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


_TASKS: dict[str, Callable[..., Any]] = {
    "architectures": _architectures,
    "convert": _convert,
    "networks": _torchvision_networks,
    "size": _size,
}


def _digest(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*.py")):
        with contextlib.suppress(FileNotFoundError):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


# --- progress and files -----------------------------------------------------------------------


def _progress(networks: list[Network]) -> Iterator[Network]:
    """Yield the networks, with a bar on a terminal and a line for each otherwise."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _lines(networks)
        return
    name = TextColumn("{task.description}")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), name)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(networks))
        for network in networks:
            bar.update(task, description=network.name)
            yield network
            bar.advance(task)


def _lines(networks: list[Network]) -> Iterator[Network]:
    started = time.monotonic()
    for number, network in enumerate(networks):
        left = (time.monotonic() - started) / number * (len(networks) - number) if number else 0
        eta = f", about {left / 60:.0f} min left" if number else ""
        print(f"[{number + 1}/{len(networks)}{eta}] {network.name}", file=sys.stderr, flush=True)
        yield network


def _family_progress(
    members: dict[str, list[str]], done: dict[str, Family]
) -> Iterator[tuple[str, list[str]]]:
    todo = [key for key in sorted(members) if key not in done]
    for number, key in enumerate(todo):
        print(
            f"[{number + 1}/{len(todo)}] choosing the smallest {key}", file=sys.stderr, flush=True
        )
        yield key, members[key]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="PATTERN", help="no networks but these")
    add("--redo", action="append", default=[], metavar="PATTERN", help="these once more")
    add("--limit", type=int, metavar="N", help="stop after N networks")
    add("--table", action="store_true", help="write coverage/README.md, and convert nothing")
    return parser.parse_args()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    bare = name.rpartition(":")[2]
    return any(fnmatchcase(name, one) or fnmatchcase(bare, one) for one in patterns)


def _read_results() -> dict[str, Result]:
    """Read what is known of each network; later lines replace earlier ones."""
    path = HERE / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    results = (Result(**json.loads(line)) for line in lines)
    return {result.name: result for result in results}


def _append(result: Result) -> None:
    if result.outcome not in GOOD:
        print(f"    {result.outcome}: {result.reason}", file=sys.stderr, flush=True)
    with (HERE / "results.jsonl").open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.replace(path)


# --- the report -------------------------------------------------------------------------------


def _write_table(known: dict[str, Result]) -> int:
    """Write the report, and results.jsonl without lines that were replaced; return 1 if short."""
    order = list(GROUPS)
    results = sorted(known.values(), key=lambda one: (order.index(one.group), one.name))
    lines = "".join(json.dumps(asdict(one)) + "\n" for one in results if one.finished)
    _write(HERE / "results.jsonl", lines)
    _write(HERE / "README.md", "\n".join(_report(results)) + "\n")
    counts = Counter(one.outcome for one in results)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]))
    return 0 if _accepted(results) else 1


def _share(results: list[Result]) -> float:
    """Return the percentage that went well, of those that were run."""
    ran = [one for one in results if one.outcome != "not_run"]
    return 100 * sum(one.outcome in GOOD for one in ran) / len(ran) if ran else 0.0


def _accepted(results: list[Result]) -> bool:
    crashes = sum(one.outcome == "crash" for one in results)
    return _share(results) >= TARGET and not crashes


def _report(results: list[Result]) -> Iterator[str]:
    ran = [one for one in results if one.finished]
    codes = sorted({one.code for one in ran})
    days = sorted({one.finished[:10] for one in ran})
    yield "# Coverage: one network of every family, converted and verified"
    yield ""
    yield "Written by `benchmarks/coverage.py`, whose docstring says what a family is."
    yield "s = 2, d = 3, default rules, `ghostify.convert(name)` with verification."
    yield ""
    yield f"- Machine: {_processor()}, one thread"
    libraries = ("torch", "torchvision", "timm", "ghostify")
    listed = ", ".join(f"{name} {version(name)}" for name in libraries)
    yield f"- Versions: Python {sys.version.split()[0]}, {listed}"
    yield f"- ghostify's sources by digest: {_list_codes(ran, codes)}"
    yield f"- Date: {' to '.join(dict.fromkeys((days[0], days[-1]))) if days else 'never'}"
    yield f"- Seed: {SEED}; limits: {TIMEOUT_S} s and {MEMORY_GIB} GiB a network"
    yield f"- Total time: {sum(one.seconds for one in ran) / 60:.0f} min"
    yield ""
    yield from _summary(results)
    yield ""
    yield from _shortcomings(results)
    yield from _unchecked(results)
    yield from _not_cnns()
    yield from _full_table(results)


def _list_codes(ran: list[Result], codes: list[str]) -> str:
    counts = Counter(one.code for one in ran)
    return ", ".join(f"{code} ({counts[code]} networks)" for code in codes) or "none"


def _summary(results: list[Result]) -> Iterator[str]:
    titles = " | ".join(outcome.replace("_", " ") for outcome in OUTCOMES)
    yield f"| group | networks | {titles} | good, of those run |"
    yield "|---|" + "---:|" * (len(OUTCOMES) + 2)
    for group, title in [*GROUPS.items(), ("", "**all**")]:
        members = [one for one in results if group in ("", one.group)]
        counts = Counter(one.outcome for one in members)
        cells = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        ran = len(members) - counts["not_run"]
        share = f"{_share(members):.1f} %" if ran else "-"
        yield f"| {title} | {len(members)} | {cells} | {share} |"
    yield ""
    verdict = "met" if _accepted(results) else "NOT met"
    hooked = sum(one.traced_by == "hooks" for one in results)
    yield (
        f"Target, at least {TARGET:g} % converted or with nothing to convert, no crash: "
        f"**{verdict}**. The layers of {hooked} networks were found by a run with hooks, "
        "since torch.fx cannot trace them; of all others by tracing."
    )


def _shortcomings(results: list[Result]) -> Iterator[str]:
    yield "## Not converted"
    yield ""
    others = [one for one in results if one.outcome != "converted"]
    if not others:
        yield "None."
    for outcome in OUTCOMES:
        for one in others:
            if one.outcome == outcome:
                yield f"- `{one.name}`: {outcome.replace('_', ' ')}. {_escape(one.reason)}"
    yield ""


def _unchecked(results: list[Result]) -> Iterator[str]:
    noted = [one for one in results if one.train_note]
    yield "## Converted, but not checked in train mode"
    yield ""
    if not noted:
        yield "None."
    for one in noted:
        yield f"- `{one.name}`: {_escape(one.train_note)}"
    yield ""


def _not_cnns() -> Iterator[str]:
    path = HERE / "families.json"
    saved = json.loads(path.read_text()) if path.exists() else {"families": [], "no_size": {}}
    others = [one for one in saved["families"] if one["convs"] < MIN_CONVS]
    yield "## Families of timm that are no CNN"
    yield ""
    listed = ", ".join(f"{one['key']} (`{one['name']}`)" for one in others)
    yield (
        f"{len(others)} of {len(saved['families'])} families have fewer than {MIN_CONVS} "
        f"`nn.Conv2d` in their smallest variant, so they were not run: {listed or 'none'}."
    )
    yield ""
    if saved["no_size"]:
        yield "Variants that could not be built to count their parameters: " + ", ".join(
            f"`{name}` ({why})" for name, why in saved["no_size"].items()
        )
        yield ""


def _full_table(results: list[Result]) -> Iterator[str]:
    yield "## All networks"
    yield ""
    yield "Peak memory is that of the whole process, libraries included."
    yield ""
    yield (
        "| network | family | outcome | found by | replaced | kept | M params | M params after "
        "| MMACs | MMACs after | s | peak MiB |"
    )
    yield "|---|---|---|---|" + "---:|" * 8
    for one in results:
        cells = [
            *(f"`{one.name}`", one.family, one.outcome.replace("_", " "), one.traced_by),
            *(_number(one.replaced), _number(one.skipped)),
            *(_millions(one.params_before), _millions(one.params_after)),
            *(_millions(one.macs_before), _millions(one.macs_after)),
            *(f"{one.seconds:.1f}", str(one.peak_mib)),
        ]
        yield f"| {' | '.join(cells)} |"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _millions(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.2f}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else 'unknown CPU'}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
