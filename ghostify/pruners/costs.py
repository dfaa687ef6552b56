"""What a network costs without some of its maps, in closed form."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ghostify.cost.macs import Counted, count, count_params
from ghostify.graph.probe import Call, Probe
from ghostify.graph.slices import Kept, Slices, cut
from ghostify.nn.ghost import GhostModule

__all__ = ["Costs"]


class Costs:
    """Counts a network once, and then scales every layer by what it keeps.

    The products of a layer are proportional to the maps that it reads and to those that it
    gives. Where Ghost modules lose maps, the narrower network is counted each time.
    """

    def __init__(self, model: nn.Module, call: Call, counted: Counted) -> None:
        self._model, self._call = model, call
        self._modules = dict(model.named_modules())
        self._macs = counted.macs
        self._by_module = {name: macs for name, (_, macs) in counted.modules.items()}
        self._params = count_params(model)

    def after(self, slices: Slices) -> Mapping[str, float]:
        """Return ``{"macs", "params"}`` of the network with these slices."""
        if any(isinstance(self._modules[name], GhostModule) for name in slices):
            return self.counted(cut(self._model, slices))
        macs, params = self._macs, self._params
        for name, kept in slices.items():
            module = self._modules[name]
            before = self._by_module.get(name, 0)
            macs -= before - _scaled(before, module, kept)
            for value in module.parameters(recurse=False):
                params -= value.numel() - _scaled(value.numel(), module, kept, dims=value.dim())
        return {"macs": macs, "params": params}

    def counted(self, model: nn.Module) -> Mapping[str, float]:
        """Count a network by torch's own counter."""
        macs = count(Probe(model, self._call, converted=True)).macs
        return {"macs": macs, "params": count_params(model)}


def _scaled(number: int, module: nn.Module, kept: Kept, *, dims: int = 2) -> int:
    """Return a count that is proportional to the maps of a layer, for those that are kept."""
    if isinstance(module, nn.Conv2d):
        given, read = module.out_channels, module.in_channels
        if module.groups > 1:  # depthwise: the filters have one input each
            read = 0
    elif isinstance(module, nn.Linear):
        given, read = module.out_features, module.in_features
    else:
        given, read = len(next(module.parameters(recurse=False), [])), 0
    if kept.out is not None and given:
        number = number * len(kept.out) // given
    if kept.reads is not None and read and dims > 1:
        number = number * len(kept.reads) // read
    return number
