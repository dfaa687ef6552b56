"""Figures from records: what they show, what they leave out, and that they stay the same."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from ghostify.reports.figures import PublishedPoint, draw_figures
from ghostify.reports.figures_cost import Point, accuracy_points, draw_costs, speed_points
from ghostify.reports.figures_data import Runtime, curve_of, plain, series_of
from ghostify.reports.figures_plan import Tile, rows_of
from ghostify.reports.figures_style import (
    COLOURS,
    CONTROL,
    PUBLISHED,
    drawing,
    styles_of,
)
from ghostify.reports.values import Figure
from ghostify.runs.record import RunLatency, RunRecord
from tests.reports.drawable import ORDER, comparison, record

FEW = ("dense", "l1", "ghost-fitted", "searched")
DARK = "#0f1419"


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    records = comparison({"resnet20": 2}, methods=FEW)
    return {figure.id: figure for figure in draw_figures(records, order=ORDER).figures}


def texts(figure: Figure) -> list[str]:
    root = ElementTree.fromstring(figure.svg)
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def marks(drawing: Any) -> set[str]:
    """Return the markers that a figure's panels hold."""
    return {str(line.get_marker()) for axis in drawing.axes for line in axis.lines}


def test_all_figures_are_drawn_from_whole_records(drawn: dict[str, Figure]) -> None:
    assert list(drawn) == [
        "accuracy", "accuracy-macs", "accuracy-latency", "curves", "before-training", "plans",
    ]  # fmt: skip
    assert all(figure.title and figure.caption for figure in drawn.values())


def test_the_same_records_give_the_same_bytes(drawn: dict[str, Figure]) -> None:
    records = comparison({"resnet20": 2}, methods=FEW)[::-1]
    again = {figure.id: figure for figure in draw_figures(records, order=ORDER).figures}

    assert again == drawn


def test_svg_has_no_date_no_foreign_address_and_ids_of_its_own(drawn: dict[str, Figure]) -> None:
    seen: set[str] = set()
    for name, figure in drawn.items():
        ids = re.findall(r' id="([^"]+)"', figure.svg)

        assert not re.search(r"<dc:date|<metadata|20\d\d-\d\d-\d\d", figure.svg)
        assert set(re.findall(r"https?://[^\"]+", figure.svg)) <= {
            "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
        }  # fmt: skip
        assert all(one.startswith(f"figure-{name}") for one in ids)
        assert not seen & set(ids)
        seen |= set(ids)


def test_references_inside_svg_lead_somewhere(drawn: dict[str, Figure]) -> None:
    for figure in drawn.values():
        ids = set(re.findall(r' id="([^"]+)"', figure.svg))
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', figure.svg))

        assert used
        assert used <= ids


def test_ink_follows_the_page_and_nothing_else_is_near_black(drawn: dict[str, Figure]) -> None:
    for figure in drawn.values():
        drawn_in = set(re.findall(r"(?:fill|stroke): (#\w+)", figure.svg))

        assert "currentColor" in figure.svg
        assert all(contrast(one, DARK) >= 3 for one in drawn_in)


def test_png_shows_the_same_on_white(drawn: dict[str, Figure]) -> None:
    for figure in drawn.values():
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)
        assert box is not None
        with Image.open(io.BytesIO(figure.png)) as image:
            pixels = np.asarray(image.convert("RGB"))

        assert pixels.shape[1] / pixels.shape[0] == pytest.approx(
            float(box[1]) / float(box[2]), rel=0.01
        )
        assert (pixels[0, 0] == 255).all()
        assert (pixels < 128).any()


def test_names_are_written_as_they_are() -> None:
    wicked = "<script>1</script> $x_1$ & \\alpha"
    made = [record(method=str(i), method_label=f"{i} {wicked}", top1=80.0) for i in (1, 2)]
    figure = draw_figures(made).figures[0]

    assert any(text == f"1 {wicked}" for text in texts(figure))


