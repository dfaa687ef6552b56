"""The files of a redundancy report, and what can be seen in its pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from ghostify.analysis.charts import error_by_depth, error_distribution, pair_grid
from ghostify.analysis.drawing import COLOURS, figure_of, show_map
from ghostify.analysis.measure import redundancy
from ghostify.analysis.report import write_report
from ghostify.analysis.values import Redundancy
from ghostify.errors import OutputError
from ghostify.plan_file import load_plan
from tests.analysis.networks import Net, doubled, images


@pytest.fixture(scope="module")
def found() -> Redundancy:
    return redundancy(doubled(), images(), (1, 3), gallery="second", tolerance=0.01, pairs=4)


@pytest.fixture(scope="module")
def folder(found: Redundancy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(found, tmp_path_factory.mktemp("report") / "out")


def test_all_files_are_there(folder: Path) -> None:
    pictures = {
        f"{name}.{kind}"
        for name in ("pairs", "error_by_depth", "distribution")
        for kind in ("png", "svg")
    }
    tables = {"redundancy.json", "layers.csv", "maps.csv", "pairs.csv", "plan.yaml", "summary.md"}

    assert {file.name for file in folder.iterdir()} == pictures | tables
    for name in pictures:
        file = folder / name
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert min(picture.size) > 300
        else:
            assert "<svg" in file.read_text(encoding="utf-8")


def test_tables_say_what_was_found(found: Redundancy, folder: Path) -> None:
    with (folder / "maps.csv").open(encoding="utf-8", newline="") as file:
        maps = list(csv.DictReader(file))
    with (folder / "layers.csv").open(encoding="utf-8", newline="") as file:
        layers = list(csv.DictReader(file))
    with (folder / "pairs.csv").open(encoding="utf-8", newline="") as file:
        pairs = list(csv.DictReader(file))

    assert [(row["layer"], int(row["map"])) for row in maps] == [
        *(("first", k) for k in range(6)),
        *(("second", k) for k in range(8)),
    ]
    for row in maps:
        layer = found.layer(row["layer"])
        assert float(row["relative_mse_d3"]) == pytest.approx(
            layer.relative[1, int(row["map"])], rel=1e-5, abs=1e-12
        )
        assert int(row["partner_d3"]) == layer.partners[1, int(row["map"])]
    assert [(row["layer"], row["d"]) for row in layers] == [
        (name, d) for name in ("first", "second") for d in ("1", "3")
    ]
    assert [row["suggested"] for row in layers] == ["keep", "keep", "s2,d1", "s2,d1"]
    assert float(layers[3]["median"]) == pytest.approx(found.layers[1].quartiles(3)[1], rel=1e-5)
    assert sum(row["layer"] == "second" for row in pairs) == 4


def test_the_plan_can_be_loaded(found: Redundancy, folder: Path) -> None:
    plan = load_plan(folder / "plan.yaml")

    assert plan.layers == found.plan.layers
    plan.check({"first": (6, 3, 3, 3), "second": (8, 6, 3, 3)})


def test_json_has_the_documented_form(found: Redundancy, folder: Path) -> None:
    value = json.loads((folder / "redundancy.json").read_text(encoding="utf-8"))

    assert value["kernels"] == [1, 3]
    layer = value["layers"][1]
    assert layer["name"] == "second"
    assert set(layer["errors"]) == {"1", "3"}
    assert set(layer["errors"]["3"]) == {
        "mse", "relative_mse", "r2", "quartiles", "share_below"
    }  # fmt: skip
    assert layer["errors"]["3"]["r2"] == pytest.approx(1 - layer["errors"]["3"]["relative_mse"])
    assert np.shape(layer["pairs"][0]["filters"]["3"]) == (3, 3)
    assert layer["suggestion"]["ratio"] == 2
    assert value["plan"]["layers"]["second"]["ratio"] == 2
    assert value["versions"]["torch"]


def test_the_page_shows_pictures_and_tables(folder: Path) -> None:
    page = (folder / "summary.md").read_text(encoding="utf-8")

    for name in ("pairs.png", "error_by_depth.png", "distribution.png"):
        assert f"]({name})" in page
    assert "| layer | pair | d = 1 | d = 3 |" in page
    assert "s2,d1" in page


def test_an_existing_directory_stays(found: Redundancy, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(OutputError, match="exists already"):
        write_report(found, tmp_path / "out")

    assert [file.name for file in tmp_path.rglob("*")] == ["out", "mine"]


def test_the_grid_has_every_map_and_frames_pairs_in_one_colour(found: Redundancy) -> None:
    assert found.gallery is not None
    layer = found.layer("second")

    figure = pair_grid(found, found.gallery)

    left, right = figure.subfigs
    titles = [axis.get_title() for axis in left.axes]
    assert [int(title.split()[0]) for title in titles] == list(range(8))
    assert len(right.axes) == 4 * len(layer.pairs)
    for letter, colour, pair in zip("ABCD", COLOURS, layer.pairs, strict=False):
        framed = {
            int(axis.get_title().split()[0])
            for axis in left.axes
            if axis.get_title().endswith(f" {letter}")
        }
        assert framed == {pair.source, pair.target}
        for one in framed:
            edge = left.axes[one].spines["left"]
            assert to_hex(edge.get_edgecolor()).upper() == colour
            assert edge.get_linewidth() > 2
    drawn = left.axes[3].images[0]
    assert drawn.get_cmap().name == "viridis"
    assert np.asarray(drawn.get_array()) == pytest.approx(found.gallery.maps[3])


def test_the_grid_shows_what_the_filter_makes(found: Redundancy) -> None:
    assert found.gallery is not None
    pair = found.layer("second").pairs[0]

    axes = pair_grid(found, found.gallery).subfigs[1].axes[:4]

    shown = [np.asarray(axis.images[0].get_array()) for axis in axes]
    assert shown[0] == pytest.approx(found.gallery.maps[pair.source])
    assert shown[1] == pytest.approx(found.gallery.maps[pair.target])
    assert shown[2] == pytest.approx(shown[1], abs=1e-3)  # a multiple, so nothing is left over
    assert shown[3] == pytest.approx(np.abs(shown[1] - shown[2]))


def test_wide_layers_are_shown_in_part_with_the_pairs() -> None:
    net = Net(100)
    found = redundancy(net, images(4), (1,), gallery="first", layers="first")
    assert found.gallery is not None

    figure = pair_grid(found, found.gallery)

    shown = {int(axis.get_title().split()[0]) for axis in figure.subfigs[0].axes}
    assert len(shown) == 64
    assert {one for p in found.layers[0].pairs[:3] for one in (p.source, p.target)} <= shown


def test_errors_by_depth(found: Redundancy) -> None:
    axis = error_by_depth(found).axes[0]

    assert len(axis.lines) == 2
    assert [line.get_label() for line in axis.lines] == ["d = 1", "d = 3"]
    for line, kernel in zip(axis.lines, (1, 3), strict=True):
        wanted = [layer.relative_mse(kernel) for layer in found.layers]
        assert np.asarray(line.get_ydata()) == pytest.approx(wanted)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["first", "second"]


def test_distribution_of_errors(found: Redundancy) -> None:
    figure = error_distribution(found)

    shares = np.asarray(figure.axes[0].collections[0].get_array()).reshape(-1, 2)
    assert shares.sum(0) == pytest.approx([100, 100])
    assert shares[0, 1] == 100  # every map of the second layer is a multiple of another
    assert len(figure.axes) == 2  # and the bar of colours


def test_large_maps_are_drawn_coarser() -> None:
    values = np.arange(170 * 90, dtype=np.float64).reshape(170, 90)
    axis = figure_of((2, 2)).subplots()

    show_map(axis, values)

    drawn = np.asarray(axis.images[0].get_array())
    assert drawn.shape == (56, 30)
    assert drawn[1, 2] == pytest.approx(values[3:6, 6:9].mean())
    assert axis.images[0].get_clim() == (0, 170 * 90 - 1)
