"""Looking into a store: by id, in order, as a frame, and two runs beside each other."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import ghostify
from ghostify.errors import RecordError
from ghostify.plan import Plan
from ghostify.runs.query import (
    Difference,
    differences,
    find_run,
    layers_of,
    read_runs,
    short_ids,
    sort_runs,
    where,
)
from ghostify.runs.record import RunLatency
from ghostify.runs.store import RECORDS, RunStore
from ghostify.spec import GhostSpec, PruneSpec
from tests.runs.samples import BASE, record

ONE = record(id="abcdef0011223344", top1=80.0, method="l1")
TWO = record(id="abcdef9911223344", top1=None, method="ghost", seed=1)
THREE = record(id="0123456789abcdef", top1=90.0, method="l1", seed=2)
ALL = (ONE, TWO, THREE)


def test_the_first_digits_find_a_run() -> None:
    assert find_run(ALL, "abcdef0") is ONE
    assert find_run(ALL, "0") is THREE
    assert find_run(ALL, ONE.id.upper()) is ONE


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            "abc",
            "2 runs begin with 'abc' (abcdef0011223344, abcdef9911223344); give more digits",
        ),
        (
            "0123456789abcdee",
            "no run is called '0123456789abcdee'; did you mean 0123456789abcdef?; "
            "ghostify runs ls lists them",
        ),
        ("zzzz", "no run is called 'zzzz'; ghostify runs ls lists them"),
    ],
)
def test_an_id_that_finds_no_run_says_why(wish: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        find_run(ALL, wish)

    assert str(caught.value) == message


def test_short_ids_are_as_long_as_they_must_be() -> None:
    assert short_ids(ALL) == {ONE.id: "abcdef0", TWO.id: "abcdef9", THREE.id: "0123456"}
    assert short_ids([ONE]) == {ONE.id: "abcdef"}


def test_runs_without_a_figure_come_last_either_way() -> None:
    assert sort_runs(ALL, "top1") == [ONE, THREE, TWO]
    assert sort_runs(ALL, "top1", reverse=True) == [THREE, ONE, TWO]


def test_fields_choose_runs() -> None:
    assert where(ALL, {"method": "l1"}) == [ONE, THREE]
    assert where(ALL, {"method": "l1", "seed": "2"}) == [THREE]
    assert where(ALL, {"top1": "null"}) == [TWO]


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(RecordError, match=r"no field 'metod'.*; did you mean method"):
        where(ALL, {"metod": "l1"})
    with pytest.raises(RecordError, match="no field 'plan'"):
        sort_runs(ALL, "plan")


def test_equal_runs_do_not_differ() -> None:
    assert differences(BASE, record(id="f" * 16)) == []


def test_runs_differ_in_settings_layers_figures_and_provenance() -> None:
    plan = Plan({"layer1.0.conv1": GhostSpec(2, 5), "conv1": PruneSpec(0.5)})
    other = record(
        settings={"kind": "plan", "method": "l1"},
        plan=plan.as_json(),
        lr=0.004,
        top1=85.0,
        latencies=(RunLatency("openvino", 2, 1, 3.0, 0.1),),
        provenance={"versions": {"torch": "2.11"}},
    )

    assert differences(BASE, other) == [
        Difference("settings", "lr", 0.001, 0.004),
        Difference("settings", "settings.kind", "prune", "plan"),
        Difference("plan", "layer1.0.conv1", "8 maps", "s2,d5"),
        Difference("plan", "conv1", None, "p0.5"),
        Difference("figures", "top1", 84.25, 85.0),
        Difference("figures", "ms@onnxruntime,t1,b1", 1.25, None),
        Difference("figures", "ms@openvino,t2,b1", None, 3.0),
        Difference("provenance", "versions.torch", "2.13", "2.11"),
    ]


def test_kept_maps_may_be_listed_or_counted() -> None:
    assert layers_of({"kept": {"a": 3, "b": [0, 4]}}) == {"a": "3 maps", "b": "2 maps"}
    assert layers_of(None) == {}


def test_a_frame_has_a_row_for_each_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path / RECORDS)
    store.append(ONE)
    store.append(
        record(id="9" * 16, top1=None, latencies=(RunLatency("onnxruntime", 4, 8, 5.0, 1.0),))
    )

    found = ghostify.load_runs(tmp_path)

    assert list(found.index) == [ONE.id, "9" * 16]
    assert found.top1.dtype == "float64"
    assert found.top1.isna().tolist() == [False, True]
    assert found.macs_ratio.tolist() == [2.0, 2.0]
    assert found.loc[ONE.id, "ms@onnxruntime"] == 1.25
    assert found.loc[ONE.id, "before_ms@onnxruntime"] == 2.0
    assert found.loc["9" * 16, "ms@onnxruntime,t4,b8"] == 5.0
    assert found.loc[ONE.id, "plan"] == {"kept": {"layer1.0.conv1": 8}}


def test_a_frame_tells_of_broken_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RunStore(tmp_path / RECORDS)
    store.append(ONE)
    with store.path.open("a") as file:
        file.write('{"format')

    with caplog.at_level(logging.WARNING):
        found = ghostify.load_runs(tmp_path)

    assert len(found) == 1
    assert caplog.messages == ["records.jsonl: line 2 is cut off and was left out"]
    assert found.attrs["remarks"] == caplog.messages


def test_a_store_without_a_whole_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text("{\n")

    with pytest.raises(RecordError, match="holds no run yet but 1 broken line; ghostify compare"):
        read_runs(tmp_path)
