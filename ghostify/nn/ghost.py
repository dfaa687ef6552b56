"""The Ghost module: a few maps by convolution, the rest as cheap functions of them."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ghostify.errors import SpecError
from ghostify.nn.cheap import build_branch, draw_weights
from ghostify.nn.join import HOOKS, join_lean, joins_lean
from ghostify.nn.order import in_order
from ghostify.spec import GhostSpec

__all__ = ["HOOKS", "GhostModule", "kept_maps", "slim"]

_Size = int | tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class GhostModule(nn.Module):
    """A convolution that computes m = ceil(n / s) maps and derives the others from them.

    ``(N, C, H, W)`` or ``(C, H, W)`` in; out the shape that ``nn.Conv2d`` with the same
    arguments gives. The primary convolution has all settings of the original one; the
    cheap branches are d x d filters of stride 1, map by map (dilation belongs to the
    primary convolution only), by default learned ones. There are s - 1 branches of m maps
    each; the last reads only as many maps as are missing, so every parameter has a part in the
    output. Where m is rounded up, fewer maps are missing, and fewer branches may do.
    No batch norm and no activation inside: the network's own follow the concatenation.

    In training, maps are kept once where that changes nothing (:mod:`ghostify.nn.join`);
    ``lean = False`` keeps the intrinsic ones twice, which takes a little less time.

    Deviation from eq. 3: the maps are ordered by branch, ``[y_1s .. y_ms, y_11 .. y_m1, ...]``.

    Args:
        ratio: s, output maps per intrinsic map, at most ``out_channels``.
        kernel: d, side of the cheap filters, odd.
        cheap: name in :data:`ghostify.nn.cheap.CHEAP_OPERATIONS`.
        round_to: m is rounded up to a multiple of this (:func:`ghostify.spec.intrinsic_maps`).
        mixed: sides of the filters where there are several; ``kernel`` is the largest of them.

    Raises:
        SpecError: an impossible ratio or kernel, or groups that leave no ghost to make.

    Source: GhostNet (CVPR 2020), eq. 2 and 3, fig. 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: str | _Size = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        ratio: int = 2,
        kernel: int = 3,
        cheap: str = "depthwise",
        round_to: int = 1,
        mixed: tuple[int, ...] = (),
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        spec = GhostSpec(ratio, kernel, cheap, round_to, mixed)
        primary = nn.Conv2d(
            in_channels,
            _checked_intrinsic_maps(out_channels, spec, groups),
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
        )
        self._assemble(primary, out_channels, spec)
        self.reset_parameters()

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, spec: GhostSpec, *, generator: torch.Generator | None = None
    ) -> GhostModule:
        """Build the Ghost module that takes the place of ``conv``, which stays untouched.

        The primary convolution has the class of ``conv``, its settings, device and dtype;
        the weights are new (:meth:`reset_parameters`).

        Raises:
            SpecError: as for the constructor.
        """
        maps = _checked_intrinsic_maps(conv.out_channels, spec, conv.groups)
        module = cls.__new__(cls)
        module._assemble(slim(conv, maps), conv.out_channels, spec)
        module.train(conv.training)
        module.reset_parameters(generator)
        if not conv.weight.is_contiguous():
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def _assemble(self, primary: nn.Conv2d, out_channels: int, spec: GhostSpec) -> None:
        nn.Module.__init__(self)
        self.ratio, self.kernel, self.cheap_operation = spec.ratio, spec.kernel, spec.cheap
        self.round_to, self.mixed = spec.round_to, spec.mixed
        self.in_channels, self.out_channels = primary.in_channels, out_channels
        self.kernel_size, self.stride = primary.kernel_size, primary.stride
        self.padding, self.padding_mode = primary.padding, primary.padding_mode
        self.dilation, self.groups = primary.dilation, primary.groups
        self.primary = primary
        self.cheap = nn.ModuleList(
            build_branch(
                spec,
                maps,
                bias=primary.bias is not None,
                first=number,  # so that the ghosts of one map get different fixed filters
                device=primary.weight.device,
                dtype=primary.weight.dtype,
            )
            for number, maps in enumerate(self._branch_maps())
        )
        # Less memory in training, for a little time. Turned off where what follows is in place.
        self.lean = True
        self.order: Tensor | None
        self.register_buffer("order", None)

    @property
    def spec(self) -> GhostSpec:
        """The settings of this module: s, d, cheap operation, rounding of m."""
        return GhostSpec(self.ratio, self.kernel, self.cheap_operation, self.round_to, self.mixed)

    @property
    def weight(self) -> Tensor:
        """The primary convolution's weight, for code that asks a layer for dtype and device."""
        return self.primary.weight

    @property
    def intrinsic_channels(self) -> int:
        """How many maps the primary convolution makes, m."""
        return self.primary.out_channels

    @property
    def ghost_channels(self) -> int:
        """How many maps the cheap operations make, n - m."""
        return self.out_channels - self.intrinsic_channels

    def _branch_maps(self) -> list[int]:
        full, rest = divmod(self.ghost_channels, self.intrinsic_channels)
        return [self.intrinsic_channels] * full + [rest] * (rest > 0)

    def forward(self, input: Tensor) -> Tensor:  # named as Conv2d names it
        intrinsic = self.primary(input)
        if self.lean and joins_lean(self.primary, self.cheap, intrinsic):
            return join_lean(self, input, self.primary, self.cheap, intrinsic, self.order)
        maps = [intrinsic]
        for channels, branch in zip(self._branch_maps(), self.cheap, strict=True):
            whole = channels == self.intrinsic_channels
            maps.append(branch(intrinsic if whole else intrinsic.narrow(-3, 0, channels)))
        made = torch.cat(maps, dim=-3)
        return made if self.order is None else in_order(made, self.order)

    def reorder(self, order: Tensor | None) -> None:
        """Let map k of the output be map ``order[k]`` of those that the module makes.

        One indexed copy more; None takes it away. Kept in the state dict as ``order``.

        Raises:
            SpecError: the order is no permutation of the output maps.
        """
        if order is not None and sorted(order.tolist()) != list(range(self.out_channels)):
            raise SpecError(
                f"GhostModule.order must name each of its {self.out_channels} maps once "
                f"(got {len(order)} entries)"
            )
        self.order = None if order is None else order.to(self.weight.device, torch.int64)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        order = state_dict.get(f"{prefix}order")
        if order is None:
            self.order = None
        elif self.order is None and order.shape == (self.out_channels,):
            self.reorder(order)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights as the paper's code does: Kaiming normal by fan-out, biases zero.

        Where only a number for each fixed filter is learned, it is one or minus one.
        """
        nn.init.kaiming_normal_(
            self.primary.weight, mode="fan_out", nonlinearity="relu", generator=generator
        )
        if self.primary.bias is not None:
            nn.init.zeros_(self.primary.bias)
        for branch in self.cheap:
            draw_weights(branch, self.cheap_operation, generator)

    def extra_repr(self) -> str:
        parts = [str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}"]
        for field, default in (
            ("stride", (1, 1)),
            ("padding", (0, 0)),
            ("dilation", (1, 1)),
            ("groups", 1),
            ("padding_mode", "zeros"),
        ):
            value = getattr(self, field)
            if value != default:
                parts.append(f"{field}={value!r}")
        if self.primary.bias is None:
            parts.append("bias=False")
        parts.append(f"ratio={self.ratio}")
        parts.append(f"mixed={self.mixed!r}" if self.mixed else f"kernel={self.kernel}")
        if self.cheap_operation != "depthwise":
            parts.append(f"cheap={self.cheap_operation!r}")
        if self.round_to != 1:
            parts.append(f"round_to={self.round_to}")
        return ", ".join(parts)

    def __repr__(self) -> str:
        primary = "" if type(self.primary) is nn.Conv2d else f", primary={self.primary!r}"
        return f"{type(self).__name__}({self.extra_repr()}{primary})"


def _checked_intrinsic_maps(out_channels: int, spec: GhostSpec, groups: int) -> int:
    if spec.ratio > out_channels:
        raise SpecError(
            f"GhostModule.ratio (s) must be at most out_channels ({out_channels}) "
            f"(got {spec.ratio}); choose a smaller ratio"
        )
    maps = spec.intrinsic_maps(out_channels, groups)
    if maps == out_channels:
        raise SpecError(
            f"GhostModule with groups={groups} needs all {out_channels} maps from its primary "
            "convolution, so no ghost is left to make; keep such a layer"
        )
    return maps


def kept_maps(conv: nn.Conv2d, maps: int) -> Tensor:
    """Return the indices of the output maps that :func:`slim` keeps: the first of each group."""
    per_group = conv.out_channels // conv.groups
    starts = torch.arange(conv.groups) * per_group
    return (starts[:, None] + torch.arange(maps // conv.groups)).flatten()


def slim(conv: nn.Conv2d, maps: int) -> nn.Conv2d:
    """Copy ``conv`` with its class and settings, but only ``maps`` output maps.

    Parameters and buffers with one entry for each output map keep those of the first
    maps of each group, so for a class that treats output maps independently the copy
    computes these maps exactly. Hooks stay behind.
    """
    if type(conv) is nn.Conv2d:
        return nn.utils.skip_init(  # type: ignore[no-any-return]
            nn.Conv2d,
            conv.in_channels,
            maps,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
    kept = kept_maps(conv, maps)
    copied = copy.deepcopy(conv)
    for hooks in HOOKS:
        getattr(copied, hooks).clear()
    for name, parameter in list(copied.named_parameters()):
        if parameter.dim() and parameter.shape[0] == conv.out_channels:
            owner, _, leaf = name.rpartition(".")
            rows = parameter.detach()[kept.to(parameter.device)].clone()
            setattr(copied.get_submodule(owner), leaf, nn.Parameter(rows))
    for name, buffer in list(copied.named_buffers()):
        if buffer.dim() and buffer.shape[0] == conv.out_channels:
            owner, _, leaf = name.rpartition(".")
            setattr(copied.get_submodule(owner), leaf, buffer[kept.to(buffer.device)].clone())
    copied.out_channels = maps
    return copied
