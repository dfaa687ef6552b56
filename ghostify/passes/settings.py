"""Which passes each runtime wants; what is fastest differs from runtime to runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["PASSES", "Passes"]


@dataclass(frozen=True, slots=True)
class Passes:
    """How a network is rewritten for one runtime.

    ``fold`` puts batch norms into the convolutions before them. The four next let feature
    maps travel in parts through more and more kinds of operations: a norm; an activation, a
    pooling or a depthwise convolution; a sum or product of two streams; a dense convolution
    or linear layer that reads them. Where an operation is not among them, the parts are
    joined before it.

    ``affine`` is the form of a norm that no convolution could take: a 1x1 depthwise
    convolution, into which runtimes fuse the sum and the activation behind it, or
    ``torch.addcmul``. ``expand`` makes a Ghost module of at least that ratio s one
    depthwise convolution over s copies of the intrinsic maps, the first of them with
    identity filters; 0 is never. Dense convolutions read the parts one by one where each part
    has at least ``slim`` maps and their kernel is at most ``reach`` wide.
    """

    fold: bool = True
    norms: bool = True
    maps: bool = True
    streams: bool = True
    readers: bool = True
    affine: Literal["conv", "addcmul"] = "conv"
    expand: int = 0
    slim: int = 8
    reach: int = 99
    eager: bool = False  # activations in place, weights packed
    channels_last: bool = False


_CONV = Passes()
_POINTWISE = Passes(affine="addcmul", readers=False)
_EAGER = Passes(affine="addcmul", readers=False, expand=3, eager=True)

PASSES: Mapping[str, Passes] = {
    "torch": _EAGER,
    "torch-channels-last": dataclasses.replace(_EAGER, channels_last=True),
    "torch-compile": _POINTWISE,
    "onnxruntime": _CONV,
    "openvino": _CONV,
    "litert": _CONV,
    "executorch": _CONV,
    "cuda": _POINTWISE,
    "cuda-graphs": _POINTWISE,
}
