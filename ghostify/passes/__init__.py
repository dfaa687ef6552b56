"""Passes that make a frozen network fast: same function, fewer and better operations."""

from __future__ import annotations

from ghostify.passes.optimize import check_runtime, optimize

__all__ = ["check_runtime", "optimize"]
