"""Searches of several processes, with real servers, whose workers are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import massacre
from postgres_server import Server, find_programs

needs_postgres = pytest.mark.skipif(find_programs() is None, reason="there is no PostgreSQL")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "postgres")
    made.start()
    yield made
    made.stop()


@needs_postgres
def test_four_workers_on_postgres_lose_nothing_when_killed(server: Server, tmp_path: Path) -> None:
    massacre(server.url, tmp_path, kills=5, trials=16).check(5)


@needs_postgres
def test_workers_wait_for_a_server_that_is_away(server: Server, tmp_path: Path) -> None:
    def interrupt() -> None:
        time.sleep(4)
        server.stop()
        time.sleep(4)
        server.start()

    found = massacre(server.url, tmp_path, kills=0, trials=16, workers=2, on_running=interrupt)

    found.check(0)


@pytest.mark.parametrize("file", ["study.db", "study.journal"])
def test_workers_on_a_file_lose_nothing_when_killed(file: str, tmp_path: Path) -> None:
    scheme = "sqlite:///" if file.endswith(".db") else "journal://"

    massacre(f"{scheme}{tmp_path / file}", tmp_path, kills=2, trials=10, workers=2).check(2)


def test_workers_on_a_grpc_proxy_lose_nothing_when_killed(tmp_path: Path) -> None:
    port = free_port()
    proxy = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("grpc_proxy.py"), tmp_path / "x.db", str(port)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        found = massacre(f"grpc://127.0.0.1:{port}", tmp_path, kills=2, trials=10, workers=2)
    finally:
        proxy.send_signal(signal.SIGTERM)
        proxy.wait(timeout=30)

    found.check(2)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
