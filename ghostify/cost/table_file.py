"""Measured times on disk: one JSON object per line, appended whole, each with a check sum."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ghostify.errors import OutputError, TableError
from ghostify.files import explain

__all__ = ["TableFile", "cache_folder"]

Entry = Mapping[str, Any]

_SUFFIX = ".jsonl"


def cache_folder() -> Path:
    """Return where measurements are kept: ``GHOSTIFY_CACHE``, or the platform's cache folder."""
    named = os.environ.get("GHOSTIFY_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "ghostify"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ghostify"
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "ghostify"


class TableFile:
    """Entries of one file, in the order in which they were measured.

    A line that was damaged is dropped, the file is written anew without it, and ``damaged``
    counts it; a copy of what was there is kept beside it.

    Raises:
        TableError: the file is something else than a table.
        OutputError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._entries: list[dict[str, Any]] = []
        try:
            self._read()
        except OutputError:
            raise
        except OSError as error:
            raise explain(path, error) from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Append one entry, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        self._entries.append(dict(entry))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, _line(entry))
            finally:
                os.close(handle)
        except OSError as error:
            raise explain(self.path, error) from None

    def _read(self) -> None:
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a directory; name a file, such as table{_SUFFIX}")
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        lines = content.split(b"\n")
        whole = not lines[-1]
        for line in lines if not whole else lines[:-1]:
            entry = _entry(line)
            if entry is None:
                self.damaged += 1
            else:
                self._entries.append(entry)
        if self.damaged and not self._entries and self.path.suffix != _SUFFIX:
            raise TableError(
                f"{self.path} is no latency table; name another file, such as table{_SUFFIX}"
            )
        if self.damaged or (content and not whole):
            self._rewrite(content)

    def _rewrite(self, content: bytes) -> None:
        kept = self.path.with_name(self.path.name + ".damaged")
        kept.write_bytes(content)
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with aside.open("wb") as file:
                file.writelines(_line(entry) for entry in self._entries)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
        finally:
            aside.unlink(missing_ok=True)


def _line(entry: Entry) -> bytes:
    text = json.dumps(dict(entry), sort_keys=True, separators=(",", ":"))
    return f'{{"crc":{zlib.crc32(text.encode())},"entry":{text}}}\n'.encode()


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, or None if it is damaged."""
    try:
        value = json.loads(line)
        check, entry = value["crc"], value["entry"]
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if check != zlib.crc32(text.encode()) or not isinstance(entry, dict):
        return None
    return entry
