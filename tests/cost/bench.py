"""A bench whose times are given by the networks' own parts, so that no clock matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ghostify.cost.workbench import Conditions
from ghostify.errors import RuntimeFailedError
from ghostify.nn.ghost import GhostModule

__all__ = ["FakeBench", "FakeSession", "network"]

Cost = Callable[[GhostModule | nn.Conv2d], float]


def network() -> nn.Module:
    """A chain of five convolutions; the first stays dense by the default rules."""
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 12), (12, 16), (16, 20), (20, 24)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def own_time(gains: dict[int, float]) -> Cost:
    """Each convolution takes a millisecond per ten maps; a ghost saves what ``gains`` says."""

    def cost(layer: GhostModule | nn.Conv2d) -> float:
        saved = gains.get(layer.out_channels, 0.0) if isinstance(layer, GhostModule) else 0.0
        return layer.out_channels / 10 - saved

    return cost


class FakeSession:
    """Takes as long as it is told."""

    def __init__(self, ms: float) -> None:
        self.ms, self.closed = ms, False

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs

    def time(self, repeats: int) -> float:
        assert not self.closed
        return repeats * self.ms / 1e3

    def close(self) -> None:
        self.closed = True


class FakeBench:
    """Adds up the costs of convolutions and Ghost modules.

    Args:
        gains: what a Ghost module saves, by its output maps.
        company: what a whole network takes more for each Ghost module in it.
        refuse: number of output maps that the runtime cannot take as a Ghost module.
    """

    def __init__(
        self,
        gains: dict[int, float] | None = None,
        *,
        company: float = 0.0,
        refuse: int = 0,
        version: str = "1.0",
    ) -> None:
        self.conditions = Conditions("fake", version, 1, 1)
        self.cost = own_time(gains or {})
        self.company = company
        self.refuse = refuse
        self.drafts = 0
        self.sessions: list[FakeSession] = []

    def session(self, model: nn.Module, example: Sequence[Tensor], *, draft: bool) -> FakeSession:
        assert not any(module.training for module in model.modules())
        layers = [
            module for module in model.modules() if isinstance(module, (GhostModule, nn.Conv2d))
        ]
        inner = {id(part) for one in layers for part in one.modules() if part is not one}
        layers = [one for one in layers if id(one) not in inner]
        ghosts = [one for one in layers if isinstance(one, GhostModule)]
        if any(one.out_channels == self.refuse for one in ghosts):
            raise RuntimeFailedError("fake cannot take the network (too narrow)")
        ms = 1 + sum(self.cost(one) for one in layers)
        if not draft:
            ms += self.company * len(ghosts)
        self.drafts += draft
        self.sessions.append(FakeSession(ms))
        return self.sessions[-1]
