"""Measure how redundant the feature maps of a network are (GhostNet, sec. 4.1.1, Table 2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ghostify.analysis.gallery import maps_of
from ghostify.analysis.layers import choose_sites, describe
from ghostify.analysis.stream import LayerSums, gather
from ghostify.analysis.suggest import suggest
from ghostify.analysis.values import (
    Floats,
    Gallery,
    LayerRedundancy,
    Redundancy,
    Suggestion,
    usual_kernel,
)
from ghostify.errors import InputError, RuleError, SpecError, nearest
from ghostify.graph.layer_fit import importance
from ghostify.graph.probe import unhooked
from ghostify.graph.sites import conv_shapes
from ghostify.graph.streams import normalisation_behind, rechunked
from ghostify.plan import Plan
from ghostify.provenance import provenance
from ghostify.sources import Model, Source, open_source
from ghostify.spec import MAX_KERNEL

__all__ = ["redundancy"]

Progress = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and what begins now."""

_MANY = 15  # the largest side: the sums grow with its fourth power
_FEW = 20  # positions for each weight of a filter, below which errors come out too low


def redundancy(
    model: Model | Source,
    batches: Iterable[Tensor] | Tensor,
    kernels: Sequence[int] = (1, 3, 5, 7),
    *,
    layers: str | Sequence[str] | None = None,
    ratios: Sequence[int] = (2, 3, 4),
    tolerance: float = 0.2,
    pairs: int = 6,
    positions: int = 1 << 15,
    gallery: str | None = "",
    gallery_image: int = 0,
    weights: str | None = None,
    pretrained: bool = False,
    seed: int = 0,
    memory_bytes: int = 1 << 30,
    data: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> Redundancy:
    """Measure how well each output map of each convolution follows from its best partner.

    For every ordered pair of output maps (before batch norm and activation) the linear d x d
    filter, zero-padded, with a free offset, that makes one from the other with the least mean
    squared error is solved for in closed form, over all images together. The error of a map is
    that of its best partner. The network stays as it is; it is run in eval mode.

    Args:
        model: a network, its name, the directory of an artefact, or a conversion.
        batches: images ``(N, C, H, W)``, normalised as the network wants them.
        kernels: sides d of the filters, odd. An error never grows with d.
        layers: names or patterns (``layer1.*``) of the convolutions to look at; all by default.
        ratios: s, from which settings are suggested.
        tolerance: the share of a layer's output (weighted by the batch norm behind it) that its
            ghosts may miss under the setting suggested for it.
        pairs: how many of the most similar pairs are kept of each layer.
        positions: of each layer's output that are looked at, drawn at random from all images.
        gallery: a layer whose maps of image ``gallery_image`` are kept for a picture; an empty
            name lets the most redundant of the larger layers be chosen, None keeps none.
        memory_bytes: of sums that are held at a time, about. The network is run on all images
            once for each such part.
        data: what is known of the images, for the record.

    Raises:
        GhostifyError: whatever is wrong with the arguments, in one sentence.

    Source: GhostNet, sec. 4.1.1 and Table 2, which learn the filter of a pair by gradient.
    """
    began = time.monotonic()
    tell = on_progress or _ignore
    sides = _checked_sides("kernels", kernels, least=1, most=_MANY, odd=True)
    wanted = _checked_sides("ratios", ratios, least=2, most=MAX_KERNEL, odd=False)
    _check(tolerance, pairs, positions, memory_bytes)
    if isinstance(model, Source):
        source = model
    else:
        source = open_source(model, _silent, weights, pretrained, seed=seed)
    built = source.built
    images = _images(built.model, batches)
    if gallery is not None and not 0 <= gallery_image < sum(map(len, images)):
        raise InputError(
            f"the picture's image is one of 0 to {sum(map(len, images)) - 1} (got {gallery_image})"
        )
    tell(0, 1, "finding convolutions")
    with _still(built.model) as network:
        _try(network, images[0][0])
        sites, skipped, reasons = choose_sites(built, images[0], layers)
        names = [site.name for site in sites]
        if gallery and gallery not in names:
            raise RuleError(f"no layer {gallery!r} to make a picture of" + nearest(gallery, names))
        norms = normalisation_behind(network, images[0][:1], names)
        made: dict[str, LayerRedundancy] = {}

        def finish(sums: LayerSums) -> None:
            site = sites[sums.depth]
            norm = norms.get(site.name)
            loads = importance(
                network.get_submodule(norm) if norm else None, sums.maps, torch.empty(0)
            )

            def advise(mse: Floats, variance: Floats) -> Suggestion:
                if site.name in reasons:
                    return Suggestion(None, None, reasons[site.name])
                return suggest(
                    site, mse, variance, kernels=sides, ratios=wanted, tolerance=tolerance
                )

            made[site.name] = describe(site, sums, loads, pairs, advise)
            sums.mse = sums.gram = sums.cross = torch.empty(0)

        count = sum(map(len, images))
        sums = [
            LayerSums(
                site.name,
                depth,
                site.out_channels,
                sides,
                min(1.0, positions / (count * site.pixels)),
            )
            for depth, site in enumerate(sites)
        ]
        gather(
            network,
            sums,
            images,
            seed=seed,
            memory_bytes=memory_bytes,
            on_layer=finish,
            on_progress=tell,
        )
        found = tuple(made[name] for name in names)
        shown = None
        if gallery is not None:
            one = images[gallery_image // len(images[0])][gallery_image % len(images[0])]
            shown = _gallery(network, one, gallery or _telling(found, usual_kernel(sides)))
    plan = Plan(
        {one.name: one.suggestion.spec for one in found if one.suggestion.spec is not None},
        model=str(built.origin),
        convs=conv_shapes(built.model),
    )
    return Redundancy(
        model=str(built.origin),
        input="x".join(map(str, images[0].shape[1:])),
        images=count,
        kernels=sides,
        tolerance=tolerance,
        seed=seed,
        layers=found,
        skipped=skipped,
        plan=plan,
        gallery=shown,
        seconds=time.monotonic() - began,
        notes=_notes(found, sides),
        data=data,
        provenance=provenance(images[0].device),
    )


@contextmanager
def _still(model: nn.Module) -> Iterator[nn.Module]:
    """Hold a network in eval mode, without the caller's hooks, and leave it as it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=[]), unhooked(model):
            yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


def _images(model: nn.Module, batches: Iterable[Tensor] | Tensor) -> list[Tensor]:
    batches = [batches] if isinstance(batches, Tensor) else batches
    images = list(rechunked(batches))
    if not images:
        raise InputError("there are no images; give some")
    like = next((one for one in model.parameters() if one.is_floating_point()), images[0])
    return [chunk.to(like.device, like.dtype) for chunk in images]


def _try(network: nn.Module, image: Tensor) -> None:
    """Make sure that a network takes an image.

    Raises:
        InputError: it does not.
    """
    try:
        with torch.no_grad():
            network(image[None].clone())
    except Exception as error:
        shape = "x".join(map(str, image.shape))
        raise InputError(
            f"the network does not take images of {shape} ({type(error).__name__}); choose their "
            "size and channels to fit it"
        ) from error


def _telling(layers: Sequence[LayerRedundancy], kernel: int) -> str:
    """Choose a layer for a picture: large maps, not too few, and much alike."""

    def rank(layer: LayerRedundancy) -> tuple[bool, bool, float]:
        small = min(layer.site.out_size) < 8
        few = layer.maps - layer.constant < 16
        return small, few, layer.relative_mse(kernel)

    return min((one for one in layers if one.pairs), key=rank, default=layers[0]).name


def _gallery(network: nn.Module, image: Tensor, layer: str) -> Gallery:
    maps = maps_of(network, {layer: layer}, image)[layer]
    return Gallery(layer, image.detach().float().cpu().numpy(), maps)


def _notes(layers: Sequence[LayerRedundancy], kernels: Sequence[int]) -> tuple[str, ...]:
    need = _FEW * max(kernels) ** 2
    thin = [layer for layer in layers if layer.positions < need and min(layer.site.out_size) > 1]
    if not thin:
        return ()
    least = min(thin, key=lambda layer: layer.positions)
    return (
        f"{len(thin)} layers have fewer than {need:,} positions on these images ({least.name}: "
        f"{least.positions:,}), so their errors come out too low for the larger filters; take "
        "more images",
    )


def _checked_sides(
    name: str, values: Sequence[int], *, least: int, most: int, odd: bool
) -> tuple[int, ...]:
    rule = f"{'odd ' if odd else ''}whole numbers from {least} to {most}"
    if isinstance(values, int) or not values:
        raise SpecError(f"{name} are {rule}, such as (1, 3) (got {values!r})")
    for one in values:
        whole = isinstance(one, int) and not isinstance(one, bool)
        if not whole or not least <= one <= most or (odd and one % 2 == 0):
            raise SpecError(f"{name} are {rule} (got {one!r})")
    return tuple(sorted(set(values)))


def _check(tolerance: float, pairs: int, positions: int, memory_bytes: int) -> None:
    if not 0 <= tolerance <= 1:
        raise SpecError(f"the tolerance is a share from 0 to 1 (got {tolerance!r}); 0.2 is usual")
    for name, value, least in (
        ("pairs", pairs, 0),
        ("positions", positions, 1),
        ("memory_bytes", memory_bytes, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SpecError(f"{name} is a whole number from {least} on (got {value!r})")


def _silent(_step: str) -> None:
    return None


def _ignore(_done: int, _of: int, _what: str) -> None:
    return None
