"""Find the layer that a runtime's node comes from, in the ONNX file that the runtime read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ghostify.exporting.onnx import layers_of_nodes

__all__ = ["NodeMap", "read_nodes"]

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSING = ("Conv", "Gemm", "MatMul", "FullyConnected")  # and what they are fused to
_RENAMED = re.compile(r"(_nchwc|_nhwc|_token_\d+)+$")


@dataclass(frozen=True, slots=True)
class NodeMap:
    """What is known of the nodes of a file.

    A runtime that fuses nodes calls the result after one of them or after the value that
    comes out at the end; the layer is then that of the convolution among them.
    """

    layers: Mapping[str, str]  # by the node's name
    producers: Mapping[str, str]  # the node that gives a value
    inputs: Mapping[str, tuple[str, ...]]  # values that a node takes, by its name
    operators: Mapping[str, str]  # by the node's name

    def layer(self, name: str, operator: str) -> str | None:
        """Return the layer of a node by the name and operator that a runtime gives it, or None."""
        for part in re.split(r"\s*[,+]\s*", name):
            part = _RENAMED.sub("", part)
            if self.layers.get(part):
                return self.layers[part]
            if part in self.producers:
                node = self.producers[part]
                heavy = any(kind in operator for kind in _FUSING)
                return self._heaviest(node) if heavy else self.layers.get(node) or None
        held = [known for known, layer in self.layers.items() if layer and known and known in name]
        return self.layers[max(held, key=len)] if held else None

    def _heaviest(self, node: str) -> str | None:
        """Go back from a node, over the first inputs, to the convolution that it belongs to."""
        start = self.layers.get(node) or None
        while node and self.operators[node] not in _HEAVY:
            sources = [self.producers.get(value, "") for value in self.inputs[node]]
            node = next((source for source in sources if source), "")
        return self.layers.get(node) or start


def read_nodes(file: Path) -> NodeMap:
    """Read a file that :func:`ghostify.exporting.onnx.write_onnx` wrote."""
    import onnx

    nodes = onnx.load(str(file), load_external_data=False).graph.node
    return NodeMap(
        layers_of_nodes(file),
        {value: node.name for node in nodes for value in node.output},
        {node.name: tuple(node.input) for node in nodes},
        {node.name: node.op_type for node in nodes},
    )
