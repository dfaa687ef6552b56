"""Where a study is kept: SQLite, a journal file, a database server, or a gRPC proxy.

A server that is away is waited for: every call is tried again until it is back, so that
workers need not know.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from ghostify.errors import StorageError

__all__ = ["Patience", "calm", "close_storage", "masked", "open_storage", "storage_url"]

optuna.logging.set_verbosity(optuna.logging.ERROR)

_log = logging.getLogger(__name__)

_DRIVERS = {
    "postgresql+psycopg": ("psycopg", "postgres"),
    "postgresql+psycopg2": ("psycopg2", ""),
    "mysql+pymysql": ("pymysql", "mysql"),
    "mysql+mysqldb": ("MySQLdb", ""),
    "mysql+mysqlconnector": ("mysql.connector", ""),
    "mariadb+pymysql": ("pymysql", "mysql"),
}
"""Module and extra of each driver that is known."""

_PLAIN = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_GRPC_PORT = 13000
_BUSY_S = 60.0
_LONGEST_PAUSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server that does not answer is waited for, and who is told of it."""

    first_s: float = 10.0  # until it has answered once
    later_s: float = 900.0
    on_wait: Callable[[str], None] | None = None  # called with what is wrong


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Keep to itself what Optuna calls experimental, and that CMA-ES ignores constraints.

    All plans that a sampler is shown hold them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Constraints have been set")
        yield


def storage_url(text: str | None, folder: Path) -> str:
    """Return the full URL of a storage; without any, that of SQLite in the run directory.

    Raises:
        StorageError: it is no URL, or of a kind that is not known.
    """
    if text is None:
        return f"sqlite:///{folder.resolve() / 'study.db'}"
    if text.startswith("journal://"):
        return f"journal://{Path(text.removeprefix('journal://')).resolve()}"
    if "://" not in text:
        path = Path(text).resolve()
        if path.suffix in (".journal", ".log"):
            return f"journal://{path}"
        if path.suffix in (".db", ".sqlite", ".sqlite3"):
            return f"sqlite:///{path}"
        raise StorageError(
            f"a storage is a URL such as postgresql://user@host/name or grpc://host:13000, or a "
            f"file that ends in .db or .journal (got {text!r})"
        )
    return _with_driver(text)


def _with_driver(url: str) -> str:
    scheme, rest = url.split("://", 1)
    return f"{_PLAIN.get(scheme, scheme)}://{rest}"


