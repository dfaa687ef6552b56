"""Saved networks come back bit for bit, and damage is noticed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

import ghostify
from ghostify.artefact import load_original, save_trained
from ghostify.errors import ArtefactError, ModelError, OutputError
from ghostify.files import MANIFEST
from ghostify.manifest import parse_manifest
from ghostify.models.zoo import build
from tests.graph import networks

IMAGE = torch.randn(1, 3, 32, 32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[ghostify.Conversion, Path]:
    conversion = ghostify.convert("resnet20_cifar", seed=4)
    folder = tmp_path_factory.mktemp("artefact") / "out"
    ghostify.save(conversion, folder)
    return conversion, folder


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_network_comes_back_bit_for_bit(saved: tuple[ghostify.Conversion, Path]) -> None:
    conversion, folder = saved

    model = ghostify.load(folder)

    assert type(model) is type(conversion.model)
    assert model.training == conversion.model.training
    assert list(model.state_dict()) == list(conversion.model.state_dict())
    assert torch.equal(model.eval()(IMAGE), conversion.model.eval()(IMAGE))


def test_it_comes_back_in_another_process(
    saved: tuple[ghostify.Conversion, Path], tmp_path: Path
) -> None:
    conversion, folder = saved
    torch.save(IMAGE, tmp_path / "image.pt")
    script = (
        "import sys, torch, ghostify\n"
        "model = ghostify.load(sys.argv[1]).eval()\n"
        "torch.save(model(torch.load(sys.argv[2] + '/image.pt')), sys.argv[2] + '/out.pt')\n"
    )

    subprocess.run([sys.executable, "-c", script, folder, tmp_path], check=True)

    found = torch.load(tmp_path / "out.pt")
    assert torch.allclose(found, conversion.model.eval()(IMAGE), atol=1e-6)


def test_the_manifest_says_how_it_was_made(saved: tuple[ghostify.Conversion, Path]) -> None:
    conversion, folder = saved

    manifest = json.loads((folder / "ghostify.json").read_text())

    assert sorted(file.name for file in folder.iterdir()) == [
        "ghostify.json",
        "model.safetensors",
        "summary.md",
    ]
    assert manifest["format"] == 1
    assert manifest["model"] == {"source": "ghostify", "name": "resnet20_cifar", "args": {}}
    assert manifest["seed"] == 4
    assert manifest["before"] == {"params": 269722, "macs": 40551040}
    assert manifest["plan"]["layers"]["layer1.0.conv1"] == {"ratio": 2, "kernel": 3}
    assert {"ghostify", "torch", "python"} <= set(manifest["versions"])
    assert "| layer1.0.conv1 | 2 | 3 |" in (folder / "summary.md").read_text()
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(conversion.model.state_dict())


def test_the_same_conversion_gives_the_same_bytes(
    saved: tuple[ghostify.Conversion, Path], tmp_path: Path
) -> None:
    again = ghostify.save(ghostify.convert("resnet20_cifar", seed=4), tmp_path / "again")

    for file in saved[1].iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["ghostify.json", "model.safetensors", "summary.md"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_flipped_byte_is_noticed(
    saved: tuple[ghostify.Conversion, Path], tmp_path: Path, name: str, where: float
) -> None:
    folder = copied(saved[1], tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    place = int(where * len(content))
    while chr(content[place]).isspace():
        place += 1
    content[place] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(ArtefactError, match=r"is damaged|has format"):
        ghostify.load(folder)


def test_a_missing_file_is_named(saved: tuple[ghostify.Conversion, Path], tmp_path: Path) -> None:
    folder = copied(saved[1], tmp_path / "copy")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ArtefactError, match=r"is incomplete: model.safetensors is missing"):
        ghostify.load(folder)
    with pytest.raises(ArtefactError, match="is no artefact of ghostify"):
        ghostify.load(tmp_path)


def test_another_format_is_refused(saved: tuple[ghostify.Conversion, Path], tmp_path: Path) -> None:
    folder = copied(saved[1], tmp_path / "copy")
    manifest = json.loads((folder / "ghostify.json").read_text()) | {"format": 99}
    (folder / "ghostify.json").write_text(json.dumps(manifest))

    with pytest.raises(ArtefactError, match="has format 99, this version of ghostify reads 1"):
        ghostify.load(folder)


@pytest.mark.parametrize("model", [networks.plain(), networks.Shared(), networks.Tied()])
def test_a_network_in_memory_comes_back_with_its_base(model: nn.Module, tmp_path: Path) -> None:
    image = torch.randn(1, 3, 16, 16)
    conversion = ghostify.convert(model, example=image)
    ghostify.save(conversion, tmp_path / "out")
    other = type(model)() if type(model) is not nn.Sequential else networks.plain()

    again = ghostify.load(tmp_path / "out", base=other).eval()

    expected = conversion.model.eval()(image)
    found = again(image)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    assert all(torch.equal(one, two) for one, two in pairs)
    if isinstance(model, networks.Tied):
        assert again.coarse.primary.weight is again.fine.primary.weight


def test_a_network_in_memory_needs_its_base(tmp_path: Path) -> None:
    conversion = ghostify.convert(networks.plain(), example=torch.randn(1, 3, 16, 16))
    ghostify.save(conversion, tmp_path / "out")

    with pytest.raises(ModelError, match=r"pass it as ghostify.load\(path, base=model\)"):
        ghostify.load(tmp_path / "out")
    with pytest.raises(ArtefactError, match="does not fit the network"):
        ghostify.load(tmp_path / "out", base=networks.TwoInputs())
    with pytest.raises(ArtefactError, match="another network"):
        ghostify.load(tmp_path / "out", base=networks.plain(channels=4))


def test_a_base_of_another_type_is_refused(tmp_path: Path) -> None:
    conversion = ghostify.convert(networks.plain().double(), input_size=(3, 16, 16))
    ghostify.save(conversion, tmp_path / "out")

    with pytest.raises(ArtefactError, match=r"torch.float64, its network's is torch.float32"):
        ghostify.load(tmp_path / "out", base=networks.plain())
    assert ghostify.load(tmp_path / "out", base=networks.plain().double())


def test_a_plan_alone_applies_to_another_checkpoint(
    saved: tuple[ghostify.Conversion, Path], tmp_path: Path
) -> None:
    (tmp_path / "ghostify.json").write_bytes((saved[1] / "ghostify.json").read_bytes())

    conversion = ghostify.convert("resnet20_cifar", plan=tmp_path / "ghostify.json", seed=9)

    assert conversion.plan.digest == saved[0].plan.digest


def test_an_existing_directory_is_not_replaced(
    saved: tuple[ghostify.Conversion, Path], tmp_path: Path
) -> None:
    folder = ghostify.save(saved[0], tmp_path / "out")
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(OutputError, match="exists already; use --force"):
        ghostify.save(saved[0], folder)

    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert ghostify.save(saved[0], folder, force=True) == folder
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]


def test_a_failure_half_way_leaves_what_was_there(
    saved: tuple[ghostify.Conversion, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ghostify.save(saved[0], tmp_path / "deep" / "out")
    before = (folder / "ghostify.json").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    for target in (folder, tmp_path / "new" / "place" / "out"):
        with pytest.raises(OutputError, match="no space is left to write"):
            ghostify.save(saved[0], target, force=True)

    assert (folder / "ghostify.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["deep"]
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Stateful(nn.Sequential):
        def get_extra_state(self) -> Any:
            return {"step": 3}

        def set_extra_state(self, state: Any) -> None:
            pass

    model = Stateful(*networks.plain())
    conversion = ghostify.convert(model, example=torch.randn(1, 3, 16, 16))

    with pytest.raises(ArtefactError, match="_extra_state in the state dict is a dict"):
        ghostify.save(conversion, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def trained_conversion() -> ghostify.Conversion:
    conversion = ghostify.convert("resnet20_cifar", seed=4, verify=False)
    original = build("resnet20_cifar", seed=11).model.state_dict()
    images = {"channels": 3, "size": [32, 32]}
    return dataclasses.replace(
        conversion,
        original=original,
        images=images,
        history=({"kind": "fit", "what": "fit: 8 images"},),
    )


def test_the_original_comes_back_too(tmp_path: Path) -> None:
    conversion = trained_conversion()
    ghostify.save(conversion, tmp_path / "out")

    original = load_original(tmp_path / "out")

    assert conversion.original is not None
    found = original.state_dict()
    assert list(found) == list(conversion.original)
    assert all(torch.equal(found[name], conversion.original[name]) for name in found)


def test_an_artefact_without_its_original_says_so(
    saved: tuple[ghostify.Conversion, Path],
) -> None:
    with pytest.raises(ArtefactError, match="--teacher NAME --teacher-weights FILE"):
        load_original(saved[1])


def test_an_original_that_shares_weights_comes_back(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    model.append(model[1])
    conversion = ghostify.convert(model, example=torch.zeros(1, 3, 8, 8), verify=False)
    conversion = dataclasses.replace(conversion, original=model.state_dict())
    ghostify.save(conversion, tmp_path / "out")

    back = load_original(tmp_path / "out", base=model)

    assert back is not model
    assert torch.equal(back[2].weight, model[1].weight)


def test_trained_weights_go_into_a_new_artefact(tmp_path: Path) -> None:
    conversion = trained_conversion()
    ghostify.save(conversion, tmp_path / "out")
    model = ghostify.load(tmp_path / "out")
    with torch.no_grad():
        model.linear.bias.fill_(3.0)

    save_trained(
        tmp_path / "out", model, tmp_path / "tuned", entry={"kind": "train", "what": "train: x"}
    )

    first, second = (parse_manifest(tmp_path / name / MANIFEST) for name in ("out", "tuned"))
    assert second.history == (*first.history, {"kind": "train", "what": "train: x"})
    assert second.images == conversion.images
    assert (second.plan, second.seed, second.before) == (first.plan, first.seed, first.before)
    assert torch.equal(ghostify.load(tmp_path / "tuned").linear.bias, torch.full((10,), 3.0))
    load_original(tmp_path / "tuned")
    old, new = ((tmp_path / name / "summary.md").read_text() for name in ("out", "tuned"))
    assert old.startswith(new.partition("MACs are multiply-adds")[0])
    assert new.endswith("What was done to the weights:\n\n- fit: 8 images\n- train: x\n")


def test_an_order_of_maps_comes_back(tmp_path: Path) -> None:
    conversion = ghostify.convert("resnet20_cifar", verify=False)
    ghost = conversion.model.get_submodule("layer1.0.conv1")
    order = torch.randperm(16)
    ghost.reorder(order)
    ghostify.save(conversion, tmp_path / "out")

    back = ghostify.load(tmp_path / "out")

    assert torch.equal(back.get_submodule("layer1.0.conv1").order, order)
    assert torch.equal(back.eval()(IMAGE), conversion.model.eval()(IMAGE))
