"""Converted networks on disk: a directory of JSON, safetensors and a summary; no pickle."""

from __future__ import annotations

import copy
import errno
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostify.errors import ArtefactError, ModelError, PlanError
from ghostify.files import MANIFEST, fresh_directory, sha256_of
from ghostify.manifest import Manifest, parse_manifest
from ghostify.spec import Origin

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ghostify.graph.rewrite import Conversion

__all__ = [
    "ORIGINAL",
    "load",
    "load_original",
    "save",
    "save_trained",
]

ORIGINAL = "original.safetensors"
"""The network's weights before its conversion, where it was trained: a teacher for it."""

_WEIGHTS = "model.safetensors"
_SUMMARY = "summary.md"


def save(
    conversion: Conversion,
    path: str | Path,
    *,
    force: bool = False,
) -> Path:
    """Write a converted network to the directory ``path``: whole, or not at all.

    ``ghostify.json`` tells how to build it (the base model, the plan, versions, costs, what
    was done to the weights), ``model.safetensors`` holds its state dict, ``summary.md`` is a
    table for people, and ``original.safetensors`` holds the network before, if it was trained.
    The same conversion gives the same bytes.

    Raises:
        ArtefactError: the state dict holds something that is no tensor.
        OutputError: the directory exists (and not ``force``), or cannot be written.
    """
    from ghostify.summary import summary

    model = conversion.model
    manifest = Manifest(
        origin=conversion.origin,
        plan=conversion.plan,
        seed=conversion.seed,
        training=model.training,
        modes={
            name: module.training
            for name, module in model.named_modules()
            if module.training != model.training
        },
        input=conversion.input,
        before=conversion.before,
        after=conversion.after,
        skipped=tuple((skip.name, skip.reason) for skip in conversion.skipped),
        aliases={},
        versions={},
        files={},
        images=conversion.images,
        history=conversion.history,
        stages=conversion.stages,
    )
    page = summary(conversion)
    return _write(Path(path), manifest, model, page, conversion.original, force=force)


