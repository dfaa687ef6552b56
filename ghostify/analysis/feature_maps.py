"""The intrinsic and ghost maps of a layer, beside those of the network before its conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ghostify.analysis.gallery import maps_of
from ghostify.analysis.values import Floats
from ghostify.artefact import ORIGINAL, load_original
from ghostify.errors import InputError, ModelError, nearest
from ghostify.files import MANIFEST
from ghostify.manifest import parse_manifest
from ghostify.models import zoo
from ghostify.sources import Model, Source, open_source

__all__ = ["FeatureMaps", "feature_maps"]

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaps:
    """What a layer makes of one image ``(C, H, W)``: ``maps`` ``(n, H, W)``, intrinsic ones first.

    The ghost at place ``intrinsic + k`` is made from the intrinsic map at place
    ``k % intrinsic``. ``stands_for`` tells which map of the original network each one is meant
    to be; ``original`` holds these, in the same order. An ordinary layer has no ghosts.
    """

    model: str
    layer: str
    image: Floats
    maps: Floats
    intrinsic: int  # m; n for an ordinary layer
    stands_for: tuple[int, ...]
    original: Floats | None = None
    against: str = ""  # what the original is
    matched: bool = False  # by likeness, since the network keeps its maps in an order of its own
    notes: tuple[str, ...] = ()

    @property
    def ghosts(self) -> int:
        """How many maps are ghosts."""
        return len(self.maps) - self.intrinsic

    def maker(self, place: int) -> int:
        """Return the place of the intrinsic map that a ghost is made from."""
        return (place - self.intrinsic) % self.intrinsic

    def relative_errors(self) -> Floats | None:
        """Return what each map misses of the original's, as a share of its variance."""
        if self.original is None:
            return None
        missed = (self.maps - self.original).reshape(len(self.maps), -1).var(1)
        whole = self.original.reshape(len(self.maps), -1).var(1)
        return np.asarray(np.divide(missed, whole, out=np.full_like(missed, np.nan),
                                    where=whole > 0))  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Return plain values; no pixels."""
        errors = self.relative_errors()
        rows = []
        for place, number in enumerate(self.stands_for):
            ghost = place >= self.intrinsic
            error = None if errors is None else float(errors[place])
            rows.append(
                {
                    "map": number,
                    "kind": "ghost" if ghost else "intrinsic" if self.ghosts else "ordinary",
                    "from": self.stands_for[self.maker(place)] if ghost else None,
                    "relative_error": None if error is None or error != error else error,
                }
            )
        return {
            "model": self.model,
            "layer": self.layer,
            "size": list(self.maps.shape[1:]),
            "against": self.against or None,
            "matched_by_likeness": self.matched,
            "maps": rows,
            "notes": list(self.notes),
        }


def feature_maps(
    model: Model | Source,
    image: Tensor,
    *,
    layer: str | None = None,
    against: Model | None = "original",
    against_weights: str | Path | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_step: Step | None = None,
) -> FeatureMaps:
    """Run a network on an image and return the maps of one layer, sorted into their kinds.

    Args:
        model: a converted network: the directory of its artefact, a conversion, a module; or
            any other network, whose layers have no ghosts.
        image: ``(C, H, W)``, or a batch of one, normalised as the network wants it.
        layer: name of a Ghost module, or of any other layer that gives maps; the first Ghost
            module by default, or else the second convolution, as in the paper's Fig. 4 and 5.
        against: a network with a layer of that name; "original" is what an artefact or a
            conversion was made from, where it holds the weights of that; None is none.

    Raises:
        GhostifyError: whatever is wrong with the arguments, in one sentence.

    Source: GhostNet, fig. 4 and 5.
    """
    step = on_step or _silent
    source = (
        model
        if isinstance(model, Source)
        else open_source(model, step, weights, pretrained, model_args, seed)
    )
    network = source.model
    name = str(source.built.origin)
    image = _one_image(network, image)
    layer = _layer(network, layer, name)
    notes: list[str] = []
    before, called = _before(source, against, against_weights, pretrained, seed, step, notes)
    step("making maps")
    made = _run(network, layer, image)
    module = network.get_submodule(layer)
    intrinsic = getattr(module, "intrinsic_channels", len(made)) if _is_ghost(module) else len(made)
    order = getattr(module, "order", None)
    stands = list(range(len(made))) if order is None else torch.argsort(order).tolist()
    made = made[stands]
    original, matched = None, False
    if before is not None:
        theirs = _run(before, _same_layer(before, layer, called), _on(before, image))
        if theirs.shape != made.shape:
            raise InputError(
                f"{layer} gives {_shape(made)} in {name} and {_shape(theirs)} in {called}; "
                "compare with the network that it was converted from"
            )
        matched = layer in source.unlike("original" if against == "original" else None)
        if matched:
            stands = _alike(made, theirs)
            notes.append(
                f"the fit gave the maps of {layer} an order of their own, so each is shown beside "
                "the map of the original that it is most like on this image"
            )
        original = theirs[stands]
    return FeatureMaps(
        model=name,
        layer=layer,
        image=image.detach().float().cpu().numpy(),
        maps=made,
        intrinsic=intrinsic,
        stands_for=tuple(stands),
        original=original,
        against=called if before is not None else "",
        matched=matched,
        notes=tuple(notes),
    )


def _is_ghost(module: nn.Module) -> bool:
    """Whether a module makes maps from a first part of them, which it calls primary."""
    return hasattr(module, "intrinsic_channels") and hasattr(module, "primary")


def _layer(network: nn.Module, wanted: str | None, name: str) -> str:
    modules = {one: module for one, module in network.named_modules() if one}
    if wanted is not None:
        if wanted not in modules:
            raise InputError(f"{name} has no layer {wanted!r}" + nearest(wanted, modules))
        return wanted
    ghosts = [one for one, module in modules.items() if _is_ghost(module)]
    convs = [one for one, module in modules.items() if isinstance(module, nn.Conv2d)]
    if not ghosts and not convs:
        raise InputError(f"{name} has no convolution; name a layer that gives maps by --layer")
    first: str = (ghosts or convs[1:] or convs)[0]
    return first


def _same_layer(network: nn.Module, layer: str, name: str) -> str:
    modules = dict(network.named_modules())
    if layer not in modules:
        raise InputError(f"{name} has no layer {layer!r} to compare with" + nearest(layer, modules))
    return layer


def _one_image(network: nn.Module, image: Tensor) -> Tensor:
    if isinstance(image, Tensor) and image.dim() == 4 and len(image) == 1:
        image = image[0]
    if not isinstance(image, Tensor) or image.dim() != 3 or not image.is_floating_point():
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"the image is a normalised floating-point tensor (C, H, W) (got {shape})")
    if not image.isfinite().all():
        raise InputError("the image holds values that are not finite; mend it")
    return _on(network, image)


def _on(network: nn.Module, image: Tensor) -> Tensor:
    like = next((one for one in network.parameters() if one.is_floating_point()), image)
    return image.to(like.device, like.dtype)


def _run(network: nn.Module, layer: str, image: Tensor) -> npt.NDArray[np.float32]:
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        return maps_of(network, {layer: layer}, image)[layer]
    except RuntimeError as error:
        shape = "x".join(map(str, image.shape))
        raise InputError(
            f"the network does not take an image of {shape} ({type(error).__name__}); choose its "
            "size and channels to fit it"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def _before(
    source: Source,
    against: Model | None,
    weights: str | Path | None,
    pretrained: bool,
    seed: int,
    step: Step,
    notes: list[str],
) -> tuple[nn.Module | None, str]:
    """Return the network to compare with, and what it is called."""
    if against is None:
        return None, ""
    if against != "original":
        other = open_source(against, step, weights, pretrained, seed=seed)
        return other.model, str(other.built.origin)
    if weights is not None:
        raise ModelError("the weights to compare with are for a network; name it by --against")
    if source.path is not None:
        manifest = parse_manifest(source.path / MANIFEST)
        if ORIGINAL in manifest.files:
            step("building the original")
            return load_original(source.path), "the original"
    conversion = source.conversion
    if conversion is not None and conversion.original is not None:
        if conversion.origin.source != "memory":
            model = zoo.rebuild(conversion.origin).model
            model.load_state_dict(dict(conversion.original))
            return model, "the original"
        notes.append("the original was given in memory; pass it as against=model to compare")
    elif any(_is_ghost(module) for module in source.model.modules()):
        notes.append(
            "the weights of the original are not there; to compare, give it by "
            "--against NAME --against-weights FILE"
        )
    return None, ""


def _alike(made: Floats, theirs: Floats) -> list[int]:
    """Return which of their maps each of ours is most like, each taken once.

    Their distance counts, beside the energy of both: a multiple is another map. An offset does
    not, which the batch norm behind takes up.
    """
    from scipy.optimize import linear_sum_assignment

    ours, other = (_centred(one) for one in (made, theirs))
    energy = np.square(ours).sum(1)[:, None] + np.square(other).sum(1)[None, :]
    distance = np.maximum(energy - 2 * ours @ other.T, 0.0)
    _, columns = linear_sum_assignment(distance / np.maximum(energy, 1e-30))
    return [int(one) for one in columns]


def _centred(maps: Floats) -> Floats:
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(1, keepdims=True))


def _shape(maps: Floats) -> str:
    return "x".join(map(str, maps.shape))


def _silent(_step: str) -> None:
    return None
