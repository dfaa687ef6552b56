"""Convert a captured network to ExecuTorch, and run such files; see the package."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def convert(request: dict[str, Any]) -> dict[str, Any]:
    """Turn a ``.pt2`` file into a ``.pte`` file for the XNNPACK backend, with metadata."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.load(request["program"])
    lowered = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        constant_methods=dict(request.get("metadata", {})) or None,
    )
    with Path(request["file"]).open("wb") as file:
        lowered.to_executorch().write_to_file(file)
    return {}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a file on every list of ``.npy`` inputs; write its outputs beside each other."""
    import numpy
    import torch
    from executorch.runtime import Runtime

    places = []
    method = Runtime.get().load_program(request["file"]).load_method("forward")
    for number, files in enumerate(request["inputs"]):
        tensors = [torch.from_numpy(numpy.load(file)) for file in files]
        names = []
        for place, output in enumerate(method.execute(tensors)):
            name = str(Path(request["outputs"]) / f"{number}_{place}.npy")
            numpy.save(name, output.numpy())
            names.append(name)
        places.append(names)
    return {"outputs": places}


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Read a file's metadata, which are methods that return text."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(request["file"])
    names = [name for name in program.method_names if name.startswith("ghostify")]
    return {"metadata": {name: program.load_method(name).execute([])[0] for name in names}}


def versions(_request: dict[str, Any]) -> dict[str, Any]:
    """Say what is installed here."""
    found = {}
    for name in ("executorch", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"versions": found, "python": sys.version.split()[0]}


def main(path: str) -> int:
    """Do what a request says, and answer in its result file."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    verbs = {"convert": convert, "run": run, "describe": describe, "versions": versions}
    try:
        if request.get("threads"):
            import torch

            torch.set_num_threads(request["threads"])
        answer = verbs[request["do"]](request)
    except Exception as error:
        texts = [f"{type(error).__name__}: {error}"]
        while (cause := error.__cause__) is not None:
            error = cause  # type: ignore[assignment]
            texts.insert(0, f"{type(error).__name__}: {error}")
        answer = {"error": "\n".join(texts)}
    Path(request["result"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
