"""Read checkpoints without running what is in them, and load them into networks."""

from __future__ import annotations

import argparse
import contextlib
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.errors import WeightsError, nearest
from ghostify.models.ghostnet_weights import renamed_for

__all__ = ["load_weights", "read_checkpoint"]

_CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "state_dict_ema",
    "model_ema",
    "ema",
)
_WRAPPERS = ("module.", "_orig_mod.")
_SHOWN = 3


def load_weights(model: nn.Module, path: str | Path, *, name: str = "the model") -> None:
    """Load a checkpoint file into a model, in place; all of it or nothing.

    Wrappers' prefixes (``module.``, ``_orig_mod.``, one common prefix) are stripped, and
    GhostNet's weights take the names that the model has for them.

    Raises:
        WeightsError: the file cannot be read safely, or its keys or shapes do not fit.
    """
    path = Path(path)
    own = model.state_dict()
    state = renamed_for(own, _without_prefix(read_checkpoint(path), own))
    wrong = {
        key: (tuple(value.shape), tuple(own[key].shape))
        for key, value in state.items()
        if key in own and isinstance(own[key], Tensor) and value.shape != own[key].shape
    }
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    for key, value in state.items():
        _check_values(key, value, own.get(key), path)
    if not (wrong or missing or unexpected):
        try:
            model.load_state_dict(state, strict=False)
        except Exception as error:
            raise WeightsError(f"{path} cannot be loaded into {name} ({error})") from error
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        hint = nearest(unexpected[0], missing or own, count=1)
        parts.append(f"{len(unexpected)} unexpected ({_some(unexpected)}{hint})")
    if wrong:
        shapes = [
            f"{key}: {_times(found)} for {_times(want)}" for key, (found, want) in wrong.items()
        ]
        parts.append(f"{len(wrong)} of another shape ({_some(shapes)})")
    raise WeightsError(
        f"{path} does not fit {name}: of its keys {', '.join(parts)}; "
        "check the model's name and arguments"
    )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pth, .pt, .th or .bin file by name.

    Nothing in the file is executed: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: missing, damaged, unsafe, or no state dict in it.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise WeightsError(f"the checkpoint {path} {what}; give a .pth or .safetensors file")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsError(f"the checkpoint {path} cannot be read ({error.strerror})") from None
    try:
        value = _read(path, head)
    except Exception as error:
        if _wants_to_run_code(error, path):
            raise WeightsError(
                f"{path} holds objects other than tensors, which could run code, and is refused; "
                "save model.state_dict() alone"
            ) from None
        raise WeightsError(
            f"the checkpoint {path} is damaged or of an unknown format; get or save it again"
        ) from None
    state = _state_dict(value)
    if state is None:
        keys = ", ".join(map(str, list(value)[:5])) if isinstance(value, Mapping) else ""
        found = f"a dict of {keys}" if keys else f"a {type(value).__name__}"
        raise WeightsError(f"{path} holds no state dict but {found}; save model.state_dict()")
    return state


def _wants_to_run_code(error: Exception, path: Path) -> bool:
    """Tell a whole pickle of other objects from a damaged file.

    The opcodes are only read: one that names or calls something means code.
    """
    if isinstance(error, zipfile.BadZipFile):
        return False
    if "unsupported global" in str(error).lower():
        return True
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickles = [archive.read(n) for n in archive.namelist() if n.endswith(".pkl")]
        else:
            pickles = [path.read_bytes()]
        opcodes = {
            opcode.name for content in pickles for opcode, _, _ in pickletools.genops(content)
        }
    except Exception:  # it does not read as a pickle, or not to its end
        return False
    return bool(opcodes & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "INST", "OBJ", "NEWOBJ"})


def _read(path: Path, head: bytes) -> Any:
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not look at the checksums
        if damaged:
            raise zipfile.BadZipFile(damaged)
    with _harmless_classes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a file is of another protocol is told as an error
        return torch.load(path, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _harmless_classes() -> Iterator[None]:
    """Allow what training scripts commonly put beside the weights and cannot run code."""
    import numpy

    number = numpy.float64(0)
    rebuild = number.__reduce__()[0]  # multiarray.scalar, whose home moved in numpy 2
    dtypes = {type(numpy.dtype(kind)) for kind in (numpy.float64, numpy.float32, numpy.int64)}
    allowed: list[Any] = [argparse.Namespace, numpy.dtype, rebuild, *dtypes]
    with torch.serialization.safe_globals(allowed):
        yield


def _state_dict(value: Any, depth: int = 3) -> dict[str, Tensor] | None:
    if not isinstance(value, Mapping) or not depth:
        return None
    if value and all(isinstance(item, Tensor) for item in value.values()):
        return {str(key): item for key, item in value.items()}
    for container in _CONTAINERS:
        inner = _state_dict(value[container], depth - 1) if container in value else None
        if inner is not None:
            return inner
    tensors = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
    return tensors if len(tensors) > len(value) / 2 else None


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    while True:
        for wrapper in _WRAPPERS:
            if state and all(key.startswith(wrapper) for key in state):
                if any(key in own for key in state):
                    return state
                state = {key.removeprefix(wrapper): value for key, value in state.items()}
                break
        else:
            break
    if any(key in own for key in state):
        return state
    prefix = f"{next(iter(state)).partition('.')[0]}."
    if all(key.startswith(prefix) for key in state):
        stripped = {key.removeprefix(prefix): value for key, value in state.items()}
        if any(key in own for key in stripped):
            return stripped
    return state


def _check_values(key: str, value: Tensor, own: object, path: Path) -> None:
    """Refuse what would lose its meaning on the way into the network."""
    what = ""
    if value.is_meta:
        what = "has no values (device meta)"
    elif value.layout is not torch.strided:
        what = "is sparse"
    elif value.is_quantized:
        what = "is quantised"
    elif isinstance(own, Tensor) and own.is_floating_point() and not value.is_floating_point():
        what = f"is of type {value.dtype} for {own.dtype}"
    if what:
        raise WeightsError(f"{path}: {key} {what}; save plain floating-point weights")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
