"""The hash of images: of names, sizes and contents, and of nothing else."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from ghostify.errors import DataError
from ghostify.runs import data_hash
from ghostify.runs.data_hash import hash_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GHOSTIFY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"one")
    (folder / "b.png").write_bytes(b"two!")
    return folder


def test_it_is_the_hash_of_sorted_names_sizes_and_contents(images: Path) -> None:
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two!"))
    expected = hashlib.sha256(f"b.png\0{4}\0{two}\ncat/1.png\0{3}\0{one}\n".encode()).hexdigest()

    assert hash_of(images) == expected


def test_it_does_not_depend_on_where_the_images_lie(images: Path, tmp_path: Path) -> None:
    before = hash_of(images)

    assert hash_of(images.rename(tmp_path / "elsewhere")) == before


def test_a_changed_file_changes_it(images: Path) -> None:
    before = hash_of(images)
    file = images / "b.png"
    file.write_bytes(b"twa!")
    os.utime(file, ns=(1, 1))

    assert hash_of(images) != before


def test_contents_are_read_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(images)

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(data_hash, "sha256_of", refuse)
    assert hash_of(images) == before


def test_one_file_can_be_all_there_is(images: Path) -> None:
    content = hashlib.sha256(b"two!").hexdigest()

    assert (
        hash_of(images / "b.png") == hashlib.sha256(f"b.png\0{4}\0{content}\n".encode()).hexdigest()
    )


def test_without_a_cache_it_still_works(images: Path, cache: Path) -> None:
    cache.write_text("in the way")

    assert re.fullmatch("[0-9a-f]{64}", hash_of(images))


def test_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="there are no images at"):
        hash_of(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no file"):
        hash_of(tmp_path / "empty")
