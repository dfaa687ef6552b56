"""Convert a captured network to LiteRT, and run such files; see the package."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def convert(request: dict[str, Any]) -> dict[str, Any]:
    """Turn a ``.pt2`` file into a ``.tflite`` file with metadata."""
    import litert_torch
    import torch

    program = torch.export.load(request["program"])
    example = program.example_inputs[0]
    shapes = None
    if request.get("dynamic_batch"):
        batch = torch.export.Dim("batch")
        shapes = (tuple({0: batch} for _ in example),)  # of the one argument *inputs
    network = _flat(program)
    made = litert_torch.convert(network, tuple(example), dynamic_shapes=shapes)
    made.export(request["file"])
    _describe(Path(request["file"]), request.get("metadata", {}))
    return {}


def _flat(program: Any) -> Any:
    """Return the network with a tuple of tensors as its output, since names would lose order."""
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = program.module()
            _open_reshapes(self.network)

        def forward(self, *inputs: Any) -> Any:
            leaves = torch.utils._pytree.tree_leaves(self.network(*inputs))
            return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))

    return Flat()


def _open_reshapes(network: Any) -> None:
    """Let reshapes infer an open batch (-1): the converter takes no size that is computed."""
    import torch

    aten = torch.ops.aten
    for node in network.graph.nodes:
        if node.target not in (aten.flatten.using_ints, aten.view.default, aten.reshape.default):
            continue
        shape = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
        if shape.count(-1) == 1:
            node.target = aten.reshape.default
            node.args, node.kwargs = (node.args[0], shape), {}
    network.graph.eliminate_dead_code()
    network.recompile()


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a file on every list of ``.npy`` inputs; write its outputs beside each other."""
    import numpy
    from ai_edge_litert.interpreter import Interpreter

    places = []
    for number, files in enumerate(request["inputs"]):
        interpreter = Interpreter(
            model_path=request["file"], num_threads=request.get("threads") or None
        )
        arrays = [numpy.load(file) for file in files]
        inputs, outputs = _order(interpreter)
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.resize_tensor_input(index, list(array.shape))
        interpreter.allocate_tensors()
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        names = []
        for place, index in enumerate(outputs):
            name = str(Path(request["outputs"]) / f"{number}_{place}.npy")
            numpy.save(name, interpreter.get_tensor(index))
            names.append(name)
        places.append(names)
    return {"outputs": places}


def _order(interpreter: Any) -> tuple[list[int], list[int]]:
    """Return the tensors of the inputs and outputs, in the order of the network's own."""

    def number(name: str) -> int:
        digits = name.rpartition("_")[2]
        return int(digits) if digits.isdigit() else 0

    (signature,) = interpreter._get_full_signature_list().values()
    inputs = signature["inputs"]
    outputs = signature["outputs"]
    return (
        [inputs[name] for name in sorted(inputs, key=number)],
        [outputs[name] for name in sorted(outputs, key=number)],
    )


def _describe(file: Path, entries: dict[str, str]) -> None:
    """Add metadata entries to a file: its schema keeps each in a buffer of its own."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file.read_bytes(), 0))
    for key, value in entries.items():
        buffer = schema.BufferT()
        buffer.data = list(value.encode())
        model.buffers.append(buffer)
        entry = schema.MetadataT()
        entry.name = key
        entry.buffer = len(model.buffers) - 1
        model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    file.write_bytes(builder.Output())


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Read a file's metadata entries."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(Path(request["file"]).read_bytes(), 0)
    entries = {}
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        buffer = model.Buffers(entry.Buffer())
        name = entry.Name().decode()
        if name.startswith("ghostify"):
            entries[name] = buffer.DataAsNumpy().tobytes().decode()
    return {"metadata": entries}


def versions(_request: dict[str, Any]) -> dict[str, Any]:
    """Say what is installed here."""
    found = {}
    for name in ("litert-torch", "ai-edge-litert", "torch"):
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
