"""The directory of a search: what it is about, so that nothing else is mixed into it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ghostify.errors import OutputError, SearchError
from ghostify.files import explain

__all__ = ["RUN_FILE", "About", "open_run", "put", "put_json", "read_run", "refuse_other"]

RUN_FILE = "search.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class About:
    """What a run directory says of its search.

    ``identity`` decides which trials may stand beside each other; ``settings`` say how the work
    is done, and ``request`` how network and images are opened again.
    """

    identity: Mapping[str, Any]
    settings: Mapping[str, Any]
    request: Mapping[str, Any]
    variables: tuple[Mapping[str, Any], ...]
    original: Mapping[str, float]
    limits: Mapping[str, float]
    provenance: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The network's name, as plan files give it."""
        return str(self.identity["model"]).removeprefix("ghostify:")

    @property
    def of_arguments(self) -> bool:
        """Whether arguments are chosen that build a network, rather than settings of layers."""
        return any("values" in one for one in self.variables)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "format": _FORMAT,
            **{name: getattr(self, name) for name in ("identity", "settings", "request")},
            "original": dict(self.original),
            "limits": dict(self.limits),
            "variables": list(self.variables),
            "provenance": dict(self.provenance),
        }


def open_run(path: Path) -> About | None:
    """Make the directory of a run where there is none; return what is said there, if anything.

    Raises:
        OutputError: it cannot be written, or holds something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        about = read_run(path) if (path / RUN_FILE).is_file() else None
        strange = [one.name for one in path.iterdir() if not one.name.startswith(".")]
        if about is None and set(strange) - {"cache", "study.db", "study.db-wal", "study.db-shm"}:
            raise OutputError(
                f"{path} holds something that is no search ({strange[0]}); choose another "
                "directory by -o"
            )
        with tempfile.NamedTemporaryFile(dir=path, prefix=".probe-"):
            pass
    except OutputError:
        raise
    except OSError as error:
        raise explain(path, error) from None
    return about


def read_run(path: Path) -> About:
    """Read what a run directory says of its search.

    Raises:
        SearchError: it is none, or of another format.
    """
    file = path / RUN_FILE
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SearchError(
            f"{path} is no search (it has no {RUN_FILE}); give the directory after -o of "
            "ghostify search"
        ) from None
    except OSError as error:
        raise SearchError(f"{file} cannot be read: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise SearchError(f"{file} is damaged; search again into another directory") from None
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise SearchError(f"{file} is of another format; search again with this version")
    try:
        return About(
            identity=value["identity"],
            settings=value["settings"],
            request=value["request"],
            variables=tuple(value["variables"]),
            original=value["original"],
            limits=value["limits"],
            provenance=value["provenance"],
        )
    except (KeyError, TypeError) as error:
        raise SearchError(f"{file} is damaged ({error}); search again elsewhere") from None


def refuse_other(mine: Mapping[str, Any], theirs: Mapping[str, Any], *, where: str) -> None:
    """Make sure that a search is the one that was begun.

    Raises:
        SearchError: it is not; each difference is told.
    """
    names = [name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]
    if not names:
        return
    told = "; ".join(
        f"{name}: {_short(theirs.get(name))} there, {_short(mine.get(name))} here" for name in names
    )
    raise SearchError(
        f"{where} belongs to another search ({told}); repeat the command as it was, or choose "
        "another directory by -o and another name by --study"
    )


def put_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    put(path, (json.dumps(value, indent=1) + "\n").encode())


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise explain(path, error) from None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
