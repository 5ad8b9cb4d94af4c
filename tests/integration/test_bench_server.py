"""How the benches start and end a peer's server: ready or not, and nothing of it left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from compare import run_within
from server import free_port, server

HEALTHY = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_is_entered_when_it_is_healthy_and_ended_with_its_children(tmp_path):
    port, log = free_port(), tmp_path / "log"
    with server([sys.executable, "-c", HEALTHY, str(port)], port, log_file=log, timeout_s=30) as process:
        child = int(log.read_text().split("child ")[1].split()[0])
        assert is_alive(child)
        assert os.getpgid(child) == process.pid != os.getpgid(0)
    assert not is_alive(process.pid)
    end = time.monotonic() + 5
    while is_alive(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_server_that_exits_is_told_with_what_it_printed():
    failing = "import sys; sys.exit('no such instruction')"
    with (
        pytest.raises(SystemExit, match=r"exited with 1:\nno such instruction"),
        server([sys.executable, "-c", failing], free_port()),
    ):
        pytest.fail("it never was ready")


def test_a_server_that_is_never_ready_is_ended():
    started = time.monotonic()
    with (
        pytest.raises(SystemExit, match=r"not ready within 0.5 s"),
        server([sys.executable, "-c", "import time; time.sleep(60)"], free_port(), timeout_s=0.5),
    ):
        pytest.fail("it never was ready")
    assert time.monotonic() - started < 15


def test_a_bench_past_its_time_is_asked_to_end_and_told_by_its_status():
    asked = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(143)); time.sleep(60)"
    assert run_within([sys.executable, "-c", asked], timeout_s=1.0) in (143, -15)
    assert run_within([sys.executable, "-c", "pass"], timeout_s=30) == 0
