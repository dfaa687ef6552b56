"""What machine this is, so that a time can be told from one that was measured elsewhere."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from ghostify.threads import cores

__all__ = ["Machine", "fingerprint"]

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor and the software that times depend on."""

    cpu: str
    cores: int  # that this process may use
    os: str  # such as "Linux x86_64"
    python: str
    torch: str

    @property
    def digest(self) -> str:
        """Twelve characters that are the same on the same machine with the same torch.

        The patch level of Python does not matter for the speed of networks, so it is left out.
        """
        values = asdict(self) | {"python": ".".join(self.python.split(".")[:2])}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, str | int]:
        """Return plain values, the digest among them."""
        return {**asdict(self), "digest": self.digest}

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.os}, Python {self.python}, torch {self.torch}"
        )


@functools.cache
def fingerprint() -> Machine:
    """Return the machine that this process runs on."""
    return Machine(
        cpu=_cpu(),
        cores=cores(),
        os=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=metadata.version("torch"),
    )


def _cpu() -> str:
    """Return the processor's name, with its model numbers where the name says little."""
    fields: dict[str, str] = {}
    try:
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields and "model" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name
