"""Fit a conversion to the network that it came from, and note down what was done."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ghostify.errors import InputError
from ghostify.graph.calibrate import FitOptions, FitReport, Progress, calibrate
from ghostify.graph.fit_options import SYNTHETIC
from ghostify.graph.fold import move_maps
from ghostify.graph.probe import copy_model, unhooked
from ghostify.graph.rewrite import Conversion
from ghostify.graph.synthetic import synthetic_images
from ghostify.models.zoo import Built
from ghostify.provenance import provenance

__all__ = ["fit_conversion", "report_json"]

_SMALL, _LARGE = 512, 64  # synthetic images, of up to 64 pixels a side and beyond
_STEPS = 40

_Kind = TypeVar("_Kind", bound=Conversion)


def fit_conversion(
    conversion: _Kind,
    built: Built,
    calibration: Iterable[Tensor] | str,
    *,
    options: FitOptions | None = None,
    data: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> _Kind:
    """Fit the new Ghost modules, in place, to what the convolutions did.

    Blocks with fewer maps are fitted to what they did before, by gradient steps.

    Args:
        calibration: images ``(N, C, H, W)`` in batches, normalised, or ``"synthetic"``.
        data: what is known of the images, for the record.

    Raises:
        GhostifyError: what :func:`ghostify.graph.calibrate.calibrate` says.
    """
    options = options or FitOptions()
    original = copy_model(built.model, hooks=False).eval()
    names = list(conversion.changed)
    if isinstance(calibration, str):
        calibration = [_synthesise(original, built, calibration, options, on_progress)]
        data = {"synthetic": True}
    if isinstance(calibration, Tensor):
        calibration = [calibration]
    with torch.random.fork_rng(devices=[]), unhooked(conversion.model):
        report = calibrate(
            original,
            conversion.model,
            names,
            calibration,
            options=options,
            slices=conversion.slices,
            on_progress=on_progress,
        )
    entry = {
        "kind": "fit",
        "what": _sentence(report, synthetic=bool(data and data.get("synthetic"))),
        **report_json(report),
        "original_permuted": True,
        "options": dataclasses.asdict(options),
        "data": None if data is None else dict(data),
        **provenance(),
    }
    after = conversion.after
    copied = sum(
        site.out_channels * site.pixels for site in conversion.sites if site.name in report.copies
    )
    # The same function, with its features in the same places as those of the fitted network:
    move_maps(original, report.moves, slices=conversion.slices)
    state = {name: value.detach().clone() for name, value in original.state_dict().items()}
    return dataclasses.replace(
        conversion,
        after=after and dataclasses.replace(after, copied=copied),
        original=state if built.ghosted is None else None,
        history=(*conversion.history, entry),
        notes=(*conversion.notes, entry["what"], *report.notes),
    )


def _synthesise(
    original: Any,
    built: Built,
    wish: str,
    options: FitOptions,
    on_progress: Progress | None,
) -> Tensor:
    if wish != SYNTHETIC:
        raise InputError(
            f'calibration takes batches of images, or "{SYNTHETIC}" to do without (got {wish!r})'
        )
    if built.input_size is None or len(built.input_size) != 3:
        raise InputError("synthetic images need the network's input size; give it as C, H, W")
    channels, height, width = built.input_size
    small = max(height, width) <= 64

    def tell(done: int, of: int) -> None:
        if on_progress is not None:
            on_progress(done, of, "making images")

    scratch = copy.deepcopy(original)
    for parameter in scratch.parameters():
        parameter.requires_grad_(False)
    return synthetic_images(
        scratch,
        (channels, height, width),
        count=_SMALL if small else _LARGE,
        steps=_STEPS,
        seed=options.seed,
        on_step=tell,
    )


def report_json(report: FitReport) -> dict[str, Any]:
    """Return the figures of a fit as plain values; ``error`` is a share of the variance."""
    return {
        "images": report.images,
        "seconds": round(report.seconds, 2),
        "layers": [
            {
                "name": layer.name,
                "start_error": round(layer.start_error, 6),
                "error": round(layer.error, 6),
                "seconds": round(layer.seconds, 3),
            }
            for layer in report.layers
        ],
        "blocks": [dataclasses.asdict(block) for block in report.blocks],
        "joint": report.joint and dataclasses.asdict(report.joint),
        "copies": list(report.copies),
        "permuted": list(report.permuted),
    }


def _sentence(report: FitReport, *, synthetic: bool) -> str:
    errors = sorted(layer.error for layer in report.layers) or [0.0]
    kind = "synthetic images, which is clearly worse than real ones" if synthetic else "images"
    return (
        f"fitted to the original on {report.images:,} {kind}, without labels, in "
        f"{report.seconds:.0f} s: the layers miss {100 * errors[len(errors) // 2]:.0f} % of their "
        f"output's variance at the median, {100 * errors[-1]:.0f} % at most, before the steps by "
        "gradient"
    )
