"""Steps by gradient on pieces of a network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ghostify.graph.refine import Refined, _cut, _held_back, refine
from ghostify.graph.segments import Segments
from tests.graph.networks import plain

IMAGES = list(torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)).split(4))


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    teacher = plain().eval()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    for parameter in (*teacher.parameters(), *student.parameters()):
        parameter.requires_grad_(False)
    return teacher, student


def run(teacher: nn.Module, student: nn.Module, **more: Any) -> Refined:
    segments = Segments(teacher, ["0", "3", "6"], IMAGES[0])
    settings: dict[str, Any] = {"steps": 40, "rate": 1e-2, "teacher": teacher} | more
    return refine(
        segments, segments.row, student, [segments.start(chunk) for chunk in IMAGES], None,
        generator=torch.Generator().manual_seed(1), **settings,
    )  # fmt: skip


def test_steps_bring_the_network_closer() -> None:
    teacher, student = pair()
    norms = copy.deepcopy(student[1])
    with torch.no_grad():
        before = (student(IMAGES[0]) - teacher(IMAGES[0])).square().mean()

    found = run(teacher, student)

    with torch.no_grad():
        after = (student(IMAGES[0]) - teacher(IMAGES[0])).square().mean()
    assert found.kept
    assert found.layers == ("0", "3", "6")
    assert found.last_loss < found.first_loss
    assert after < 0.5 * before
    assert torch.equal(student[1].running_mean, norms.running_mean)
    assert torch.equal(student[1].running_var, norms.running_var)
    assert all(
        one.grad is None and not one.requires_grad
        for one in (*teacher.parameters(), *student.parameters())
    )


def test_the_first_loss_is_the_relative_miss_behind_each_segment() -> None:
    teacher, student = pair()
    segments = Segments(teacher, ["0", "3", "6"], IMAGES[0])
    chunk = IMAGES[0]
    expected = 0.0
    with torch.no_grad():
        for end in (3, 6, 7):
            ours, theirs = student[:end](chunk), teacher[:end](chunk)
            expected += float((ours - theirs).square().mean() / theirs.var(correction=0))

    found = refine(
        segments, segments.row, student, [segments.start(chunk)],
        [[{name: teacher[:end](chunk)}] for end, name in ((3, "_2"), (6, "_5"), (7, "output"))],
        steps=1, rate=1e-3, generator=torch.Generator(),
    )  # fmt: skip

    assert found.first_loss == pytest.approx(expected, rel=1e-4)


def test_steps_that_lead_away_are_taken_back() -> None:
    teacher, student = pair()
    before = {name: value.clone() for name, value in student.state_dict().items()}

    found = run(teacher, student, rate=1e6)

    assert not found.kept
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_an_interrupt_leaves_the_flags_as_they_were() -> None:
    teacher, student = pair()

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(teacher, student, on_step=stop)
    assert not any(one.requires_grad for one in student.parameters())


class Numbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).argmax(1)


def test_where_there_is_nothing_to_bring_closer_nothing_is_done() -> None:
    torch.manual_seed(0)
    teacher, student = Numbers().eval(), Numbers().eval()
    images = IMAGES[0][..., :1, :1]  # no feature map at which the network could be cut
    segments = Segments(teacher, ["conv"], images)
    before = student.conv.weight.detach().clone()

    found = refine(
        segments, segments.row, student, [segments.start(images)], None, teacher=teacher,
        steps=3, rate=1e-2, generator=torch.Generator(),
    )  # fmt: skip

    assert not found.kept
    assert torch.equal(student.conv.weight, before)


@pytest.mark.parametrize(("rate", "taken"), [(0.15, 0.15), (0.3, 0.3 / 4), (1.0, 1.0 / 16)])
def test_steps_that_do_not_help_are_tried_again_at_a_quarter_of_the_rate(
    rate: float, taken: float
) -> None:
    """A step of Adam is as long as its rate; one of 0.2 would end as far off as it began."""
    teacher = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1)).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.fill_(1.0)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[0].weight.fill_(0.9)
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    segments = Segments(teacher, ["0", "2"], images)
    inputs = [segments.start(images)]
    with torch.no_grad():
        aims = [[segments.run(teacher, segments.row[0], inputs[0])]]

    found = refine(
        segments, segments.row[:1], student, inputs, aims,
        steps=1, rate=rate, generator=torch.Generator(),
    )  # fmt: skip

    assert found.kept
    assert float(student[0].weight) == pytest.approx(0.9 + taken, rel=1e-4)


@pytest.mark.parametrize(("rate", "passes"), [(1e6, 10 + 10 + 40), (1e-2, 40)])
def test_a_rate_that_is_too_high_is_given_up_after_a_quarter_of_the_steps(
    rate: float, passes: int
) -> None:
    teacher, student = pair()
    trained, told = [], []
    student[0].register_forward_hook(lambda *_: trained.append(torch.is_grad_enabled()))

    found = run(teacher, student, rate=rate, steps=40, on_step=told.append)

    assert sum(trained) == passes
    assert found.kept is (passes == 40)
    assert told == list(range(1, 41))  # a bar does not go back


def test_inputs_that_judge_are_not_trained_on() -> None:
    back, used = _held_back(40)

    assert back == [0, 10, 20, 30]
    assert sorted(back + used) == list(range(40))
    assert _held_back(3) == ([0, 1, 2], [0, 1, 2])


def test_pieces_of_the_inputs_are_steps_of_their_own() -> None:
    """Four chunks of four images, cut into pairs, are the eight chunks of two."""
    teacher, whole = pair()
    halves = copy.deepcopy(whole)
    segments = Segments(teacher, ["0", "3", "6"], IMAGES[0])
    pairs = [one for chunk in IMAGES for one in chunk.split(2)]

    found = run(teacher, whole, size=2, steps=5)
    refine(
        segments, segments.row, halves, [segments.start(one) for one in pairs], None,
        teacher=teacher, steps=5, rate=1e-2, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip

    assert found.kept
    assert found.steps == 5
    ours, theirs = whole.state_dict(), halves.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_states_with_numbers_in_them_are_not_cut() -> None:
    maps = torch.zeros(4, 2, 3, 3)

    assert [len(part) for part in _cut([{"a": maps, "b": [maps[:, 0]]}, {"c": maps}], 3)] == [2, 2]
    assert [part["a"].shape[0] for part in _cut([{"a": maps}], 3)[0]] == [3, 1]
    for other in (4, torch.zeros(2, 3), torch.tensor(4)):
        assert _cut([{"a": maps, "b": other}], 3) == [[{"a": maps, "b": other}]]
