"""The primary filters of a Ghost module whose branches are fixed, by conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ghostify.graph.cheap_fit import DAMPING
from ghostify.graph.fit import Stream, pieces, zeros
from ghostify.graph.pairing import Pairing
from ghostify.nn.cheap import filters_of
from ghostify.nn.ghost import GhostModule

__all__ = ["fit_primary", "input_gram", "is_linear_in_its_weight"]


def fit_primary(
    ghost: GhostModule,
    pairing: Pairing,
    stream: Stream,
    weights: Tensor,
    *,
    gram: Tensor | None,
    iterations: int = 6,
    offset: bool = True,
    damping: float = DAMPING,
) -> None:
    """Improve the primary filters with the branches held fixed, by conjugate gradients.

    Minimises ``sum_c weights[c] * Var(y_c - made_c)`` plus a ridge. Products with the normal
    matrix are taken through the module itself by autograd, so stride, padding and borders are
    those that it will run with; its means are eliminated exactly.

    Args:
        weights: ``(n,)``, of the original output maps.
        gram: ``(groups, K, K)`` central second moments of the input patches, for the
            preconditioner, or None for none.
        offset: whether something behind takes up the mean of the miss; else it counts too.
        damping: the ridge, which holds the filters where they are, as a share of the mean
            energy of the input.
    """
    made = torch.tensor(pairing.made, device=ghost.weight.device)
    system = _Normal(ghost, weights.to(ghost.weight)[made], stream, offset=offset)
    start = ghost.primary.weight.detach()
    ridge, precondition = _preconditioner(system, gram, damping)

    solution = torch.zeros_like(start, dtype=torch.float64)
    residual = system.gradient(start, made).double()  # of the data at the start
    direction = torch.zeros_like(solution)
    rho = 1.0
    for step in range(iterations):
        z = precondition(residual)
        rho, before = float((residual * z).sum()), rho
        if rho <= 0 or not math.isfinite(rho):
            break
        direction = z + direction * (rho / before) if step else z
        product = system.product(direction.to(start.dtype)).double() + ridge * direction
        curvature = float((direction * product).sum())
        if curvature <= 0 or not math.isfinite(curvature):
            break
        solution += rho / curvature * direction
        residual -= rho / curvature * product
    with torch.no_grad():
        ghost.primary.weight += solution.to(start.dtype)


def is_linear_in_its_weight(conv: nn.Conv2d) -> bool:
    """Return whether the output is linear in the weight, filter by filter.

    Not so for standardised weights, nor where each map has some factor of its own.
    """
    if type(conv) is nn.Conv2d:
        return True
    sides = [2 * (k - 1) * d + 3 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, conv.in_channels, *sides, generator=generator).to(conv.weight)
    weight = conv.weight.detach()
    filters = torch.cat([part for one in weight.chunk(conv.groups) for part in (one, one[:1])])
    try:
        with torch.no_grad():
            once, twice = (_respond(conv, weight * factor, image) for factor in (1, 2))
            more = _respond(conv, filters, image)
    except RuntimeError:  # something in it is made for just so many maps
        return False
    again = torch.cat([part for one in once.chunk(conv.groups, 1) for part in (one, one[:, :1])], 1)
    size = float(once.abs().max())
    return size > 0 and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=0.0, atol=1e-3 * size)
        for one, other in ((2 * once, twice), (again, more))
    )


def input_gram(
    ghost: GhostModule, sources: Iterable[Tensor], *, limit: int = 9216
) -> Tensor | None:
    """Return the central second moments of the input patches, ``(groups, K, K)`` in float64.

    None where K, the weights of one filter, is beyond ``limit``.
    """
    primary = ghost.primary
    size = primary.weight[0].numel()
    if size > limit:
        return None
    groups = primary.groups
    total = zeros(groups, size, size, device=primary.weight.device)
    first = zeros(groups, size, device=primary.weight.device)
    origin: Tensor | None = None  # as in PairSums
    count, enough = 0, 16 * size + 4096
    with torch.no_grad():
        for source in sources:
            for part in pieces(source, math.prod(primary.kernel_size)):
                if count >= enough:
                    break
                near = _unfold(primary, part)  # (groups, K, P)
                origin = near.mean(2, keepdim=True) if origin is None else origin
                near = near - origin
                total += torch.bmm(near, near.transpose(1, 2)).double()
                first += near.sum(2, dtype=torch.float64)
                count += near.shape[2]
    first = first / count
    return total / count - first[:, :, None] * first[:, None, :]


class _Normal:
    """The normal equations of the primary filters of one Ghost module."""

    def __init__(
        self, ghost: GhostModule, weights: Tensor, stream: Stream, *, offset: bool
    ) -> None:
        self.ghost, self.weights, self.stream, self.offset = ghost, weights, stream, offset
        self.maps = ghost.intrinsic_channels
        self.count = 0
        self.means = self._means()  # (n, K): d mean(made_c) / d filter of its intrinsic map
        if not offset:
            self.means = torch.zeros_like(self.means)
        self.owner = torch.arange(ghost.out_channels, device=weights.device) % self.maps
        self.load = torch.zeros(self.maps, dtype=torch.float64, device=weights.device)
        power = torch.ones(ghost.out_channels, device=weights.device)
        if ghost.ghost_channels:
            power[self.maps :] = torch.cat(
                [filters_of(branch).detach().flatten(1).square().sum(1) for branch in ghost.cheap]
            )
        self.load.index_add_(0, self.owner, (weights * power).double())

    def product(self, direction: Tensor) -> Tensor:
        """Return the normal matrix times a change of the filters."""
        total = torch.zeros_like(direction, dtype=torch.float64)
        probe = direction.clone().requires_grad_()
        mean = (self.means * direction.flatten(1)[self.owner].double()).sum(1)
        for source, _ in self.stream():
            with torch.enable_grad():
                made = self._linear(probe, source)
                total += self._pulled(made, mean, probe)
        return total / self.count

    def gradient(self, weight: Tensor, made_of: Tensor) -> Tensor:
        """Return what the filters at ``weight`` still miss, as the normal equations see it."""
        total = torch.zeros_like(weight, dtype=torch.float64)
        error = torch.zeros(len(made_of), dtype=torch.float64, device=weight.device)
        probe = weight.clone().requires_grad_()
        for source, target in self.stream():
            with torch.no_grad():
                miss = target[:, made_of] - self._affine(weight, source)
            if self.offset:
                error += miss.sum((0, 2, 3), dtype=torch.float64)
        for source, target in self.stream():
            with torch.enable_grad():
                miss = target[:, made_of] - self._affine(probe, source)
                total -= self._pulled(miss, error / self.count, probe)
        return total / self.count

    def _pulled(self, maps: Tensor, mean: Tensor, probe: Tensor) -> Tensor:
        """Return the gradient of the weighted energy about the mean, which is known beforehand.

        Taken about zero and corrected afterwards, it would drown in rounding where the mean
        is large beside the spread.
        """
        about = maps - mean.to(maps.dtype).view(-1, 1, 1)
        energy = (about.square().sum((0, 2, 3)) * self.weights).sum() / 2
        return torch.autograd.grad(energy, probe)[0].double()

    def _linear(self, weight: Tensor, source: Tensor) -> Tensor:
        """Return the module's maps in its own order, without any bias."""
        return _made(self.ghost, _respond(self.ghost.primary, weight, source))

    def _affine(self, weight: Tensor, source: Tensor) -> Tensor:
        """Return the maps with the biases, of which borders see less once filtered."""
        ghost = self.ghost
        intrinsic = _respond(ghost.primary, weight, source)
        if ghost.primary.bias is not None:
            intrinsic = intrinsic + ghost.primary.bias.detach().view(-1, 1, 1)
        return _made(ghost, intrinsic)

    def _means(self) -> Tensor:
        """Return how each map's mean depends on its filter, borders included."""
        ghost = self.ghost
        kernel, groups = ghost.kernel, ghost.groups
        taps = kernel * kernel
        primary = ghost.primary
        shape = (groups * taps, *primary.weight.shape[1:])
        probe = torch.zeros(shape, dtype=primary.weight.dtype, device=primary.weight.device)
        probe.requires_grad_()
        total = torch.zeros(shape, dtype=torch.float64, device=probe.device)
        self.count = 0
        window: Tensor | None = None
        for source, _ in self.stream():
            with torch.enable_grad():
                seen = _respond(primary, probe, source)
                if window is None or window.shape[-2:] != seen.shape[-2:]:
                    inside = torch.ones(1, 1, *seen.shape[-2:], device=probe.device)
                    window = _windows(inside.to(probe.dtype), kernel).repeat(1, groups, 1, 1)
                reached = (seen * window).sum()
            total += torch.autograd.grad(reached, probe)[0].double()
            self.count += len(seen) * seen.shape[-2] * seen.shape[-1]
        shifted = (total / self.count).view(groups, taps, -1)
        filters = torch.zeros(ghost.out_channels, taps, dtype=torch.float64, device=probe.device)
        filters[: self.maps, taps // 2] = 1.0
        if ghost.ghost_channels:
            filters[self.maps :] = torch.cat(
                [filters_of(branch, kernel).detach().flatten(1) for branch in ghost.cheap]
            ).double()
        group = (torch.arange(ghost.out_channels) % self.maps) // (self.maps // groups)
        return torch.einsum("ct,ctk->ck", filters, shifted[group.to(probe.device)])


def _windows(inside: Tensor, kernel: int) -> Tensor:
    """Return, for each tap of a padded d x d filter, which positions it ever reads.

    The filter reads position p + t for each p, so over all p that is every position but those
    within t of the border on one side.
    """
    height, width = inside.shape[-2:]
    rows = torch.arange(height, device=inside.device)[:, None]
    columns = torch.arange(width, device=inside.device)[None, :]
    reach = range(-(kernel // 2), kernel // 2 + 1)
    windows = [
        (rows - dy >= 0) & (rows - dy < height) & (columns - dx >= 0) & (columns - dx < width)
        for dy in reach
        for dx in reach
    ]
    return torch.stack(windows)[None].to(inside.dtype)


def _respond(conv: nn.Conv2d, weight: Tensor, source: Tensor) -> Tensor:
    """Run a convolution with another weight (of any number of maps) and no bias."""
    if type(conv) is nn.Conv2d:
        plain: Tensor = conv._conv_forward(source, weight, None)
        return plain
    values = {"weight": weight}
    if conv.bias is not None:
        values["bias"] = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    answer: Tensor = functional_call(conv, values, (source,))
    return answer


def _made(ghost: GhostModule, intrinsic: Tensor) -> Tensor:
    maps = [intrinsic]
    for branch in ghost.cheap:
        weight = filters_of(branch, ghost.kernel).detach()
        used = intrinsic.narrow(1, 0, len(weight))
        if ghost.kernel == 1:
            maps.append(used * weight.view(1, -1, 1, 1))
        else:
            pad = ghost.kernel // 2
            maps.append(functional.conv2d(used, weight, padding=pad, groups=len(weight)))
    return torch.cat(maps, dim=1)


def _preconditioner(
    system: _Normal, gram: Tensor | None, damping: float
) -> tuple[float, Callable[[Tensor], Tensor]]:
    """Return the ridge, and what stands for the inverse of the normal matrix."""
    load = system.load.clamp_min(float(system.load.max()) * 1e-6 + 1e-30)
    if gram is None:
        return 0.0, lambda residual: residual / load.view(-1, 1, 1, 1)
    groups, size = gram.shape[:2]
    scale = float(gram.diagonal(dim1=1, dim2=2).clamp_min(0).mean()) + 1e-30
    eye = torch.eye(size, dtype=gram.dtype, device=gram.device)
    light = damping
    factor, failed = torch.linalg.cholesky_ex(gram + light * scale * eye)
    while failed.any() and light < 1:  # rounding can leave a dead input's moments negative
        light *= 10
        factor, failed = torch.linalg.cholesky_ex(gram + light * scale * eye)
    if failed.any():
        return 0.0, lambda residual: residual / load.view(-1, 1, 1, 1)
    ridge = damping * scale * float(load.mean())

    def apply(residual: Tensor) -> Tensor:
        rows = (residual.flatten(1) / load[:, None]).view(groups, -1, size)
        solved = torch.cholesky_solve(rows.transpose(1, 2), factor)
        return solved.transpose(1, 2).reshape(residual.shape)

    return ridge, apply


def _unfold(conv: nn.Conv2d, source: Tensor) -> Tensor:
    before = list(conv._reversed_padding_repeated_twice)  # left, right, top, bottom
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = functional.pad(source, before, mode=mode) if any(before) else source
    if conv.kernel_size == (1, 1):
        near = padded[:, :, :: conv.stride[0], :: conv.stride[1]].flatten(2)
    else:
        near = functional.unfold(padded, conv.kernel_size, conv.dilation, 0, conv.stride)
    batch, rows = near.shape[:2]
    grouped = near.view(batch, conv.groups, rows // conv.groups, -1)
    return grouped.permute(1, 2, 0, 3).reshape(conv.groups, rows // conv.groups, -1)
