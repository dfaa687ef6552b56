"""Every error that ghostify expects, and so can explain in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtefactError",
    "BudgetError",
    "CorruptImageError",
    "CountError",
    "DataError",
    "DataFileError",
    "DivergedError",
    "ExportError",
    "GhostifyError",
    "InputError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "PlanError",
    "PruneError",
    "RecipeError",
    "RecordError",
    "RuleError",
    "RuntimeFailedError",
    "RuntimeMissingError",
    "RuntimeNotFoundError",
    "SearchError",
    "SpecError",
    "StorageError",
    "SuiteError",
    "TableError",
    "TrainingError",
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


class BudgetError(GhostifyError, ValueError):
    """A budget cannot be read, or no plan in reach holds it."""


class DataError(GhostifyError, ValueError):
    """A set of images cannot be read, or does not suit the network."""


class CorruptImageError(DataError):
    """One image of a set cannot be decoded."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(index, why)
        self.index, self.why = index, why

    def __str__(self) -> str:
        return f"image {self.index} cannot be read ({self.why}); mend or remove it"


class DataFileError(GhostifyError, ValueError):
    """A YAML or JSON file does not say what it should."""


class PlanError(DataFileError):
    """A plan cannot be read, or belongs to another network."""


class PruneError(GhostifyError, ValueError):
    """A network cannot be pruned as was asked."""


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


class RecipeError(DataFileError):
    """A training recipe cannot be read, or asks for the impossible."""


class SuiteError(DataFileError):
    """A suite of runs cannot be read, or asks for the impossible."""


class RecordError(GhostifyError, ValueError):
    """Run records cannot be read, or there is none as was asked for."""


class TrainingError(GhostifyError, ValueError):
    """A network cannot be trained as was asked, or its training has failed."""


class DivergedError(TrainingError):
    """The loss of a training is no longer a finite number."""


class SearchError(GhostifyError, ValueError):
    """A search cannot be begun, continued or shown as was asked."""


class StorageError(GhostifyError, OSError):
    """The database of a search cannot be reached or used."""


class TableError(GhostifyError, ValueError):
    """A file is no table of latencies, or does not hold what is asked of it."""


class ExportError(GhostifyError, RuntimeError):
    """A network cannot be written in a format, or the file computes something else."""


class RuntimeNotFoundError(GhostifyError, LookupError):
    """No runtime has this name."""


class RuntimeMissingError(GhostifyError, ImportError):
    """A runtime is known, but what it needs is not installed or not there."""


class RuntimeFailedError(GhostifyError, RuntimeError):
    """A runtime cannot take a network, or fails while it runs it."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return ``"; did you mean a, b or c?"`` for the closest known names, or an empty string."""
    close = difflib.get_close_matches(name, sorted(set(known)), n=count, cutoff=0.5)
    if not close:
        return ""
    listed = close[0] if len(close) == 1 else f"{', '.join(close[:-1])} or {close[-1]}"
    return f"; did you mean {listed}?"
