"""Choose one order of maps for several Ghost modules that write to the same wires."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ghostify.graph.pairing import Costs, Pairing, choose
from ghostify.spec import intrinsic_maps

__all__ = ["Writer", "choose_together"]

Indices = npt.NDArray[np.int64]

_SWEEPS, _LONG_SWEEPS = 8, 3
_LONG = 512  # wires from which on a sweep takes seconds
_FAMILIES = 64  # computed maps up to which whole families are swapped
_KICKS = 30
_KICKED = 128  # wires up to which the search is begun anew from nearby
_SMALL = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """What a Ghost module asks of the order: its wires, one per map, and what each ghost costs.

    ``costs`` are ``(n, n)``, of making map g from map i at ``[i, g]``.
    """

    wires: Indices
    costs: Costs
    ratio: int
    round_to: int = 1

    @property
    def computed(self) -> int:
        """How many maps its primary convolution makes, m."""
        return intrinsic_maps(len(self.wires), self.ratio, 1, self.round_to)


def choose_together(writers: Sequence[Writer], atoms: Sequence[Indices]) -> list[Pairing]:
    """Choose for each writer what it computes, so that map k of all of them stands for one wire's.

    The order is a permutation of the wires' maps within each atom; the ghosts of all writers
    together are to cost as little as possible. Where all writers have the same wires, one
    atom, and compute equally many maps, that is one choice on the sum of the costs (see
    :func:`ghostify.graph.pairing.choose`), exact for half of the maps. Otherwise it is a
    quadratic assignment, searched by swaps of maps, and of maps with all their ghosts, from
    the choice that would suit each kind of writers alone.

    Returns:
        One pairing for each writer, in its own numbering of maps.
    """
    merged = _merged(writers)
    if len(merged) == 1 and len(atoms) == 1:
        one = merged[0]
        found = choose(one.costs, ratio=one.ratio, round_to=one.round_to)
        carried = dict(zip(one.wires.tolist(), one.wires[list(found.made)].tolist(), strict=True))
    else:
        carried = _Search(merged, atoms).best()
    return [_pairing(writer, carried) for writer in writers]


def _pairing(writer: Writer, carried: Mapping[int, int]) -> Pairing:
    number = {wire: place for place, wire in enumerate(writer.wires.tolist())}
    made = [number[carried[wire]] for wire in writer.wires.tolist()]
    return Pairing(tuple(made[: writer.computed]), tuple(made[writer.computed :]))


def _merged(writers: Sequence[Writer]) -> list[Writer]:
    """Add up the costs of writers that are alike, and put those with few maps first."""
    found: dict[tuple[bytes, int], Writer] = {}
    for one in writers:
        key = one.wires.tobytes(), one.computed
        costs = one.costs + found[key].costs if key in found else one.costs
        found[key] = Writer(one.wires, costs, one.ratio, one.round_to)
    return sorted(found.values(), key=lambda one: len(one.wires))


class _Search:
    """Local search: ``content[w]`` is the wire whose maps wire w carries (in local numbers)."""

    def __init__(self, writers: Sequence[Writer], atoms: Sequence[Indices]) -> None:
        wires = np.concatenate(list(atoms))
        local = {wire: number for number, wire in enumerate(wires.tolist())}
        self.wires, self.count = wires, len(wires)
        self.atoms = [np.array([local[one] for one in atom.tolist()]) for atom in atoms]
        self.home = np.empty(self.count, dtype=np.int64)
        for number, atom in enumerate(self.atoms):
            self.home[atom] = number
        self.writers = writers
        self.terms: list[tuple[Costs, Indices, Indices, Indices]] = []
        for writer in writers:
            axis = np.array([local[one] for one in writer.wires.tolist()])
            place = np.full(self.count, -1)
            place[axis] = np.arange(len(axis))
            ghosts = axis[writer.computed :]
            owners = axis[np.arange(len(ghosts)) % writer.computed]
            self.terms.append((writer.costs, place, owners, ghosts))

    def best(self) -> dict[int, int]:
        """Return for each wire the wire whose maps it is to carry."""
        found = [self._descend(start) for start in self._starts()]
        content = min(found, key=self.cost)
        if self.count <= _KICKED:
            content = self._kicked(content)
        return dict(zip(self.wires.tolist(), self.wires[content].tolist(), strict=True))

    def cost(self, content: Indices) -> float:
        """Return what all ghosts of all writers cost."""
        return float(
            sum(
                costs[number[content[owners]], number[content[ghosts]]].sum()
                for costs, number, owners, ghosts in self.terms
            )
        )

    def _starts(self) -> Iterator[Indices]:
        """Yield what suits each kind of writers alone, where a kind has one atom's wires."""
        yield np.arange(self.count)
        for writer, (_, number, _, ghosts) in zip(self.writers, self.terms, strict=True):
            axis = np.flatnonzero(number >= 0)
            if len(set(self.home[axis].tolist())) > 1 or not len(ghosts):
                continue
            ordered = axis[np.argsort(number[axis])]
            costs = sum(
                (one.costs for one in self.writers if np.array_equal(one.wires, writer.wires)),
                np.zeros_like(writer.costs),
            )
            found = choose(costs, ratio=writer.ratio, round_to=writer.round_to)
            content = np.arange(self.count)
            content[ordered] = ordered[list(found.made)]
            yield content

    def _kicked(self, content: Indices) -> Indices:
        """Disturb the best order a little, search again, and keep what is cheaper."""
        generator = np.random.default_rng(0)
        lowest = self.cost(content)
        for _ in range(_KICKS):
            trial = content.copy()
            for _ in range(3):
                atom = self.atoms[int(generator.integers(len(self.atoms)))]
                if len(atom) > 1:
                    one, two = generator.choice(atom, 2, replace=False)
                    trial[[one, two]] = trial[[two, one]]
            trial = self._descend(trial)
            if (cost := self.cost(trial)) < lowest - _SMALL * abs(lowest):
                content, lowest = trial, cost
        return content

    def _descend(self, content: Indices) -> Indices:
        """Swap as long as it gets cheaper."""
        content = content.copy()
        scale = _SMALL * (abs(self.cost(content)) + 1e-300)
        for _ in range(_SWEEPS if self.count <= _LONG else _LONG_SWEEPS):
            better = self._swaps(content, scale)
            better = self._family_swaps(content, scale) or better
            if not better:
                break
        return content

    def _swaps(self, content: Indices, scale: float) -> bool:
        better = False
        for one in range(self.count):
            atom = self.atoms[self.home[one]]
            gains = self._gains(content, one, atom)
            other = int(np.argmin(gains))
            if gains[other] < -scale:
                two = atom[other]
                content[[one, two]] = content[[two, one]]
                better = True
        return better

    def _gains(self, content: Indices, one: int, atom: Indices) -> Costs:
        """Return by how much the cost changes if ``one`` changes places with each of its atom."""
        change = np.zeros(self.count)
        touching: set[int] = set()
        mine, theirs = content[one], content[atom]
        for costs, number, owners, ghosts in self.terms:
            if number[one] < 0:
                continue
            at_owner, at_ghost = number[content[owners]], number[content[ghosts]]
            now = costs[at_owner, at_ghost]
            np.add.at(change, owners, costs[number[mine], at_ghost] - now)
            np.add.at(change, ghosts, costs[at_owner, number[mine]] - now)
            for term in np.flatnonzero(owners == one).tolist():
                change[atom] += costs[number[theirs], at_ghost[term]] - now[term]
                touching.add(int(ghosts[term]))
            for term in np.flatnonzero(ghosts == one).tolist():
                change[atom] += costs[at_owner[term], number[theirs]] - now[term]
                touching.add(int(owners[term]))
        gains = change[atom]
        whole = self.cost(content) if touching else 0.0
        for place, other in enumerate(atom.tolist()):
            if other in touching:  # both ends of one term change: count it anew
                trial = content.copy()
                trial[[one, other]] = trial[[other, one]]
                gains[place] = self.cost(trial) - whole
            elif other == one:
                gains[place] = 0.0
        return gains

    def _family_swaps(self, content: Indices, scale: float) -> bool:
        """Let two computed maps change places together with their ghosts of one writer."""
        better = False
        cost = self.cost(content)
        for _, _, owners, ghosts in self.terms:
            families: dict[int, list[int]] = {}
            for owner, ghost in zip(owners.tolist(), ghosts.tolist(), strict=True):
                families.setdefault(owner, [owner]).append(ghost)
            listed = list(families.values())
            if len(self.terms) == 1 or len(listed) > _FAMILIES:
                continue
            for place, one in enumerate(listed):
                for two in listed[:place]:
                    if len(one) != len(two) or (self.home[one] != self.home[two]).any():
                        continue
                    content[one + two] = content[two + one]
                    trial = self.cost(content)
                    if trial < cost - scale:
                        cost, better = trial, True
                    else:
                        content[one + two] = content[two + one]
        return better
