"""Weights of GhostNet under the names of the authors' network, which timm's network shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from ghostify.models.ghostnet import TABLE_1

__all__ = ["from_reference", "renamed_for", "to_reference"]

_STAGE_LENGTHS = (1, 1, 1, 1, 1, 1, 5, 1, 4)
"""How the reference groups the bottlenecks; ours are numbered through."""

_PARTS = {
    **{
        f"{ghost}.{theirs}": f"{ghost}.{ours}"
        for ghost in ("ghost1", "ghost2")
        for theirs, ours in {
            "primary_conv.0": "primary.conv",
            "primary_conv.1": "primary.norm",
            "cheap_operation.0": "cheap.0.conv",
            "cheap_operation.1": "cheap.0.norm",
        }.items()
    },
    "conv_dw": "depthwise.conv",
    "bn_dw": "depthwise.norm",
    "se.conv_reduce": "se.reduce",
    "se.conv_expand": "se.expand",
    "shortcut.0": "shortcut.depthwise.conv",
    "shortcut.1": "shortcut.depthwise.norm",
    "shortcut.2": "shortcut.pointwise.conv",
    "shortcut.3": "shortcut.pointwise.norm",
}
"""Layers of one bottleneck: the reference's names and ours."""

_COUNTERS = ("total_ops", "total_params")
"""What thop leaves in a network that it has counted, and so in some published checkpoints."""


def _layers() -> dict[str, str]:
    found = {"conv_stem": "stem.conv", "bn1": "stem.norm"}
    places = [
        (stage, index) for stage, length in enumerate(_STAGE_LENGTHS) for index in range(length)
    ]
    for number, (stage, index) in enumerate(places[: len(TABLE_1)]):
        for theirs, ours in _PARTS.items():
            found[f"blocks.{stage}.{index}.{theirs}"] = f"blocks.{number}.{ours}"
    last = len(_STAGE_LENGTHS)
    found |= {f"blocks.{last}.0.conv": "last.conv", f"blocks.{last}.0.bn1": "last.norm"}
    return found | {"conv_head": "head.conv", "classifier": "classifier"}


_OURS = _layers()
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}

_THEIR_MARK = "blocks.0.0.ghost1.primary_conv.0.weight"
_OUR_MARK = "blocks.0.ghost1.primary.conv.weight"


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the authors' network, or of timm's ``ghostnet_*``, to ours.

    The tensors are the same objects. Keys of other networks keep their names, so that loading
    tells of them; counters that thop has left are dropped.
    """
    kept = {key: value for key, value in state.items() if key.split(".")[-1] not in _COUNTERS}
    return _renamed(kept, _OURS)


def to_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of our GhostNet to the authors' names: :func:`from_reference` undone.

    The Ghost modules of the reference have s = 2; weights of another ratio keep our names.
    """
    return _renamed(state, _THEIRS)


def renamed_for(own: Collection[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of the network that they are to be loaded into.

    Recognised by their keys: GhostNet's in the one naming for a network in the other, and
    those of a whole GhostNet for one that only gives features, where those of the layers that
    it has not are dropped. All others are returned as they are.

    Args:
        own: keys of the network's own state dict.
    """
    found = dict(state)
    if _THEIR_MARK in state and _OUR_MARK in own:
        found = from_reference(state)
    elif _OUR_MARK in state and _THEIR_MARK in own:
        found = to_reference(state)
    if _OUR_MARK in own and _OUR_MARK in found and "classifier.weight" not in own:
        found = {key: value for key, value in found.items() if key in own or not _behind(key, own)}
    return found


def _behind(key: str, own: Collection[str]) -> bool:
    """Whether a key is of a layer of GhostNet behind the last one of a network of features."""
    part, _, rest = key.partition(".")
    number = rest.partition(".")[0]
    if part == "blocks" and number.isdecimal() and int(number) < len(TABLE_1):
        return f"blocks.{number}.ghost1.primary.conv.weight" not in own
    return part in ("last", "head", "classifier")


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        layer, dot, leaf = key.rpartition(".")
        found[f"{names.get(layer, layer)}{dot}{leaf}"] = value
    return found