@pytest.mark.parametrize(
    ("name", "shown"), [("a\x00b\nc\x1b[1m", "a b c [1m"), ("x" * 60, "x" * 39 + "…")]
)
def test_names_lose_what_no_file_can_hold(name: str, shown: str) -> None:
    assert plain(name) == shown


def test_a_name_in_letters_that_the_font_lacks_is_drawn_all_the_same() -> None:
    made = [record(method=str(i), method_label=f"方法{i}") for i in (1, 2)]

    assert "方法1" in texts(draw_figures(made).figures[0])


def test_means_and_intervals_are_students() -> None:
    made = [record(seed=seed, top1=top1) for seed, top1 in enumerate((80.0, 81.0, 83.5))]
    (one,) = series_of(made)
    (point,) = accuracy_points([one], lambda s: s.mean(lambda r: r.macs), scale=1e-6)
    low, high = stats.t.interval(0.95, 2, loc=81.5, scale=stats.sem([80.0, 81.0, 83.5]))

    assert (point.x, point.y) == (50.0, 81.5)
    assert point.y_spread == pytest.approx((high - low) / 2)
    assert point.x_spread is None


def test_published_points_are_hollow_named_and_not_on_the_front() -> None:
    made = [
        record(method="a", label="ResNet-56", macs=50_000_000, top1=80.0),
        record(method="b", label="ResNet-56", macs=90_000_000, top1=85.0),
    ]
    theirs = PublishedPoint("ResNet-56", "Theirs", 99.0, 10_000_000)
    others = PublishedPoint("VGG-16", "Others", 99.0, 10_000_000)
    points = accuracy_points(
        series_of(made), lambda s: s.mean(lambda r: r.macs),
        [(theirs, 10_000_000.0), (others, 10_000_000.0)],
    )  # fmt: skip
    with drawing():
        figure = draw_costs(points, styles_of(["a", "b"]), x="x", y="y")
    front = next(line for line in figure.axes[0].lines if line.get_linewidth() > 2)
    hollow = next(line for line in figure.axes[0].lines if line.get_marker() == PUBLISHED)

    assert [point.label for point in points if point.published] == ["Theirs"]
    assert sorted(front.get_xdata()) == [50_000_000, 90_000_000]
    assert hollow.get_markerfacecolor() == "none"
    assert "Theirs" in [text.get_text() for text in figure.axes[0].texts]


def test_names_of_published_points_cover_neither_each_other_nor_points() -> None:
    chance = np.random.default_rng(3)
    points = [
        Point("N", f"published {i}", "", f"Method {i}", float(x), float(y), published=True)
        for i, (x, y) in enumerate(chance.uniform(0, 10, (9, 2)))
    ]
    with drawing():
        figure = draw_costs(points, {}, x="x", y="y")
        figure.draw_without_rendering()
        axis = figure.axes[0]
        boxes = [text.get_window_extent() for text in axis.texts]
    dots = [axis.transData.transform((point.x, point.y)) for point in points]

    assert len(boxes) == 9
    assert not any(one.overlaps(two) for one, two in itertools.combinations(boxes, 2))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_what_was_not_trained_does_not_stand_beside_what_was() -> None:
    made = [
        record(method="trained", steps=10),
        record(method="raw", steps=0),
        record(method="dense", steps=0, settings={"kind": "dense"}),
    ]
    points = accuracy_points(series_of(made), lambda s: s.mean(lambda r: r.macs))

    assert [point.method for point in points] == ["dense", "trained"]


def test_curves_are_means_with_the_lowest_and_highest_seed() -> None:
    made = [
        record(seed=seed, start_top1=start, curve=[{"step": s, "top1": t} for s, t in points])
        for seed, start, points in (
            (0, 10.0, ((5, 50.0), (9, 60.0))),
            (1, 14.0, ((5, 56.0), (7, 1.0), (9, 70.0))),
        )
    ]
    (one,) = series_of(made)
    curve = curve_of(one)

    assert curve is not None
    assert (curve.steps, curve.seeds) == ((0, 5, 9), 2)
    assert curve.mean == (12.0, 53.0, 65.0)
    assert (curve.low, curve.high) == ((10.0, 50.0, 60.0), (14.0, 56.0, 70.0))


