"""Tables from records: what stands where, what is bold, marked and tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy import stats

from ghostify.errors import DataFileError, RecordError
from ghostify.reports.build import build_report
from ghostify.reports.values import Cell, Row, Table
from ghostify.runs.record import RunLatency, RunRecord
from tests.reports.synthetic import (
    comparison,
    counted,
    record,
    suite_of,
    write_runs,
)

SWEEP = {(2, 1): 157.0, (2, 3): 158.1, (2, 5): 160.3, (3, 3): 107.2, (4, 3): 80.4}
"""MACs in millions of VGG-16 by s and d, as the paper's facts have them."""


def report(folder: Path, records: Sequence[RunRecord], **wishes: object):
    suite = wishes.pop("suite", None)
    write_runs(folder / "runs", records, suite=suite)
    return build_report(folder / "runs", figures=False, **wishes)


def cell(table: Table, row: str, column: str) -> Cell:
    place = [one.key for one in table.columns].index(column)
    return line(table, row).cells[place]


def line(table: Table, name: str) -> Row:
    return next(one for one in table.rows if one.cells[0].text == name)


def names(table: Table) -> list[str]:
    return [one.cells[0].text for one in table.rows]


def keys(table: Table) -> list[str]:
    return [one.key for one in table.columns]


def sweep() -> list[RunRecord]:
    found = [counted("dense", macs=313_463_808, params=14_990_922)]
    for (s, d), macs in SWEEP.items():
        settings = {"kind": "ghost", "s": s, "d": d, "label": f"Ghost s={s}, d={d}"}
        found.append(
            counted(f"s{s}d{d}", settings=settings, macs=round(macs * 1e6), params=7_650_000)
        )
    return found


def test_rows_are_means_over_seeds(tmp_path: Path) -> None:
    table = report(tmp_path, comparison()).tables[0]

    found = cell(table, "Ghost s=2, fitted", "top1")
    low, high = stats.t.interval(0.95, 2, loc=90.3, scale=stats.sem((90.1, 90.3, 90.5)))
    assert found.value == pytest.approx(90.3)
    assert found.spread == pytest.approx((high - low) / 2)
    assert found.text == "90.30 ± 0.50"
    assert found.title == "seed 0: 90.10, seed 1: 90.30, seed 2: 90.50"
    assert cell(table, "Ghost s=2, fitted", "best-top1").text == "90.40 ± 0.50"
    assert cell(table, "Ghost s=2, fitted", "start-top1").value == pytest.approx(85.3)
    assert cell(table, "Ghost s=2, fitted", "seeds").text == "3"


def test_costs_are_in_millions_and_beside_the_original(tmp_path: Path) -> None:
    table = report(tmp_path, comparison()).tables[0]

    assert cell(table, "L1", "params").text == "0.145"
    assert cell(table, "L1", "macs").text == "21.20"
    assert cell(table, "L1", "macs-ratio").value == pytest.approx(40.81 / 21.2)
    assert cell(table, "Original", "macs").text == "40.81"
    assert cell(table, "Original", "top1").text == "92.20"


def test_best_is_bold_and_dense_rows_do_not_compete(tmp_path: Path) -> None:
    table = report(tmp_path, comparison()).tables[0]

    place = keys(table).index("top1")
    assert [row.cells[0].text for row in table.rows if row.cells[place].bold] == [
        "Ghost s=2, fitted"
    ]


def test_front_is_marked(tmp_path: Path) -> None:
    table = report(tmp_path, comparison()).tables[0]

    assert [row.cells[0].text for row in table.rows if row.pareto] == ["Dense", "Ghost s=2, fitted"]
    assert "◆" in [note.mark for note in table.footnotes]


def test_order_is_the_suites_and_not_that_of_the_lines(tmp_path: Path) -> None:
    suite = suite_of(("ghost-random", "l1", "dense", "ghost-fitted"))

    one = report(tmp_path / "a", comparison(), suite=suite)
    two = report(tmp_path / "b", comparison()[::-1], suite=suite)

    assert names(one.tables[0]) == [
        "Original", "Ghost s=2, random", "L1", "Dense", "Ghost s=2, fitted",
    ]  # fmt: skip
    assert one == two


