"""A PostgreSQL server of a test's own, from the programs that a wheel or the system carries."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

__all__ = ["Server", "find_programs"]


def find_programs() -> Path | None:
    """Return the directory of ``initdb`` and ``postgres``, if there is one."""
    places = [shutil.which("postgres")]
    places += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), reverse=True)
    spec = importlib.util.find_spec("pgserver")  # not imported: it would start more than that
    if spec is not None and spec.origin is not None:
        places.insert(0, str(Path(spec.origin).parent / "pginstall" / "bin" / "postgres"))
    for place in places:
        if place is not None and Path(place).is_file():
            return Path(place).resolve().parent
    return None


class Server:
    """PostgreSQL on a free port of this machine, with its files in ``folder``.

    PostgreSQL does not run as root, so there it runs as nobody, from a copy of its programs.
    """

    def __init__(self, folder: Path) -> None:
        programs = find_programs()
        assert programs is not None, "no PostgreSQL"
        self._user: str | None = None
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._user = "nobody"
            if "pgserver" in programs.parts:
                programs = _copied_wheel(programs, folder / "programs")
            for parent in (folder, *folder.parents):
                with contextlib.suppress(PermissionError):
                    if not parent.stat().st_mode & 0o001:
                        parent.chmod(parent.stat().st_mode | 0o011)
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        self._programs = programs
        self._data = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run(
            "initdb", "-D", str(self._data), "-U", "ghostify", "-A", "trust", "-E", "UTF8",
            "--no-sync", "--locale=C",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where Optuna finds it."""
        return f"postgresql://ghostify@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                self._programs / "postgres", "-D", self._data, "-p", str(self.port),
                "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                "-c", "fsync=off",
            ],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self._user, cwd=self.folder,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            ready = subprocess.run(
                [self._programs / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"],
                check=False,
            )
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop it at once; clients are cut off."""
        self._process.send_signal(subprocess.signal.SIGINT)  # type: ignore[attr-defined]
        self._process.wait(timeout=60)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            user=self._user,
            cwd=self.folder,
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _copied_wheel(programs: Path, to: Path) -> Path:
    """Copy what a wheel carries, with the libraries beside it, to where nobody may read it."""
    package = programs.parent.parent  # pgserver/pginstall/bin
    shutil.copytree(package / "pginstall", to / package.name / "pginstall", symlinks=True)
    beside = package.with_name(f"{package.name}.libs")
    if beside.is_dir():
        shutil.copytree(beside, to / beside.name)
    return to / package.name / "pginstall" / "bin"