def test_a_method_has_one_colour_in_all_figures(drawn: dict[str, Figure]) -> None:
    styles = styles_of(["dense", "l1", "ghost-fitted", "searched"], {"dense"})

    for name in ("accuracy", "accuracy-macs", "accuracy-latency", "curves", "before-training"):
        found = set(re.findall(r"(?:fill|stroke): (#\w+)", drawn[name].svg))
        assert found == {style.colour for style in styles.values()}
    assert styles["dense"].colour == CONTROL


def test_more_methods_than_colours_come_in_parts_with_the_control_in_each() -> None:
    made = [record(method=f"m{i}", method_label=f"M{i}", top1=70.0 + i) for i in range(13)]
    made.append(record(method="dense", method_label="Dense", settings={"kind": "dense"}))
    figures = {figure.id: figure for figure in draw_figures(made).figures}
    parts = [texts(figures[f"accuracy-macs-{part}"]) for part in (1, 2)]
    names = [{text for text in part if re.fullmatch(r"M\d+|Dense", text)} for part in parts]

    assert "accuracy-macs" not in figures
    assert (len(names[0]), len(names[1])) == (len(COLOURS) + 1, 4)
    assert names[0] & names[1] == {"Dense"}


def test_no_two_methods_look_alike() -> None:
    styles = list(styles_of(map(str, range(30))).values())

    assert len({(one.colour, one.marker) for one in styles}) == 30
    assert len({(one.colour, one.dash) for one in styles}) == 30
    assert PUBLISHED not in {one.marker for one in styles}


def test_colours_stand_out_from_white_and_from_the_dark_page() -> None:
    for colour in (*COLOURS, CONTROL):
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, DARK) >= 3


@pytest.mark.parametrize("kind", ["all", "protan", "deutan", "tritan"])
def test_colours_are_told_apart_without_red_green_or_blue(kind: str) -> None:
    seen = [perceived(colour, kind) for colour in COLOURS]
    nearest = min(np.linalg.norm(one - two) for one, two in itertools.combinations(seen, 2))

    assert nearest > 0.035  # in Oklab, where 0.02 can just be seen side by side


def test_layers_are_shown_as_kept_ghost_or_pruned() -> None:
    plans: list[dict[str, Any]] = [
        {"layers": {"b": {"ratio": 2, "kernel": 3}, "c": {"ratio": 4, "kernel": [1, 5]}},
         "convs": {"a": [8, 3, 3, 3], "b": [16, 8, 3, 3], "c": [16, 16, 3, 3]}},
        {"kept": {"a": 8, "b": 4, "c": 8}},
        {"layers": {"a": {"prune": 0.25}, "b": {"ratio": 3, "kernel": 3}}},
    ]  # fmt: skip
    made = [record(method=str(i), method_label=f"M{i}", plan=plan) for i, plan in enumerate(plans)]
    layers, rows = rows_of(series_of(made))

    assert layers == ("a", "b", "c")
    assert rows["M0"] == {
        "b": Tile("ghost", "s2", 0.5), "c": Tile("ghost", "s4\nd1+5", 0.75),
    }  # fmt: skip
    assert rows["M1"] == {"b": Tile("pruned", "25", 0.75), "c": Tile("pruned", "50", 0.5)}
    assert rows["M2"]["a"] == Tile("pruned", "75", 0.25)


def test_pruned_layers_of_unknown_size_have_no_share() -> None:
    made = [record(method_label="M", plan={"kept": {"b": 4, "a": 8}})]
    layers, rows = rows_of(series_of(made))

    assert layers == ("b", "a")
    assert rows == {"M": {"b": Tile("pruned", "", 0.5), "a": Tile("pruned", "", 0.5)}}


