"""The networks of the paper's Table 7: where each is built from, and what is published of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ghostify.models import zoo
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.models.zoo import Built
from ghostify.spec import Origin

__all__ = ["NETWORKS", "Network", "build", "fbnet_b"]

SIDE = 224


@dataclass(frozen=True, slots=True)
class Network:
    """One row of Table 7. All accuracies, and ``params_m`` and ``macs_m``, are published ones."""

    name: str
    family: str
    source: str | None  # a name that ghostify knows; None: no package has it
    params_m: float
    macs_m: float
    top1: float
    top5: float | None
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def built_from(self) -> str:
        """The source with its arguments, as text."""
        if self.source is None:
            return ""
        shown = {key: value for key, value in self.args.items() if not isinstance(value, list)}
        return " ".join([self.source, *(f"{key}={value}" for key, value in shown.items())])


def _stages(maps: int) -> list[list[int]]:
    """Return the maps of ShuffleNetV1's units (Zhang et al. (2018), table 1)."""
    return [[maps] * 4, [2 * maps] * 8, [4 * maps] * 4]


_SHUFFLENET = "pytorchcv.models.shufflenet:ShuffleNet"

NETWORKS = (
    Network("ShuffleNetV1 0.5x (g=8)", "ShuffleNetV1", _SHUFFLENET, 1.0, 40, 58.8, 81.0,
            {"groups": 8, "init_block_channels": 24, "channels": _stages(192)}),
    Network("MobileNetV2 0.35x", "MobileNetV2", "timm:mobilenetv2_035", 1.7, 59, 60.3, 82.9),
    Network("ShuffleNetV2 0.5x", "ShuffleNetV2", "torchvision:shufflenet_v2_x0_5",
            1.4, 41, 61.1, 82.6),
    Network("MobileNetV3 Small 0.75x", "MobileNetV3 Small", "timm:mobilenetv3_small_075",
            2.4, 44, 65.4, None),
    Network("GhostNet 0.5x", "GhostNet", "ghostnet", 2.6, 42, 66.2, 86.6, {"width": 0.5}),
    Network("MobileNetV1 0.5x", "MobileNetV1", "pytorchcv.models.mobilenet:mobilenet_wd2",
            1.3, 150, 63.3, 84.9),
    Network("MobileNetV2 0.6x", "MobileNetV2", "torchvision:mobilenet_v2", 2.2, 141, 66.7, None,
            {"width_mult": 0.6}),
    Network("ShuffleNetV1 1.0x (g=3)", "ShuffleNetV1", _SHUFFLENET, 1.9, 138, 67.8, 87.7,
            {"groups": 3, "init_block_channels": 24, "channels": _stages(240)}),
    Network("ShuffleNetV2 1.0x", "ShuffleNetV2", "torchvision:shufflenet_v2_x1_0",
            2.3, 146, 69.4, 88.9),
    Network("MobileNetV3 Large 0.75x", "MobileNetV3 Large", "timm:mobilenetv3_large_075",
            4.0, 155, 73.3, None),
    Network("GhostNet 1.0x", "GhostNet", "ghostnet", 5.2, 141, 73.9, 91.4),
    Network("MobileNetV2 1.0x", "MobileNetV2", "torchvision:mobilenet_v2", 3.5, 300, 71.8, 91.0),
    Network("ShuffleNetV2 1.5x", "ShuffleNetV2", "torchvision:shufflenet_v2_x1_5",
            3.5, 299, 72.6, 90.6),
    Network("FE-Net 1.0x", "FE-Net", None, 3.7, 301, 72.9, None),
    Network("FBNet-B", "FBNet", "table7_networks:fbnet_b", 4.5, 295, 74.1, None),
    Network("ProxylessNAS", "ProxylessNAS", "pytorchcv.models.proxylessnas:proxylessnas_mobile",
            4.1, 320, 74.6, 92.2),
    Network("MnasNet-A1", "MnasNet", "timm:semnasnet_100", 3.9, 312, 75.2, 92.5),
    Network("MobileNetV3 Large 1.0x", "MobileNetV3 Large", "torchvision:mobilenet_v3_large",
            5.4, 219, 75.2, None),
    Network("GhostNet 1.3x", "GhostNet", "ghostnet", 7.3, 226, 75.7, 92.7, {"width": 1.3}),
)  # fmt: skip
"""In the order of Table 7."""

_FBNET_B = (
    ("ir_r1_k3_s1_e1_c16",),
    ("ir_r1_k3_s2_e6_c24", "ir_r1_k5_s1_e1_c24", "ir_r2_k3_s1_e1_c24"),
    ("ir_r1_k5_s2_e6_c32", "ir_r1_k5_s1_e3_c32", "ir_r1_k3_s1_e6_c32", "ir_r1_k5_s1_e6_c32"),
    ("ir_r1_k5_s2_e6_c64", "ir_r1_k5_s1_e1_c64", "ir_r1_k5_s1_e3_c64"),
    ("ir_r1_k5_s1_e6_c112", "ir_r1_k3_s1_e1_c112", "ir_r1_k5_s1_e1_c112", "ir_r1_k5_s1_e3_c112"),
    ("ir_r1_k5_s2_e6_c184", "ir_r1_k5_s1_e1_c184", "ir_r2_k5_s1_e6_c184"),
    ("ir_r1_k3_s1_e6_c352",),
)


def fbnet_b() -> nn.Module:
    """Build FBNet-B of timm's blocks: timm has FBNet-C only, and no other package has B.

    Source: Wu et al. (2019), fig. 4; 296.6 M multiply-adds, of which 295 M are published.
    """
    import_beside_torchvision("timm")
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.efficientnet import EfficientNet

    model: nn.Module = EfficientNet(
        decode_arch_def([list(stage) for stage in _FBNET_B]), stem_size=16, num_features=1984
    )
    return model


def build(network: Network, *, seed: int) -> Built:
    """Build a network, with random weights."""
    assert network.source is not None
    made = zoo.build(network.source, args=network.args, seed=seed)
    origin = Origin("factory", network.name)
    return Built(made.model.eval(), origin, (3, SIDE, SIDE))
