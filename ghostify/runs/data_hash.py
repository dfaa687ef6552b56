"""Which images a run has seen: a hash of their files, remembered until a file changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ghostify.cost.table_file import TableFile, cache_folder
from ghostify.errors import DataError, GhostifyError
from ghostify.files import sha256_of

__all__ = ["hash_of"]

_CACHE = "data-hashes.jsonl"


def hash_of(path: str | Path) -> str:
    """Return a SHA-256 over names, sizes and contents of a file or of all files of a folder.

    It does not depend on where the folder lies. Contents are read once: as long as no size
    and no time of change differs, what was found is taken from the user's cache.

    Raises:
        DataError: there is nothing, or a file cannot be read.
    """
    path = Path(path)
    files = _files(path)
    stamp = _digest(f"{name}\0{size}\0{changed}" for name, size, changed in files)
    key = {"path": str(path.resolve()), "stamp": stamp}
    known = _known(key)
    if known is not None:
        return known
    root = path if path.is_dir() else path.parent
    try:
        found = _digest(f"{name}\0{size}\0{sha256_of(root / name)}" for name, size, _ in files)
    except OSError as error:
        raise _unreadable(path, error) from None
    with contextlib.suppress(GhostifyError):  # without a cache it is read again
        TableFile(cache_folder() / _CACHE).add(key | {"hash": found})
    return found


def _files(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change (ns) of each file, by name."""
    try:
        if path.is_file():
            return [_entry(path, path.parent)]
        if not path.is_dir():
            raise DataError(f"there are no images at {path}; check the path")
        found = [
            _entry(Path(folder) / name, path)
            for folder, _, names in os.walk(path, followlinks=True)
            for name in names
        ]
    except OSError as error:
        raise _unreadable(path, error) from None
    if not found:
        raise DataError(f"{path} holds no file; give the directory of the images")
    return sorted(found)


def _entry(file: Path, root: Path) -> tuple[str, int, int]:
    state = file.stat()
    return file.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns


def _digest(parts: Iterator[str]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode("utf-8", errors="surrogateescape") + b"\n")
    return whole.hexdigest()


def _known(key: dict[str, str]) -> str | None:
    try:
        entries = list(TableFile(cache_folder() / _CACHE))
    except GhostifyError:
        return None
    for entry in reversed(entries):
        if all(entry.get(name) == value for name, value in key.items()):
            return str(entry["hash"])
    return None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read ({error.strerror or error}); check the files")
