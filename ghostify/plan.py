"""Plans: which layer becomes a Ghost module or is pruned, and how, by explicit names only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ghostify.errors import PlanError, SpecError, nearest
from ghostify.spec import GhostSpec, LayerSpec, PruneSpec, parse_spec

__all__ = ["Plan"]

_LAYER_KEYS = ("ratio", "kernel", "cheap", "round_to")


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings by layer name, in execution order.

    ``convs`` describes the network that the plan was made for: the weight shape of each of
    its ``Conv2d`` by name. It may be empty (a plan written by hand); where it is there, a
    plan is refused for any network whose layers differ.
    """

    layers: Mapping[str, LayerSpec]
    model: str = ""
    convs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        object.__setattr__(self, "convs", MappingProxyType(dict(self.convs)))

    @classmethod
    def empty(cls) -> Plan:
        """Return the plan that converts nothing."""
        return cls({})

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (dict(self.layers), self.model, dict(self.convs))

    @property
    def ghosts(self) -> dict[str, GhostSpec]:
        """The layers that become Ghost modules."""
        return {name: one for name, one in self.layers.items() if isinstance(one, GhostSpec)}

    @property
    def prunes(self) -> dict[str, PruneSpec]:
        """The layers that lose maps."""
        return {name: one for name, one in self.layers.items() if isinstance(one, PruneSpec)}

    @property
    def digest(self) -> str:
        """SHA-256 of the layers and their settings: equal plans, equal digests."""
        layers = self.as_json()["layers"]
        text = json.dumps(layers, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "model": self.model,
            "layers": {name: _layer_json(spec) for name, spec in self.layers.items()},
            "convs": {name: list(shape) for name, shape in self.convs.items()},
        }

    @classmethod
    def from_json(cls, value: object, *, where: str = "plan") -> Plan:
        """Read what :meth:`as_json` wrote, or a person: ``layers: {conv1: s2,d3}``.

        Raises:
            PlanError: naming the file and the path inside it.
        """
        if not isinstance(value, dict):
            raise PlanError(f"{where}: a plan is a mapping with the key layers")
        unknown = [key for key in value if key not in ("model", "layers", "convs")]
        if unknown:
            raise PlanError(
                f"{where}: {unknown[0]}: unknown key, a plan has model, layers and convs"
                + nearest(str(unknown[0]), ("model", "layers", "convs"))
            )
        layers = value.get("layers")
        if not isinstance(layers, dict):
            raise PlanError(f"{where}: layers: must map layer names to settings such as s2,d3")
        convs = value.get("convs") or {}
        if not isinstance(convs, dict):
            raise PlanError(f"{where}: convs: must map layer names to weight shapes")
        return cls(
            {str(name): _spec(spec, f"{where}: layers.{name}") for name, spec in layers.items()},
            model=str(value.get("model") or ""),
            convs={
                str(name): _shape(shape, f"{where}: convs.{name}") for name, shape in convs.items()
            },
        )

    def check(self, convs: Mapping[str, tuple[int, ...]], *, model: str = "this network") -> None:
        """Make sure that the plan fits a network with these convolutions.

        Args:
            convs: weight shape of each ``Conv2d`` of the network, by name.
            model: what the network is called in messages.

        Raises:
            PlanError: a layer is missing, or the network is not the plan's own.
        """
        made_for = f" (it was made for {self.model})" if self.model else ""
        for name in self.layers:
            if name not in convs:
                raise PlanError(
                    f"the plan is for another network{made_for}: {model} has no "
                    f"convolution {name!r}" + nearest(name, convs)
                )
        if not self.convs:
            return
        for name in convs:
            if name not in self.convs:
                raise PlanError(
                    f"the plan is for another network{made_for}: it does not know "
                    f"the convolution {name!r} of {model}; search or convert {model} itself"
                )
        for name, shape in self.convs.items():
            if name not in convs:
                raise PlanError(
                    f"the plan is for another network{made_for}: {model} has no "
                    f"convolution {name!r}; search or convert {model} itself"
                )
            if name in self.layers and tuple(convs[name]) != tuple(shape):
                raise PlanError(
                    f"the plan is for another network{made_for}: {name} has weights of shape "
                    f"{_times(convs[name])}, the plan expects {_times(shape)}"
                )


def _layer_json(spec: LayerSpec) -> dict[str, Any]:
    if isinstance(spec, PruneSpec):
        return {"prune": spec.ratio}
    return (
        {"ratio": spec.ratio, "kernel": list(spec.mixed) or spec.kernel}
        | ({"cheap": spec.cheap} if spec.cheap != "depthwise" else {})
        | ({"round_to": spec.round_to} if spec.round_to != 1 else {})
    )


def _spec(value: object, where: str) -> LayerSpec:
    try:
        if isinstance(value, str):
            return parse_spec(value)
        if isinstance(value, dict) and "prune" in value:
            if len(value) > 1:
                keys = ", ".join(map(str, value))
                raise PlanError(f"{where}: a pruned layer has the key prune alone (got {keys})")
            return PruneSpec(value["prune"])
        if isinstance(value, dict):
            for key in value:
                if key not in _LAYER_KEYS:
                    raise PlanError(
                        f"{where}.{key}: unknown key, a layer has ratio, kernel, cheap and "
                        "round_to, or prune" + nearest(str(key), (*_LAYER_KEYS, "prune"))
                    )
            kernel = value.get("kernel")
            if isinstance(kernel, list) and kernel:  # several sides in one module
                rest = {key: one for key, one in value.items() if key != "kernel"}
                return GhostSpec(**rest, mixed=tuple(kernel))
            return GhostSpec(**value)
    except SpecError as error:
        raise PlanError(f"{where}: {error}") from None
    raise PlanError(f"{where}: must be like s2,d3 or p0.5 (got {value!r})")


def _shape(value: object, where: str) -> tuple[int, ...]:
    if isinstance(value, list | tuple) and all(isinstance(side, int) for side in value):
        return tuple(value)
    raise PlanError(f"{where}: must be a list of whole numbers (got {value!r})")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
