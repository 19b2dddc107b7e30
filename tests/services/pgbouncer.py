"""A real pgbouncer in front of a PostgreSQL, in transaction mode: each transaction may get another connection."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from .ports import free_ports, spawn, until_ready
from .postgres import Postgres, unprivileged

MISSING = "pgbouncer is not on this machine; install it with: sudo apt-get install pgbouncer"


def program() -> str:
    """Its path. Raises RuntimeError."""
    # Debian puts it where only root looks.
    if found := shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin"):
        return found
    raise RuntimeError(MISSING)


class PgBouncer:
    """Listens on `port`; `connections` is how many it opens to each database. settings: further lines of its file."""

    def __init__(self, postgres: Postgres, *, connections: int = 3, settings: str = "") -> None:
        self._folder = Path(mkdtemp(prefix="enlarger-pgbouncer-"))
        [self.port] = free_ports(1)
        users = self._folder / "users.txt"
        users.write_text('"enlarger" ""\n')
        own = f"""
            [databases]
            * = host=127.0.0.1 port={postgres.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {users}
            pool_mode = transaction
            default_pool_size = {connections}
            """
        file = self._folder / "pgbouncer.ini"
        file.write_text("\n".join(line.strip() for line in f"{own}{settings}".splitlines()))
        # It refuses root, too.
        owner = unprivileged() if os.getuid() == 0 else None
        if owner:
            for path in (self._folder, users, file):
                shutil.chown(path, owner, owner)
        log = self._folder / "log"
        self._is_ready_words = [postgres.program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self._process = spawn([program(), str(file)], log, "KILL", user=owner)
        until_ready(self._is_ready, self._process, log)

    def url(self, direct: str) -> str:
        """The way through it to the database of a URL of the PostgreSQL."""
        found = urlsplit(direct)
        return found._replace(netloc=f"{found.username}@127.0.0.1:{self.port}").geturl()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        return subprocess.run(self._is_ready_words, check=False).returncode == 0
