"""Values of a YAML file, each with its place, so that every mistake says where it stands."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ghostify.errors import SuiteError, nearest

__all__ = ["Node"]


class Node:
    """One value of a file.

    Raises:
        SuiteError: from every method, if the value is not what is asked for.
    """

    def __init__(self, value: Any, file: str, place: str = "") -> None:
        self.value, self.file, self.place = value, file, place

    def fail(self, message: str) -> NoReturn:
        """Raise an error that names file and place."""
        raise SuiteError(": ".join(part for part in (self.file, self.place, message) if part))

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> Node:
        """Return what stands under a key; None where nothing does."""
        return self._inner(self.value.get(key), key)

    def keys(self, known: Collection[str], *, required: Collection[str] = ()) -> None:
        """Make sure that it is a mapping with these keys."""
        self.mapping()
        for key in self.value:
            if key not in known:
                self._inner(None, str(key)).fail(
                    f"unknown key, known are {', '.join(known)}" + nearest(str(key), known)
                )
        for key in required:
            if self.value.get(key) is None:
                self._inner(None, key).fail("is missing; give it")

    def mapping(self) -> dict[str, Any]:
        """Return a mapping by text."""
        if not isinstance(self.value, dict):
            self.fail(f"must be a mapping such as key: value (got {self.value!r})")
        for key in self.value:
            if not isinstance(key, str):
                self.fail(f"the key {key!r} must be text; put it in quotes")
        return dict(self.value)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Yield the entries of a mapping that has some."""
        if not self.mapping():
            self.fail("is empty; give at least one entry")
        for key, value in self.value.items():
            yield key, self._inner(value, key)

    def entries(self, *, empty: bool = True) -> list[Node]:
        """Return the entries of a list."""
        if not isinstance(self.value, list):
            self.fail(f"must be a list such as [a, b] (got {self.value!r})")
        if not empty and not self.value:
            self.fail("is empty; give at least one entry or leave it out")
        return [
            Node(value, self.file, f"{self.place}[{number}]")
            for number, value in enumerate(self.value)
        ]

    def text(self, default: str | None = None) -> str:
        """Return a text that is not empty."""
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail(f"must be text (got {self.value!r})")
        return self.value.strip()

    def choice(self, known: Collection[str], default: str | None = None) -> str:
        """Return one of the known names."""
        name = self.text(default)
        if name not in known:
            self.fail(f"there is no {name!r}, known are {', '.join(known)}" + nearest(name, known))
        return name

    def flag(self, default: bool) -> bool:
        """Return true or false."""
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            self.fail(f"must be true or false (got {self.value!r})")
        return self.value

    def whole(self, default: int | None = None, *, least: int = 0) -> int:
        """Return a whole number."""
        value = default if self.value is None else self.value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fail(f"must be a whole number >= {least} (got {self.value!r})")
        return value

    def number(self) -> float:
        """Return a number above zero."""
        value = self.value
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)  # YAML takes 1e-4 for text
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"must be a number (got {self.value!r})")
        if not 0 < value < math.inf:
            self.fail(f"must be above 0 (got {self.value!r})")
        return float(value)

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts, or of one text that stands alone."""
        if isinstance(self.value, str):
            return (self.text(),)
        return () if self.value is None else tuple(node.text() for node in self.entries())

    def once(self, what: str) -> list[Node]:
        """Return the entries of a list in which nothing stands twice."""
        nodes = self.entries(empty=False)
        for number, node in enumerate(nodes):
            if any(node.value == other.value for other in nodes[:number]):
                node.fail(f"the {what} {node.value!r} stands twice; leave one out")
        return nodes

    def path(self, folder: Path, *, there: bool) -> Path:
        """Return the absolute path of what is named relative to a folder."""
        named = Path(self.text()).expanduser()
        path = Path(named if named.is_absolute() else folder / named).absolute()
        path = Path(*path.parts) if ".." not in path.parts else path.resolve()
        if there and not path.exists():
            self.fail(f"there is nothing at {path}; paths are relative to the file itself")
        return path

    def _inner(self, value: Any, key: str) -> Node:
        return Node(value, self.file, f"{self.place}.{key}" if self.place else key)
