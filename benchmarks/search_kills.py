"""Kill workers of a shared search in mid-trial, 30 times, and count what was lost or doubled.

    python benchmarks/search_kills.py

Four worker processes share one study in a PostgreSQL server, which this script starts; a random
one of those that have a trial gets SIGKILL, 30 times. Halfway the server is stopped for 20
seconds. Then the same at smaller size with SQLite, a journal file, and Optuna's gRPC proxy.
Figures go to ``benchmarks/search/kills.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "searches"
sys.path.insert(0, str(TESTS))

from killing import massacre  # noqa: E402
from postgres_server import Server  # noqa: E402

OUTPUT = Path(__file__).parent / "search" / "kills.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--away", type=float, default=20.0, help="seconds without a server")
    parser.add_argument("--only", help="postgres, sqlite, journal or grpc")
    options = parser.parse_args()
    kinds = [options.only] if options.only else ["postgres", "sqlite", "journal", "grpc"]
    kept = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.exists() else {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            kept[kind] = run(kind, Path(folder), options)
        print(kind, json.dumps(kept[kind]), flush=True)
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def run(kind: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    small = {"kills": max(1, options.kills // 3), "trials": max(8, options.trials // 3)}
    if kind in ("sqlite", "journal"):
        url = f"{kind}:///{folder}/study" if kind == "sqlite" else f"journal://{folder}/study"
        found = massacre(url, folder, **small)
        found.check(small["kills"])
        return found.as_json()
    if kind == "grpc":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        proxy = subprocess.Popen([sys.executable, TESTS / "grpc_proxy.py", folder / "x", str(port)])
        try:
            found = massacre(f"grpc://127.0.0.1:{port}", folder, **small)
        finally:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait()
        found.check(small["kills"])
        return found.as_json()
    server = Server(folder / "postgres")
    server.start()

    def outage() -> None:
        time.sleep(options.trials / 4)
        server.stop()
        print(f"the server is away for {options.away:.0f} s", flush=True)
        time.sleep(options.away)
        server.start()

    try:
        found = massacre(
            server.url, folder, kills=options.kills, trials=options.trials,
            on_running=outage if options.away else None,
        )  # fmt: skip
    finally:
        server.stop()
    found.check(options.kills)
    return {**found.as_json(), "server_away_s": options.away}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
