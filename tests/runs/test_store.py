"""The store: nothing that was acknowledged is lost, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ghostify.errors import OutputError, RecordError
from ghostify.runs.store import RECORDS, RunStore, open_runs
from tests.runs.samples import record

ONE, TWO, THREE = (record(seed=seed) for seed in (1, 2, 3))

WRITER = """
import dataclasses, sys
from pathlib import Path
from ghostify.runs.record import RunRecord, identify
from ghostify.runs.store import RunStore
import json
base = RunRecord.from_json(json.loads(sys.argv[2]))
store = RunStore(sys.argv[1])
for number in range(10**6):
    name = identify({"writer": sys.argv[3], "number": number})
    curve = tuple({"step": step, "top1": step / 7} for step in range(500))
    store.append(dataclasses.replace(base, id=name, curve=curve))
    print(name, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs" / RECORDS)


def test_records_come_back_in_order(store: RunStore) -> None:
    for one in (TWO, ONE):
        store.append(one)

    assert store.read().records == (TWO, ONE)
    assert store.read().remarks == ()


def test_a_store_that_is_not_there_is_empty(store: RunStore) -> None:
    assert store.read().records == ()
    assert not store.path.parent.exists()


def test_a_line_cut_off_anywhere_costs_that_record_alone(store: RunStore) -> None:
    """Wherever a writer dies, what was there before and what comes after is whole."""
    store.append(ONE)
    before = store.path.read_bytes()
    line = json.dumps(TWO.as_json()).encode() + b"\n"

    cut = (f"{RECORDS}: line 2 is cut off and was left out",)
    for place in (*range(1, len(line) - 10, 7), *range(len(line) - 10, len(line) - 1)):
        store.path.write_bytes(before + line[:place])
        broken = store.read()
        store.append(THREE)
        after = store.read()

        assert broken.records == (ONE,)
        assert after.records == (ONE, THREE)
        assert broken.remarks == after.remarks == cut


def test_only_the_end_of_the_line_is_missing(store: RunStore) -> None:
    store.append(ONE)
    store.path.write_bytes(store.path.read_bytes() + json.dumps(TWO.as_json()).encode())

    store.append(THREE)

    assert store.read().records == (ONE, TWO, THREE)
    assert store.read().remarks == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"\xff\xfe}", "is damaged and was left out"),
        (b"[1, 2]", "is no run record and was left out"),
        (b'{"a": 1}', "is no run record and was left out"),
        (b'{"format": 1, "id": "x"}', "is no whole run record (it has no kind) and was left out"),
    ],
)
def test_a_line_that_is_no_record_is_told(store: RunStore, line: bytes, why: str) -> None:
    store.append(ONE)
    store.path.write_bytes(line + b"\n" + store.path.read_bytes())

    assert store.read().records == (ONE,)
    assert store.read().remarks == (f"{RECORDS}: line 1 {why}",)


def test_of_two_records_of_one_run_the_first_stands(store: RunStore) -> None:
    store.append(record(id="a" * 16, top1=80.0))
    store.append(record(id="a" * 16, top1=90.0))

    assert [one.top1 for one in store.read().records] == [80.0]
    assert store.read().remarks == (
        f"{RECORDS}: line 2 repeats the run {'a' * 16}; the first one stands",
    )


def test_another_format_is_an_error_with_both_versions(store: RunStore) -> None:
    store.append(ONE)
    with store.path.open("a") as file:
        file.write(json.dumps(TWO.as_json() | {"format": 2}) + "\n")

    with pytest.raises(RecordError) as caught:
        store.read()

    assert str(caught.value) == (
        f"{RECORDS}: line 2 is a record of format 2, this ghostify reads format 1; use the "
        "ghostify that wrote it, or compare into another directory"
    )


def test_a_record_that_is_not_plain_leaves_no_line(store: RunStore) -> None:
    with pytest.raises(RecordError, match="plain values"):
        store.append(record(seed=4, settings={"model": Path()}))

    assert not store.path.exists()


def test_a_full_disk_leaves_no_half_line(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that comes up short is taken back."""
    store.append(ONE)
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:20]))

    with pytest.raises(OutputError, match="no space is left"):
        store.append(TWO)

    assert store.read().records == (ONE,)
    assert store.read().remarks == ()


def test_a_directory_or_its_file_opens(store: RunStore) -> None:
    store.append(ONE)

    assert open_runs(store.path.parent).read().records == (ONE,)
    assert open_runs(store.path).read().records == (ONE,)


def test_a_directory_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no records\.jsonl; give the directory"):
        open_runs(tmp_path)
    with pytest.raises(RecordError, match="there is nothing at"):
        open_runs(tmp_path / "absent")


def test_killed_writers_lose_nothing_that_was_acknowledged(store: RunStore) -> None:
    """A dozen kills among three writers at once, at random moments."""
    dice = random.Random(0)
    told: set[str] = set()
    readers: list[threading.Thread] = []
    kills = 12

    def begin(number: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, store.path, json.dumps(ONE.as_json()), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        reader = threading.Thread(target=_listen, args=(process, told))
        reader.start()
        readers.append(reader)
        return process

    writers = [begin(number) for number in range(3)]
    for kill in range(kills):
        _wait_for_more(told)
        time.sleep(dice.random() * 0.02)
        victim = writers.pop(dice.randrange(len(writers)))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        writers.append(begin(3 + kill))
    for writer in writers:
        writer.kill()
        writer.wait()
    for reader in readers:
        reader.join()

    records, remarks = store.read()
    ids = [one.id for one in records]
    assert told <= set(ids)
    assert len(told) >= kills
    assert len(ids) == len(set(ids)) <= len(told) + kills + 3  # written, but not yet told
    assert all("is cut off" in remark for remark in remarks)
    assert len(remarks) <= kills + 3


def _listen(process: subprocess.Popen[str], told: set[str]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.endswith("\n"):
                told.add(line.strip())


def _wait_for_more(told: set[str]) -> None:
    """Wait until somebody has written, so that no kill hits an import alone."""
    before, end = len(told), time.monotonic() + 30
    while len(told) < before + 3:
        assert time.monotonic() < end, "no writer writes"
        time.sleep(0.001)
