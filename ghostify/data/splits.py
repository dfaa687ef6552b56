"""What people call the parts of a set of images."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["candidates", "is_split"]

_TRAIN = ("train", "training")
_TEST = ("test",)
_VALIDATION = ("validation", "val", "valid", "eval", "dev")


def is_split(name: str) -> bool:
    """Tell whether this is a usual name of a part."""
    return name.lower() in _TRAIN + _TEST + _VALIDATION


def candidates(wanted: str, parts: Collection[str]) -> list[str]:
    """Return the parts that may be meant: the one of this name, then those of the same purpose."""
    known = {part.lower(): part for part in parts}
    names = [wanted.lower()]
    if wanted.lower() in _TRAIN:
        names += _TRAIN
    elif wanted.lower() in _TEST:
        names += _TEST + _VALIDATION
    elif wanted.lower() in _VALIDATION:
        names += _VALIDATION + _TEST
    found = [wanted] if wanted in parts else []
    return list(dict.fromkeys(found + [known[name] for name in names if name in known]))
