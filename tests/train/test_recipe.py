"""Recipes: what ships, what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostify.errors import RecipeError
from ghostify.train.optim import learning_rate
from ghostify.train.recipe import Recipe, load_recipe, shipped_recipes


def test_every_shipped_recipe_can_be_read() -> None:
    found = {name: load_recipe(name) for name in shipped_recipes()}

    assert {"cifar-resnet", "cifar-vgg", "imagenet-resnet", "imagenet-ghostnet", "distil"} <= set(
        found
    )
    assert all(recipe.name == name and recipe.description for name, recipe in found.items())


def test_the_course_of_he_et_al_drops_after_32000_and_48000_of_64000_updates() -> None:
    recipe = load_recipe("cifar-resnet")

    rates = [learning_rate(recipe, step, 64000) for step in (0, 31999, 32000, 47999, 48000, 63999)]

    assert recipe.total_steps(391) == 64000
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_overrides_replace_settings_and_length() -> None:
    recipe = load_recipe("distil", steps=7, lr=0.5, seedless=None)

    assert (recipe.steps, recipe.epochs, recipe.lr) == (7, None, 0.5)
    assert recipe.changed(epochs=2).steps is None


def test_a_recipe_survives_json() -> None:
    recipe = load_recipe("imagenet-ghostnet", features=("layer1", "layer2"))

    assert Recipe.from_json(recipe.as_json()) == recipe


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_decaying_rate_warms_up_and_ends_low(schedule: str) -> None:
    recipe = Recipe(steps=100, lr=1.0, schedule=schedule, warmup=0.1, lr_end=0.01)

    rates = [learning_rate(recipe, step, 100) for step in range(100)]

    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.01 <= rates[-1] < 0.03


def test_the_cosine_agrees_with_torch() -> None:
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.03)
    recipe = Recipe(steps=50, lr=0.3, lr_end=0.1)

    for step in range(50):
        assert learning_rate(recipe, step, 50) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_a_warm_up_longer_than_the_run_leaves_one_step() -> None:
    recipe = Recipe(steps=1, lr=1.0, warmup=0.9)

    assert learning_rate(recipe, 0, 1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lr: 0.1\n",
            "r.yaml: a recipe has either epochs or steps (got epochs=None, steps=None); ",
        ),
        ("steps: 3\nlr: -1\n", "r.yaml: Recipe.lr must be above 0 (got -1.0)"),
        ("steps: 3\nlearning: 1\n", "r.yaml: learning: unknown key"),
        ("steps: 3\nclipnorm: 1\n", "r.yaml: clipnorm: unknown key; did you mean clip_norm?"),
        ("steps: many\n", "r.yaml: steps: must be a whole number (got 'many')"),
        ("steps: 3\nnesterov: 1\n", "r.yaml: nesterov: must be true or false (got 1)"),
        ("steps: 3\nmilestones: 0.5\n", "r.yaml: milestones: must be a list (got 0.5)"),
        ("steps: 3\nmilestones: [0.7, 0.5]\n", "Recipe.milestones must be ascending"),
        ("- 1\n", "r.yaml: a recipe is a mapping such as lr: 0.1"),
        ("steps: [\n", "not valid YAML; mend the file"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)

    with pytest.raises(RecipeError) as caught:
        load_recipe(file)

    assert message in str(caught.value)


def test_an_unknown_recipe_lists_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no recipe is called 'cifar-resnt'; did you mean cifar-"):
        load_recipe("cifar-resnt")


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("steps: 3\nweight_decay: 1e-4\n")

    assert load_recipe(file).weight_decay == 1e-4
