"""Published figures: those of the paper, and footnotes that hold by arithmetic."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from ghostify.errors import DataFileError
from ghostify.looking import inspect
from ghostify.published import PublishedRow, published_tables, read_published
from ghostify.published.footnotes import COLUMNS, FOOTNOTES
from ghostify.spec import GhostSpec

_DATA = Path(os.environ.get("GHOSTIFY_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
PAPER = _DATA.parent / "paper"


def figures(row: PublishedRow) -> list[float | None]:
    return [
        None if row.params is None else row.params / 1e6,
        None if row.macs is None else row.macs / 1e6,
        row.top1,
        row.top5,
        row.map,
    ]


@pytest.mark.parametrize("name", published_tables())
def test_the_figures_are_the_papers(name: str) -> None:
    """Compared with a transcript of the paper that is no part of the package."""
    file = PAPER / f"{name}.csv"
    if not file.is_file():
        pytest.skip(f"no transcript at {file}")
    with file.open(encoding="utf-8") as opened:
        theirs = list(csv.DictReader(opened))

    def number(row: dict[str, str], *keys: str) -> float | None:
        for key in keys:
            if row.get(key):
                return float(row[key]) * (1000 if key == "flops_B" else 1)
        return None

    expected = [
        [
            number(row, "weights_M"),
            number(row, "flops_M", "flops_B", "backbone_flops_M"),
            *(number(row, key) for key in ("top1", "top5", "map")),
        ]
        for row in theirs
    ]
    assert [figures(row) for row in read_published(name).rows] == [
        pytest.approx(row) for row in expected
    ]
    for row, their in zip(read_published(name).rows, theirs, strict=True):
        assert their.get("model", row.method) == row.method


def test_what_is_not_reported_is_missing() -> None:
    amc = next(row for row in read_published("table5").rows if row.method == "AMC-ResNet-56")

    assert (amc.params, amc.macs, amc.top1, amc.top5) == (None, 63_000_000, 91.9, None)
    assert (amc.ratio, amc.is_original, amc.is_ghost) == (None, False, False)


def test_a_table_is_of_networks_in_order() -> None:
    table = read_published("table5")

    assert table.networks == ("VGG-16", "ResNet-56")
    assert [row.method for row in table.of("VGG-16") if row.is_original] == ["VGG-16"]
    assert [row.method for row in table.rows if row.is_ghost] == [
        "Ghost-VGG-16 (s=2)",
        "Ghost-ResNet-56 (s=2)",
    ]


def test_every_footnote_is_used() -> None:
    used = {
        text for name in published_tables() for row in read_published(name).rows
        for text in row.footnotes
    }  # fmt: skip

    assert used == set(FOOTNOTES.values())


def test_a_footnote_speaks_of_one_figure() -> None:
    ghost = read_published("table5").rows[-1]

    assert ghost.footnotes_of("macs") == (FOOTNOTES["resnet56-half"],)
    assert ghost.footnotes_of("top1") == (FOOTNOTES["resnet56-again"],)
    assert ghost.footnotes_of("params") == ()
    assert set(COLUMNS) == set(FOOTNOTES)


@pytest.mark.parametrize(
    ("model", "spec", "every", "footnote", "pattern", "unit"),
    [
        (
            "vgg16_cifar",
            GhostSpec(2, 7),
            True,
            "cut-off",
            r"d=7 the network takes ([\d.]+) M",
            "macs",
        ),
        ("vgg16_cifar", GhostSpec(5, 3), True, "cut-off", r"d=3 it takes ([\d.]+) M", "macs"),
        ("resnet56_cifar", GhostSpec(), True, "resnet56-half", r"takes ([\d.]+) M MACs", "macs"),
        ("resnet50", GhostSpec(), False, "resnet50-classifier-s2", r"has ([\d.]+) M", "params"),
        ("resnet50", GhostSpec(4), False, "resnet50-classifier-s4", r"has ([\d.]+) M", "params"),
    ],
)
def test_a_footnote_says_what_the_network_takes(
    model: str, spec: GhostSpec, every: bool, footnote: str, pattern: str, unit: str
) -> None:
    found = re.search(pattern, FOOTNOTES[footnote])

    assert found is not None
    after = inspect(model, ratio=spec.ratio, kernel=spec.kernel, convert_all=every).after
    digits = len(found[1].partition(".")[2])
    assert round(getattr(after, unit) / 1e6, digits) == float(found[1])


def test_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(DataFileError, match=r"there is no published 'tabel5'.*did you mean table5"):
        read_published("tabel5")
