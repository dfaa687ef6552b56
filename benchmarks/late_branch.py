"""Would a cheap branch that reads the maps behind batch norm and ReLU be faster?

    python benchmarks/late_branch.py

ResNet-50 with Ghost modules is exported after the passes of ONNX Runtime; in a copy of that graph
each cheap filter reads what the batch norm and the activation made of its primary maps (the norm is
folded into the primary filter, so one operation less reads and writes the map). That is another
function, which would have to be fitted as such; here only its time counts. Dense original, both
graphs at s = 2 and s = 4 and both runtimes take turns on one thread. Writes
``reports/latency/late_branch.json`` and ``late_branch.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy
import onnx
import torch
from ladder import REPORTS, randomised, write
from torch import nn

import ghostify
from ghostify.cost.machine import fingerprint
from ghostify.opening import open_model
from ghostify.passes.optimize import apply_passes
from ghostify.passes.settings import PASSES

RATIOS = (2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args()
    torch.set_num_threads(1)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    dense = open_model("resnet50").model
    ghosts = {ratio: ghostify.convert(dense, ratio=ratio, example=image) for ratio in RATIOS}
    with tempfile.TemporaryDirectory() as folder:
        files = {"original": exported(randomised(dense), image, Path(folder, "dense.onnx"))}
        for ratio, conversion in ghosts.items():
            plain = exported(randomised(conversion.model), image, Path(folder, f"s{ratio}.onnx"))
            files[f"s={ratio}"] = plain
            files[f"s={ratio}, behind norm and ReLU"] = moved(plain)
        sessions = {
            (runtime, label): start(file)
            for label, file in files.items()
            for runtime, start in {"onnxruntime": onnxruntime, "openvino": openvino}.items()
        }
        times = interleaved(sessions, image.numpy(), given.rounds)
    record = {
        "machine": fingerprint().as_json(),
        "rounds": given.rounds,
        "seed": 0,
        "ms": {f"{runtime}: {label}": found for (runtime, label), found in times.items()},
    }
    write(REPORTS / "late_branch.json", json.dumps(record, indent=1) + "\n")
    write(REPORTS / "late_branch.md", page(times, record["machine"], given.rounds))
    print((REPORTS / "late_branch.md").read_text())


def exported(model: nn.Module, image: torch.Tensor, file: Path) -> Path:
    """Export a network after the passes of ONNX Runtime."""
    optimised = apply_passes(model, (image,), PASSES["onnxruntime"])
    torch.onnx.export(optimised, (image,), file, dynamo=True, verbose=False)
    return file


def moved(file: Path) -> Path:
    """Let cheap filters read behind norm and activation; return the new file."""
    graph = onnx.load(file).graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    sources = {name for node in graph.node for name in node.output}
    changed = 0
    for name in sources:
        cheap = [one for one in readers[name] if one.op_type == "Conv" and "cheap" in one.input[1]]
        norms = [one for one in readers[name] if one.op_type == "Conv" and one not in cheap]
        if len(norms) != 1 or not cheap:
            continue
        behind = readers[norms[0].output[0]]
        for node in behind:
            node.input[list(node.input).index(norms[0].output[0])] = name
        if [node.op_type for node in behind] == ["Relu"]:
            for filters in cheap:
                filters.input[0] = behind[0].output[0]
        graph.node.remove(norms[0])
        changed += 1
    if not changed:
        raise SystemExit("no cheap branch was found in the graph; has its naming changed?")
    nodes = in_order(graph)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for weight in [one for one in graph.initializer if one.name not in read]:
        graph.initializer.remove(weight)
    result = file.with_name(f"{file.stem}-moved.onnx")
    model = onnx.load(file, load_external_data=False)
    model.graph.CopyFrom(graph)
    onnx.save(model, result)
    return result


def in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes so that each stands behind those it reads."""
    known = {one.name for one in [*graph.input, *graph.initializer]} | {""}
    waiting, nodes = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise SystemExit("the changed graph has a circle")
        nodes += ready
        known.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if node not in ready]
    return nodes


def onnxruntime(file: Path) -> Callable[[numpy.ndarray], Any]:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def openvino(file: Path) -> Callable[[numpy.ndarray], Any]:
    import openvino as runtime

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    compiled = runtime.Core().compile_model(runtime.Core().read_model(file), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda image: request.infer([image])


def interleaved(
    sessions: dict[tuple[str, str], Callable[[numpy.ndarray], Any]],
    image: numpy.ndarray,
    rounds: int,
) -> dict[tuple[str, str], list[float]]:
    """Return milliseconds of each round; all take turns in it."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
    for _ in range(rounds):
        for key, run in sessions.items():
            run(image)
            began = time.perf_counter()
            for _ in range(3):
                run(image)
            times[key].append(round((time.perf_counter() - began) / 3 * 1e3, 3))
    return times


def page(times: dict[tuple[str, str], list[float]], machine: dict[str, Any], rounds: int) -> str:
    lines = [
        "# Cheap branches behind batch norm and ReLU: tried, not kept",
        "",
        "Written by `python benchmarks/late_branch.py` (see its head): ResNet-50, float32, one",
        f"thread, batch 1, 224x224, medians of {rounds} rounds. {machine['cpu']},",
        f"{machine['os']}, Python {machine['python']}, torch {machine['torch']}.",
        "Both runtimes read the same graphs.",
        "",
        "| runtime | network | median ms | IQR ms | speed-up |",
        "|---|---|---|---|---|",
    ]
    for (runtime, label), found in times.items():
        first = statistics.median(times[runtime, "original"])
        low, median, high = statistics.quantiles(found, n=4)
        lines.append(
            f"| {runtime} | {label} | {median:.2f} | {high - low:.2f} | {first / median:.2f}x |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