def save_trained(
    source: str | Path,
    model: nn.Module,
    path: str | Path,
    *,
    entry: Mapping[str, Any],
    images: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write the artefact ``source`` anew to ``path``, with the weights that it has learnt.

    Args:
        model: the network of ``source``, trained.
        entry: what was done to the weights: ``kind``, ``what`` (a sentence), and figures.
        images: how the network wants its images, if that has changed.

    Raises:
        ArtefactError: ``source`` is damaged.
        OutputError: as :func:`save`.
    """
    from safetensors.torch import load_file

    from ghostify.summary import renewed

    source = Path(source)
    manifest = parse_manifest(source / MANIFEST)
    history = (*manifest.history, entry)
    original = None
    if ORIGINAL in manifest.files:
        _check_file(source, ORIGINAL, manifest.files[ORIGINAL])
        original = load_file(source / ORIGINAL)
    _check_file(source, _SUMMARY, manifest.files[_SUMMARY])
    page = renewed((source / _SUMMARY).read_text(encoding="utf-8"), history, seed=manifest.seed)
    manifest = replace(manifest, history=history, images=images or manifest.images)
    return _write(Path(path), manifest, model, page, original, force=force)


def _write(
    path: Path,
    manifest: Manifest,
    model: nn.Module,
    page: str,
    original: Mapping[str, Any] | None,
    *,
    force: bool,
) -> Path:
    """Write all files; hashes, aliases and versions of the manifest are those of now."""
    tensors, aliases = _unshared(model.state_dict())
    with fresh_directory(path, force=force) as new:
        _save_tensors(tensors, new / _WEIGHTS)
        names = [_WEIGHTS, _SUMMARY]
        if original is not None:
            copied, shared = _unshared(original)
            copied |= {name: copied[owner].clone() for name, owner in shared.items()}
            _save_tensors(copied, new / ORIGINAL)
            names.append(ORIGINAL)
        (new / _SUMMARY).write_text(page, encoding="utf-8")
        manifest = replace(
            manifest,
            aliases=aliases,
            versions=_versions(manifest.origin),
            files={name: sha256_of(new / name) for name in names},
        )
        (new / MANIFEST).write_text(
            json.dumps(manifest.as_json(), indent=2) + "\n", encoding="utf-8"
        )
    return path


def _save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file)
    except SafetensorError as error:
        raise _os_error(error) from error
    file.chmod(file.parent.stat().st_mode & 0o666)  # the library makes it private


def load(path: str | Path, *, base: nn.Module | None = None) -> nn.Module:
    """Build the network of an artefact again and load its weights.

    A network that was made by a factory is made by the same factory again, so its package
    must be importable, and is run: load such artefacts only from people whose code you
    would run, or pass ``base``.

    Args:
        base: the original network, for one that was given in memory; it is not changed, and
            its weights do not matter.

    Raises:
        ArtefactError: a file is missing, damaged or of another format; the base is another
            network than the artefact's.
        ModelError: a base is needed and not given.
    """
    from safetensors.torch import load_file

    from ghostify.graph.rewrite import rebuilt
    from ghostify.graph.sites import conv_shapes
    from ghostify.models.zoo import rebuild

    path = Path(path)
    manifest = parse_manifest(path / MANIFEST)
    for name, digest in manifest.files.items():
        _check_file(path, name, digest)
    if base is None and manifest.origin.source == "memory":
        raise ModelError(
            f"{path} was made from a network in memory ({manifest.origin.name}); "
            "pass it as ghostify.load(path, base=model)"
        )
    try:
        original = base if base is not None else rebuild(manifest.origin).model
        manifest.plan.check(conv_shapes(original), model=type(original).__name__)
        model = rebuilt(original, manifest.stages or (manifest.plan,))
    except PlanError as error:
        raise ArtefactError(f"{path} does not fit the network it names: {error}") from error
    state = dict(load_file(path / _WEIGHTS))
    state |= {alias: state[name] for alias, name in manifest.aliases.items() if name in state}
    types = {value.dtype for value in state.values() if value.is_floating_point()}
    if base is None and len(types) == 1:
        model.to(types.pop())  # a named network may have been cast since
    _load_state(model, state, path)
    model.train(manifest.training)
    for name, mode in manifest.modes.items():
        model.get_submodule(name).training = mode
    return model


def load_original(path: str | Path, *, base: nn.Module | None = None) -> nn.Module:
    """Build the network that an artefact was converted from, with the weights it had then.

    Args:
        base: as for :func:`load`.

    Raises:
        ArtefactError: the artefact does not have these weights, or is damaged.
        ModelError: a base is needed and not given.
    """
    from safetensors.torch import load_file

    from ghostify.models.zoo import rebuild

    path = Path(path)
    manifest = parse_manifest(path / MANIFEST)
    if ORIGINAL not in manifest.files:
        raise ArtefactError(
            f"{path} does not hold the weights of the network before its conversion; give it as "
            "--teacher NAME --teacher-weights FILE"
        )
    _check_file(path, ORIGINAL, manifest.files[ORIGINAL])
    model = copy.deepcopy(base) if base is not None else rebuild(manifest.origin).model
    state = load_file(path / ORIGINAL)
    types = {value.dtype for value in state.values() if value.is_floating_point()}
    if base is None and len(types) == 1:
        model.to(types.pop())
    _load_state(model, state, path)
    return model


def _check_file(path: Path, name: str, digest: str) -> None:
    file = path / name
    if not file.is_file():
        raise ArtefactError(f"{path} is incomplete: {name} is missing; convert again")
    if sha256_of(file) != digest:
        raise ArtefactError(
            f"{file} is damaged: its content hash differs from the one in {MANIFEST}; "
            "copy the artefact again or convert again"
        )


def _load_state(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise ArtefactError(f"{path} lacks {name}, which its network has; use the same base")
        if state[name].shape != tensor.shape:
            raise ArtefactError(
                f"{path}: {name} has the shape {list(state[name].shape)}, its network expects "
                f"{list(tensor.shape)}; use the same base"
            )
        if state[name].dtype != tensor.dtype:
            raise ArtefactError(
                f"{path}: {name} is of type {state[name].dtype}, its network's is {tensor.dtype}; "
                "convert the base to the same type"
            )
    surplus = [name for name in state if name not in own and not _is_order(model, name)]
    if surplus:
        raise ArtefactError(f"{path}: its network has no {surplus[0]}; use the same base")
    model.load_state_dict(state)


def _is_order(model: nn.Module, name: str) -> bool:
    """Tell whether a key is the order of maps of a Ghost module, which only some have."""
    from ghostify.nn.ghost import GhostModule

    owner, _, leaf = name.rpartition(".")
    modules = dict(model.named_modules())
    return leaf == "order" and isinstance(modules.get(owner), GhostModule)


def _unshared(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a state dict into tensors of their own and names of shared ones."""
    from torch import Tensor

    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ArtefactError(
                f"{name} in the state dict is a {type(value).__name__}, not a tensor; only "
                "tensors can be saved without pickle"
            )
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in owners:
            aliases[name] = owners[place]
            continue
        owners[place] = name
        tensors[name] = value.detach().contiguous()
    storages: dict[int, str] = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        if pointer and storages.setdefault(pointer, name) != name:
            tensors[name] = tensor.clone()  # a view of another tensor's memory
    return tensors, aliases


def _os_error(error: Exception) -> OSError:
    """Turn an error of the safetensors library into the system's, whose number it quotes."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code))


def _versions(origin: Origin) -> dict[str, str]:
    packages = ["ghostify", "torch", "safetensors"]
    if origin.source in ("torchvision", "timm"):
        packages.append(origin.source)
    return {name: metadata.version(name) for name in packages} | {
        "python": platform.python_version()
    }
