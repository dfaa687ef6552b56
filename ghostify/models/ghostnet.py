"""GhostNet (Table 1), as a classifier and as a source of feature maps at several strides."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ghostify.errors import SpecError
from ghostify.nn.bottleneck import GhostBottleneck, conv_norm
from ghostify.spec import GhostSpec

__all__ = ["STRIDES", "TABLE_1", "Bottleneck", "GhostNet", "GhostNetFeatures", "ghostnet", "widen"]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One G-bneck row of Table 1, at width 1."""

    expanded: int
    out_channels: int
    stride: int = 1
    kernel: int = 3  # of the stride's and the shortcut's depthwise convolutions
    squeeze: bool = False


TABLE_1 = (
    Bottleneck(16, 16),
    Bottleneck(48, 24, stride=2),
    Bottleneck(72, 24),
    Bottleneck(72, 40, stride=2, kernel=5, squeeze=True),
    Bottleneck(120, 40, kernel=5, squeeze=True),
    Bottleneck(240, 80, stride=2),
    Bottleneck(200, 80),
    Bottleneck(184, 80),
    Bottleneck(184, 80),
    Bottleneck(480, 112, squeeze=True),
    Bottleneck(672, 112, squeeze=True),
    Bottleneck(672, 160, stride=2, kernel=5, squeeze=True),
    Bottleneck(960, 160, kernel=5),
    Bottleneck(960, 160, kernel=5, squeeze=True),
    Bottleneck(960, 160, kernel=5),
    Bottleneck(960, 160, kernel=5, squeeze=True),
)
"""The bottlenecks in order; kernels, which the paper does not give, as in the authors' network."""

STRIDES = (2, 4, 8, 16, 32)
"""The strides at which there are feature maps."""

_STEM, _LAST, _HIDDEN = 16, 960, 1280
_DIVISOR = 4
_SQUEEZED = 4  # how many times fewer maps squeeze-and-excitation has inside


class GhostNet(nn.Module):
    """The classifier of Table 1.

    ``(N, C, H, W)`` in, ``(N, classes)`` out. Every number of maps but the 1280 before the
    classifier is multiplied by ``width`` and rounded to a multiple of 4 (:func:`widen`).
    At width 1 and 224x224: 5.18 M parameters (5.16 M without those of batch norms, which the
    paper does not count), 141.15 M multiply-adds.

    Args:
        width: alpha, the multiplier of the numbers of maps.
        num_classes: outputs of the classifier.
        in_channels: of the image.
        ratio: s of all Ghost modules.
        kernel: d of all Ghost modules.
        cheap: cheap operation of all Ghost modules (:data:`ghostify.nn.cheap.CHEAP_OPERATIONS`).
        dropout: share of the 1280 values that training drops.

    Raises:
        SpecError: an impossible argument.

    Source: GhostNet, sec. 3.2 and Table 1.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        ratio: int = 2,
        kernel: int = 3,
        cheap: str = "depthwise",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        _check(width=width, num_classes=num_classes, in_channels=in_channels)
        share = isinstance(dropout, int | float) and not isinstance(dropout, bool)
        if not share or not 0 <= dropout < 1:
            raise SpecError(f"ghostnet's dropout is from 0 to below 1 (got {dropout!r})")
        self.input_size = (in_channels, 224, 224)
        self.stem = _stem(in_channels, width)
        self.blocks = _blocks(len(TABLE_1), width, GhostSpec(ratio, kernel, cheap))
        last = widen(_LAST, width)
        self.last = conv_norm(widen(TABLE_1[-1].out_channels, width), last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=nn.Conv2d(last, _HIDDEN, 1), relu=nn.ReLU(inplace=True)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(_HIDDEN, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        x = self.head(self.pool(x)).flatten(1)
        return self.classifier(self.dropout(x))  # type: ignore[no-any-return]


class GhostNetFeatures(nn.Module):
    """The bottlenecks of GhostNet without what classifies: the maps that necks of detectors take.

    ``(N, C, H, W)`` in; out a list of ``(N, channels, H / stride, W / stride)``, one for each
    stride: what the last bottleneck at that resolution gives, 40, 112 and 160 maps at strides
    8, 16 and 32 and width 1. ``channels`` and ``strides`` tell what comes out. The layers have
    the names that they have in :class:`GhostNet`; those behind the last map are left out.

    Args:
        strides: some of 2, 4, 8, 16 and 32, ascending.

    The others are those of :class:`GhostNet`.

    Raises:
        SpecError: an impossible argument.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = (8, 16, 32),
        width: float = 1.0,
        in_channels: int = 3,
        ratio: int = 2,
        kernel: int = 3,
        cheap: str = "depthwise",
    ) -> None:
        super().__init__()
        _check(width=width, in_channels=in_channels)
        self.strides = _checked_strides(strides)
        ends = _last_at_each_stride()
        self._taps = tuple(ends[stride] for stride in self.strides)
        self.channels = tuple(widen(TABLE_1[tap].out_channels, width) for tap in self._taps)
        self.input_size = (in_channels, 224, 224)
        self.stem = _stem(in_channels, width)
        self.blocks = _blocks(self._taps[-1] + 1, width, GhostSpec(ratio, kernel, cheap))
        _initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._taps:
                found.append(x)
        return found


