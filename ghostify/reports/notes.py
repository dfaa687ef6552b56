"""Footnotes of one table: a mark for each sentence, given out in the order of need."""

from __future__ import annotations

from ghostify.reports.values import PUBLISHED_MARK, Footnote

__all__ = ["ABOVE", "BELOW", "FRONT", "Notes"]

FRONT, ABOVE, BELOW = "◆", "▲", "▼"
"""On the Pareto front; significantly better, or worse, than the reference."""

_FIXED = (PUBLISHED_MARK, FRONT, ABOVE, BELOW)


class Notes:
    """Hands out marks; the same sentence gets the same mark."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}
        self._fixed: dict[str, str] = {}

    def letter(self, text: str) -> str:
        """Return the letter of a sentence: a, b, ... z, aa, ab."""
        if text not in self._letters:
            self._letters[text] = _letters(len(self._letters))
        return self._letters[text]

    def fixed(self, mark: str, text: str) -> str:
        """Return a mark that always means the same, and note what."""
        self._fixed[mark] = text
        return mark

    def all(self) -> tuple[Footnote, ...]:
        """Return the footnotes: signs first, then letters."""
        signs = sorted(self._fixed.items(), key=lambda one: _FIXED.index(one[0]))
        found = [Footnote(mark, text) for mark, text in signs]
        return (*found, *(Footnote(mark, text) for text, mark in self._letters.items()))


def _letters(number: int) -> str:
    first, last = divmod(number, 26)
    return (_letters(first - 1) if first else "") + chr(ord("a") + last)
