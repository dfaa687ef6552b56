"""Two networks side by side, image by image: the original and what it was converted to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import InputError
from ghostify.graph.segments import Segment, Segments, State, is_batch_norm
from ghostify.graph.store import Store

__all__ = ["Calls", "Streams", "normalisation_behind", "rechunked"]

Calls = list[list[Tensor]]
"""Per batch, per call of a layer."""

_PIXELS = 1 << 18  # of the images of one chunk
_CHUNK = 64  # images, at most


def rechunked(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Cut a stream of images into chunks of one size, whatever its batches are.

    So neither the sums nor the steps of a refinement depend on the batch size of the stream.

    Raises:
        InputError: the images are not all of one shape, or not floating-point ``(N, C, H, W)``,
            or not finite.
    """
    if not isinstance(batches, Iterable):
        raise InputError(
            "calibration takes batches of images (N, C, H, W) in a list or another iterable "
            f"(got {type(batches).__name__})"
        )
    held: list[Tensor] = []
    size = 0
    shape: torch.Size | None = None
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.dim() != 4 or not batch.is_floating_point():
            raise InputError(
                "calibration images come as floating-point tensors (N, C, H, W), normalised as "
                f"the network wants them (got {_describe(batch)})"
            )
        if not batch.isfinite().all():
            raise InputError("calibration images hold values that are not finite; mend them")
        if shape is None:
            shape = batch.shape[1:]
            size = max(1, min(_CHUNK, _PIXELS // max(1, shape[1] * shape[2])))
        if batch.shape[1:] != shape:
            first, other = ("x".join(map(str, one)) for one in (shape, batch.shape[1:]))
            raise InputError(f"calibration images differ in shape ({first}, {other}); resize them")
        held += list(batch)
        while len(held) >= size:
            yield torch.stack(held[:size])
            held = held[size:]
    if held:
        yield torch.stack(held)


def _describe(batch: object) -> str:
    if isinstance(batch, Tensor):
        return f"{batch.dtype} of shape {tuple(batch.shape)}"
    return type(batch).__name__


class Streams:
    """The activations of both networks at one point, for all calibration images.

    ``theirs`` are the original's states, ``ours`` those of the conversion. Only what is alive
    at this one point is held, by a :class:`~ghostify.graph.store.Store`.
    """

    def __init__(
        self,
        segments: Segments,
        original: nn.Module,
        converted: nn.Module,
        images: Sequence[Tensor],
        store: Store,
    ) -> None:
        self.segments, self.original, self.converted = segments, original, converted
        self.store = store
        self.theirs: list[State] = [segments.start(chunk) for chunk in images]
        self.ours: list[State] = list(self.theirs)
        self.images_of_chunk = len(images[0])

    def limit(self, chunks: int) -> None:
        """Go on with the first chunks of images alone."""
        self.theirs, self.ours = self.theirs[:chunks], self.ours[:chunks]

    def behind(self, segment: Segment) -> list[State]:
        """Return the original's states behind a segment."""
        return [self.store.keep(self._run(self.original, segment, state)) for state in self.theirs]

    def pass_on(self, segment: Segment, *, theirs: list[State] | None = None) -> None:
        """Go on to the end of a segment; ``theirs`` are the original's states, if known."""
        fresh = self.behind(segment) if theirs is None else theirs
        for position, state in enumerate(self.ours):
            after = self.store.keep(self._run(self.converted, segment, state))
            self.store.release(state)
            self.ours[position] = after
        for state in self.theirs:
            self.store.release(state)
        self.theirs = fresh

    def pass_by(self, segment: Segment) -> None:
        """Go on to the end of a segment in the original alone."""
        fresh = self.behind(segment)
        for state in self.theirs:
            self.store.release(state)
        self.theirs = fresh

    def inputs(self, segment: Segment, name: str, chunks: int) -> Calls:
        """Return what the converted layer reads from the first chunks."""
        layer = self.converted.get_submodule(name)
        states = self.ours[:chunks]
        return self._seen(self.converted, states, segment, layer, reads=True)

    def targets(self, segment: Segment, name: str, positions: int) -> Calls:
        """Return what the original layer gives, for as many chunks as have these positions."""
        layer = self.original.get_submodule(name)
        return self._seen(
            self.original, self.theirs, segment, layer, reads=False, positions=positions
        )

    def _run(self, model: nn.Module, segment: Segment, state: State) -> State:
        with torch.no_grad():
            return self.segments.run(model, segment, state)

    def _seen(
        self,
        model: nn.Module,
        states: Sequence[State],
        segment: Segment,
        layer: nn.Module,
        *,
        reads: bool,
        positions: int | None = None,
    ) -> Calls:
        found: Calls = []
        calls = 0
        for state in states:
            seen: list[Tensor] = []
            with _watch(layer, seen, reads=reads, calls=calls), contextlib.suppress(_EnoughError):
                self._run(model, segment, state)
            calls = len(seen)
            found.append(self.store.keep(seen))
            if positions is not None:
                positions -= sum(len(one) * one[0, 0].numel() for one in seen)
                if positions <= 0:
                    break
        return found


class _EnoughError(Exception):
    """All calls of the watched layer have been seen."""


@contextlib.contextmanager
def _watch(layer: nn.Module, seen: list[Tensor], *, reads: bool, calls: int) -> Iterator[None]:
    """Collect what a layer reads or gives, and stop at its last call once that is known."""

    def take(_layer: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        seen.append((inputs[0] if reads else output).detach().clone())
        if len(seen) == calls:
            raise _EnoughError

    register: Callable[..., Any] = (
        layer.register_forward_pre_hook if reads else layer.register_forward_hook
    )
    handle = register(take)
    try:
        yield
    finally:
        handle.remove()


def normalisation_behind(model: nn.Module, images: Tensor, names: Sequence[str]) -> dict[str, str]:
    """Return the name of the batch norm that reads a layer's output, where one of its own does."""
    given: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no identity is used twice
    found: list[tuple[str, str]] = []
    handles = []

    def gives(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            given[id(output)] = name
            kept.append(output)

        return hook

    def reads(name: str) -> Callable[..., None]:
        def hook(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            source = given.get(id(inputs[0]), "") if inputs else ""
            found.append((source, name))

        return hook

    for name in names:
        handles.append(model.get_submodule(name).register_forward_hook(gives(name)))
    for name, module in model.named_modules():
        if is_batch_norm(module):
            handles.append(module.register_forward_pre_hook(reads(name)))
    try:
        with torch.no_grad():
            model(images.clone())
    finally:
        for handle in handles:
            handle.remove()
    uses = [norm for _, norm in found]
    return {layer: norm for layer, norm in found if layer and uses.count(norm) == 1}
