"""Run records: plain values there and back, and ids by what was asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
import re

import pytest

from ghostify.errors import RecordError
from ghostify.runs.record import FORMAT, RunRecord, identify
from tests.runs.samples import BASE, record


def test_a_record_survives_json() -> None:
    text = json.dumps(BASE.as_json(), allow_nan=False)

    assert RunRecord.from_json(json.loads(text)) == BASE
    assert json.loads(text)["format"] == FORMAT


def test_a_record_survives_pickling_between_processes() -> None:
    assert pickle.loads(pickle.dumps(BASE)) == BASE


def test_what_is_no_number_is_stored_as_missing() -> None:
    diverged = record(loss=math.nan, curve=({"step": 1, "loss": math.inf},))

    again = RunRecord.from_json(json.loads(json.dumps(diverged.as_json(), allow_nan=False)))

    assert again.loss is None
    assert again.curve == ({"step": 1, "loss": None},)


def test_ratios_are_of_the_original() -> None:
    assert BASE.macs_ratio == 2.0
    assert BASE.params_ratio == 2.0


def test_an_id_is_the_hash_of_the_sorted_wish() -> None:
    text = '{"method":"l1","seed":0}'

    assert identify({"seed": 0, "method": "l1"}) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert identify({"rates": (1, 2)}) == identify({"rates": [1, 2]})
    assert identify({"seed": 0}) != identify({"seed": 1})


def test_an_id_is_of_plain_values() -> None:
    with pytest.raises(RecordError, match="plain values"):
        identify({"model": object()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tested"}, "kind is one of test, tune, count (got 'tested')"),
        ({"id": ""}, "id must not be empty"),
    ],
)
def test_an_impossible_record_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(RecordError, match=re.escape(message)):
        dataclasses.replace(BASE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs": None}, "its macs is None"),
        ({"macs": 1.5}, "its macs is 1.5"),
        ({"seed": True}, "its seed is True"),
        ({"top1": "84"}, "its top1 is '84'"),
        ({"latencies": [{"runtime": "onnxruntime"}]}, "it has no threads"),
        ({"latencies": {}}, "its latencies is {}"),
        ({"color": 1}, "it has the unknown key 'color'"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
        RunRecord.from_json(BASE.as_json() | change)


def test_a_missing_key_is_named() -> None:
    value = BASE.as_json()
    del value["macs"]

    with pytest.raises(RecordError, match=r"^it has no macs$"):
        RunRecord.from_json(value)
