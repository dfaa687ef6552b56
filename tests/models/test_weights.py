"""Checkpoints: read without running them, loaded whole or not at all."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ghostify.errors import WeightsError
from ghostify.models.weights import load_weights, read_checkpoint


def net() -> nn.Module:
    return nn.ModuleDict(
        {"conv": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8), "fc": nn.Linear(8, 4)}
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def wrapped(kind: str, state: dict[str, torch.Tensor]) -> Any:
    return {
        "bare": state,
        "state_dict": {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        "model": {"model": state, "args": argparse.Namespace(lr=0.1), "best": numpy.float64(1)},
        "data parallel": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        "compiled": {f"_orig_mod.module.{k}": v for k, v in state.items()},
        "lightning": {"state_dict": {f"net.{k}": v for k, v in state.items()}, "callbacks": {}},
    }[kind]


@pytest.mark.parametrize(
    "kind", ["bare", "state_dict", "model", "data parallel", "compiled", "lightning"]
)
@pytest.mark.parametrize("suffix", [".pth", ".th", ".pt"])
def test_checkpoints_of_many_trainers_load(tmp_path: Path, kind: str, suffix: str) -> None:
    trained, fresh = net(), net()
    torch.save(wrapped(kind, trained.state_dict()), tmp_path / f"w{suffix}")

    load_weights(fresh, tmp_path / f"w{suffix}")

    assert same(trained, fresh)


def test_safetensors_load(tmp_path: Path) -> None:
    trained, fresh = net(), net()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")

    load_weights(fresh, tmp_path / "w.safetensors")

    assert same(trained, fresh)


def test_a_checkpoint_without_batch_counts_loads(tmp_path: Path) -> None:
    trained, fresh = net(), net()
    state = {k: v for k, v in trained.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pth")

    load_weights(fresh, tmp_path / "w.pth")

    assert same(trained, fresh)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = net().state_dict()
    state["cnv.weight"] = state.pop("conv.weight")
    state["fc.weight"] = torch.zeros(10, 8)
    torch.save(state, tmp_path / "w.pth")
    fresh = net()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}

    with pytest.raises(WeightsError) as error:
        load_weights(fresh, tmp_path / "w.pth", name="net")

    message = str(error.value)
    assert "does not fit net: of its keys 1 missing (conv.weight)" in message
    assert "1 unexpected (cnv.weight; did you mean conv.weight?)" in message
    assert "1 of another shape (fc.weight: 10x8 for 4x8)" in message
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


class Bomb:
    """A pickle of this would write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "boom")


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": net().state_dict(), "x": Bomb(tmp_path / "boom")}, tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))

    for file in ("w.pth", "plain.pth"):
        with pytest.raises(
            WeightsError, match=r"could run code, and is refused; save model\.state"
        ):
            read_checkpoint(tmp_path / file)
    assert not (tmp_path / "boom").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "w.pth")

    with pytest.raises(WeightsError, match="is refused"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, suffix: str, damage: str) -> None:
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(net().state_dict(), file)
    else:
        save_file(net().state_dict(), file)
    whole = file.read_bytes()
    file.write_bytes(
        {"truncated": whole[: len(whole) // 2], "garbage": b"x" * 999, "empty": b""}[damage]
    )

    with pytest.raises(WeightsError) as error:
        read_checkpoint(file)

    assert "is damaged or of an unknown format" in str(error.value)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_any_protocol_are_refused_as_code(tmp_path: Path, protocol: int) -> None:
    bomb = {"state_dict": {}, "x": Bomb(tmp_path / "boom")}
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(bomb, protocol=protocol))
    torch.save(bomb, tmp_path / "zip.pth", pickle_protocol=protocol)

    for file in ("plain.pth", "zip.pth"):
        with pytest.raises(WeightsError, match="could run code, and is refused"):
            read_checkpoint(tmp_path / file)
    assert not (tmp_path / "boom").exists()


def test_a_flipped_byte_among_the_weights_is_noticed(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(1000)}, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "w.pth").write_bytes(content)

    with pytest.raises(WeightsError, match="is damaged"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.complex64), "is of type torch.complex64 for torch.float32"),
        (lambda w: w > 0, "is of type torch.bool for torch.float32"),
        (lambda w: w.to("meta"), "has no values"),
        (lambda w: w.to_sparse(), "is sparse"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_weights_that_would_lose_their_meaning_are_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    state = net().state_dict()
    state["conv.weight"] = change(state["conv.weight"])
    torch.save(state, tmp_path / "w.pth")

    with pytest.raises(WeightsError, match=message):
        load_weights(net(), tmp_path / "w.pth")


def test_half_precision_weights_load(tmp_path: Path) -> None:
    trained, fresh = net().half().float(), net()
    torch.save({k: v.half() for k, v in trained.state_dict().items()}, tmp_path / "w.pth")

    load_weights(fresh, tmp_path / "w.pth")

    assert torch.equal(fresh["conv"].weight, trained["conv"].weight)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds no state dict but a list"),
        ({"epoch": 3, "lr": 0.1}, "holds no state dict but a dict of epoch, lr"),
        ({}, "holds no state dict but a dict"),
    ],
)
def test_a_file_without_weights_says_what_is_in_it(
    tmp_path: Path, value: Any, message: str
) -> None:
    torch.save(value, tmp_path / "w.pth")

    with pytest.raises(WeightsError) as error:
        read_checkpoint(tmp_path / "w.pth")

    assert message in str(error.value)


def test_a_missing_checkpoint_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is a directory"):
        read_checkpoint(tmp_path)
