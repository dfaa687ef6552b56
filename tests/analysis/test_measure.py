"""The redundancy of small networks: against numpy, planted ghosts, and other ways to run it."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ghostify
from ghostify.analysis.measure import redundancy
from ghostify.analysis.values import Redundancy
from ghostify.errors import GhostifyError
from ghostify.graph.calibrate import FitOptions
from ghostify.spec import GhostSpec
from tests.analysis.networks import Net, doubled, images, passing


def least_squares(source: Tensor, target: Tensor, kernel: int) -> float:
    """Fit one map ``(N, H, W)`` to another by numpy; return the error over the variance."""
    pad = kernel // 2
    padded = functional.pad(source.double(), (pad, pad, pad, pad))
    height, width = source.shape[1:]
    columns = [
        padded[:, dy : dy + height, dx : dx + width].flatten().numpy()
        for dy in range(kernel)
        for dx in range(kernel)
    ]
    design = np.stack([*columns, np.ones(source.numel())], 1)
    wanted = target.double().flatten().numpy()
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return float(np.square(design @ solution - wanted).mean() / wanted.var())


def test_every_layer_agrees_with_numpy() -> None:
    net, pictures = Net().eval(), images(6)

    found = redundancy(net, pictures, (1, 3))

    maps = {"first": net.first(pictures).detach()}
    maps["second"] = net.second(torch.relu(net.norm(maps["first"]))).detach()
    assert [layer.name for layer in found.layers] == ["first", "second"]
    for layer in found.layers:
        outputs = maps[layer.name].transpose(0, 1)
        for row, kernel in enumerate(layer.kernels):
            for target in range(layer.maps):
                errors = {
                    source: least_squares(outputs[source], outputs[target], kernel)
                    for source in range(layer.maps)
                    if source != target
                }
                best = min(errors, key=errors.__getitem__)
                assert layer.partners[row, target] == best
                assert layer.relative[row, target] == pytest.approx(errors[best], abs=1e-5)
        assert layer.variance == pytest.approx(
            outputs.flatten(1).var(1, correction=0).numpy(), rel=1e-4
        )


def test_a_planted_ghost_is_found_with_its_filter() -> None:
    pictures = images()
    planted = torch.tensor([[0.0, 0.5, 0.0], [-1.0, 2.0, 0.3], [0.0, 0.1, 0.7]])
    pictures[:, 2:] = functional.conv2d(pictures[:, :1], planted[None, None], padding=1) + 3

    found = redundancy(nn.Sequential(passing()), pictures)

    layer = found.layers[0]
    assert layer.relative[0, 2] > 0.05
    assert (layer.relative[1:, 2] < 1e-5).all()
    assert layer.partners[1:, 2].tolist() == [0, 0, 0]
    pair = layer.pairs[0]
    assert (pair.source, pair.target) == (0, 2)
    assert np.asarray(pair.filters[1]) == pytest.approx(planted.numpy(), abs=2e-3)
    assert pair.offsets[1] == pytest.approx(3, abs=1e-3)


def test_errors_never_grow_with_d() -> None:
    found = redundancy(Net(), images(), (1, 3, 5, 7))

    for layer in found.layers:
        assert (np.diff(layer.relative, axis=0) <= 0).all()
        whole = [layer.relative_mse(kernel) for kernel in layer.kernels]
        assert whole == sorted(whole, reverse=True)
        for pair in layer.pairs:
            assert list(pair.mse) == sorted(pair.mse, reverse=True)


def test_summary_figures_follow_from_the_single_maps() -> None:
    layer = redundancy(Net(), images(), (3,)).layers[1]

    errors = sorted(layer.relative[0].tolist())
    assert layer.quartiles(3)[1] == pytest.approx((errors[3] + errors[4]) / 2)
    assert layer.share_below(errors[2] + 1e-9, 3) == 3 / 8
    weighted = sum(e * v for e, v in zip(layer.relative[0], layer.variance, strict=True))
    assert layer.relative_mse(3) == pytest.approx(weighted / layer.variance.sum())
    assert layer.mse(3) == pytest.approx(weighted / 8)


def test_pairs_share_no_map_and_come_in_order() -> None:
    layer = redundancy(doubled(), images(), (1, 3), pairs=4).layers[1]

    used = [one for pair in layer.pairs for one in (pair.source, pair.target)]
    assert len(used) == len(set(used)) == 8
    assert {frozenset((p.source, p.target)) for p in layer.pairs} == {
        frozenset((k, k + 1)) for k in range(0, 8, 2)
    }
    errors = [pair.relative[1] for pair in layer.pairs]
    assert errors == sorted(errors)


def same(one: Redundancy, other: Redundancy, *, rel: float = 1e-4) -> None:
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        assert mine.relative == pytest.approx(theirs.relative, rel=rel, nan_ok=True)
        assert (mine.partners == theirs.partners).all()
        assert mine.positions == theirs.positions


def test_neither_batches_nor_memory_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = images()
    whole = redundancy(Net(), pictures)

    same(redundancy(Net(), pictures.split(5)), whole)
    same(redundancy(Net(), (one for one in pictures.split(3))), whole)
    same(redundancy(Net(), pictures, memory_bytes=1), whole)
    monkeypatch.setattr("ghostify.analysis.stream._UNIT_BYTES", 8 * 49 * 57 * 3)  # 3 maps a block
    same(redundancy(Net(), pictures, memory_bytes=1), whole)
    few = redundancy(Net(), pictures, positions=600)
    monkeypatch.undo()
    same(few, redundancy(Net(), pictures, positions=600))  # the same ones in every block


def test_positions_are_drawn_by_the_seed() -> None:
    pictures = images(32)
    first, again, other, all_ = (
        redundancy(Net(), pictures, (3,), positions=positions, seed=seed).layers[0]
        for positions, seed in ((1000, 0), (1000, 0), (1000, 1), 2 * (1 << 20,))
    )

    assert first.positions == 1000
    assert all_.positions == 32 * 144
    assert (first.relative == again.relative).all()
    assert (first.relative != other.relative).any()
    assert first.relative == pytest.approx(all_.relative, abs=0.1)


def test_the_network_stays_as_it_was() -> None:
    net = Net().train()
    net.norm.eval()
    calls: list[int] = []

    def watch(*_: object) -> None:
        calls.append(1)

    net.first.register_forward_hook(watch)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    redundancy(net, images(), (1, 3))

    assert net.training
    assert net.second.training
    assert not net.norm.training
    assert calls == []
    assert len(net.first._forward_hooks) == 1
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(one.requires_grad and one.grad is None for one in net.parameters())


def test_constant_maps_are_counted_and_left_out() -> None:
    net = Net()
    with torch.no_grad():
        net.second.weight[[2, 5]] = 0.0

    layer = redundancy(net, images(), (1, 3)).layers[1]

    assert layer.constant == 2
    assert np.isnan(layer.relative[:, [2, 5]]).all()
    assert (layer.partners[:, [2, 5]] == -1).all()
    assert len(layer.errors(3)) == 6
    assert not {2, 5} & {one for pair in layer.pairs for one in (pair.source, pair.target)}
    assert math.isfinite(layer.relative_mse(3))


def test_all_maps_constant() -> None:
    net = Net()
    nn.init.zeros_(net.second.weight)

    found = redundancy(net, images(), (1, 3))

    layer = found.layers[1]
    assert layer.constant == 8
    assert layer.pairs == ()
    assert layer.suggestion.spec is None
    assert "do not vary" in layer.suggestion.reason
    assert json.loads(json.dumps(found.as_json()))["layers"][1]["errors"]["3"]["r2"] is None


def test_the_suggestion_is_the_best_pairing_by_enumeration() -> None:
    net = Net(4)
    pictures = images()
    found = redundancy(net, pictures, (1, 3), ratios=(2,), tolerance=1.0, layers="second", pairs=0)

    maps = net.eval().second(torch.relu(net.norm(net.first(pictures)))).detach().transpose(0, 1)
    variance = maps.flatten(1).var(1, correction=0).numpy()
    lowest = math.inf
    for kept in itertools.combinations(range(8), 4):
        others = [one for one in range(8) if one not in kept]
        costs = np.array(
            [[least_squares(maps[i], maps[g], 1) * variance[g] for g in others] for i in kept]
        )
        for order in itertools.permutations(range(4)):
            lowest = min(lowest, float(costs[order, range(4)].sum()))
    advice = found.layers[0].suggestion
    assert advice.spec == GhostSpec(2, 1)  # any error is within the tolerance; d = 1 costs least
    assert advice.error == pytest.approx(lowest / variance.sum(), rel=1e-4)


def test_a_suggested_plan_makes_the_same_network_where_half_of_it_is_ghosts() -> None:
    net, pictures = doubled(), images(64)

    found = redundancy(net, pictures, tolerance=0.01)

    assert {name: str(spec) for name, spec in found.plan.layers.items()} == {"second": "s2,d1"}
    assert found.layers[1].suggestion.error == pytest.approx(0, abs=1e-6)
    conversion = ghostify.convert(
        net,
        plan=found.plan,
        example=pictures[:1],
        calibration=[pictures],
        fit=FitOptions(block_steps=0, joint_steps=0),
    )
    assert conversion.model.eval()(pictures).detach().numpy() == pytest.approx(
        net.eval()(pictures).detach().numpy(), abs=1e-3
    )


def test_errors_are_weighted_by_the_batch_norm_behind() -> None:
    net, pictures = Net(), images()
    plain = redundancy(net, pictures, (1,), tolerance=1.0, layers="first", ratios=(2,))
    with torch.no_grad():
        net.norm.weight[3:] = 1e-6  # what these maps say is not heard
    heard = redundancy(net, pictures, (1,), tolerance=1.0, layers="first", ratios=(2,))

    assert plain.layers[0].suggestion.reason == heard.layers[0].suggestion.reason
    assert heard.layers[0].relative == pytest.approx(plain.layers[0].relative)


def test_layers_that_stay_dense_by_default_say_why() -> None:
    found = redundancy(Net(), images(), (1,))

    assert found.layers[0].suggestion.spec is None
    assert "first convolution" in found.layers[0].suggestion.reason


def test_the_gallery_holds_what_the_chosen_layer_makes() -> None:
    net, pictures = Net(), images()

    found = redundancy(net, pictures, (3,), gallery="first", gallery_image=11)

    assert found.gallery is not None
    assert found.gallery.maps == pytest.approx(net.first(pictures[11:12])[0].detach().numpy())
    assert found.gallery.image == pytest.approx(pictures[11].numpy())
    assert redundancy(net, pictures, (3,), gallery=None).gallery is None


def test_only_some_layers() -> None:
    found = redundancy(Net(), images(), (3,), layers=["sec*"])

    assert [layer.name for layer in found.layers] == ["second"]
    assert [(one.name, one.reason) for one in found.skipped] == [("first", "not asked for")]


def test_few_positions_are_remarked_on() -> None:
    found = redundancy(Net(), images(4), (1, 7))

    assert any("fewer than 980 positions" in note for note in found.notes)


def test_a_converted_network_can_be_looked_at_too() -> None:
    converted = ghostify.convert(Net(), example=images(1), convert_all=True)

    found = redundancy(converted, images(), (1, 3))

    names = [layer.name for layer in found.layers]
    assert "first.primary" in names
    assert all(layer.suggestion.spec is None for layer in found.layers)


def broken() -> Net:
    net = Net()
    with torch.no_grad():
        net.second.weight[0, 0, 0, 0] = math.nan
    return net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": (1, 2)}, "kernels are odd whole numbers from 1 to 15 (got 2)"),
        ({"kernels": ()}, "kernels are odd whole numbers from 1 to 15"),
        ({"kernels": (17,)}, "kernels are odd whole numbers from 1 to 15 (got 17)"),
        ({"ratios": (1,)}, "ratios are whole numbers from 2 to 99 (got 1)"),
        ({"tolerance": 1.5}, "the tolerance is a share from 0 to 1 (got 1.5)"),
        ({"tolerance": math.nan}, "the tolerance is a share from 0 to 1 (got nan)"),
        ({"positions": 0}, "positions is a whole number from 1 on (got 0)"),
        ({"pairs": -1}, "pairs is a whole number from 0 on (got -1)"),
        ({"layers": "secnd"}, "matches 'secnd'; did you mean second?"),
        ({"gallery": "secnd"}, "no layer 'secnd' to make a picture of; did you mean second?"),
        ({"gallery_image": 16}, "the picture's image is one of 0 to 15 (got 16)"),
        ({"batches": []}, "there are no images"),
        ({"batches": images(side=12)[:, :2]}, "does not take images of 2x12x12"),
        ({"batches": images() * math.nan}, "not finite"),
        ({"model": broken()}, "not finite"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(432, 2))}, "no convolution with several"),
        ({"model": nn.Sequential(nn.Conv2d(3, 1, 3))}, "no convolution with several output maps"),
        ({"model": "no_such_model"}, "no model is called 'no_such_model'"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"model": Net(), "batches": images(), "kernels": (1, 3)}

    with pytest.raises(GhostifyError) as raised:
        redundancy(**(arguments | change))  # type: ignore[arg-type]

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
