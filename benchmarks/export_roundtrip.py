"""Run an exported file by nothing but its own runtime, in a process that knows no ghostify.

``python export_roundtrip.py FORMAT FILE INPUT.npy OUTPUT.npy`` prints one JSON object: the largest
difference from the stored output, relative to the largest stored number.
"""

from __future__ import annotations

import json
import sys

import numpy


def run_onnx(file, image):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def run_pt2(file, image):
    import torch

    with torch.no_grad():
        return torch.export.load(file).module()(torch.from_numpy(image)).numpy()


def run_openvino(file, image):
    import openvino

    compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([image])[0]


def run_litert(file, image):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_executorch(file, image):
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")
    return method.execute([torch.from_numpy(image)])[0].numpy()


def main():
    form, file, given, stored = sys.argv[1:]
    wanted = numpy.load(stored)
    made = numpy.asarray(globals()[f"run_{form}"](file, numpy.load(given)))
    assert made.shape == wanted.shape, (made.shape, wanted.shape)
    assert "ghostify" not in sys.modules
    print(json.dumps({"difference": float(abs(made - wanted).max() / abs(wanted).max())}))


if __name__ == "__main__":
    main()
