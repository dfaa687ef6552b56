"""The arithmetic of the paper's networks: closed form and torch's counter, to the digit.

The expected figures were computed by hand from the networks' layer lists (m = ceil(n / s),
convolutions and fully connected layers), and agree with the paper's Tables 3 to 6 up to the
paper's own rounding.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ghostify
from ghostify.nn.cheap import ChannelScale

VGG = [
    # s, d, MACs in M, parameters in M
    (2, 1, "157.0", "7.63"),
    (2, 3, "158.1", "7.65"),
    (2, 5, "160.3", "7.69"),
    (2, 7, "163.6", "7.74"),
    (3, 3, "107.2", "5.22"),
    (4, 3, "80.4", "3.98"),
    (5, 3, "65.6", "3.27"),
]


def counted_macs(model: nn.Module, size: tuple[int, ...]) -> int:
    """Count by torch alone; what it has no formula for (products per channel) by shapes."""
    scaled = []
    for module in model.modules():
        if isinstance(module, ChannelScale):
            module.register_forward_hook(lambda _m, _i, output: scaled.append(output.numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *size))
    return counter.get_total_flops() // 2 + sum(scaled)


def millions(number: int, digits: int) -> str:
    return f"{number / 1e6:.{digits}f}"


def weights(model: nn.Module) -> int:
    """Parameters of convolutions and fully connected layers, biases of the latter included."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    return sum(p.numel() for m in model.modules() if not isinstance(m, norms)
               for p in m.parameters(recurse=False))  # fmt: skip


def both(name: str, **rules: Any) -> tuple[ghostify.Inspection, nn.Module]:
    """Return the closed form's prediction and the network really converted."""
    predicted = ghostify.inspect(name, **rules)
    return predicted, ghostify.convert(name, verify=False, **rules).model


def test_dense_vgg16() -> None:
    found = ghostify.inspect("vgg16_cifar")

    assert (millions(found.before.macs, 2), millions(found.before.params, 2)) == ("313.46", "14.99")


@pytest.mark.parametrize(("ratio", "kernel", "macs", "params"), VGG)
def test_ghost_vgg16_of_tables_3_and_4(ratio: int, kernel: int, macs: str, params: str) -> None:
    rules: dict[str, Any] = {"ratio": ratio, "kernel": kernel, "convert_all": True}
    predicted, converted = both("vgg16_cifar", **rules)

    assert len(predicted.layers) == 13
    assert (millions(predicted.after.macs, 1), millions(predicted.after.params, 2)) == (
        macs,
        params,
    )
    assert millions(counted_macs(converted, (3, 32, 32)), 1) == macs
    assert millions(sum(p.numel() for p in converted.parameters()), 2) == params


def test_resnet56_of_table_5() -> None:
    predicted, converted = both("resnet56_cifar", convert_all=True)

    assert millions(predicted.before.macs, 2) == "125.49"
    assert millions(predicted.before.params, 3) == "0.853"
    assert len(predicted.layers) == 55
    assert millions(predicted.after.macs, 2) == "65.14"
    assert millions(counted_macs(converted, (3, 32, 32)), 2) == "65.14"
    assert millions(weights(converted), 3) == "0.434"


def test_dense_resnet56_without_batch_norm() -> None:
    from ghostify.models.resnet import resnet56_cifar

    assert millions(weights(resnet56_cifar()), 3) == "0.849"


@pytest.mark.parametrize(("ratio", "macs", "params"), [(2, "2.151", "13.95"), (4, "1.182", "8.15")])
def test_resnet50_of_table_6(ratio: int, macs: str, params: str) -> None:
    predicted, converted = both("resnet50", ratio=ratio)

    assert f"{predicted.before.macs / 1e9:.3f}" == "4.089"
    assert millions(predicted.before.params, 2) == "25.56"
    assert len(predicted.layers) == 52
    assert f"{predicted.after.macs / 1e9:.3f}" == macs
    assert millions(predicted.after.params, 2) == params
    assert f"{counted_macs(converted, (3, 224, 224)) / 1e9:.3f}" == macs
    assert millions(sum(p.numel() for p in converted.parameters()), 2) == params