def test_differences_are_tested_and_corrected(tmp_path: Path) -> None:
    found = report(tmp_path, comparison(), reference="ghost-fitted")

    table = next(one for one in found.tables if one.id == "statistics")
    fitted = (90.1, 90.3, 90.5)
    p = {
        "L1": stats.ttest_ind((88.0, 88.4, 88.1), fitted, equal_var=False).pvalue,
        "Dense": stats.ttest_ind((92.3, 92.5, 92.4), fitted, equal_var=False).pvalue,
        "Ghost s=2, random": stats.ttest_ind((85.0, 86.1, 83.7), fitted, equal_var=False).pvalue,
    }
    first, second, third = sorted(p, key=p.__getitem__)
    by_holm = {
        first: 3 * p[first],
        second: max(3 * p[first], 2 * p[second]),
        third: max(2 * p[second], p[third]),
    }
    for name, value in p.items():
        assert cell(table, name, "p").value == pytest.approx(value)
        assert cell(table, name, "p-holm").value == pytest.approx(by_holm[name])
    assert line(table, "Ghost s=2, fitted").reference
    assert cell(table, "Dense", "difference").value == pytest.approx(2.1)


def test_significance_is_marked_in_the_table(tmp_path: Path) -> None:
    table = report(tmp_path, comparison(), reference="ghost-fitted").tables[0]

    assert cell(table, "Dense", "top1").marks == ("▲",)
    assert cell(table, "L1", "top1").marks == ("▼",)
    assert cell(table, "Ghost s=2, fitted", "top1").marks == ()


def test_noise_is_not_significant(tmp_path: Path) -> None:
    records = [record("dense", seed=seed, top1=top1) for seed, top1 in enumerate((90, 91, 92))]
    records += [record(seed=seed, top1=top1) for seed, top1 in enumerate((90.5, 91.5, 92.2))]

    found = report(tmp_path, records)

    assert cell(found.tables[0], "Ghost s=2, fitted", "top1").marks == ()
    assert "not significant" in found.summary[0]


def test_one_seed_says_that_nothing_is_known_of_chance(tmp_path: Path) -> None:
    found = report(tmp_path, [record("dense", top1=92.4), record(top1=90.1), record("l1", top1=88)])

    table = found.tables[0]
    assert cell(table, "Ghost s=2, fitted", "top1").text == "90.10"
    assert "one seed has no interval" in table.caption
    assert "±" not in table.caption
    assert [one.id for one in found.tables] == ["methods"]
    assert "too few seeds" in found.summary[0]
    assert any("One seed each" in one for one in found.methods)


def test_tuned_rates_are_shown_and_the_chosen_one_is_bold(tmp_path: Path) -> None:
    found = report(tmp_path, comparison())

    table = next(one for one in found.tables if one.id == "tuning")
    assert keys(table) == ["method", "lr-0.0005", "lr-0.001", "lr-0.002", "chosen"]
    assert [one.text for one in line(table, "L1").cells[1:]] == ["80.00", "81.00", "80.50", "0.001"]
    assert [one.bold for one in line(table, "L1").cells[1:4]] == [False, True, False]
    assert any("never on test images" in one for one in found.methods)


def test_tuning_has_no_part_in_the_rows(tmp_path: Path) -> None:
    table = report(tmp_path, comparison()).tables[0]

    assert all("tune" not in one for row in table.rows for one in row.records)


def test_sweep_of_d_stands_beside_the_published_figures(tmp_path: Path) -> None:
    found = report(tmp_path, sweep(), layout="table3", published=["table3"])

    (table,) = found.tables
    assert names(table)[:4] == ["Dense", "1", "3", "5"]
    assert [cell(table, d, "macs").text for d in ("1", "3", "5")] == ["157.0", "158.1", "160.3"]
    published = [cell(table, d, "macs-published").text for d in ("1", "3", "5")]
    assert published == ["157", "158", "160"]
    assert cell(table, "3", "top1-published").text == "93.7"
    assert cell(table, "Dense", "params-published").text == "15.0"


def test_sweep_of_s_leaves_other_kernels_out(tmp_path: Path) -> None:
    found = report(tmp_path, sweep(), layout="table4", published=["table4"])

    (table,) = found.tables
    assert names(table)[:4] == ["Dense", "2", "3", "4"]
    assert cell(table, "4", "macs-published").text == "80"


