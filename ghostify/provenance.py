"""Where a measured figure comes from: versions and machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

__all__ = ["provenance"]

_PACKAGES = ("ghostify", "torch", "torchvision")


def provenance(device: torch.device | None = None) -> dict[str, Any]:
    """Return versions and machine as plain values.

    Args:
        device: that the work was done on; the CPU if it is not given.
    """
    on_gpu = device is not None and device.type == "cuda"
    return {
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name(device) if on_gpu else str(device or "cpu"),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }
