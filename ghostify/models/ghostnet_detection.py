"""GhostNet as the backbone of torchvision's detectors (Table 8)."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ghostify.errors import SpecError
from ghostify.models.ghostnet import GhostNetFeatures
from ghostify.models.torchvision_import import require
from ghostify.models.weights import load_weights

__all__ = [
    "GhostNetFpn",
    "fasterrcnn_ghostnet_fpn",
    "has_compiled_operators",
    "retinanet_ghostnet_fpn",
]

_WIDTH = 1.1  # of Table 8
_MAPS = 256  # of every level of the pyramid
_RETINANET, _FASTER_RCNN = (8, 16, 32), (4, 8, 16, 32)


class GhostNetFpn(nn.Module):
    """GhostNet's feature maps, and the pyramid that makes levels of equally many maps of them.

    ``(N, C, H, W)`` in; out an ordered dict of ``(N, out_channels, H / stride, W / stride)``:
    one level for each stride, named ``"0"``, ``"1"`` and on, and the extra ones. That is what
    torchvision's detectors ask of a backbone.

    Args:
        strides: of the maps that the pyramid takes (:class:`~ghostify.models.ghostnet.
            GhostNetFeatures`).
        out_channels: maps of each level.
        extra: further, smaller levels: ``"pool"``, one that every second pixel of the last
            is taken for (Faster R-CNN); ``"p6p7"``, two by convolutions (RetinaNet); or none.
        weights: a checkpoint of GhostNet, ours, timm's or the authors', for the backbone.
        frozen_norms: keep the batch norms of the backbone as they are loaded, as detectors
            are trained with few images at once.
        settings: of the backbone: ``width``, ``in_channels``, ``ratio``, ``kernel``, ``cheap``.

    Raises:
        SpecError: an impossible argument.
        WeightsError: the checkpoint does not fit.
        ModelNotFoundError: torchvision is not installed.
    """

    def __init__(
        self,
        *,
        strides: tuple[int, ...] = _RETINANET,
        out_channels: int = _MAPS,
        extra: str | None = None,
        weights: str | Path | None = None,
        frozen_norms: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        require("torchvision", wanted="a pyramid of features")
        from torchvision.ops import FeaturePyramidNetwork, feature_pyramid_network

        makers = {
            "pool": feature_pyramid_network.LastLevelMaxPool,
            "p6p7": lambda: feature_pyramid_network.LastLevelP6P7(out_channels, out_channels),
        }
        if extra is not None and extra not in makers:
            raise SpecError(f"GhostNetFpn.extra is one of {', '.join(makers)} (got {extra!r})")
        if frozen_norms and weights is None:
            raise SpecError("GhostNetFpn.frozen_norms needs trained weights; give weights")
        self.body = GhostNetFeatures(strides=strides, **settings)
        if weights is not None:
            load_weights(self.body, weights, name="GhostNet")
        if frozen_norms:
            _freeze_norms(self.body)
        self.fpn = FeaturePyramidNetwork(
            list(self.body.channels), out_channels, extra_blocks=makers[extra]() if extra else None
        )
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = OrderedDict((str(level), one) for level, one in enumerate(self.body(x)))
        return self.fpn(maps)  # type: ignore[no-any-return]


def retinanet_ghostnet_fpn(
    *,
    width: float = _WIDTH,
    num_classes: int = 91,
    weights_backbone: str | Path | None = None,
    frozen_norms: bool = False,
    **detector: Any,
) -> nn.Module:
    """Build torchvision's RetinaNet on GhostNet: levels at strides 8 to 128.

    Args:
        width: alpha of GhostNet; 1.1 in the paper.
        num_classes: with the background, as torchvision counts.
        weights_backbone: a checkpoint of GhostNet.
        frozen_norms: keep the backbone's batch norms as they are loaded.
        detector: further arguments of ``torchvision.models.detection.RetinaNet``.

    Raises:
        SpecError, WeightsError, ModelNotFoundError: as for :class:`GhostNetFpn`.

    Source: GhostNet, sec. 4.2.2 and Table 8.
    """
    require("torchvision", wanted="RetinaNet")
    from torchvision.models.detection import RetinaNet

    backbone = GhostNetFpn(
        strides=_RETINANET,
        extra="p6p7",
        width=width,
        weights=weights_backbone,
        frozen_norms=frozen_norms,
    )
    return RetinaNet(backbone, num_classes, **detector)  # type: ignore[no-any-return]


def fasterrcnn_ghostnet_fpn(
    *,
    width: float = _WIDTH,
    num_classes: int = 91,
    weights_backbone: str | Path | None = None,
    frozen_norms: bool = False,
    **detector: Any,
) -> nn.Module:
    """Build torchvision's Faster R-CNN on GhostNet: levels at strides 4 to 64.

    The arguments are those of :func:`retinanet_ghostnet_fpn`; ``detector`` are further ones
    of ``torchvision.models.detection.FasterRCNN``.

    Raises:
        SpecError, WeightsError, ModelNotFoundError: as for :class:`GhostNetFpn`.

    Source: GhostNet, sec. 4.2.2 and Table 8.
    """
    require("torchvision", wanted="Faster R-CNN")
    from torchvision.models.detection import FasterRCNN

    backbone = GhostNetFpn(
        strides=_FASTER_RCNN,
        extra="pool",
        width=width,
        weights=weights_backbone,
        frozen_norms=frozen_norms,
    )
    return FasterRCNN(backbone, num_classes, **detector)  # type: ignore[no-any-return]


def has_compiled_operators() -> bool:
    """Whether torchvision's compiled operators (``nms``, ``roi_align``) fit this torch."""
    require("torchvision", wanted="a detector")
    from torchvision.extension import _has_ops

    return bool(_has_ops())


def _freeze_norms(model: nn.Module) -> None:
    """Put batch norms that neither learn nor follow the batch in the place of all there are."""
    from torchvision.ops import FrozenBatchNorm2d

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
                frozen.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, frozen)