def test_published_columns_hold_nothing_measured(tmp_path: Path) -> None:
    found = report(tmp_path, sweep(), layout="table3,table4", published=["table3", "table4"])

    assert [one.id for one in found.tables] == ["table3", "table4"]
    for table in found.tables:
        for place, column in enumerate(table.columns[1:], start=1):
            assert (column.source == "published") == ("†" in column.title)
            if column.source is None:
                known = [row.source for row in table.rows if row.cells[place].value is not None]
                assert "published" not in known


def test_published_rows_are_marked_and_stand_apart(tmp_path: Path) -> None:
    records = [record(network="resnet56", label="ResNet-56", model="resnet56_cifar")]

    table = report(tmp_path, records, layout="table5", published=["table5"]).tables[0]

    rows = [row for row in table.rows if row.source == "published"]
    assert {row.group for row in rows} == {"ResNet-56, published †"}
    assert all("†" in row.cells[0].marks for row in rows)
    assert not any("†" in row.cells[0].marks for row in table.rows if row.source == "measured")
    assert not any(one.bold for row in rows for one in row.cells)
    assert not any(row.pareto for row in rows)
    assert cell(table, "Ghost-ResNet-56 (s=2)", "macs").text == "63"


def test_arithmetic_that_disagrees_has_a_footnote(tmp_path: Path) -> None:
    records = [record(network="resnet56", label="ResNet-56", model="resnet56_cifar")]

    table = report(tmp_path, records, layout="table5", published=["table5"]).tables[0]

    marks = cell(table, "Ghost-ResNet-56 (s=2)", "method").marks
    texts = [note.text for note in table.footnotes if note.mark in marks]
    assert any("65.1 M" in text for text in texts)


def test_table6_has_published_parameters_beside_the_counted(tmp_path: Path) -> None:
    common = {"network": "r50", "label": "ResNet-50", "kind": "count", "top1": None, "steps": 0,
              "macs_before": 4_089_184_256, "params_before": 25_557_032}  # fmt: skip
    s2 = {"kind": "ghost", "s": 2, "d": 3, "label": "Ghost-ResNet-50 (s=2)"}
    records = [record("s2", settings=s2, macs=2_151_000_000, params=13_950_000, **common)]

    table = report(tmp_path, records, layout="table6", published=["table6"]).tables[0]

    row = "Ghost-ResNet-50 (s=2)"
    assert cell(table, row, "macs").text == "2.151"
    assert cell(table, row, "macs-published").text == "2.2"
    assert cell(table, row, "params-published").text == "13.0"
    (mark,) = cell(table, row, "params-published").marks
    assert "classifier" in next(note.text for note in table.footnotes if note.mark == mark)
    assert cell(table, "Original", "top1-published").text == "75.3"
    assert "Thinet-ResNet-50" in names(table)
    assert names(table).count(row) == 1


@pytest.mark.parametrize("name", ["table7", "table8"])
def test_other_tables_of_the_paper(name: str, tmp_path: Path) -> None:
    table = report(tmp_path, sweep(), layout=name, published=[name]).tables[0]

    assert "GhostNet 1.1x, RetinaNet" in names(table) or "GhostNet 1.0x" in names(table)
    assert cell(table, "Dense", "macs").text == "313.5"


def test_latencies_stand_beside_the_originals(tmp_path: Path) -> None:
    records = [counted("dense", macs=313_463_808, params=14_990_922, ms=9.9)]
    records.append(counted("ghost-fitted", macs=158_100_000, params=7_650_000, ms=6.25))

    found = report(tmp_path, records)

    table = found.tables[0]
    shown = cell(table, "Ghost s=2, fitted", "latency-onnxruntime-cpu-1-1")
    assert shown.text == "6.25 (1.60x)"
    assert shown.value == 6.25
    assert shown.bold is False  # nobody to compete with but the dense row
    assert "1.60x as fast in onnxruntime" in found.summary[0]


def test_noisy_latencies_are_marked(tmp_path: Path) -> None:
    noisy = (RunLatency("torch", 1, 1, 3.0, 1.0, noisy=True),)

    table = report(tmp_path, [record(latencies=noisy)]).tables[0]

    (mark,) = cell(table, "Ghost s=2, fitted", "latency-torch-cpu-1-1").marks
    assert "noisy" in next(note.text for note in table.footnotes if note.mark == mark)


