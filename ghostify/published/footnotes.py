"""What is to be said beside published figures, above all where the arithmetic disagrees.

The computed values count every convolution and fully connected layer of the networks, with
m = ceil(n / s) intrinsic maps, n - m ghosts, and nothing that is computed and cut off.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "FOOTNOTES", "GENERAL"]

GENERAL = (
    "The paper's FLOPs are multiply-adds (MACs) of convolutions and fully connected layers; an "
    "empty cell was not reported."
)
"""Of every table."""

FOOTNOTES: dict[str, str] = {
    "cut-off": (
        "Decimals are cut off in the paper: at s=2, d=7 the network takes 163.6 M MACs, at s=5, "
        "d=3 it takes 65.6 M."
    ),
    "convs-only": (
        "Convolutions and the classifier hold 0.849 M parameters, 0.853 M with batch norms."
    ),
    "resnet56-half": (
        "With a Ghost module for every convolution (s=2, d=3) the network takes 65.1 M MACs; "
        "63 M is half of the original's 125.5 M."
    ),
    "resnet56-again": (
        "Independent trainings for 160 epochs reached 92.2 to 92.6; the dense network reaches "
        "94.3 in 400, so that a baseline has to be trained by the same recipe."
    ),
    "vgg-again": "Independent trainings reached about 92.5 in 160 epochs and 93.5 in 400.",
    "resnet50-classifier-s2": (
        "With Ghost modules for all convolutions but the first (s=2, d=3) the network has "
        "13.95 M parameters; 13.0 M would need the classifier's 2.05 M compressed by s as well "
        "(12.9 M). No independent training of it is known."
    ),
    "resnet50-classifier-s4": (
        "With Ghost modules for all convolutions but the first (s=4, d=3) the network has "
        "8.15 M parameters; 6.5 M would need the classifier's 2.05 M compressed by s as well "
        "(6.6 M). No independent training of it is known."
    ),
    "backbone-macs": "MACs of the backbone alone, as it classifies, not of the detector.",
}
"""By the names that the tables use."""

COLUMNS: dict[str, str] = {
    "cut-off": "macs",
    "convs-only": "params",
    "resnet56-half": "macs",
    "resnet56-again": "top1",
    "vgg-again": "top1",
    "resnet50-classifier-s2": "params",
    "resnet50-classifier-s4": "params",
    "backbone-macs": "macs",
}
"""Of which figure of a row each one speaks."""
