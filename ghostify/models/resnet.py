"""The CIFAR ResNets of He et al. (2016), sec. 4.2, with parameter-free shortcuts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "BasicBlock",
    "PadShortcut",
    "ResNetCifar",
    "resnet20_cifar",
    "resnet32_cifar",
    "resnet44_cifar",
    "resnet56_cifar",
    "resnet110_cifar",
]


class PadShortcut(nn.Module):
    """Option A: every second pixel, and maps of zeros on both sides to reach ``out_channels``.

    ``(N, C, H, W)`` in, ``(N, out_channels, ceil(H / 2), ceil(W / 2))`` out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"maps of zeros: {self.before} before, {self.after} after"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = PadShortcut(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))  # type: ignore[no-any-return]


class ResNetCifar(nn.Module):
    """6n + 2 layers in three stages of 16, 32 and 64 maps.

    ``(N, C, 32, 32)`` in, ``(N, classes)`` out. ResNet-56: 0.853 M parameters, 125.49 M
    multiply-adds. The names of the layers are those of the widely used checkpoints.
    """

    def __init__(self, blocks: int, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.input_size = (in_channels, 32, 32)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(blocks, 16, 16, stride=1)
        self.layer2 = _stage(blocks, 16, 32, stride=2)
        self.layer3 = _stage(blocks, 32, 64, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))  # type: ignore[no-any-return]


def _stage(blocks: int, in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet20_cifar(*, num_classes: int = 10, in_channels: int = 3) -> ResNetCifar:
    """Build ResNet-20 for 32x32 images."""
    return ResNetCifar(3, num_classes=num_classes, in_channels=in_channels)


def resnet32_cifar(*, num_classes: int = 10, in_channels: int = 3) -> ResNetCifar:
    """Build ResNet-32 for 32x32 images."""
    return ResNetCifar(5, num_classes=num_classes, in_channels=in_channels)


def resnet44_cifar(*, num_classes: int = 10, in_channels: int = 3) -> ResNetCifar:
    """Build ResNet-44 for 32x32 images."""
    return ResNetCifar(7, num_classes=num_classes, in_channels=in_channels)


def resnet56_cifar(*, num_classes: int = 10, in_channels: int = 3) -> ResNetCifar:
    """Build ResNet-56 for 32x32 images."""
    return ResNetCifar(9, num_classes=num_classes, in_channels=in_channels)


def resnet110_cifar(*, num_classes: int = 10, in_channels: int = 3) -> ResNetCifar:
    """Build ResNet-110 for 32x32 images."""
    return ResNetCifar(18, num_classes=num_classes, in_channels=in_channels)
