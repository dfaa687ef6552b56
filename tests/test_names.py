"""The public names of the package."""

from __future__ import annotations

import pkgutil

import pytest

import ghostify


@pytest.mark.parametrize("name", ghostify.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(ghostify, name).__name__ == name


def test_no_room_hides_a_public_name() -> None:
    """An imported module becomes an attribute of the package, in place of a function."""
    rooms = {found.name for found in pkgutil.iter_modules(ghostify.__path__)}

    assert not rooms & set(ghostify.__all__)
