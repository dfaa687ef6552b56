"""Which channels keep step, told by hand for small networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.graph.segments import Segments
from ghostify.graph.wires import Wires, find_wires, places
from ghostify.nn.ghost import GhostModule


class Shortcuts(nn.Module):
    """Two streams of 4 and 8 channels, tied by maps of zeros, and one apart from them."""

    def __init__(self, block: type[nn.Module] = GhostModule) -> None:
        super().__init__()
        self.a, self.b = block(3, 4, 3, padding=1), block(4, 4, 3, padding=1)
        self.c, self.inner = block(6, 8, 3, stride=2, padding=1), block(4, 6, 1)
        self.d, self.norm, self.head = block(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = (x + self.b(x)).relu()
        x = self.c(self.inner(x)) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3))
        return self.head(self.norm(x) * self.d(x))


def wires_of() -> Wires:
    original = Shortcuts(nn.Conv2d).eval()
    names = ["a", "b", "c", "inner", "d"]
    return find_wires(Segments(original, names, torch.randn(2, 3, 8, 8)), Shortcuts().eval())


def test_writers_that_share_maps_are_one_stream() -> None:
    assert wires_of().streams() == [("inner",), ("a", "b", "c", "d")]


def test_wires_of_a_padded_shortcut_lie_within_the_wider_stream() -> None:
    wires = wires_of()
    narrow, wide = wires.writers["a"].tolist(), wires.writers["c"].tolist()

    assert wires.writers["b"].tolist() == narrow
    assert wires.writers["d"].tolist() == wide
    assert wide[1:5] == narrow
    atoms = {frozenset(atom.tolist()) for atom in wires.atoms(("a", "b", "c", "d"))}
    assert atoms == {frozenset(narrow), frozenset(wide) - frozenset(narrow)}


def test_only_what_leaves_or_enters_the_network_must_stay() -> None:
    wires = wires_of()
    free = {wire for axis in wires.writers.values() for wire in axis.tolist()}

    assert not wires.pinned & free
    assert len(wires.pinned) == 3 + 5


def test_every_layer_on_a_stream_goes_along() -> None:
    touched = {(one.module, one.side): len(one.wires) for one in wires_of().touches}

    assert touched == {
        ("a", "in"): 3, ("a", "out"): 4, ("b", "in"): 4, ("b", "out"): 4,
        ("inner", "in"): 4, ("inner", "out"): 6, ("c", "in"): 6, ("c", "out"): 8,
        ("norm", "both"): 8, ("d", "in"): 8, ("d", "out"): 8,
        ("head", "in"): 8, ("head", "out"): 5,
    }  # fmt: skip


def test_places_of_maps_that_change_wires() -> None:
    axis = np.array([7, 5, 9])

    assert places(axis, {}) == [0, 1, 2]
    assert places(axis, {7: 9, 9: 7, 1: 2, 2: 1}) == [2, 1, 0]
    assert places(axis, {7: 8, 8: 7}) is None
    assert places(axis, {7: 9}) is None


def test_repeated_wires_change_places_one_by_one() -> None:
    """As the rows of flattened maps of two pixels do."""
    assert places(np.array([4, 4, 6, 6]), {4: 6, 6: 4}) == [2, 3, 0, 1]
    assert places(np.array([4, 4, 6]), {4: 6, 6: 4}) is None


def test_a_network_that_cannot_be_traced_has_no_wires() -> None:
    class ByValue(nn.Module):
        def __init__(self, block: type[nn.Module]) -> None:
            super().__init__()
            self.a = block(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return x if float(x.sum()) < 1e9 else -x

    segments = Segments(ByValue(nn.Conv2d).eval(), ["a"], torch.randn(2, 3, 8, 8))
    found = find_wires(segments, ByValue(GhostModule))

    assert found.streams() == []
    assert found.touches == ()
