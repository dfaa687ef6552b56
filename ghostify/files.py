"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ghostify.errors import OutputError

__all__ = ["MANIFEST", "check_output", "explain", "fresh_directory", "sha256_of"]

MANIFEST = "ghostify.json"
"""The file that tells an artefact from any other directory."""


def check_output(path: Path, *, force: bool) -> None:
    """Make sure, before any work, that a directory can be written to ``path``.

    Raises:
        OutputError: the path exists and may not be replaced, or cannot be written.
    """
    try:
        target = path.resolve()
        _check_target(path, target, force=force)
        parent = target.parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise OutputError(f"{path} cannot be written: {parent} is no directory; choose another")
        with tempfile.TemporaryDirectory(dir=parent, prefix=".ghostify-"):
            pass
    except OutputError:
        raise
    except OSError as error:
        raise explain(path, error) from None


@contextlib.contextmanager
def fresh_directory(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty directory that takes the place of ``path`` once the block has succeeded.

    It lies beside ``path``, so that the last step is a rename. If the block fails or is
    interrupted, nothing is left behind and what stood at ``path`` still stands there; what
    appears there meanwhile is not replaced either, unless ``force`` allows it. Of a link,
    the target is written.

    Raises:
        OutputError: as :func:`check_output`, and for a full or failing disk.
    """
    check_output(path, force=force)
    target = path.resolve()
    created = _make_parents(target)
    aside: Path | None = None
    done = False
    try:
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:100]}."))
        new = aside / "new"
        new.mkdir()
        yield new
        _sync(new)
        _check_target(path, target, force=force)
        _put(new, target, aside / "old")
        done = True
    except OutputError:
        raise
    except OSError as error:
        raise explain(path, error) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        if not done:
            for parent in created:
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _check_target(path: Path, target: Path, *, force: bool) -> None:
    if target == Path.cwd() or target in Path.cwd().parents:
        raise OutputError(f"{path} is where you stand; choose another output directory")
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"{path} is a file; choose another output directory")
    if not force:
        raise OutputError(
            f"{path} exists already; use --force to replace it, or choose another directory"
        )


def _put(new: Path, target: Path, old: Path) -> None:
    """Rename ``new`` to ``target``.

    An artefact that stands there is moved out first, whole; into a directory of anything
    else the new files are moved one by one, so that nothing of it is lost.
    """
    if not target.exists():
        try:
            new.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise OutputError(
                    f"{target} has appeared meanwhile; use --force to replace it"
                ) from None
            raise
    elif (target / MANIFEST).is_file():
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise
    else:
        for file in sorted(new.iterdir(), key=lambda file: file.name == MANIFEST):
            file.replace(target / file.name)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_parents(path: Path) -> list[Path]:
    """Create the missing parents; return them, the innermost first."""
    missing = []
    parent = path.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(path, error) from None
    return missing


def _sync(directory: Path) -> None:
    for file in directory.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def explain(path: Path, error: OSError) -> OutputError:
    """Return the error that says why ``path`` could not be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            f"no space is left to write {path}; free some or choose another output directory"
        )
    why = error.strerror or str(error)
    return OutputError(f"{path} cannot be written ({why}); choose another output directory")