def ghostnet(
    *,
    width: float = 1.0,
    num_classes: int | None = None,
    in_channels: int = 3,
    ratio: int = 2,
    kernel: int = 3,
    cheap: str = "depthwise",
    dropout: float | None = None,
    features_only: bool = False,
    strides: Sequence[int] | None = None,
) -> GhostNet | GhostNetFeatures:
    """Build :class:`GhostNet`, or :class:`GhostNetFeatures` if only features are wanted.

    Args:
        num_classes: 1000 if it is not given; not with ``features_only``.
        dropout: 0.2 if it is not given; not with ``features_only``.
        features_only: give the feature maps at ``strides``, and no classes.
        strides: 8, 16 and 32 if they are not given; only with ``features_only``.

    Raises:
        SpecError: an impossible argument, or one that has no meaning beside the others.
    """
    shared: dict[str, Any] = {
        "width": width,
        "in_channels": in_channels,
        "ratio": ratio,
        "kernel": kernel,
        "cheap": cheap,
    }
    classifying = {"num_classes": num_classes, "dropout": dropout}
    given: dict[str, Any] = {key: value for key, value in classifying.items() if value is not None}
    if not features_only:
        if strides is not None:
            raise SpecError("ghostnet's strides are those of feature maps; add features_only=true")
        return GhostNet(**shared, **given)
    if given:
        raise SpecError(
            f"ghostnet has no {next(iter(given))} where features_only is true; leave it out"
        )
    if strides is not None:
        shared["strides"] = strides
    return GhostNetFeatures(**shared)


def widen(channels: float, width: float) -> int:
    """Return ``channels`` times ``width``, rounded to a multiple of 4.

    To the nearest one, but never below 90 % of the product and never below 4.
    """
    wanted = channels * width
    rounded = max(_DIVISOR, int(wanted + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * wanted else rounded


def _stem(in_channels: int, width: float) -> nn.Sequential:
    return conv_norm(in_channels, widen(_STEM, width), 3, stride=2)


def _blocks(count: int, width: float, spec: GhostSpec) -> nn.Sequential:
    blocks = []
    channels = widen(_STEM, width)
    for row in TABLE_1[:count]:
        expanded = widen(row.expanded, width)
        out_channels = widen(row.out_channels, width)
        blocks.append(
            GhostBottleneck(
                channels,
                expanded,
                out_channels,
                stride=row.stride,
                depthwise_kernel=row.kernel,
                squeezed=widen(expanded / _SQUEEZED, 1) if row.squeeze else 0,
                spec=spec,
            )
        )
        channels = out_channels
    return nn.Sequential(*blocks)


def _last_at_each_stride() -> dict[int, int]:
    found = {}
    stride = 2  # of the stem
    for index, row in enumerate(TABLE_1):
        stride *= row.stride
        found[stride] = index
    return found


def _check(*, width: float, **counts: int) -> None:
    number = isinstance(width, int | float) and not isinstance(width, bool)
    if not number or not 0 < width < math.inf:
        raise SpecError(f"ghostnet's width is a number above 0 (got {width!r})")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"ghostnet's {name} is a whole number from 1 on (got {value!r})")


def _checked_strides(strides: Sequence[int]) -> tuple[int, ...]:
    listed = tuple(strides) if isinstance(strides, list | tuple) else ()
    if not listed or any(one not in STRIDES for one in listed) or sorted(set(listed)) != [*listed]:
        raise SpecError(
            f"ghostnet's strides are some of {', '.join(map(str, STRIDES))}, ascending "
            f"(got {strides!r})"
        )
    return listed


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