def test_nothing_trained_has_no_accuracy_columns(tmp_path: Path) -> None:
    found = report(tmp_path, sweep())

    assert not {"top1", "best-top1", "start-top1", "seeds"} & set(keys(found.tables[0]))
    assert found.tables[0].caption == "Nothing was trained."


def test_untrained_method_shows_its_accuracy_before_training_only(tmp_path: Path) -> None:
    records = [record("l1"), record(steps=0, start_top1=84.0, top1=84.0, best_top1=None)]

    table = report(tmp_path, records).tables[0]

    assert cell(table, "Ghost s=2, fitted", "start-top1").text == "84.00"
    assert cell(table, "Ghost s=2, fitted", "top1").value is None


def test_seed_without_accuracy_is_left_out_of_the_mean(tmp_path: Path) -> None:
    records = [record(seed=0, top1=90.0), record(seed=1, top1=None), record(seed=2, top1=91.0)]

    table = report(tmp_path, records).tables[0]

    assert cell(table, "Ghost s=2, fitted", "top1").value == 90.5
    assert cell(table, "Ghost s=2, fitted", "top1").title == "seed 0: 90.00, seed 2: 91.00"


def test_another_teacher_is_marked(tmp_path: Path) -> None:
    table = report(tmp_path, [record(), record("dense"), record("l1", teacher=None)]).tables[0]

    (mark,) = cell(table, "L1", "method").marks
    assert "labels alone" in next(note.text for note in table.footnotes if note.mark == mark)
    assert cell(table, "Dense", "method").marks == ()


def test_budgets_compete_apart(tmp_path: Path) -> None:
    records = [
        record(method, top1=top1 + bonus, budget=budget)
        for budget, bonus in (("macs=0.5x", 0), ("macs=0.7x", 2))
        for method, top1 in (("l1", 88.0), ("ghost-fitted", 89.0))
    ]

    found = report(tmp_path, records)

    table = found.tables[0]
    place, budget = keys(table).index("top1"), keys(table).index("budget")
    bold = {row.cells[budget].text for row in table.rows if row.cells[place].bold}
    assert bold == {"macs=0.5x", "macs=0.7x"}
    assert len(found.summary) == 2


def test_every_row_has_its_commands(tmp_path: Path) -> None:
    found = report(tmp_path, comparison())

    assert len(found.commands) == 12
    assert {one.row for one in found.commands} <= {row.id for row in found.tables[0].rows}
    assert "--seed 1 " in next(one.text for one in found.commands if "seed 1" in one.label)


def test_ids_are_unique(tmp_path: Path) -> None:
    found = report(tmp_path, comparison(), published=["table5", "table7", "table8"])

    ids = [row.id for table in found.tables for row in table.rows]
    assert len(ids) == len(set(ids))


def test_names_that_become_one_anchor_stay_apart(tmp_path: Path) -> None:
    one = {"kind": "ghost", "label": "one"}
    records = [record("a b", settings=one), record("a_b", settings=one | {"label": "two"})]

    table = report(tmp_path, records).tables[0]

    assert len({row.id for row in table.rows}) == 3


def test_what_the_methods_paragraph_must_say(tmp_path: Path) -> None:
    suite = suite_of(report={"notes": ["The fans were loud."]})

    text = " ".join(report(tmp_path, comparison(), suite=suite, published=["table5"]).methods)

    for part in (
        "seeds 0, 1, 2", "391 steps of 128 images", "AdamW", "T = 4", "cifar10, 50,000 images",
        "cores 2", "torch 2.13.0", "5,000 images held back", "Welch", "Holm", "Table 5",
        "taught by the original network", "The fans were loud.", "last epoch",
    ):  # fmt: skip
        assert part in text


def test_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no layout 'tabel5'.*did you mean table5"):
        report(tmp_path, comparison(), layout="tabel5")


def test_unknown_reference_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no method 'dens' .*did you mean dense"):
        report(tmp_path, comparison(), reference="dens")


def test_unknown_published_table_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"table50.*did you mean table5"):
        report(tmp_path, comparison(), published=["table50"])


def test_sweep_needs_ghosts(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="table3 needs methods of the kind ghost"):
        report(tmp_path, [record("l1")], layout="table3")
