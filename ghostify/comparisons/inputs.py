"""What a suite stands on: its images and files, opened, and what tells them from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ghostify.data.base import Images
from ghostify.data.images import has_split, open_images
from ghostify.data.subset import Subset
from ghostify.errors import SuiteError
from ghostify.files import sha256_of
from ghostify.plan_file import load_plan
from ghostify.runs.data_hash import hash_of
from ghostify.runs.suite import Suite, SuiteData

__all__ = ["Inputs", "Pictures", "read_inputs", "told"]

_SEED = 0
"""Of the choice of the validation images: the same for all methods and networks."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The images of a comparison; no validation image is in ``fitting``, no test image in either.

    Final runs train on ``train``; tuning trains on ``fitting`` and is judged by ``validation``.
    """

    train: Images
    test: Images
    fitting: Images | None = None
    validation: Images | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What decides the runs beside the suite itself, as plain values."""

    train: str | None = None  # digest of the images
    test: str | None = None
    weights: Mapping[str, str] | None = None  # SHA-256 by network
    plans: Mapping[str, str] | None = None  # digest by "method network"


def read_inputs(suite: Suite) -> tuple[Inputs, Pictures | None]:
    """Open the images of a suite, and take the digests of all that it names.

    Raises:
        SuiteError: there is no test part, or fewer images than are to be held back.
        GhostifyError: something is missing or cannot be read.
    """
    weights: dict[str, str] = {}
    for network in suite.networks:
        if network.weights is not None:
            if not network.weights.is_file():
                raise SuiteError(
                    f"{suite.path}: networks.{network.name}.weights: no such file: "
                    f"{network.weights}; give a checkpoint"
                )
            weights[network.name] = sha256_of(network.weights)
    if suite.data is not None:
        _check_teachers(suite)
    plans = {
        f"{method.name} {name}": load_plan(path).digest
        for method in suite.methods
        for name, path in method.plans.items()
    }
    if suite.data is None:
        return Inputs(weights=weights, plans=plans), None
    pictures = _open(suite.data, suite.path)
    found = Inputs(pictures.train.digest, pictures.test.digest, weights, plans)
    return found, pictures


def _check_teachers(suite: Suite) -> None:
    """Make sure that whoever is learnt from knows something."""
    for network in suite.networks:
        if network.weights is not None or network.pretrained or network.adapt is not None:
            continue
        for method in suite.methods_of(network.name):
            if method.train and method.teacher is not None:
                raise SuiteError(
                    f"{suite.path}: methods.{method.name}: {network.name} has no trained original "
                    f"to learn from; give networks.{network.name}.weights or adapt, or teacher: "
                    "null"
                )


def _open(data: SuiteData, suite: Path) -> Pictures:
    train = open_images(data.path, split=data.split or "train")
    if data.test is not None:
        test = open_images(data.test, split="test")
    elif has_split(data.path, "test"):
        test = open_images(data.path, split="test")
    else:
        raise SuiteError(
            f"{suite}: data: {data.path} has no test part; give the images to measure accuracy on "
            "by data.test"
        )
    count = data.validation
    if not count:
        return Pictures(train, test)
    if count >= len(train):
        raise SuiteError(
            f"{suite}: data.validation: must be below {len(train)}, the number of training images "
            f"(got {count})"
        )
    held = np.random.default_rng(_SEED).permutation(len(train))[:count]
    aside = np.zeros(len(train), dtype=bool)
    aside[held] = True
    return Pictures(
        train,
        test,
        fitting=Subset(train, np.flatnonzero(~aside)),
        validation=Subset(train, np.flatnonzero(aside)),
    )


def told(images: Images, path: Path) -> dict[str, Any]:
    """Return what a record says of a set of images."""
    digests = {"digest": images.digest, "hash": hash_of(path)}  # of names and labels; of contents
    return {"name": path.name, "images": len(images)} | digests
