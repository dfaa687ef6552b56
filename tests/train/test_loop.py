"""The loop: what it learns, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostify.data.batches import evaluation_batches, training_batches
from ghostify.data.preprocess import normalise
from ghostify.errors import DataError, GhostifyError, RecipeError, TrainingError
from ghostify.nn.ghost import GhostModule
from ghostify.train.device import choose_engine
from ghostify.train.distil import logits_loss
from ghostify.train.loop import Progress, settings_of, train
from tests.train.toys import CLASSES, PREPROCESS, Synthetic, Toy, recipe, same, toy

IMAGES = Synthetic(64)
TEST = Synthetic(40, seed=1)


def run(model: nn.Module, **settings: Any) -> Any:
    names = ("test", "teacher", "seed", "workers", "evaluate_every", "evaluate_first")
    others = {name: settings.pop(name) for name in names if name in settings}
    others |= {
        name: settings.pop(name)
        for name in ("on_progress", "amp", "channels_last")
        if name in settings
    }
    images = settings.pop("images", IMAGES)
    return train(model, recipe(**settings), images, PREPROCESS, device="cpu", **others)


def test_it_learns_what_can_be_learnt() -> None:
    outcome = run(toy(), epochs=15, test=TEST)

    assert outcome.evaluation.top1 > 90
    assert outcome.evaluation.images == 40
    assert outcome.steps == 15 * 4
    assert [entry["epoch"] for entry in outcome.history] == list(range(1, 16))


def test_a_step_is_that_of_a_plain_loop() -> None:
    """The same arithmetic, written out: SGD with momentum and decay by labels alone."""
    model = toy(dropout=0.0)
    plain = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    batches = training_batches(IMAGES, PREPROCESS, batch_size=16, seed=3, epoch=0)
    for images, labels in batches:
        optimizer.zero_grad()
        functional.cross_entropy(plain(normalise(images, PREPROCESS)), labels).backward()
        optimizer.step()

    outcome = run(model, steps=4, weight_decay=1e-3, schedule="constant", seed=3)

    for mine, theirs in zip(outcome.model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_the_callers_networks_stay_as_they_were() -> None:
    model, teacher = toy(0).eval(), toy(1).train()
    before = copy.deepcopy(model), copy.deepcopy(teacher)
    generator = torch.random.get_rng_state()

    outcome = run(model, teacher=teacher, feature_weight=1.0)

    assert same(model, before[0])
    assert same(teacher, before[1])
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.training
    assert not outcome.model.training
    assert not outcome.model.conv1._forward_hooks
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not same(outcome.model, model)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw", "lr": 1e-3, "decay_all": False},
        {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
        {"ema": 0.9, "clip_norm": 1.0},
        {"teacher": toy(1), "feature_weight": 1.0},
        {"accumulate": 3},
        {"bn_frozen_steps": 3},
        {"amp": "bf16"},
    ],
    ids=str,
)
def test_the_same_arguments_give_the_same_weights(settings: dict[str, Any]) -> None:
    """Whatever the generator of torch holds, and however many processes read images."""
    first = run(toy(), **settings)
    torch.manual_seed(99)
    second = run(toy(), **settings)

    assert same(first.model, second.model)
    assert not same(first.model, run(toy(), **settings, seed=1).model)


class Viewing(Toy):
    """Views its maps as vectors, which only the usual layout allows."""

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        return self.linear(maps.view(len(maps), -1)[:, :16])


class Skipping(Toy):
    """Reads every other position of a few maps."""

    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Conv2d(3, 4, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.skip(x).mean()


def test_a_network_that_would_crash_in_channels_last_is_trained_in_the_usual_layout() -> None:
    chosen = settings_of(Skipping(), recipe(steps=1), IMAGES, PREPROCESS, device="cpu")
    taught = settings_of(
        Toy(), recipe(steps=1), IMAGES, PREPROCESS, device="cpu", teacher=Skipping()
    )

    assert not chosen["channels_last"]
    assert taught["channels_last"]  # no gradients there
    assert run(Skipping(), steps=2).steps == 2
    with pytest.raises(TrainingError, match="leave --channels-last out"):
        run(Skipping(), steps=2, channels_last=True)


def test_maps_lie_in_channels_last_where_the_network_allows_for_it() -> None:
    chosen = {
        kind: settings_of(kind(), recipe(steps=1), IMAGES, PREPROCESS, device="cpu")
        for kind in (Toy, Viewing)
    }
    asked = settings_of(
        Toy(), recipe(steps=1), IMAGES, PREPROCESS, device="cpu", channels_last=False
    )

    assert chosen[Toy]["channels_last"]
    assert not chosen[Viewing]["channels_last"]
    assert not asked["channels_last"]
    assert run(Viewing(), steps=2).steps == 2
    assert run(toy(), steps=2, teacher=Viewing(), alpha=0.5).steps == 2


def test_emulated_bf16_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    choose_engine("cpu", amp="bf16")
    choose_engine("cpu", amp="none")

    emulated = not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert [record.message.partition(" and")[0] for record in caplog.records] == [
        "this processor has no bf16 instructions"
    ] * emulated


def test_workers_do_not_change_the_weights() -> None:
    assert same(run(toy()).model, run(toy(), workers=1).model)


def test_measuring_more_often_does_not_change_the_weights() -> None:
    first = run(toy(), test=TEST)
    second = run(toy(), test=TEST, evaluate_every=1, evaluate_first=True)

    assert same(first.model, second.model)
    assert [entry["step"] for entry in second.history] == list(range(9))
    assert "loss" not in second.history[0]
    assert first.evaluation == second.evaluation


def test_epochs_without_a_measurement_carry_no_old_figures() -> None:
    history = run(toy(), test=TEST, evaluate_every=3).history

    assert [entry["step"] for entry in history] == [3, 4, 6, 8]
    assert [("test_top1" in entry) for entry in history] == [True, False, True, True]


def test_accumulating_is_one_large_batch_where_no_batch_norm_is() -> None:
    model = toy(dropout=0.0)
    model.bn1 = model.bn2 = nn.Identity()  # type: ignore[assignment]

    whole, parts = run(model, steps=4), run(model, steps=4, accumulate=3)

    for mine, theirs in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_frozen_batch_norms_keep_their_statistics() -> None:
    model = toy()
    model.bn1.running_mean.fill_(0.3)

    frozen = run(model, bn_frozen_steps=-1).model
    let_go = run(model, bn_frozen_steps=7).model

    assert torch.equal(frozen.bn1.running_mean, model.bn1.running_mean)
    assert not torch.equal(frozen.bn1.weight, model.bn1.weight)
    assert let_go.bn1.num_batches_tracked == 1


def test_the_averaged_weights_are_the_result() -> None:
    last = run(toy(), steps=1)
    averaged = run(toy(), steps=1, ema=0.5)

    assert same(last.model, averaged.model)  # the first step is taken whole
    assert not same(run(toy()).model, run(toy(), ema=0.999).model)


def test_an_order_of_maps_survives_averaging() -> None:
    model = toy()
    model.conv2 = GhostModule(8, 16, 3, stride=2, padding=1, bias=False)  # type: ignore[assignment]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    model.conv2.reorder(order)  # type: ignore[operator]

    outcome = run(model, ema=0.99, steps=12)

    assert torch.equal(outcome.model.conv2.order, order)


def test_a_teacher_alone_needs_no_labels() -> None:
    images = Synthetic(64)
    images.labels = np.full(64, -1)

    outcome = run(toy(), images=images, teacher=toy(1), alpha=1.0)

    assert outcome.steps == 8


def test_distillation_comes_nearer_to_the_teacher() -> None:
    teacher = run(toy(1), epochs=15).model.eval()
    pixels, _ = next(iter(evaluation_batches(TEST, PREPROCESS)))
    inputs = normalise(pixels, PREPROCESS)

    def distance(model: nn.Module) -> float:
        model.eval()
        return logits_loss(model(inputs), teacher(inputs), temperature=4.0).item()

    distilled = run(toy(), epochs=15, teacher=teacher, alpha=1.0, feature_weight=1.0).model

    assert distance(distilled) < 0.2 * distance(toy())


def test_progress_is_shown() -> None:
    seen: list[Progress] = []

    run(toy(), on_progress=seen.append, test=TEST)

    assert seen[-1].step == seen[-1].steps == 8
    assert seen[-1].epoch == 2
    assert seen[-1].images_per_s > 0
    assert seen[-1].test is not None


def nan_weights() -> Toy:
    model = toy()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    return model


def wide_labels() -> Synthetic:
    images = Synthetic(64)
    images.labels[5] = CLASSES
    return images


def no_labels() -> Synthetic:
    images = Synthetic(64)
    images.labels[5] = -1
    return images


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (nan_weights(), {}, "the network has 1 values in conv2.weight that are NaN or infinite"),
        (toy(), {"teacher": nan_weights()}, "the teacher has 1 values in conv2.weight"),
        (toy(), {"teacher": toy(classes=7)}, "the teacher tells 7 classes apart, the network 4"),
        (toy(), {"images": wide_labels()}, "must be below 4"),
        (toy(), {"test": wide_labels()}, "must be below 4"),
        (toy(), {"images": no_labels()}, "no label for 1 of 64 images"),
        (toy(), {"batch_size": 3, "accumulate": 4}, "Recipe.accumulate must be from 1 to"),
        (toy(), {"batch_size": 65}, "has 64 images, fewer than one batch of 65"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), {}, "not logits (N, classes)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(27, 4)), {}, "does not take images of 3x8x8"),
        (toy(), {"lr": 1e30, "schedule": "constant"}, "the loss is no longer a finite number"),
        (toy(), {"teacher": toy(), "feature_weight": 1.0, "features": ("x",)}, "no layer 'x'"),
    ],
)
def test_what_does_not_fit_is_one_clear_sentence(
    model: nn.Module, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(GhostifyError) as caught:
        run(model, **settings)

    assert isinstance(caught.value, TrainingError | DataError | RecipeError)
    assert message in str(caught.value)


def test_a_frozen_network_cannot_learn() -> None:
    with pytest.raises(TrainingError, match="no parameter of the network learns"):
        run(toy().requires_grad_(False))


def test_the_recipe_chooses_the_augmentation() -> None:
    plain = dataclasses.replace(PREPROCESS, augment="none")
    chosen = train(toy(), recipe(augment="none"), IMAGES, PREPROCESS, device="cpu")

    assert same(chosen.model, train(toy(), recipe(), IMAGES, plain, device="cpu").model)


def test_a_watcher_sees_every_step_and_changes_none() -> None:
    """It gets the network as it would be given back, in whatever mode it leaves it."""
    seen: list[tuple[int, float]] = []

    def watch(step: int, network: nn.Module) -> None:
        network.eval()
        with torch.no_grad():
            seen.append((step, float(network(torch.ones(1, 3, 8, 8)).sum())))

    watched = train(toy(), recipe(steps=5), IMAGES, PREPROCESS, device="cpu", watch=watch)

    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert same(watched.model, run(toy(), steps=5).model)
    with torch.no_grad():
        last = float(watched.model.eval()(torch.ones(1, 3, 8, 8)).sum())
    assert seen[-1][1] == pytest.approx(last)


def test_what_a_watcher_raises_ends_the_run() -> None:
    def watch(step: int, _network: nn.Module) -> None:
        if step == 3:
            raise ZeroDivisionError(step)

    with pytest.raises(ZeroDivisionError, match="3"):
        train(toy(), recipe(steps=5), IMAGES, PREPROCESS, device="cpu", watch=watch)
