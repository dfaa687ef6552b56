"""Results on disk: whole or not at all, the first to come stays."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from ghostify.errors import OutputError
from ghostify.plan import Plan
from ghostify.searches.scoring.cache import (
    Cache,
    Kept,
    digest_of_images,
    digest_of_network,
)
from ghostify.searches.scoring.scorer import Scorer
from ghostify.spec import GhostSpec
from tests.searches.scoring_net import pictures, small


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> Kept:
        made.append(1)
        return Kept({"a": torch.tensor([1.5, 2.0])}, {"error": 0.1})

    first = Cache(tmp_path, {"net": "x"}).kept(make, "conv", setting=2)
    second = Cache(tmp_path, {"net": "x"}).kept(make, "conv", setting=2)

    assert made == [1]
    assert torch.equal(first.tensors["a"], second.tensors["a"])
    assert second.facts == {"error": 0.1}


def test_other_keys_and_other_networks_are_other_results(tmp_path: Path) -> None:
    cache = Cache(tmp_path, {"net": "x"})

    paths = {
        cache.path("conv", setting=2),
        cache.path("conv", setting=3),
        cache.path("conv2", setting=2),
        Cache(tmp_path, {"net": "y"}).path("conv", setting=2),
    }

    assert len(paths) == 4
    assert cache.get("conv", setting=2) is None


def test_of_those_who_come_at_the_same_time_all_see_the_same(tmp_path: Path) -> None:
    """Each makes numbers of its own; what one has written is what all go on with."""
    together = threading.Barrier(6)
    seen: list[float] = []

    def work(number: int) -> None:
        def make() -> Kept:
            together.wait(timeout=20)
            return Kept({"a": torch.full((1000,), float(number))}, {})

        found = Cache(tmp_path, {}).kept(make, "conv")
        seen.append(float(found.tensors["a"].mean()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 6
    assert len(set(seen)) == 1
    assert [path.suffix for path in Cache(tmp_path, {}).directory.iterdir()] == [".safetensors"]


def score(directory: Path) -> list[float]:
    """Score two plans in a process of its own."""
    torch.set_num_threads(1)
    some = pictures()
    scorer = Scorer(
        small(), some.calibration[:1], some.calibration, some.held_back, cache=directory
    )
    plans = ({"first": GhostSpec(2, 3)}, {"first": GhostSpec(3, 3), "wide": GhostSpec(2, 3)})
    return [scorer.free(Plan(layers)).divergence for layers in plans]


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """Two that begin at the same time end with the same scores, and leave whole files alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        first, second = pool.map(score, [tmp_path, tmp_path])

    assert first == second == score(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name.rpartition("-")[0] for path in files) == ["first", "first", "wide"]


@pytest.mark.parametrize("damage", [b"", b"rubbish", b"\xff" * 64])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path, {})
    cache.kept(lambda: Kept({"a": torch.ones(3)}, {}), "conv")
    cache.path("conv").write_bytes(damage)

    found = cache.kept(lambda: Kept({"a": torch.zeros(3)}, {}), "conv")

    assert torch.equal(found.tensors["a"], torch.zeros(3))
    assert cache.get("conv") is not None


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, {})

    with pytest.raises(ZeroDivisionError):
        cache.kept(lambda: Kept({}, {"error": 1 / 0}), "conv")

    assert list(cache.directory.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(OutputError, match="cannot be written"):
        Cache(file / "cache", {})


def test_a_digest_tells_weights_and_images_apart() -> None:
    one, other = small(), small()
    with torch.no_grad():
        other.stem.weight[0, 0, 0, 0] += 1e-6
    images = torch.rand(2, 3, 8, 8)

    assert digest_of_network(one) == digest_of_network(small())
    assert digest_of_network(one) != digest_of_network(other)
    assert digest_of_images(images) != digest_of_images(images.flip(0))
