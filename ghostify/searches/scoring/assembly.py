"""Put fitted layers into one copy of the original, run it, and take them out again."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import PlanError
from ghostify.graph.layout import takes_channels_last
from ghostify.graph.probe import copy_model
from ghostify.plan import Plan
from ghostify.searches.scoring.alone import Alone
from ghostify.searches.scoring.judge import logits
from ghostify.searches.scoring.pruned import Readings
from ghostify.searches.scoring.transfer import Spots, Wanted, affine, carried, patches_at
from ghostify.spec import GhostSpec

__all__ = ["Assembly"]

_POSITIONS = 1 << 12  # of a layer's output that a correction looks at
_GROUPS = 16  # beyond, filters are so short that they stay
_RECORD_BYTES = 256 << 20  # of what the original reads and gives there, at most
_MODULE_BYTES = 512 << 20  # of fitted modules that stay in memory


class Assembly:
    """One copy of the original network, in which any plan's layers can be put for a while.

    Args:
        original: in eval mode; it stays untouched.
        correcting: calibration images ``(N, C, H, W)``, which go through as one batch.
        alone: gives the fitted modules.
        readings: tells what reads the maps that pruning removes.

    ``miss`` is, after a corrected run, the greatest share of its output's variance that a reader
    of pruned maps missed on the calibration images.
    """

    def __init__(
        self, original: nn.Module, correcting: Tensor, alone: Alone, readings: Readings
    ) -> None:
        self._original, self._alone, self._readings = original, alone, readings
        self.model, self._correcting = _fast_copy(original, correcting)
        self._places = _places(self.model)
        self._modules: OrderedDict[tuple[str, GhostSpec], _Placed] = OrderedDict()
        self._wanted = self._record()
        self.miss = 0.0

    @property
    def images(self) -> int:
        """How many calibration images correct the layers."""
        return len(self._correcting)

    def laid_out(self, images: Tensor) -> Tensor:
        """Return images as the copy stores its maps."""
        if _is_channels_last(self.model):
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def run(self, plan: Plan, batches: Sequence[Tensor], *, corrected: bool = True) -> Tensor:
        """Return the logits ``(N, classes)`` of the network that the plan makes.

        Args:
            corrected: whether each layer is first corrected on its way through a batch of
                calibration images; else each one is as it was fitted alone.

        Raises:
            PlanError: the plan is for another network.
        """
        with contextlib.ExitStack() as stack:
            placed = self._put(plan, stack, corrected=corrected)
            if corrected and placed:
                with torch.no_grad():
                    self.model(self._correcting)
            for one in placed:
                one.correcting = None
            self.miss = max((one.miss for one in placed), default=0.0)
            return logits(self.model, batches)

    def _put(self, plan: Plan, stack: contextlib.ExitStack, *, corrected: bool) -> list[_Placed]:
        """Put every layer of a plan in its place until the stack is closed."""
        placed: dict[str, _Placed] = {}
        for name, spec in plan.layers.items():
            if isinstance(spec, GhostSpec):
                placed[name] = self._fitted(name, spec)
                stack.enter_context(self._swapped(name, placed[name].layer))
        for name, mask in self._readings.masks(plan.prunes).items():
            layer = self.model.get_submodule(name)
            stack.callback(layer.register_forward_pre_hook(_masking(mask)).remove)
            if isinstance(layer, nn.Conv2d) and layer.groups == 1:
                offset = self._alone.takes_offset(name)
                placed[name] = _Placed(layer, layer, None, takes_offset=offset)
        for name, one in placed.items():
            stack.enter_context(one.hooked(self._wanted.get(name) if corrected else None))
        return list(placed.values())

    def _fitted(self, name: str, spec: GhostSpec) -> _Placed:
        """Return the module of a layer, from memory or made of what was fitted."""
        held = self._modules.get((name, spec))
        if held is None:
            piece = self._alone.fit(name, spec)
            conv = self._original.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)  # else it could not be fitted
            ghost = piece.build(conv, spec)
            if _is_channels_last(self.model):
                ghost.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            held = _Placed(
                ghost, ghost.primary, piece.offset, takes_offset=piece.offset is not None
            )
            self._modules[name, spec] = held
            size = sum(one.bytes for one in self._modules.values())
            while size > _MODULE_BYTES and len(self._modules) > 1:
                size -= self._modules.popitem(last=False)[1].bytes
        self._modules.move_to_end((name, spec))
        return held

    @contextlib.contextmanager
    def _swapped(self, name: str, layer: nn.Module) -> Iterator[None]:
        """Put a layer in every place of the network where the convolution stands."""
        if name not in self._places:
            raise PlanError(f"{name} is no convolution of this network; plan one that is")
        before = self.model.get_submodule(name)
        for owner, leaf in self._places[name]:
            setattr(owner, leaf, layer)
        try:
            yield
        finally:
            for owner, leaf in self._places[name]:
                setattr(owner, leaf, before)

    def _record(self) -> dict[str, Wanted]:
        """Note what every convolution reads and gives in the original; those that run once."""
        convs = {name: self.model.get_submodule(name) for name in self._places}
        lengths = [
            conv.out_channels + conv.in_channels * math.prod(conv.kernel_size)
            for conv in convs.values()
            if isinstance(conv, nn.Conv2d)
        ]
        count = max(64, min(_POSITIONS, _RECORD_BYTES // (4 * max(sum(lengths), 1))))
        found: dict[str, list[Wanted]] = {name: [] for name in convs}

        def listener(name: str) -> Callable[..., None]:
            def listen(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                spots = Spots.draw(output, count)
                read = patches_at(inputs[0], conv, spots) if _is_plain(conv) else None
                shape = tuple(output.shape)
                found[name].append(Wanted(shape, spots, read, spots.of(output)))

            return listen

        handles = [conv.register_forward_hook(listener(name)) for name, conv in convs.items()]
        try:
            with torch.no_grad():
                self.model(self._correcting)
        finally:
            for handle in handles:
                handle.remove()
        return {name: calls[0] for name, calls in found.items() if len(calls) == 1}


class _Placed:
    """A layer with what corrects it: other filters, and a scale and an offset per output map."""

    def __init__(
        self, layer: nn.Module, conv: nn.Conv2d, offset: Tensor | None, *, takes_offset: bool
    ) -> None:
        self.layer, self._conv, self._takes_offset = layer, conv, takes_offset
        self._filters = conv.weight.detach().clone()
        self._miss = offset
        self._scale: Tensor | None = None
        self._shift: Tensor | None = None
        self.correcting: Wanted | None = None
        self.miss = 0.0

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        values = (*self.layer.parameters(), *self.layer.buffers(), self._filters)
        return sum(value.numel() * value.element_size() for value in values)

    @contextlib.contextmanager
    def hooked(self, wanted: Wanted | None) -> Iterator[None]:
        """Let the layer correct itself in the next pass, and be as it was after the block."""
        self.correcting, self.miss = wanted, 0.0
        self._scale, self._shift = None, None if self._miss is None else -self._miss
        handles = [
            self.layer.register_forward_pre_hook(self._before),
            self.layer.register_forward_hook(self._behind),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.correcting = None
            self._conv.weight.data.copy_(self._filters)

    def _before(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        wanted = self.correcting
        if wanted is None or wanted.read is None:
            return
        now = patches_at(inputs[0], self._conv, wanted.spots)
        filters = carried(self._filters, now, wanted.read, groups=self._conv.groups)
        self._conv.weight.data.copy_(filters)

    def _behind(self, _layer: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        wanted = self.correcting
        if wanted is not None and tuple(output.shape) == wanted.shape:
            now = wanted.spots.of(output)
            scale, shift = affine(now, wanted.given, offset=self._takes_offset)
            if self._miss is None:  # it was not fitted before, so nothing is known of it
                self.miss = _missed(now, wanted.given, scale, shift)
            self._scale, self._shift = scale.to(output.dtype), shift.to(output.dtype)
        if self._scale is not None:
            output = output * self._scale.view(-1, 1, 1)
        if self._shift is not None:
            output = output + self._shift.to(output.dtype).view(-1, 1, 1)
        return output


def _missed(now: Tensor, then: Tensor, scale: Tensor, shift: Tensor) -> float:
    """Return the share of the variance of ``then`` that is missed, maps as ``(n, P)``."""
    left = then.double() - now.double() * scale[:, None] - shift[:, None]
    whole = float(then.double().var(1, correction=0).sum())
    return float(left.square().mean(1).sum()) / whole if whole > 0 else 0.0


def _is_plain(conv: nn.Module) -> bool:
    """Return whether new filters can be solved for: few groups, and nothing of its own."""
    return type(conv) is nn.Conv2d and conv.groups <= _GROUPS


def _masking(mask: Tensor) -> Callable[..., Any]:
    def masked(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = inputs[0]
        shape = (-1, 1, 1) if maps.dim() == 4 else (-1,)
        return maps * mask.to(maps).view(shape), *inputs[1:]

    return masked


def _fast_copy(original: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """Copy the network with its maps stored position by position, if its code allows for that.

    On processors it then runs up to twice as fast.
    """
    model = copy_model(original, hooks=False).eval().requires_grad_(False)
    if not takes_channels_last(model, images[:2]):
        return model, images
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, images.contiguous(memory_format=torch.channels_last)


def _is_channels_last(model: nn.Module) -> bool:
    return any(one.dim() == 4 and not one.is_contiguous() for one in model.parameters())


def _places(model: nn.Module) -> Mapping[str, list[tuple[nn.Module, str]]]:
    """Return, for each name of a convolution, every place where it stands: owner and leaf."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            names.setdefault(id(module), []).append(name)
    owners = {
        name: (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for group in names.values()
        for name in group
    }
    return {name: [owners[one] for one in group] for group in names.values() for name in group}
