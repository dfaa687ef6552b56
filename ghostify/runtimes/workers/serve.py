"""Load one file and run it as often as asked; see the package's docstring."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[Sequence[Any]], Sequence[Any]]
"""From arrays to arrays."""


def litert(file: str, threads: int, example: Sequence[Any]) -> tuple[Run, Callable[[], object]]:
    """Return how to run a ``.tflite`` file, and how to run it once more on the example."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=threads)
    (signature,) = interpreter._get_full_signature_list().values()
    inputs = _by_number(signature["inputs"])
    outputs = _by_number(signature["outputs"])
    interpreter.allocate_tensors()

    def feed(arrays: Sequence[Any]) -> None:
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)

    def run(arrays: Sequence[Any]) -> Sequence[Any]:
        feed(arrays)
        interpreter.invoke()
        found = [interpreter.get_tensor(index) for index in outputs]
        feed(example)
        return found

    feed(example)
    return run, interpreter.invoke


def executorch(file: str, threads: int, example: Sequence[Any]) -> tuple[Run, Callable[[], object]]:
    """Return how to run a ``.pte`` file, and how to run it once more on the example."""
    import torch
    from executorch.runtime import Runtime

    _executorch_threads(threads)
    torch.set_num_threads(threads)
    method = Runtime.get().load_program(file).load_method("forward")
    ready = [torch.from_numpy(array) for array in example]

    def run(arrays: Sequence[Any]) -> Sequence[Any]:
        outputs = method.execute([torch.from_numpy(array) for array in arrays])
        return [output.numpy().copy() for output in outputs]

    return run, lambda: method.execute(ready)


LOADERS = {"litert": litert, "executorch": executorch}


def main() -> int:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not come between
    network: tuple[Run, Callable[[], object]] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                network = LOADERS[request["kind"]](
                    request["file"], request["threads"], _arrays(request["inputs"])
                )
                network[1]()
                answer: dict[str, Any] = {}
            elif network is None:
                answer = {"error": "no network is loaded"}
            elif request["do"] == "run":
                answer = {"outputs": _save(network[0](_arrays(request["inputs"])), request)}
            else:
                answer = {"seconds": _time(network[1], request["repeats"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _time(once: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        once()
    return time.perf_counter() - began


def _arrays(files: Sequence[str]) -> list[Any]:
    import numpy

    return [numpy.load(file, allow_pickle=False) for file in files]


def _save(outputs: Sequence[Any], request: dict[str, Any]) -> list[str]:
    import numpy

    names = [str(Path(request["folder"]) / f"out{place}.npy") for place in range(len(outputs))]
    for name, output in zip(names, outputs, strict=True):
        numpy.save(name, output, allow_pickle=False)
    return names


def _by_number(tensors: dict[str, int]) -> list[int]:
    """Return tensors in the order of the network's own arguments, which their names end in."""

    def number(name: str) -> int:
        digits = name.rpartition("_")[2]
        return int(digits) if digits.isdigit() else 0

    return [tensors[name] for name in sorted(tensors, key=number)]


def _executorch_threads(threads: int) -> None:
    """Set the size of the pool that ExecuTorch's kernels share."""
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)


if __name__ == "__main__":
    sys.exit(main())
