"""What a training is of, and how its maps stand beside a teacher's."""

from __future__ import annotations

from torch import nn

from ghostify.models import zoo
from ghostify.sources import Source


def test_only_the_kept_original_moves_with_the_fitted_maps() -> None:
    """An earlier fit left the original as it was; a later one has moved its maps alike."""
    history = (
        {"kind": "fit", "permuted": ["layer1.0.conv1"]},
        {"kind": "fit", "permuted": ["layer1"], "original_permuted": True},
    )
    source = Source(zoo.build("resnet20_cifar"), history=history)

    assert source.unlike("original") == {"layer1.0.conv1"}
    for teacher, weights in (("original", "other.pt"), ("resnet56_cifar", None)):
        assert source.unlike(teacher, weights) == {"layer1.0.conv1", "layer1"}
    assert source.unlike(nn.Identity()) == {"layer1.0.conv1", "layer1"}
