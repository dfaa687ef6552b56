"""Networks with random statistics, so that equal outputs prove something."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ghostify.converting import convert
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.nn.ghost import GhostModule


def library(name: str) -> nn.Module:
    """Build a network of torchvision, or of timm (``timm:name``)."""
    if name.startswith("timm:"):
        timm = import_beside_torchvision("timm")
        return timm.create_model(name.removeprefix("timm:"), pretrained=False, num_classes=10)
    models = import_beside_torchvision("torchvision.models")
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vgg"):
        net = models.vgg.VGG(
            models.vgg.make_layers(models.vgg.cfgs["A"], batch_norm=True), 10, init_weights=False
        )
        net.classifier = nn.Sequential(nn.Linear(512 * 49, 10))
        return net
    return models.get_model(name, weights=None, num_classes=10, **more)


def shaken(model: nn.Module, *, seed: int = 0, orders: bool = False) -> nn.Module:
    """Return the model in float64 and eval mode with random norms (and orders of maps)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.copy_(draw(module.running_mean, -0.4, 0.4))
                module.running_var.copy_(draw(module.running_var, 0.5, 1.5))
                if module.weight is not None:
                    module.weight.copy_(draw(module.weight, 0.5, 1.5))
                    module.bias.copy_(draw(module.bias, -0.4, 0.4))
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.copy_(draw(module.bias, -0.4, 0.4))
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(draw(module.weight, 0.1, 0.9))
            if orders and isinstance(module, GhostModule):
                module.reorder(torch.randperm(module.out_channels, generator=generator))
    return model.double().eval()


def ghosted(
    model: nn.Module, ratio: int, example: Tensor, *, orders: bool = False, kernel: int = 3
) -> nn.Module:
    """Return the model with Ghost modules (ratio 0: as it is) and random statistics."""
    if ratio:
        model = convert(model, ratio=ratio, kernel=kernel, example=example, verify=False).model
    return shaken(model, orders=orders)
