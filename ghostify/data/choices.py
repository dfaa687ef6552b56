"""The names that settings of images may have; known without torch, for the command line."""

from __future__ import annotations

__all__ = ["AUGMENTS", "INTERPOLATIONS"]

AUGMENTS = ("none", "flip", "cifar", "imagenet", "randaugment", "trivialaugment")
"""In training: nothing; mirroring; shifting by up to 4 pixels and mirroring (He et al., 2016);
cutting a random part and mirroring (Szegedy et al., 2015); the latter (of small images, the
one before) with RandAugment or TrivialAugment."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
"""When an image is scaled: Pillow's."""
