"""A real PostgreSQL of its own folder and port, which tests may crash and start again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from .ports import as_user, free_ports, spawn, until_ready

MISSING = "PostgreSQL is not on this machine; install it with: sudo apt-get install postgresql"
_USER = "enlarger"


def binaries() -> Path:
    """The folder with `initdb`, `postgres` and `pg_ctl`, the newest there is. Raises RuntimeError."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if debian:
        return debian[-1]
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise RuntimeError(MISSING)


class Postgres:
    """A server on `127.0.0.1:port` and a socket in `folder`, with fsync on; everyone on this machine is let in."""

    def __init__(self) -> None:
        self._binaries = binaries()
        # PostgreSQL refuses root, and its user must be able to pass all folders above its own: not pytest's.
        self._owner = unprivileged() if os.getuid() == 0 else None
        self.folder = Path(mkdtemp(prefix="enlarger-pg-"))
        if self._owner:
            shutil.chown(self.folder, self._owner, self._owner)
        self._data, self._log = self.folder / "data", self.folder / "log"
        [self.port] = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._run(
            "initdb", "--username", _USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", self._data
        )
        self.start()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self._binaries / name)

    def start(self) -> None:
        """Start it, unless it runs, on the same port as before; ready when this returns."""
        if self._process is not None:
            return
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *words]
        self._process = spawn(command, self._log, "INT", user=self._owner)
        until_ready(self._is_ready, self._process, self._log)

    def stop(self, mode: str = "fast") -> None:
        """pg_ctl's modes: fast ends connections; immediate is a crash, and the next start recovers from the log."""
        if self._process is None:
            return
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)
        self._process.wait()
        self._process = None

    def crash(self) -> None:
        self.stop("immediate")

    def create_database(self, template: str = "template1") -> str:
        """The URL of a new database: `postgresql://user@host:port/name`."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.psql("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def psql(self, database: str, statement: str) -> str:
        """What psql prints for the statement, without decoration."""
        return self.ask(self.url(database), statement)

    def ask(self, url: str, statement: str) -> str:
        """As `psql`, of the database at a URL."""
        words = ("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement)
        return self._run("psql", *words).strip()

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        words = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(words, check=False).returncode == 0

    def _run(self, program: str, *words: str | Path) -> str:
        command = [*as_user(self._owner), str(self._binaries / program), *map(str, words)]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


def unprivileged() -> str:
    """A user for servers that refuse root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
