"""Activations that are kept in memory up to a limit, and on disk beyond it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ghostify.errors import OutputError
from ghostify.graph.store import Store


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_fits_is_kept_as_it_is() -> None:
    store = Store(1000)
    one = torch.randn(100)

    kept = store.keep({"a": one, "b": [3, "text", None]})

    assert kept["a"] is one
    assert kept["b"] == [3, "text", None]
    assert store.peak_bytes == 400


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_what_does_not_fit_is_mapped_with_the_same_values(disk: Path, dtype: torch.dtype) -> None:
    store = Store(0)
    one = (torch.randn(3, 4, 5) * 10).to(dtype)

    kept = store.keep(one)

    assert kept is not one
    assert torch.equal(kept, one)
    assert kept.dtype == dtype
    assert kept.stride() == one.stride()
    assert list(disk.iterdir()) == []
    assert store.peak_bytes == 0


def test_the_strides_of_a_spilled_tensor_are_those_of_a_copy(disk: Path) -> None:
    """Convolutions choose their arithmetic by them, so the last bits would change."""
    store = Store(0)
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for one in (last, last[:, :2], torch.randn(1, 3, 1).expand(2, 3, 4), torch.randn(6)[::2]):
        assert store.keep(one).stride() == one.clone().stride()
        assert torch.equal(store.keep(one), one)


def test_room_that_is_given_back_is_used_again(disk: Path) -> None:
    store = Store(1000)
    first = store.keep(torch.randn(200))
    beyond = torch.randn(200)
    assert store.keep(beyond) is not beyond

    store.release([first])
    fits = torch.randn(250)

    assert store.keep(fits) is fits
    assert store.peak_bytes == 1000


def test_releasing_twice_or_what_was_never_kept_gives_no_room_away(disk: Path) -> None:
    store = Store(800)
    first = store.keep(torch.randn(200))
    store.release(first)
    store.release(first)
    store.release(torch.randn(1000))
    second = store.keep(torch.randn(200))
    more = torch.randn(1)

    assert second.data_ptr()
    assert store.keep(more) is not more


def test_the_peak_is_bounded_however_much_is_kept(disk: Path) -> None:
    store = Store(5000)
    held = []
    for size in range(1, 60):
        held.append(store.keep(torch.full((size * 10,), float(size))))

    assert store.peak_bytes <= 5000
    for size, one in enumerate(held, 1):
        assert torch.equal(one, torch.full((size * 10,), float(size)))


def test_an_empty_tensor_needs_no_room(disk: Path) -> None:
    assert Store(0).keep(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no such call here")
def test_a_full_disk_is_said_in_one_sentence(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(OutputError, match=r"no room for 4000 bytes of activations in .* TMPDIR"):
        Store(0).keep(torch.randn(1000))
    assert list(disk.iterdir()) == []
