"""With the network cut to loopback, `make serve` and one job try no other address.

The judge is the kernel: in a network namespace of its own every packet that wants to leave finds no route, and
the namespace counts those.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]

INSIDE = r"""
import base64, fcntl, json, pathlib, re, socket, struct, subprocess, sys, time, urllib.request

sample, data, scripts = sys.argv[1:]


def no_routes():
    lines = [line.split() for line in open("/proc/net/snmp") if line.startswith("Ip:")]
    four = int(dict(zip(*lines))["OutNoRoutes"])
    six = next(int(line.split()[1]) for line in open("/proc/net/snmp6") if line.startswith("Ip6OutNoRoutes"))
    return four + six


with socket.socket() as any_socket:  # lo is down in a new namespace
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))  # SIOCSIFFLAGS, IFF_UP
# What has to be installed is installed: `-o` leaves the stamp of that alone, however old it is.
words = ["make", "-s", "-o", ".venv/.base", "serve", "BIN=" + scripts, f"ARGS=--port 0 --data-dir {data}"]
with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
    url, key = re.search(r"(http://\S+)/#key=(\S+)", server.stdout.readline()).groups()
    picture = base64.b64encode(pathlib.Path(sample).read_bytes()).decode()
    body = {"image": picture, "model": "realesr-animevideov3", "scale": 2, "enable_sync_mode": True}
    request = urllib.request.Request(
        url + "/api/v3/wavespeed-ai/real-esrgan", json.dumps(body).encode(), {"Authorization": "Bearer " + key}
    )
    status = json.load(urllib.request.urlopen(request))["data"]["status"]
    tried = no_routes()
    server.terminate()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
print(json.dumps({"status": status, "tried": tried, "control": no_routes() - tried}))
"""


def can_make_a_namespace() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's own")
def test_a_server_without_network_runs_a_job_and_tries_no_other_address(root: Path, tmp_path: Path) -> None:
    if not can_make_a_namespace():
        pytest.skip("this account may not make a network namespace")
    sample = root / "src" / "enlarger" / "web" / "sample.png"
    scripts = Path(sys.executable).parent
    words = [*NAMESPACE, sys.executable, "-c", INSIDE, sample, tmp_path / "data", scripts]
    # Without what `make test` hands to a make under it, and as a user has it: downloads allowed, nothing downloaded.
    ours = ("MAKE", "MFLAGS", "ENLARGER_", "XDG_CACHE_HOME", "HOME")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    run = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=180, cwd=root,
        env={**clean, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert run.stdout.strip() == '{"status": "completed", "tried": 0, "control": 1}', run.stderr[-2000:]
