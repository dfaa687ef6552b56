"""Which machine this is."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import torch

from ghostify.cost.machine import fingerprint


def test_it_knows_the_processor_and_the_software() -> None:
    machine = fingerprint()

    assert machine.cpu
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.torch == torch.__version__
    assert machine.python == sys.version.split()[0]
    assert all(part in str(machine) for part in (machine.cpu, machine.os))


def test_the_digest_is_the_same_in_another_process_and_needs_no_torch() -> None:
    code = (
        "import sys; from ghostify.cost.machine import fingerprint; print(fingerprint().digest); "
        "assert 'torch' not in sys.modules"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert other.stdout.strip() == fingerprint().digest
    assert fingerprint().as_json()["digest"] == fingerprint().digest


def test_another_processor_or_torch_has_another_digest() -> None:
    here = fingerprint()

    digests = {
        dataclasses.replace(here, **{name: value}).digest
        for name, value in (("cpu", "other"), ("cores", 99), ("torch", "1.0"), ("os", "x"))
    }
    assert len(digests | {here.digest}) == 5
    assert dataclasses.replace(here, python="3.11.99").digest == (
        dataclasses.replace(here, python="3.11.1").digest
    )
