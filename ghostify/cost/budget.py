"""The cost of a network as a value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters (all of them, shared ones once) and multiply-adds of one forward pass.

    ``copied`` counts the numbers that indexed copies move, where a fit has changed the order
    of a Ghost module's maps and the layers behind could not take it up. They are no
    multiply-adds, but they are not free either.
    """

    params: int
    macs: int
    copied: int = 0

    def as_json(self) -> dict[str, int]:
        """Return ``{"params", "macs"}``, and ``"copied"`` where there is any."""
        plain = {"params": self.params, "macs": self.macs}
        return plain | {"copied": self.copied} if self.copied else plain
