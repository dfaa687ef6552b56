"""Images out of nothing, for a fit where no image is at hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.segments import is_batch_norm

__all__ = ["dead_leaves", "synthetic_images"]

_LEAVES = 40
_RATE = 0.05
_CHUNK_PIXELS = 1 << 17


def synthetic_images(
    model: nn.Module,
    shape: tuple[int, int, int],
    *,
    count: int,
    steps: int = 40,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Make images ``(count, C, H, W)`` on which a network behaves much as on those it learnt from.

    They begin as dead leaves, which have the edges and the spectrum of photographs, and are
    then changed by gradient until the means and variances before each batch norm are those
    that the network has kept from its training. A network without batch norms gets the dead
    leaves as they are.

    Source: dead leaves: Lee, Mumford and Huang (2001); matching of statistics: ZeroQ (Cai et
    al., 2020).
    """
    generator = torch.Generator().manual_seed(seed)
    images = dead_leaves(count, shape, generator=generator)
    like = next(model.parameters(), images)
    images = images.to(like.device, like.dtype)
    norms = [module for module in model.modules() if is_batch_norm(module)]
    if not norms or not steps:
        return images
    size = max(2, min(count, _CHUNK_PIXELS // (shape[1] * shape[2])))
    chunks = list(images.split(size))
    if len(chunks) > 1 and len(chunks[-1]) < size // 2:  # too few for statistics
        chunks[-2:] = [torch.cat(chunks[-2:])]
    done = []
    for position, chunk in enumerate(chunks):

        def tell(step: int, base: int = position * steps) -> None:
            if on_step is not None:
                on_step(base + step, len(chunks) * steps)

        done.append(_matched(model, norms, chunk, steps, tell))
    return torch.cat(done)


def _matched(
    model: nn.Module,
    norms: list[nn.Module],
    images: Tensor,
    steps: int,
    tell: Callable[[int], None],
) -> Tensor:
    """Bring the statistics before each batch norm to those that it has kept."""
    images = images.clone().requires_grad_()
    optimiser = torch.optim.Adam([images], lr=_RATE)
    terms: list[Tensor] = []

    def compare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
        mean, variance = inputs[0].mean(axes), inputs[0].var(axes, correction=0)
        kept: Tensor = norm.running_mean  # type: ignore[assignment]
        kept_variance: Tensor = norm.running_var.clamp_min(1e-12)  # type: ignore[operator]
        spread = (variance.clamp_min(1e-12).sqrt() - kept_variance.sqrt()).square()
        miss = (mean - kept).square() + spread
        terms.append((miss / (kept_variance + 1e-5)).mean())

    handles = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        for step in range(steps):
            tell(step)
            terms.clear()
            with torch.enable_grad():
                model(images)
                if not terms:
                    break
                loss = torch.stack(terms).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    finally:
        for handle in handles:
            handle.remove()
    return images.detach()


def dead_leaves(count: int, shape: tuple[int, int, int], *, generator: torch.Generator) -> Tensor:
    """Draw overlapping textured ellipses of all sizes, ``(count, C, H, W)``, of variance 1."""
    channels, height, width = shape
    side = max(height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")

    def draw(*size: int) -> Tensor:
        return torch.randn(count, *size, generator=generator)

    canvas = _pink(count, shape, generator)
    for _ in range(_LEAVES):
        radius = 2 * torch.rand(count, 1, 1, generator=generator).clamp_min(1e-6).pow(-0.5)
        radius = radius.clamp(max=32 / 1.5) * side / 32
        top = torch.rand(count, 1, 1, generator=generator) * height
        left = torch.rand(count, 1, 1, generator=generator) * width
        colour = 0.8 * draw(1) + 0.35 * draw(channels)
        stretch = (0.4 * draw(1, 1)).exp()
        angle = torch.pi * torch.rand(count, 1, 1, generator=generator)
        x, y = columns - left, rows - top
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        inside = (along / stretch).square() + (across * stretch).square() < radius.square()
        leaf = colour[:, :, None, None] + 0.3 * _pink(count, shape, generator)
        canvas = torch.where(inside[:, None], leaf, canvas)
    flat: Tensor = canvas - canvas.mean((1, 2, 3), keepdim=True) * 0.5
    return flat / flat.std((1, 2, 3), keepdim=True, correction=0).clamp_min(1e-6)


def _pink(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise of which all octaves have the same energy, alike in the channels, variance 1."""
    channels, height, width = shape
    low_height, low_width = min(height, 64), min(width, 64)
    down = torch.fft.fftfreq(low_height)[:, None].square()
    frequency = (down + torch.fft.rfftfreq(low_width)[None].square()).sqrt()
    frequency[0, 0] = 1 / max(low_height, low_width)
    white = torch.randn(count, channels, low_height, low_width, generator=generator)
    noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(low_height, low_width))
    noise = 0.4 * noise + 1.02 * noise.mean(1, keepdim=True)
    noise = noise / noise.std((1, 2, 3), keepdim=True, correction=0).clamp_min(1e-6)
    if (low_height, low_width) == (height, width):
        return noise
    return functional.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
