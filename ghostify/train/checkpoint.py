"""The directory of a run that is under way: its settings and its checkpoint, always whole."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import OutputError, TrainingError
from ghostify.files import MANIFEST, explain
from ghostify.train.log import log_files

__all__ = [
    "CHECKPOINT",
    "SETTINGS",
    "RunDirectory",
    "clear",
    "digest",
    "finish",
    "is_free",
    "is_run",
    "read_checkpoint",
]

SETTINGS = "run.json"
CHECKPOINT = "checkpoint.pt"
_LOCK = ".lock"
_FORMAT = 1


def is_run(path: Path) -> bool:
    """Tell whether a run was begun in this directory, finished or not."""
    return (path / SETTINGS).is_file()


def is_free(path: Path) -> bool:
    """Tell whether a run can begin here: nothing is there but what one cut off at once left."""
    return path.is_dir() and not _others(path)


def finish(path: Path) -> None:
    """Remove what only an unfinished run needs; its settings stay, to be compared with."""
    (path / CHECKPOINT).unlink(missing_ok=True)


def clear(path: Path) -> None:
    """Remove a run and what tells an artefact, so that another can begin there.

    Raises:
        OutputError: they cannot be removed.
    """
    try:
        for name in (MANIFEST, CHECKPOINT, SETTINGS):
            (path / name).unlink(missing_ok=True)
        for file in log_files(path):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise explain(path, error) from None


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the state that a run in the directory ``path`` last saved, or None.

    Raises:
        TrainingError: it is damaged.
    """
    file = path / CHECKPOINT
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # torch.load does not look at the checksums
        if damaged:
            raise zipfile.BadZipFile(damaged)
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception:
        raise TrainingError(
            f"{file} is damaged; remove it to begin this run anew, or bring a copy back"
        ) from None


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of a network's state: names, types and values."""
    total = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().view(-1)
            total.update(f"{name}:{tuple(value.shape)}:{value.dtype}\n".encode())
            total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


class RunDirectory:
    """Where a run keeps its state, so that it can be killed at any moment.

    Every file is written aside, flushed to the disk and renamed. Only one process at a time
    may have the directory open.

    Args:
        settings: what decides the final weights. A directory with the state of a run that
            had others is refused.
        shared: whether files of others may lie in the directory.

    Raises:
        OutputError: another run is under way there, there is something else, or it cannot
            be written.
        TrainingError: the settings differ, and which.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, shared: bool = False) -> None:
        self.path = path
        text = json.dumps({"format": _FORMAT, "settings": settings}, indent=2, sort_keys=True)
        plain = json.loads(text)["settings"]
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / _LOCK).open("w")
            self._take_lock()
            try:
                if (path / SETTINGS).is_file():
                    self._compare(plain)
                else:
                    if not shared:
                        self._refuse_others()
                    self._put(SETTINGS, (text + "\n").encode())
            except BaseException:
                self._lock.close()
                raise
        except NotADirectoryError:
            raise OutputError(f"{path} is a file; choose another output directory") from None
        except (OutputError, TrainingError):
            raise
        except OSError as error:
            raise explain(path, error) from None

    def write(self, state: Mapping[str, Any]) -> None:
        """Put a checkpoint in the place of the last one.

        Raises:
            OutputError: the disk is full or fails; the last checkpoint stays valid.
        """
        buffer = io.BytesIO()  # so that a full disk is an OSError with its number
        torch.save(dict(state), buffer)
        try:
            self._put(CHECKPOINT, buffer.getbuffer())
        except OSError as error:
            raise explain(self.path / CHECKPOINT, error) from None

    def close(self) -> None:
        """Let others have the directory."""
        with contextlib.suppress(OSError):
            (self.path / _LOCK).unlink(missing_ok=True)
        self._lock.close()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise OutputError(
                f"another run is writing to {self.path}; wait for it or choose another directory"
            ) from None
        except OSError:
            return  # a file system without locks

    def _compare(self, settings: dict[str, Any]) -> None:
        try:
            found = json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                raise ValueError
            before = _flat(found["settings"])
        except (ValueError, KeyError, TypeError):
            raise TrainingError(
                f"{self.path / SETTINGS} is damaged; use --force to begin anew"
            ) from None
        now = _flat(settings)
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise TrainingError(
                    f"the run in {self.path} was begun with {name} = {_say(before.get(name))}, "
                    f"now it is {_say(now.get(name))}; give what it was, choose another "
                    "directory, or use --force to begin anew"
                )

    def _refuse_others(self) -> None:
        others = _others(self.path)
        if others:
            (self.path / _LOCK).unlink(missing_ok=True)
            raise OutputError(
                f"{self.path} exists already and holds {others[0]}; use --force to "
                "replace it, or choose another directory"
            )

    def _put(self, name: str, content: bytes | memoryview) -> None:
        aside = self.path / f".{name}.new"
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path / name)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the rename itself
        finally:
            os.close(descriptor)


def _others(path: Path) -> list[str]:
    """Return the names of files that are not what a run writes before all else."""
    own = (_LOCK, f".{SETTINGS}.new")
    return sorted(file.name for file in path.iterdir() if file.name not in own)


def _flat(value: object, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _say(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]}..."
