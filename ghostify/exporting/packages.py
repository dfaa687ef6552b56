"""The optional packages that formats need, and the words for a missing one."""

from __future__ import annotations

import importlib.util

from ghostify.errors import RuntimeMissingError

__all__ = ["missing", "require"]


def missing(*packages: str, extra: str) -> str | None:
    """Return the sentence that says what to install, or None if all packages are there."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    return f"{' and '.join(absent)} must be installed for this: pip install 'ghostify[{extra}]'"


def require(*packages: str, extra: str) -> None:
    """Make sure that packages are installed.

    Raises:
        RuntimeMissingError: one is not; it names the extra to install.
    """
    sentence = missing(*packages, extra=extra)
    if sentence is not None:
        raise RuntimeMissingError(sentence)
