"""``ghostify maps``: a picture of a layer's intrinsic and ghost maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ghostify.analysis.feature_maps import FeatureMaps, feature_maps
from ghostify.analysis.map_pictures import check_picture, save_maps
from ghostify.cli import render
from ghostify.cli.data_options import DataRequest
from ghostify.cli.progress import Steps
from ghostify.data.base import decode
from ghostify.data.images import Images, has_split, open_images
from ghostify.data.preprocess import Preprocess, normalise
from ghostify.data.transforms import to_channels, view
from ghostify.errors import DataError
from ghostify.exporting.output import check_file, fresh_files
from ghostify.sources import open_source, preprocess_for, settled

__all__ = ["run"]


def run(
    model: str,
    data: DataRequest,
    *,
    image: Path | None,
    index: int,
    output: Path | None,
    layer: str | None,
    against: str | None,
    against_weights: Path | None,
    most: int,
    weights: Path | None,
    pretrained: bool,
    model_args: Mapping[str, Any],
    seed: int,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Draw the maps and write the picture; return the exit code."""
    if output is not None:
        check_picture(output)
        check_file(output, force=force)
    with Steps(5, quiet=quiet or as_json) as step:
        source = open_source(model, step, weights, pretrained, model_args, seed)
        step("reading the image")
        if image is None:
            source = settled(source, _set(data), data.overrides)
        pixels = read_image(image, data, index, preprocess_for(source, data.overrides))
        found = feature_maps(
            source,
            pixels,
            layer=layer,
            against=against,
            against_weights=against_weights,
            pretrained=pretrained,
            seed=seed,
            on_step=step,
        )
        if output is not None:
            step(f"writing {output}")
            with fresh_files(output, force=force) as new:
                save_maps(found, new, most=most)
    if as_json:
        picture = None if output is None else str(output)
        render.print_json(found.as_json() | {"picture": picture})
    elif not quiet:
        render.page(_sentence(found))
        render.notes([*found.notes, f"wrote {output}"])
    return 0


def read_image(file: Path | None, data: DataRequest, index: int, preprocess: Preprocess) -> Tensor:
    """Read one image as the network wants it, ``(C, H, W)``.

    Raises:
        DataError: it is not there or cannot be decoded, or nothing says how to scale it.
    """
    if file is not None:
        if not file.is_file():
            raise DataError(f"no such image: {file}; give the path of an image file")
        picture, number = decode(file, 0, name=str(file)), 0
    else:
        images = _set(data)
        if index >= len(images):
            raise DataError(
                f"{images.name} has {len(images):,} images, so --index is at most "
                f"{len(images) - 1} (got {index})"
            )
        picture, number = images.load(index), index
    picture, _ = to_channels(picture, preprocess.channels, number)
    pixels = torch.from_numpy(view(picture, preprocess, number).copy())
    return normalise(pixels[None], preprocess)[0]


def _set(data: DataRequest) -> Images:
    path = data.require()
    return open_images(path, split=data.split or ("test" if has_split(path, "test") else None))


def _sentence(found: FeatureMaps) -> str:
    kinds = f"{found.intrinsic} intrinsic maps and {found.ghosts} ghosts"
    text = kinds if found.ghosts else f"{len(found.maps)} maps, none of them a ghost"
    errors = found.relative_errors()
    beside = ""
    if errors is not None and found.ghosts:
        first, rest = errors[: found.intrinsic], errors[found.intrinsic :]
        beside = (
            f"; on this image the intrinsic maps miss {_median(first)} of the variance of "
            f"{found.against}'s maps at the median, the ghosts {_median(rest)}"
        )
    return f"{found.model}, {found.layer}: {text}{beside}"


def _median(errors: Any) -> str:
    finite = sorted(one for one in errors.tolist() if one == one)
    return f"{100 * finite[len(finite) // 2]:.0f} %" if finite else "nothing"
