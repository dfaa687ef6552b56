"""Scores of plans: what they compare with, that they repeat, that nothing else changes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.data.base import NO_LABEL
from ghostify.errors import InputError, PlanError, SearchError, TrainingError, WeightsError
from ghostify.graph.fit_options import FitOptions
from ghostify.plan import Plan
from ghostify.searches.climb import Rung
from ghostify.searches.scoring.pictures import Supply
from ghostify.searches.scoring.score import Options, Score
from ghostify.searches.scoring.scorer import Scorer
from ghostify.searches.subject import ScorerOf
from ghostify.spec import GhostSpec, PruneSpec
from tests.searches.scoring_net import Small, pictures, small
from tests.train.toys import PREPROCESS, Synthetic, recipe

TWO, THREE = GhostSpec(2, 3), GhostSpec(3, 3)
PLAN = Plan({"stem": TWO, "first": THREE, "second": TWO, "wide": TWO})
QUICK = Options(fit=FitOptions(block_steps=0, joint_steps=0), reports=2)

Make = Callable[..., Scorer]


@pytest.fixture
def scorer(tmp_path: Path) -> Make:
    def make(model: nn.Module | None = None, **settings: Any) -> Scorer:
        some = pictures()
        images = {"calibration": some.calibration, "held_back": some.held_back}
        images |= {"labels": some.labels, "supply": some.supply}
        settings = images | {"cache": tmp_path / "cache", "options": QUICK} | settings
        return Scorer(small() if model is None else model, some.calibration[:1], **settings)

    return make


def divergence(said: Tensor, told: Tensor) -> float:
    """T squared times the sum of p log (p / q), written out, mean over images; T = 4."""
    p, q = ((one / 4).softmax(1) for one in (told.double(), said.double()))
    return float((p * (p / q).log()).sum(1).mean() * 16)


def test_the_original_says_what_it_says(scorer: Make) -> None:
    some = pictures()
    assert some.labels is not None
    right = small()(some.held_back).argmax(1) == some.labels

    found = scorer().free(Plan.empty())

    assert found.divergence == 0
    assert found.top1 == pytest.approx(100 * float(right.double().mean()))


def test_one_layer_alone_is_that_layer_put_in_by_hand(scorer: Make) -> None:
    """The fitted module, less the mean of its miss, in a plain copy of the network."""
    held_back = pictures().held_back
    made = scorer()
    piece = made.fit("first", TWO)
    assert piece.offset is not None
    model = small()
    ghost = piece.build(model.first, TWO)
    offset = piece.offset.view(-1, 1, 1)
    model.first = nn.Sequential(ghost, Less(offset))  # type: ignore[assignment]
    with torch.no_grad():
        expected = divergence(model(held_back), small()(held_back))

    found = made.single("first", TWO)

    assert found.divergence == pytest.approx(expected, rel=1e-3)
    assert found.error == piece.error > 0


class Less(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, maps: Tensor) -> Tensor:
        return maps - self.value


def test_the_offset_is_the_mean_of_the_miss(scorer: Make) -> None:
    model, images = small(), pictures().calibration
    piece = scorer().fit("wide", TWO)
    read = []
    model.wide.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        model(images)
        miss = piece.build(model.wide, TWO)(read[0]) - model.wide(read[0])

    assert piece.offset is not None
    assert torch.allclose(piece.offset, miss.mean((0, 2, 3)), atol=1e-5)


def test_true_ghosts_cost_nothing(scorer: Make) -> None:
    """Half of the maps are depthwise filters of the others: the fit finds that out."""
    model = small()
    with torch.no_grad():
        taps = 0.3 * torch.randn(4, 1, 1, 1, generator=torch.Generator().manual_seed(0))
        model.wide.weight[8:12] = model.wide.weight[:4] * taps
        model.wide.weight[12:] = model.wide.weight[4:8] * -taps
    made = scorer(model)

    alone = made.single("wide", GhostSpec(2, 1))

    assert alone.error < 1e-6
    assert alone.divergence < 1e-6
    assert made.free(Plan({"wide": GhostSpec(2, 1)})).divergence < 1e-5


def test_a_score_repeats_bit_for_bit(scorer: Make, tmp_path: Path) -> None:
    made = scorer()
    first = made.free(PLAN)
    made.free(Plan({"first": TWO}))

    again = made.free(PLAN)
    same_cache = scorer().free(PLAN)
    other_cache = scorer(cache=tmp_path / "other").free(PLAN)

    assert first.divergence > 0
    assert {one.divergence for one in (again, same_cache, other_cache)} == {first.divergence}
    assert {one.top1 for one in (again, same_cache, other_cache)} == {first.top1}


def test_nothing_of_a_plan_stays_behind(scorer: Make) -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    made = scorer(model)

    made.free(PLAN)
    made.free(Plan({"first": PruneSpec(0.5), "stem": TWO}))
    with pytest.raises(PlanError):
        made.free(Plan({"stem": TWO, "nowhere": TWO}))

    assert made.free(Plan.empty()).divergence == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.first._forward_hooks


def test_layers_are_corrected_for_those_before_them(scorer: Make) -> None:
    """Together they do less harm than as they were fitted, each alone in the original."""
    made = scorer()
    plan = Plan({"stem": GhostSpec(4, 3), "first": TWO, "second": TWO, "wide": TWO})
    raw = made._assembly.run(plan, made._judge.batches, corrected=False)

    assert made.free(plan).divergence < made._judge.divergence(raw)


def test_a_dead_map_is_pruned_for_nothing(scorer: Make) -> None:
    model = small()
    with torch.no_grad():
        for one in (2, 5):
            model.first.weight[one] = 0
            model.norm1.bias[one], model.norm1.running_mean[one] = -1.0, 0.0

    found = scorer(model).free(Plan({"first": PruneSpec(0.25)}))

    assert found.divergence < 1e-5


def test_readers_make_up_for_a_pruned_map(scorer: Make) -> None:
    """A map that is a multiple of another is missed by none who reads both."""
    model = small()
    with torch.no_grad():
        model.first.weight[3] = 0.5 * model.first.weight[6]
        for value in (model.norm1.weight, model.norm1.bias, model.norm1.running_var):
            value[3] = value[6]
        model.norm1.running_mean[3] = 0.5 * model.norm1.running_mean[6]
        model.norm1.running_var[3] *= 0.25
        model.first.weight[3] *= 1e-2  # so that it is the least, whatever the others are
        model.norm1.running_var[3] = 1e-4 * (model.norm1.running_var[3] + 1e-5) - 1e-5
        model.norm1.running_var[3].clamp_(min=0)
        model.norm1.running_mean[3] *= 1e-2
    made = scorer(model)
    plan = Plan({"first": PruneSpec(0.13)})
    with torch.no_grad():
        cut = copy.deepcopy(model)
        cut.second.weight[:, 3] = 0
        raw = divergence(cut(pictures().held_back), model(pictures().held_back))

    found = made.free(plan)

    assert made._readings.masks(plan.prunes)["second"].tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
    assert found.divergence < 0.2 * raw


def test_prunes_and_ghosts_mix(scorer: Make) -> None:
    made = scorer()
    mixed = made.free(Plan({"first": PruneSpec(0.5), "second": TWO, "wide": THREE}))

    assert 0 < mixed.divergence < float("inf")
    assert made.single("first", PruneSpec(0.5)).error > 0
    with pytest.raises(PlanError, match="second"):
        made.free(Plan({"second": PruneSpec(0.5)}))  # its maps are added to others


def test_sensitivities_are_of_each_kind(scorer: Make) -> None:
    made = scorer()
    told: list[tuple[int, int, str]] = []
    choices = {"stem": [TWO], "first": [TWO, THREE, PruneSpec(0.5)]}

    plain = made.sensitivities(choices, on_progress=lambda *one: told.append(one))
    errors = made.sensitivities(choices, kind="error")
    squared = made.sensitivities(choices, kind="error squared")

    assert list(plain["first"]) == choices["first"]
    assert plain["first"][TWO] == made.single("first", TWO).divergence
    assert squared["first"][THREE] == pytest.approx(errors["first"][THREE] ** 2)
    assert [done for done, _, _ in told] == [0, 1, 2, 3, 4]
    with pytest.raises(SearchError, match="did you mean error"):
        made.sensitivities(choices, kind="eror")


def test_what_was_measured_is_on_the_disk(scorer: Make, monkeypatch: Any) -> None:
    first = scorer().single("first", TWO)
    made = scorer()
    monkeypatch.setattr(made._alone, "_fitted", None)
    monkeypatch.setattr(made._assembly, "run", None)

    assert made.single("first", TWO) == first


def test_labels_have_no_part_in_a_score(scorer: Make, tmp_path: Path) -> None:
    labels = pictures().labels
    assert labels is not None
    supply = pictures().supply
    assert supply is not None
    blind = Synthetic(112, seed=1)
    blind.labels[:] = NO_LABEL
    known, unknown = (
        scorer(labels=one, cache=tmp_path / str(number))
        for number, one in enumerate((labels, None))
    )

    assert known.free(PLAN).divergence == unknown.free(PLAN).divergence
    assert unknown.free(PLAN).top1 is None
    trained = scorer(labels=None, supply=Supply(blind, PREPROCESS)).distilled(PLAN, steps=2)
    assert trained.steps == 2


def test_a_distillation_helps_and_repeats(scorer: Make) -> None:
    made = scorer()
    fit = made.distilled(PLAN, steps=0)

    first = made.distilled(PLAN, steps=40, seed=1)
    again = scorer().distilled(PLAN, steps=40, seed=1)

    assert first.divergence < fit.divergence
    assert [step for step, _, _ in first.curve] == [0, 20, 40]
    assert (again.divergence, again.curve) == (first.divergence, first.curve)
    assert made.distilled(PLAN, steps=40, seed=2).curve != first.curve
    assert not first.stopped
    assert made.distilled(PLAN, steps=None).steps == 1, "112 images, one batch at most"


def test_a_report_may_end_it(scorer: Make) -> None:
    told: list[tuple[int, float]] = []

    def report(step: int, score: float) -> bool:
        told.append((step, score))
        return step >= 4

    found = scorer().distilled(PLAN, steps=8, report=report)

    assert found.stopped
    assert found.steps == 4
    assert [step for step, _ in told] == [0, 4]
    assert told == [(step, -value) for step, value, _ in found.curve]
    assert found.score == told[-1][1]


def test_a_recipe_trains_a_plan(scorer: Make) -> None:
    found = scorer().trained(PLAN, recipe=recipe(steps=6, alpha=1.0), seed=0)

    assert found.steps == 6
    assert found.curve[0][1] != found.curve[-1][1]


def test_a_rung_without_a_recipe_is_an_epoch_of_distillation(scorer: Make) -> None:
    made = scorer()

    found = ScorerOf(made).score(PLAN, Rung("train", 1), seed=1, report=lambda *_: False)

    assert found.curve == made.distilled(PLAN, steps=1, seed=1).curve


def test_the_whole_fit_is_that_of_calibrate(scorer: Make) -> None:
    """What comes from the cache computes what a fit by hand computes."""
    from ghostify.graph.calibrate import calibrate
    from ghostify.graph.rewrite import rewrite

    by_hand = rewrite(small(), PLAN, seed=0).model
    calibrate(small(), by_hand, list(PLAN), pictures().calibration.split(64), options=QUICK.fit)
    with torch.no_grad():
        expected = by_hand.eval()(pictures().held_back)
    scorer().fitted(PLAN)

    found = scorer().fitted(PLAN)

    with torch.no_grad():
        assert torch.allclose(found(pictures().held_back), expected, atol=1e-5)


def test_pruned_plans_are_trained_too(scorer: Make) -> None:
    plan = Plan({"first": PruneSpec(0.5), "wide": TWO})

    found = scorer().distilled(plan, steps=4)

    assert found.steps == 4
    assert scorer().fitted(plan).first.out_channels == 4  # type: ignore[union-attr]


def test_without_images_nothing_is_trained(scorer: Make) -> None:
    made = scorer(supply=None)

    assert made.distilled(PLAN, steps=0).steps == 0
    with pytest.raises(TrainingError, match="there are no images to train on"):
        made.distilled(PLAN, steps=1)
    with pytest.raises(TrainingError, match="whole number of steps"):
        made.distilled(PLAN, steps=-1)


def test_bad_images_are_refused(scorer: Make) -> None:
    some = pictures()
    with pytest.raises(InputError, match="one at least"):
        scorer(calibration=some.calibration[:0])
    with pytest.raises(InputError, match="not finite"):
        scorer(held_back=some.held_back / 0)
    with pytest.raises(InputError, match="does not take images of 5x8x8"):
        scorer(calibration=torch.zeros(4, 5, 8, 8))
    broken = small()
    with torch.no_grad():
        broken.head.bias[0] = float("nan")
    with pytest.raises(WeightsError, match=r"head\.bias holds values that are not finite"):
        scorer(broken)
    with pytest.raises(InputError, match="48 images held back take as many labels"):
        scorer(labels=torch.zeros(3))
    with pytest.raises(PlanError, match="is no convolution"):
        scorer().fit("head", TWO)


def test_a_score_as_json() -> None:
    plain = Score(0.5, 90.0, 1.0, 2, ((0, 0.7, None), (2, 0.5, 90.0))).as_json()

    assert (plain["score"], plain["objective"]) == (-0.5, "negative divergence")
    assert plain["curve"] == [[0, 0.7, None], [2, 0.5, 90.0]]
    assert Score(float("inf")).as_json()["score"] is None
    assert dataclasses.replace(Score(1.0), top1=3.0).top1 == 3.0


def test_a_shared_convolution_is_replaced_wherever_it_stands(scorer: Make) -> None:
    class Twice(Small):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.first

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.stem(x)))
            x = torch.relu(self.norm1(self.again(torch.relu(self.norm1(self.first(x))))))
            return self.head(functional.relu(self.wide(x)).mean((2, 3)))  # type: ignore[no-any-return]

    model = Twice()
    model.load_state_dict(small().state_dict(), strict=False)
    made = scorer(model.eval())

    assert made.free(Plan({"first": TWO})).divergence > 0
    assert made.free(Plan.empty()).divergence == 0
