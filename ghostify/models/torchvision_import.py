"""Import torchvision beside a torch that its compiled operators do not fit.

The usual wheel of torchvision is built for CUDA. Beside a CPU build of torch its compiled
operators cannot be loaded, and the import dies with "operator torchvision::nms does not
exist", although models, transforms and datasets need none of them. Declaring the schemas
of the two operators that torchvision registers kernels for is enough. Where the plain
import works, nothing is declared.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ghostify.errors import ModelNotFoundError

__all__ = ["import_beside_torchvision"]

_MISSING = "torchvision::nms does not exist"
_SCHEMAS = ("nms", "qnms")
_libraries: list[Any] = []  # a Library withdraws its schemas when it is collected


def import_beside_torchvision(name: str) -> ModuleType:
    """Import torchvision, or a module that imports it, repairing the import only if it fails.

    Raises:
        ImportError: as usual.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
    _forget_failed_imports(name)
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _SCHEMAS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return importlib.import_module(name)


def require(name: str, *, wanted: str) -> ModuleType:
    """Import a model library.

    Raises:
        ModelNotFoundError: it is not installed; the message says what to install.
    """
    try:
        return import_beside_torchvision(name)
    except ImportError as error:
        raise ModelNotFoundError(
            f"{wanted} needs {name}, which cannot be imported ({error}); pip install {name}"
        ) from None


def _forget_failed_imports(name: str) -> None:
    roots = {"torchvision", name.partition(".")[0]}
    for loaded in list(sys.modules):
        if loaded.partition(".")[0] in roots:
            del sys.modules[loaded]
