"""Read YAML that people write: safely, and with mistakes named by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ghostify.errors import DataFileError

__all__ = ["read_yaml"]


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise DataFileError(f"{name} stands twice in line {line}; leave one out")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, *, kind: str, error: type[DataFileError] = DataFileError) -> Any:
    """Return what a YAML (or JSON) file holds.

    Args:
        kind: what the file is for, such as "plan".
        error: what to raise.

    Raises:
        DataFileError: or rather ``error``: the file is missing, unreadable or not valid YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError:
        raise error(f"no such {kind}: {path}; give the path of a YAML or JSON file") from None
    except OSError as failure:
        raise error(f"cannot read the {kind} {path}: {failure.strerror or failure}") from None
    except DataFileError as failure:
        raise error(f"{path}: {failure}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as failure:
        mark = getattr(failure, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise error(f"{path}{line}: not valid YAML; mend the file") from None