def masked(url: str) -> str:
    """Return a URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def open_storage(url: str, *, patience: Patience | None = None) -> BaseStorage:
    """Open a storage by its URL, full as :func:`storage_url` gives it or of a server.

    Raises:
        StorageError: its driver is missing, it cannot be reached, or not be written.
    """
    patience = patience or Patience()
    url = _with_driver(url)
    kind = url.split("://", 1)[0]
    make: Callable[[], BaseStorage]
    if kind == "journal":
        path = url.removeprefix("journal://")
        make = functools.partial(_journal, path)
    elif kind == "grpc":
        make = functools.partial(_proxy, url, patience.first_s)
    else:
        _check_driver(kind, url)
        make = functools.partial(_database, url)
    try:
        with calm():
            storage: BaseStorage = _patient(make, patience.first_s, patience.on_wait)()
    except StorageError:
        raise
    except Exception as error:
        raise _explained(url, error) from error
    return _with_patience(storage, url, patience)


def close_storage(storage: BaseStorage) -> None:
    """Give up the connections to a server or file."""
    with contextlib.suppress(Exception):  # they may be gone already
        storage.remove_session()
        engine = getattr(getattr(storage, "_backend", storage), "engine", None)
        if engine is not None:
            engine.dispose()
        getattr(storage, "close", lambda: None)()


def _journal(path: str) -> BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    return JournalStorage(JournalFileBackend(path))


def _proxy(url: str, seconds: float) -> BaseStorage:
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise StorageError("grpc:// needs gRPC; pip install 'ghostify[grpc]'")
    match = re.fullmatch(r"grpc://(?P<host>[^:/]+|\[[^\]]+\])(:(?P<port>\d+))?/?", url)
    if match is None:
        raise StorageError(f"a gRPC proxy is written grpc://host:port (got {url!r})")
    storage = optuna.storages.GrpcStorageProxy(
        host=match["host"], port=int(match["port"] or _GRPC_PORT)
    )
    storage.wait_server_ready(timeout=seconds)
    return storage


def _database(url: str) -> BaseStorage:
    import sqlalchemy

    engine: dict[str, Any] = {"pool_pre_ping": True}
    lite = url.startswith("sqlite")
    if lite:
        engine["connect_args"] = {"timeout": _BUSY_S}
        _make_ready(url)
    storage = optuna.storages.RDBStorage(url, engine_kwargs=engine)
    if lite:

        @sqlalchemy.event.listens_for(storage.engine, "connect")
        def _connected(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver begins no transactions of its own
            connection.execute("PRAGMA synchronous=NORMAL")  # enough beside a write-ahead log

        @sqlalchemy.event.listens_for(storage.engine, "begin")
        def _begun(connection: Any) -> None:
            # Else two workers may read that a trial waits before either writes that it runs.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        storage.engine.dispose()  # connections made before that
    return optuna.storages.get_storage(storage)  # with a cache in front


def _make_ready(url: str) -> None:
    """Let readers and a writer of a new SQLite file not lock each other out."""
    path = Path(url.removeprefix("sqlite:///"))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE ghostify_probe (one INTEGER)")  # is it writable?
        connection.execute("ROLLBACK")  # no other worker sees it
    finally:
        connection.close()


def _check_driver(kind: str, url: str) -> None:
    if kind == "sqlite":
        return
    if kind not in _DRIVERS:
        known = ", ".join(["sqlite", "journal", "grpc", "postgresql", "mysql"])
        raise StorageError(f"no storage is called {kind!r} (got {masked(url)}); known are {known}")
    module, extra = _DRIVERS[kind]
    if find_spec(module.partition(".")[0]) is None:
        remedy = f"pip install 'ghostify[{extra}]'" if extra else f"install {module}"
        raise StorageError(f"{kind}:// needs the package {module}; {remedy}")


def _with_patience(storage: BaseStorage, url: str, patience: Patience) -> BaseStorage:
    """Let each call of a storage wait for a server that is away."""
    for name in _calls(storage):
        call = _patient(getattr(storage, name), patience.later_s, patience.on_wait)
        setattr(storage, name, _explaining(call, url))
    return storage


def _calls(storage: BaseStorage) -> list[str]:
    return [
        name
        for name in vars(BaseStorage)
        if not name.startswith("_") and callable(getattr(storage, name, None))
        if name not in ("remove_session", "check_trial_is_updatable")
    ]


def _patient(
    call: Callable[..., Any], seconds: float, on_wait: Callable[[str], None] | None
) -> Callable[..., Any]:
    @functools.wraps(call)
    def patiently(*args: Any, **keywords: Any) -> Any:
        began, pause, told = time.monotonic(), 0.1, False
        while True:
            try:
                return call(*args, **keywords)
            except Exception as error:
                if not _passing(error) or time.monotonic() - began + pause > seconds:
                    raise
                _log.info("the storage does not answer: %s", error)
                if on_wait is not None and not told and time.monotonic() - began > 1:
                    on_wait("the storage does not answer; waiting for it")
                    told = True
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    return patiently


def _explaining(call: Callable[..., Any], url: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def explained(*args: Any, **keywords: Any) -> Any:
        try:
            return call(*args, **keywords)
        except (StorageInternalError, OSError) as error:
            raise _explained(url, error) from error
        except Exception as error:
            if _passing(error):
                raise _explained(url, error) from error
            raise

    return explained


def _passing(error: BaseException | None) -> bool:
    """Return whether an error may pass: a server is away, starts, or a file is locked."""
    import sqlalchemy.exc

    if isinstance(error, StorageInternalError):
        return _passing(error.__cause__)
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if isinstance(error.orig, sqlite3.Error):
            return "locked" in str(error.orig) or "busy" in str(error.orig)
        if error.connection_invalidated:
            return True
        return isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error) or "busy" in str(error)
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return True
    if type(error).__module__.startswith("grpc"):
        code = getattr(getattr(error, "code", lambda: None)(), "name", "")
        behind = code == "UNKNOWN" and "Exception calling application" in str(error)
        return code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED") or behind
    return False


def _explained(url: str, error: BaseException) -> StorageError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        return StorageError(f"{path} cannot be used ({line}); choose another directory by -o")
    return StorageError(
        f"the storage {masked(url)} cannot be used ({masked(line)}); start it, or check the URL"
    )
