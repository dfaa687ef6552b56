"""The cost of a network as a value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters (all of them, shared ones once) and multiply-adds of one forward pass."""

    params: int
    macs: int

    def as_json(self) -> dict[str, int]:
        """Return ``{"params", "macs"}``."""
        return {"params": self.params, "macs": self.macs}
