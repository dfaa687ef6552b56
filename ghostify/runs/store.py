"""The store of run records: one line of JSON for each, appended whole, by many processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostify.errors import RecordError
from ghostify.files import explain
from ghostify.runs.frame import frame
from ghostify.runs.record import FORMAT, RunRecord

__all__ = ["RECORDS", "RunStore", "Stored", "frame", "open_runs"]

RECORDS = "records.jsonl"
"""The name of a store in the directory of a comparison."""

_LOCK_SUFFIX = ".lock"
_BEGINNING = b'{"format": '  # of each line


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds, and what is to be said about it."""

    records: tuple[RunRecord, ...]
    remarks: tuple[str, ...] = ()  # lines that were left out, and why

    def __iter__(self) -> Iterator[Any]:
        yield self.records
        yield self.remarks


class RunStore:
    """Records of one file, in the order in which their runs ended; nothing is ever rewritten.

    A record is on the disk when :meth:`append` returns. A process that is killed in the
    middle of it leaves a line that is cut off; the next one begins a new line behind it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, record: RunRecord) -> None:
        """Write one record to the end of the file, under a lock.

        Raises:
            OutputError: the file cannot be written.
            RecordError: the record holds something else than plain values.
        """
        try:
            text = json.dumps(record.as_json(), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecordError(f"a record is made of plain values ({error})") from None
        line = text.encode("utf-8", errors="replace") + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                _write_line(self.path, line)
        except OSError as error:
            raise explain(self.path, error) from None

    def read(self) -> Stored:
        """Return all whole records, and a remark for each line that is none.

        Of two records of the same run the first stands. A store that is not there yet is
        empty.

        Raises:
            RecordError: a record is of another format, or the file cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return Stored(())
        except OSError as error:
            raise RecordError(
                f"{self.path} cannot be read ({error.strerror or error}); check the path"
            ) from None
        found: dict[str, RunRecord] = {}
        remarks: list[str] = []
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            where = f"{self.path.name}: line {number}"
            try:
                record = _record(line, where)
            except _BrokenLineError as broken:
                remarks.append(f"{where} {broken} and was left out")
                continue
            if record.id in found:
                remarks.append(f"{where} repeats the run {record.id}; the first one stands")
                continue
            found[record.id] = record
        return Stored(tuple(found.values()), tuple(remarks))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from writing; the system lets go of it when a process dies."""
        with self.path.with_name(self.path.name + _LOCK_SUFFIX).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise  # else: a file system without locks
            yield


def open_runs(path: str | Path) -> RunStore:
    """Return the store of a comparison's directory, or of a file of records.

    Raises:
        RecordError: there is none.
    """
    path = Path(path)
    file = path / RECORDS if path.is_dir() else path
    if file.is_file():
        return RunStore(file)
    if not path.exists():
        raise RecordError(
            f"there is nothing at {path}; give the directory that ghostify compare wrote"
        )
    raise RecordError(f"{path} holds no {RECORDS}; give the directory that ghostify compare wrote")


class _BrokenLineError(Exception):
    """A line that is no record."""


def _record(line: bytes, where: str) -> RunRecord:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        cut = _BEGINNING.startswith(line[: len(_BEGINNING)])
        raise _BrokenLineError("is cut off" if cut else "is damaged") from None
    if not isinstance(value, dict) or "format" not in value:
        raise _BrokenLineError("is no run record")
    if value["format"] != FORMAT:
        raise RecordError(
            f"{where} is a record of format {value['format']!r}, this ghostify reads format "
            f"{FORMAT}; use the ghostify that wrote it, or compare into another directory"
        )
    try:
        return RunRecord.from_json(value)
    except RecordError as error:
        raise _BrokenLineError(f"is no whole run record ({error})") from None


def _write_line(path: Path, line: bytes) -> None:
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line  # what a killed writer left ends here
        written = os.write(handle, line)
        if written < len(line):  # a full disk: what there is of the line is taken back
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
