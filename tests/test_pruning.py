"""``ghostify.prune``: budgets are kept, and each method ranks by what it says."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ghostify
from ghostify.errors import BudgetError, GhostifyError, PruneError, RuleError
from ghostify.graph.calibrate import FitOptions
from ghostify.nn.ghost import GhostModule
from ghostify.pruners.methods import METHODS
from ghostify.pruning import prune
from tests.pruners.networks import IMAGE, Chain, Grouped, batches, chain, residual, trained

SIZE = (3, 12, 12)


def macs(model: nn.Module) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(IMAGE[:1])
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_budget(method: str) -> None:
    model = chain(maps=48)
    labelled = batches() if METHODS[method].needs else None

    pruned = prune(
        model, budget="macs=0.5x", method=method, images=labelled, input_size=SIZE, sparse_steps=2
    )

    assert 0.49 <= macs(pruned.model) / macs(model) <= 0.5
    assert pruned.after is not None
    assert pruned.after.macs == macs(pruned.model)
    assert pruned.after.params == sum(one.numel() for one in pruned.model.parameters())
    assert pruned.model(IMAGE).shape == (2, 5)
    assert pruned.method == method
    for name, kept in pruned.kept.items():
        assert pruned.model.get_submodule(name).weight.shape[0] == len(kept)


def test_l1_keeps_the_filters_with_the_largest_sums() -> None:
    model = chain(maps=48)

    pruned = prune(model, budget="macs=0.5x", input_size=SIZE)

    for name in "abc":
        kept = pruned.kept[name]
        norms = model.get_submodule(name).weight.detach().abs().sum((1, 2, 3))
        assert set(kept) == set(norms.topk(len(kept)).indices.tolist())
    assert torch.equal(pruned.model.b.weight, _sliced(model.b.weight, pruned, "b", "a"))


def _sliced(weight: torch.Tensor, pruned: ghostify.Pruned, own: str, before: str) -> torch.Tensor:
    return weight[list(pruned.kept[own])][:, list(pruned.kept[before])]


def test_uniform_methods_take_the_same_share_of_each_layer() -> None:
    pruned = prune(residual(), budget="macs=0.6x", input_size=SIZE, verify=True)

    shares = {len(pruned.kept["wide"]) / 20, len(pruned.kept["plain"]) / 16}
    assert max(shares) - min(shares) <= 1 / 16


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("group-norm", {"p": 2, "group_reduction": "mean", "normalizer": "mean"}),
        ("l1-global", {"p": 1, "group_reduction": "first", "normalizer": "mean"}),
    ],
)
def test_global_methods_keep_what_torch_pruning_keeps(
    method: str, settings: dict[str, object]
) -> None:
    import torch_pruning

    model = chain(maps=48)
    theirs = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_pruning.pruner.BasePruner(
            theirs,
            IMAGE[:1],
            importance=torch_pruning.importance.GroupMagnitudeImportance(**settings),
            global_pruning=True,
            pruning_ratio=0.25,
            ignored_layers=[theirs.head],
        ).step()

    ours = prune(model, budget=f"macs={macs(theirs)}", method=method, input_size=SIZE).model

    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_bn_scale_removes_the_smallest_factors() -> None:
    model = chain(maps=160)

    pruned = prune(model, budget="macs=0.5x", method="bn-scale", input_size=SIZE)

    left, gone = [], []
    for name in "abc":
        factors = model.get_submodule(f"{name}_bn").weight.abs().tolist()
        for index, factor in enumerate(factors):
            (left if index in pruned.kept[name] else gone).append(factor)
    assert max(gone) <= min(left)


def test_taylor_ranks_by_the_effect_on_the_loss() -> None:
    """A map whose batch norm gives nothing has no effect, and goes first."""
    model = chain(maps=48)
    with torch.no_grad():
        model.a_bn.weight[:24] = 0
        model.a_bn.bias[:24] = 0

    pruned = prune(model, budget="macs=0.6x", method="taylor", images=batches(), input_size=SIZE)

    assert set(pruned.kept["a"]) <= set(range(24, 48))


def test_sparse_training_makes_the_least_maps_smaller() -> None:
    model = chain()
    few = prune(
        model, budget="macs=0.7x", method="growing-reg", images=batches(), input_size=SIZE,
        sparse_steps=12,
    )  # fmt: skip

    assert not torch.equal(few.model.head.bias, model.head.bias)  # it was trained
    assert few.history[0]["sparse_steps"] == 12
    assert few.original is not None
    assert torch.equal(few.original["head.bias"], model.head.bias)


def test_the_seed_decides_what_goes_by_chance() -> None:
    def kept(seed: int) -> dict[str, tuple[int, ...]]:
        pruned = prune(
            chain(), budget="macs=0.5x", method="random", seed=seed, input_size=SIZE, verify=False
        )
        return dict(pruned.kept)

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)


def test_kept_layers_lose_nothing() -> None:
    pruned = prune(chain(maps=48), budget="macs=0.7x", keep=["b"], input_size=SIZE)

    assert set(pruned.kept) == {"a", "c"}
    assert pruned.model.b.out_channels == 48


def test_parameters_can_be_the_budget() -> None:
    model = chain(maps=48)

    pruned = prune(model, budget="params=0.5x,macs=0.9x", input_size=SIZE)

    share = sum(one.numel() for one in pruned.model.parameters()) / sum(
        one.numel() for one in model.parameters()
    )
    assert 0.49 <= share <= 0.5


def test_a_ghosted_network_loses_maps_with_their_ghosts(tmp_path: Path) -> None:
    model = chain(maps=64)
    ghosted = ghostify.convert(model, input_size=SIZE, seed=1)

    pruned = prune(ghosted.model, budget="macs=0.7x", input_size=SIZE)

    assert pruned.before == ghosted.after
    layer = pruned.model.get_submodule("b")
    assert isinstance(layer, GhostModule)
    assert layer.out_channels == 2 * layer.intrinsic_channels < 64


def test_an_artefact_is_rebuilt_without_torch_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    pruned = prune("resnet20_cifar", budget="macs=0.5x", seed=3)
    ghostify.save(pruned, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)

    loaded = ghostify.load(tmp_path / "out").eval()

    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(image), pruned.model.eval()(image))
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [
        ".json", ".md", ".safetensors", ".safetensors",
    ]  # fmt: skip


def test_a_pruned_network_can_be_ghosted_and_pruned_again(tmp_path: Path) -> None:
    ghostify.save(prune("resnet20_cifar", budget="macs=0.7x"), tmp_path / "one")
    rules = {"layer2.*": "s2,d3"}
    ghostify.save(ghostify.convert(str(tmp_path / "one"), rules=rules), tmp_path / "two")
    keep = ["layer2.*"]
    last = prune(str(tmp_path / "two"), budget="macs=0.95x", keep=keep, verify=False)

    ghostify.save(last, tmp_path / "three")

    image = torch.randn(2, 3, 32, 32)
    loaded = ghostify.load(tmp_path / "three").eval()
    assert torch.equal(loaded(image), last.model.eval()(image))
    assert isinstance(loaded.get_submodule("layer2.0.conv1"), GhostModule)


def test_calibration_brings_the_network_closer_to_what_it_was() -> None:
    model = chain(maps=32)
    images = [torch.randn(32, *SIZE, generator=torch.Generator().manual_seed(4))]

    raw = prune(model, budget="macs=0.5x", input_size=SIZE)
    fitted = prune(
        model, budget="macs=0.5x", input_size=SIZE, calibration=images,
        fit=FitOptions(block_steps=30, joint_steps=0),
    )  # fmt: skip

    def miss(one: nn.Module) -> float:
        with torch.no_grad():
            return float((one(images[0]) - model(images[0])).square().mean())

    assert miss(fitted.model) < 0.5 * miss(raw.model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "l3"}, PruneError, "no pruning method is called 'l3'; did you mean l2"),
        ({"budget": "macs=2x"}, PruneError, "the network keeps the budget as it is"),
        ({"budget": "macs=1k"}, PruneError, "l1 cannot bring macs to 1k: the least"),
        ({"budget": "size=1MB"}, BudgetError, "takes a budget of macs and params"),
        ({"budget": 3}, BudgetError, "a budget is written like macs=0.5x"),
        ({"method": "taylor"}, PruneError, "taylor ranks maps by labelled images"),
        ({"method": "hessian", "images": []}, PruneError, "there are no labelled images"),
        ({"keep": ["d"]}, RuleError, "'d' keeps no layer"),
        ({"keep": ["*"]}, PruneError, "nothing can be pruned in Chain: kept"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: dict[str, object], error: type[GhostifyError], message: str
) -> None:
    with pytest.raises(error, match=message):
        prune(chain(), **{"budget": "macs=0.5x", "input_size": SIZE, **arguments})  # type: ignore[arg-type]


def test_labels_that_the_network_cannot_give_are_refused() -> None:
    with pytest.raises(PruneError, match="does not take images of 3x12x12 with these labels"):
        prune(chain(), budget="macs=0.5x", method="taylor", images=batches(99), input_size=SIZE)


def test_uniform_batch_norms_are_an_error_that_says_so() -> None:
    torch.manual_seed(0)

    with pytest.raises(PruneError, match="all factors of the batch norms are 1"):
        prune(Chain(), budget="macs=0.5x", method="bn-scale", input_size=SIZE)


def test_a_layer_without_batch_norm_is_named() -> None:
    with pytest.raises(PruneError, match=r"bn-scale ranks maps .*, and plain has none"):
        prune(residual(), budget="macs=0.9x", method="bn-scale", input_size=SIZE)


def test_a_network_without_maps_to_remove_is_refused() -> None:
    with pytest.raises(PruneError, match="nothing can be pruned in Grouped"):
        prune(trained(Grouped()), budget="macs=0.5x", input_size=SIZE)


def test_gradients_of_ghost_modules_are_refused_in_one_sentence() -> None:
    ghosted = ghostify.convert(chain(), input_size=SIZE).model

    with pytest.raises(PruneError, match="taylor needs gradients of filters"):
        prune(ghosted, budget="macs=0.8x", method="taylor", images=batches(), input_size=SIZE)


class Averaged(nn.Module):
    """Mixes the maps behind torch-pruning's back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.a(images)
        return self.b(maps - maps.mean(1, keepdim=True) * 3)  # type: ignore[no-any-return]


def test_a_network_that_mixes_its_maps_is_not_pruned_wrongly() -> None:
    with pytest.raises(GhostifyError):
        prune(Averaged(), budget="macs=0.5x", input_size=SIZE)
