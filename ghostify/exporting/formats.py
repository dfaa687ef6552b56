"""The file formats by name and by the ends of file names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ghostify.errors import ExportError, RuntimeMissingError, nearest

if TYPE_CHECKING:
    from ghostify.exporting.base import Format

__all__ = ["FORMATS", "find_format", "format_name", "installed_formats"]

FORMATS: dict[str, tuple[str, str]] = {
    "onnx": (".onnx", "ghostify.exporting.onnx:Onnx"),
    "pt2": (".pt2", "ghostify.exporting.pt2:Pt2"),
    "openvino": (".xml", "ghostify.exporting.openvino:OpenVino"),
    "litert": (".tflite", "ghostify.exporting.litert:LiteRt"),
    "executorch": (".pte", "ghostify.exporting.executorch:ExecuTorch"),
}
"""How the files of a format end, and where its code is."""


def format_name(file: Path, name: str | None = None) -> str:
    """Return the format that a user means by a file's name, or by both.

    Raises:
        ExportError: no such format, or the file's name is another format's.
    """
    listed = ", ".join(f"{one} ({suffix})" for one, (suffix, _) in FORMATS.items())
    if name is None:
        for one, (suffix, _) in FORMATS.items():
            if file.suffix.lower() == suffix:
                return one
        raise ExportError(
            f"the name {file.name} does not say its format; give --format, or one of these "
            f"endings: {listed}"
        )
    if name not in FORMATS:
        there = installed_formats()
        usable = ", ".join(one for one, here in there.items() if here)
        others = ", ".join(one for one, here in there.items() if not here)
        raise ExportError(
            f"no format is called {name!r}{nearest(name, FORMATS)} (usable here: {usable}"
            + (f"; not installed: {others})" if others else ")")
        )
    suffix = FORMATS[name][0]
    if file.suffix.lower() != suffix:
        raise ExportError(
            f"files of the format {name} end in {suffix} (got {file.name}); "
            f"name it {file.with_suffix(suffix).name if file.name else 'model' + suffix}"
        )
    return name


def find_format(name: str) -> Format:
    """Return a format by name, ready to be used.

    Raises:
        RuntimeMissingError: its packages are not installed.
    """
    found = _adapter(name)
    why = found.missing()
    if why is not None:
        raise RuntimeMissingError(f"the format {name} cannot be written here: {why}")
    return found


def installed_formats() -> dict[str, bool]:
    """Return the known formats, and whether each can be written here."""
    return {name: _adapter(name).missing() is None for name in FORMATS}


def _adapter(name: str) -> Format:
    module, _, attribute = FORMATS[name][1].partition(":")
    adapter: Format = getattr(importlib.import_module(module), attribute)()
    return adapter
