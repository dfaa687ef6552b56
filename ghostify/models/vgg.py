"""VGG-16 for CIFAR, as the paper's Tables 3 to 5 count it."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["VggCifar", "vgg16_cifar"]

_VGG16: tuple[int | str, ...] = (
    64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool",
    512, 512, 512, "pool", 512, 512, 512, "pool",
)  # fmt: skip


class VggCifar(nn.Module):
    """Thirteen 3x3 convolutions with batch norm, then 512-512-classes.

    ``(N, C, 32, 32)`` in, ``(N, classes)`` out. The convolutions have no bias, since batch
    norm follows each: 14.99 M parameters and 313.46 M multiply-adds at 32x32.
    Source: GhostNet, sec. 4.1.2 (the CIFAR variant of VGG-16 with one hidden layer of 512).
    """

    input_size = (3, 32, 32)

    def __init__(self, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.input_size = (in_channels, 32, 32)
        layers: list[nn.Module] = []
        channels = in_channels
        for step in _VGG16:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(channels, step, 3, padding=1, bias=False),
                nn.BatchNorm2d(step),
                nn.ReLU(inplace=True),
            ]
            channels = step
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(inplace=True),
            nn.Linear(512, num_classes),
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


def vgg16_cifar(*, num_classes: int = 10, in_channels: int = 3) -> VggCifar:
    """Build VGG-16 for 32x32 images."""
    return VggCifar(num_classes=num_classes, in_channels=in_channels)


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
