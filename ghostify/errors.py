"""Every error that ghostify expects, and so can explain in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtefactError",
    "CountError",
    "DataFileError",
    "GhostifyError",
    "InputError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "PlanError",
    "RuleError",
    "SpecError",
    "VerificationError",
    "WeightsError",
    "nearest",
]


class GhostifyError(Exception):
    """Base of all expected errors: the message says what, the rule, the value and the remedy."""


class SpecError(GhostifyError, ValueError):
    """A Ghost module was asked for that cannot exist."""


class RuleError(GhostifyError, ValueError):
    """A conversion rule matches nothing, contradicts another, or asks for the impossible."""


class DataFileError(GhostifyError, ValueError):
    """A YAML or JSON file does not say what it should."""


class PlanError(DataFileError):
    """A plan cannot be read, or belongs to another network."""


class ModelNotFoundError(GhostifyError, LookupError):
    """No model has this name."""


class ModelError(GhostifyError, TypeError):
    """An object is no model that can be converted."""


class InputError(GhostifyError, ValueError):
    """A model does not accept the example input."""


class WeightsError(GhostifyError, ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


class CountError(GhostifyError, ArithmeticError):
    """Two ways of counting the same multiply-adds disagree."""


class VerificationError(GhostifyError, RuntimeError):
    """A converted model does not behave like the network it came from."""


class ArtefactError(GhostifyError, ValueError):
    """A saved artefact is damaged, incomplete, or of another format."""


class OutputError(GhostifyError, OSError):
    """Something could not be written."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return ``"; did you mean a, b or c?"`` for the closest known names, or an empty string."""
    close = difflib.get_close_matches(name, sorted(set(known)), n=count, cutoff=0.5)
    if not close:
        return ""
    listed = close[0] if len(close) == 1 else f"{', '.join(close[:-1])} or {close[-1]}"
    return f"; did you mean {listed}?"
