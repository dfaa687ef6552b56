"""The directory of a comparison: the suite, the records, and what unfinished runs need."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ghostify.errors import OutputError
from ghostify.files import explain
from ghostify.runs.store import RECORDS, RunStore

__all__ = ["SUITE", "Folder"]

SUITE = "suite.yaml"
"""The suite as it was given, word for word."""

_LOCK, _WORKERS = ".compare.lock", ".workers.lock"
_PATIENCE_S = 20.0  # for the workers of a killed comparison to notice


class Folder:
    """Where everything lies; nothing is opened or written before it is asked for.

    ``records.jsonl`` is what stays. Below ``work`` are the adapted originals, the networks
    that runs begin with, latencies, and the checkpoints of unfinished runs; each is complete
    once the JSON file of its name is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = RunStore(path / RECORDS)

    def network(self, kind: str, key: str) -> Path:
        """Return where a network is kept; ``kind`` is "originals", "starts" or "searches"."""
        return self.path / "work" / kind / key

    def run(self, key: str) -> Path:
        """Return where the checkpoints of a run are."""
        return self.path / "work" / "runs" / key

    def facts(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return what was noted down when a network was ready, or None if it is not."""
        try:
            read = json.loads(self._facts(kind, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return read if isinstance(read, dict) else None

    def has(self, kind: str, key: str) -> bool:
        """Tell whether a network is ready, and there."""
        return self.facts(kind, key) is not None and self.network(kind, key).is_dir()

    def note(self, kind: str, key: str, facts: Mapping[str, Any]) -> None:
        """Note down that something is ready, and all that is to be known of it.

        Raises:
            OutputError: it cannot be written.
        """
        self._put(self._facts(kind, key), json.dumps(facts, indent=1) + "\n")

    def keep_suite(self, text: str) -> None:
        """Keep the suite's text.

        Raises:
            OutputError: it cannot be written.
        """
        self._put(self.path / SUITE, text)

    def check(self) -> None:
        """Make sure that a comparison can be here.

        Raises:
            OutputError: something else is.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; choose another output directory")
        ours = (SUITE, RECORDS, "work", _LOCK, _WORKERS)
        names = sorted(file.name for file in self.path.iterdir())
        if names and not any(name in ours for name in names):
            raise OutputError(
                f"{self.path} exists already and holds {names[0]}; choose another directory, or "
                "the one of a comparison that was begun"
            )

    @contextlib.contextmanager
    def alone(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Keep other comparisons out; workers of a killed one are waited for.

        Raises:
            OutputError: another comparison is under way here, or the directory cannot be
                written.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / _LOCK).open("ab") as mine, (self.path / _WORKERS).open("ab") as its:
                if not _locked(mine, fcntl.LOCK_EX):
                    raise OutputError(
                        f"another comparison is writing to {self.path}; wait for it, or choose "
                        "another directory"
                    )
                deadline = time.monotonic() + _PATIENCE_S
                while not _locked(its, fcntl.LOCK_EX):
                    if time.monotonic() > deadline or should_stop():
                        raise OutputError(
                            f"workers of a comparison that was killed still write to {self.path}; "
                            "wait for them, or end them"
                        )
                    time.sleep(0.1)
                fcntl.flock(its, fcntl.LOCK_UN)
                yield
        except OutputError:
            raise
        except OSError as error:
            raise explain(self.path, error) from None

    def worker(self) -> IO[bytes]:
        """Say that a worker writes here, for as long as the returned file is open."""
        file = (self.path / _WORKERS).open("ab")
        _locked(file, fcntl.LOCK_SH)
        return file

    def forget_run(self, key: str) -> None:
        """Remove the checkpoints of a run whose record is written."""
        shutil.rmtree(self.run(key), ignore_errors=True)

    def tidy(self, recorded: Iterable[str], *, all_done: bool = False) -> None:
        """Remove what no run needs any more; the adapted originals stay.

        Args:
            recorded: runs whose record is written.
            all_done: no run is left.
        """
        work = self.path / "work"
        for kind in ("originals", "starts", "searches", "latencies", "runs"):
            if (work / kind).is_dir():
                for left in work.joinpath(kind).glob(".*"):  # of a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                    left.unlink(missing_ok=True)
        for key in recorded:
            self.forget_run(key)
        if all_done:
            for kind in ("starts", "searches", "latencies", "runs"):
                shutil.rmtree(work / kind, ignore_errors=True)

    def _facts(self, kind: str, key: str) -> Path:
        return self.path / "work" / kind / f"{key}.json"

    def _put(self, path: Path, text: str) -> None:
        aside = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            raise explain(path, error) from None


def _locked(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