def test_speed_is_a_share_of_the_original_measured_beside_it() -> None:
    one = RunLatency("onnxruntime", 1, 1, 6.0, 0.1, before_ms=8.0)
    two = RunLatency("onnxruntime", 1, 1, 5.0, 0.1)
    dense = RunLatency("onnxruntime", 1, 1, 10.0, 0.1)
    made = [
        record(method="a", latencies=(one,)),
        record(method="b", latencies=(two,)),
        record(method="dense", latencies=(dense,), settings={"kind": "dense"}),
        record(method="unknown"),
    ]
    points = speed_points(series_of(made), Runtime("onnxruntime", "cpu", 1, 1))

    assert {point.method: point.y for point in points} == {"a": 0.75, "b": 0.5, "dense": 1.0}
    assert {point.x for point in points} == {0.5}


def sweep() -> list[RunRecord]:
    return [
        record(
            kind="count", method=f"s{s}", method_label=f"s={s}", macs=100_000_000 // s, top1=None,
            steps=0, latencies=(RunLatency("onnxruntime", 1, 1, 8.0 / s + 1, 0.1, before_ms=8.0),),
        )
        for s in (1, 2, 3, 4)
    ]  # fmt: skip


def test_a_sweep_without_accuracy_shows_speed_and_says_what_is_missing() -> None:
    found = draw_figures(sweep())

    assert [figure.id for figure in found.figures] == ["latency-macs"]
    assert found.remarks == (
        "no figure of accuracy: no record has one",
        "no figure of training curves: no run has its accuracy at two steps or more",
        "no figure of accuracy before training: no record has it",
        "no map of plans for Net: no record has a plan",
    )


def test_records_of_learning_rates_are_not_shown() -> None:
    found = draw_figures([record(kind="tune"), record(kind="tune", seed=1)])

    assert found.figures == ()
    assert found.remarks == ("no figure: there is no finished run",)


def test_networks_stand_in_the_order_of_their_numbers() -> None:
    made = [
        record(network=name, label=label)
        for name, label in (("c", "ResNet-110"), ("a", "ResNet-20"), ("b", "ResNet-8"))
    ]

    assert [one.network_label for one in series_of(made)] == ["ResNet-8", "ResNet-20", "ResNet-110"]
    assert [one.network for one in series_of(made, ("c", "b"))] == ["c", "b", "a"]


def test_rows_of_one_budget_stand_together_the_control_first() -> None:
    made = [
        record(method=method, method_label=method, budget=budget)
        for method, budget in itertools.product("ab", ("macs=0.9x", "macs=0.10x"))
    ]
    made.append(record(method="dense", method_label="dense", settings={"kind": "dense"}))
    figure = draw_figures(made).figures[0]

    assert [text for text in texts(figure) if re.match(r"dense|[ab],", text)] == [
        "dense", "a, macs=0.10x", "b, macs=0.10x", "a, macs=0.9x", "b, macs=0.9x",
    ]  # fmt: skip


def channels(colour: str) -> np.ndarray[Any, Any]:
    """Return linear red, green and blue."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as the WCAG defines it."""
    lights = sorted(float(channels(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (one, other))
    return lights[1] / lights[0]


def perceived(colour: str, kind: str) -> np.ndarray[Any, Any]:
    """Return a colour in Oklab, as eyes without one kind of cones see it (Machado 2009)."""
    matrices: dict[str, Sequence[Sequence[float]]] = {
        "all": np.eye(3).tolist(),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                   [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
    }  # fmt: skip
    seen = np.clip(np.array(matrices[kind]) @ channels(colour), 0, 1)
    cones = np.cbrt(
        np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                  [0.2119034982, 0.6806995451, 0.1073969566],
                  [0.0883024619, 0.2817188376, 0.6299787005]]) @ seen
    )  # fmt: skip
    lab = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                    [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
    return np.asarray(lab @ cones)
