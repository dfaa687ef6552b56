"""Fitted weights on disk, which several processes read and write at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ghostify.errors import OutputError
from ghostify.files import explain

__all__ = ["Cache", "Kept", "digest_of_images", "digest_of_network"]

_FORMAT = 1
"""To be raised whenever the same key would give other weights."""

_PLAIN = re.compile(r"[^A-Za-z0-9_.=-]+")


@dataclass(frozen=True, slots=True)
class Kept:
    """Tensors by name, and figures about them."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Cache:
    """A directory of results, each made once and never changed.

    A result appears whole: it is written aside and linked to its place, where the first to come
    stays. Every process goes on with what lies there, so all see the same numbers even if two
    have made them at the same time. A damaged file is made anew.

    Args:
        directory: made where there is none.
        about: what every result in here depends on, such as digests of network and images.

    Raises:
        OutputError: the directory cannot be written.
    """

    def __init__(self, directory: Path, about: Mapping[str, Any]) -> None:
        text = json.dumps({**about, "format": _FORMAT}, sort_keys=True)
        self._about = hashlib.sha256(text.encode()).hexdigest()
        self.directory = directory / self._about[:16]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass
        except OSError as error:
            raise explain(directory, error) from None

    def path(self, name: str, **key: Any) -> Path:
        """Return where the result of this name and key is."""
        text = json.dumps([self._about, name, key], sort_keys=True, default=str)
        mark = hashlib.sha256(text.encode()).hexdigest()[:20]
        return self.directory / f"{_PLAIN.sub('_', name)[:80]}-{mark}.safetensors"

    def get(self, name: str, **key: Any) -> Kept | None:
        """Return a result, if it is there and whole."""
        return _read(self.path(name, **key))

    def kept(self, make: Callable[[], Kept], name: str, **key: Any) -> Kept:
        """Return a result, from the disk or from ``make`` by way of the disk.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path(name, **key)
        found = _read(path)
        if found is not None:
            return found
        damaged = path.exists()
        fresh = make()
        try:
            _write(path, fresh, replace=damaged)
        except OSError as error:
            raise explain(path, error) from None
        written = _read(path)
        if written is None:
            raise OutputError(f"{path} cannot be read again; check the disk")
        return written


def _read(path: Path) -> Kept | None:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return Kept(tensors, facts)


def _write(path: Path, value: Kept, *, replace: bool) -> None:
    tensors = {name: one.detach().cpu().contiguous().clone() for name, one in value.tensors.items()}
    with _aside(path) as aside:
        save_file(tensors, aside, metadata={"facts": json.dumps(dict(value.facts))})
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        if replace:
            aside.replace(path)
            return
        try:
            path.hardlink_to(aside)
        except FileExistsError:  # another process was quicker
            return
        except OSError:  # a file system without links
            aside.replace(path)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    os.close(number)
    aside = Path(name)
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def digest_of_network(model: nn.Module) -> str:
    """Return the SHA-256 of a network's layers and state."""
    total = hashlib.sha256(str(model).encode())
    _digest(total, model.state_dict().items())
    return total.hexdigest()


def digest_of_images(images: Tensor) -> str:
    """Return the SHA-256 of a batch of images."""
    total = hashlib.sha256()
    _digest(total, [("", images)])
    return total.hexdigest()


def _digest(total: Any, values: Iterable[tuple[str, object]]) -> None:
    for name, value in values:
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().view(-1)
            total.update(f"{name}:{tuple(value.shape)}:{value.dtype}\n".encode())
            total.update(flat.view(torch.uint8).numpy().data)
