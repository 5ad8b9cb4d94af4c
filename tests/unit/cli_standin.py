"""A daemon for tests of the command line: the HTTP API on a Unix socket, programs that are Python generators."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import queue
import signal
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pie_engine.config import load_config

Step = tuple[str, object]
"""Kind and value of an event."""
Main = Callable[[dict[str, Any], "Inbox"], Iterator[Step]]


@contextmanager
def short_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home for a daemon whose path leaves room for its sockets."""
    with tempfile.TemporaryDirectory(prefix="pie-") as folder:
        monkeypatch.setenv("PIE_HOME", folder)
        yield Path(folder)


class Inbox:
    """What the process receives. `get` answers `STOP` once the process is asked to end."""

    STOP = object()

    def __init__(self) -> None:
        self._queue: queue.Queue[object] = queue.Queue()

    def put(self, value: object) -> None:
        self._queue.put(value)

    def get(self) -> object:
        # A process that its test has left alone ends with the session, as the thread it runs on does.
        return self._queue.get()

    def is_empty(self) -> bool:
        return self._queue.empty()


@dataclass
class Program:
    name: str
    main: Main
    signature: dict[str, object] = field(default_factory=dict)
    error: dict[str, object] | None = None
    """What the upload is answered with, instead."""


@dataclass
class Process:
    pid: str
    program: str
    on_disconnect: str
    input: dict[str, object]
    endowment: float | None = None
    inbox: Inbox = field(default_factory=Inbox)
    events: list[dict[str, Any]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    created: float = field(default_factory=time.time)

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1]["kind"] in ("return", "error")

    def add(self, kind: str, value: object) -> None:
        with self.changed:
            event = {"seq": len(self.events) + 1, "kind": kind, "data": value, "time": time.time()}
            self.events.append({**event, "pid": self.pid})
            self.changed.notify_all()

    def events_after(self, seq: int) -> list[dict[str, Any]]:
        """Waits until there is one, or the end."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.events) > seq or self.has_ended, timeout=30)
            return self.events[seq:]

    def record(self) -> dict[str, object]:
        last = self.events[-1] if self.has_ended else None
        outcome = "" if last is None else ("return" if last["kind"] == "return" else last["data"]["code"])
        return {
            "pid": self.pid, "program": self.program, "version": "0.1.0", "digest": f"digest-{self.program}",
            "state": "ended" if last else "running", "host": "host-0", "created": self.created,
            "ended": last["time"] if last else None, "outcome": outcome or None, "last_event": len(self.events),
            "usage": {"pages": 0 if last else 3, "tokens": 12, "contexts": 1, "state": "running"},
        }  # fmt: skip


class StandIn:
    """The daemon. `with StandIn(run_folder) as daemon:` serves until the end of the block."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.programs: dict[str, Program] = {}
        self.processes: dict[str, Process] = {}
        self.health = _ready_health()
        self.published: list[str] = []
        self.manifests: dict[str, dict[str, Any]] = {}
        """As they were uploaded last."""
        self.adapters: list[dict[str, object]] = []
        self.stop_requests: list[dict[str, object]] = []
        self.on_stop: Callable[[], object] = lambda: None
        self.contexts_stall = False
        """Whether half of a saved context comes, and no more."""
        self._pids = itertools.count(1)
        self._server: socketserver.BaseServer | None = None

    def __enter__(self) -> StandIn:
        self.socket_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._server = _Server(str(self.socket_path), type("Handler", (_Handler,), {"daemon": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self.socket_path.unlink(missing_ok=True)

    def add(self, name: str, main: Main, *, parameters: list[dict[str, object]] | None = None, doc: str = "") -> None:
        self.programs[name] = Program(name, main, {"doc": doc, "parameters": parameters or [], "returns": {}})

    def launch(self, request: dict[str, Any]) -> Process:
        name = str(request.get("program") or request["bundle"]["manifest"]["name"]).removeprefix("digest-")
        process = Process(
            f"p{next(self._pids)}",
            name,
            request.get("on_disconnect", "detach"),
            request.get("input") or {},
            request.get("endowment"),
        )
        self.processes[process.pid] = process
        threading.Thread(target=self._run, args=(process, self.programs[name]), daemon=True).start()
        return process

    def _run(self, process: Process, program: Program) -> None:
        process.add("started", {"program": program.name, "version": "0.1.0"})
        for kind, value in program.main(process.input, process.inbox):
            process.add(kind, value)
        if not process.has_ended:
            process.add("return", None)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    daemon: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["healthz"]:
                self._json(200, self.daemon.health)
            case ["v1", "models"]:
                model = {"name": "pie-tiny", "driver": "cpu", "device": "cpu", "dtype": "float32", "page_size": 16,
                         "max_context_tokens": 2048, "num_pages": 100, "num_free_pages": 97}  # fmt: skip
                self._json(200, {"models": [model]})
            case ["v1", "adapters"]:
                self._json(200, self.daemon.adapters)
            case ["v1", "programs", ref]:
                self._program(ref)
            case ["v1", "processes"]:
                records = [process.record() for process in self.daemon.processes.values()]
                wants_all = parse_qs(url.query).get("all") == ["true"]
                self._json(200, [r for r in records if wants_all or r["state"] != "ended"])
            case ["v1", "processes", pid]:
                if process := self._process(pid):
                    self._json(200, process.record())
            case ["v1", "processes", pid, "events"]:
                if process := self._process(pid):
                    self._events(process, parse_qs(url.query))
            case ["v1", "contexts", _] if self.daemon.contexts_stall:
                self.send_response(200)
                self.send_header("Content-Length", "2000000")
                self.end_headers()
                self.wfile.write(bytes(1_000_000))
                self.rfile.read()  # until the client goes away
            case _:
                self._fail(404, "not_found", f"no such page: {url.path}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.headers.get("Pie-Protocol") not in (None, str(self.daemon.health["protocol"])):
            self._mismatch()
            return
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["v1", "programs"]:
                self.daemon.manifests[body["manifest"]["name"]] = body["manifest"]
                self.daemon.published += [] if "publish=false" in url.query else [body["manifest"]["name"]]
                self._program(body["manifest"]["name"], status=201)
            case ["v1", "adapters"]:
                made = {**body, "model": body.get("model") or "pie-tiny", "adapter_id": "id", "rank": 8}
                self.daemon.adapters.append(made | {"num_bytes": 3 << 20})
                self._json(201, self.daemon.adapters[-1])
            case ["v1", "processes"]:
                self._launch(body)
            case ["v1", "processes", pid, "messages"]:
                if process := self._process(pid):
                    process.inbox.put(body["value"])
                    self._json(202, {"seq": 1})
            case ["v1", "daemon", "stop"]:
                self.daemon.stop_requests.append(body)
                self._json(202, {})
                self.daemon.on_stop()
            case _:
                self._fail(404, "not_found", f"no such page: {self.path}")

    def do_DELETE(self) -> None:
        if self.path.startswith("/v1/adapters/"):
            self._remove_adapter(urlsplit(self.path).path.rsplit("/", 1)[-1])
        elif process := self._process(self.path.rsplit("/", 1)[-1]):
            process.inbox.put(Inbox.STOP)
            self._json(202, {})

    def _remove_adapter(self, name: str) -> None:
        kept = [adapter for adapter in self.daemon.adapters if adapter["name"] != name]
        if len(kept) == len(self.daemon.adapters):
            self._fail(404, "not_found", f"pie-tiny has no adapter called `{name}`")
        else:
            self.daemon.adapters = kept
            self._json(200, {})

    def _program(self, ref: str, status: int = 200) -> None:
        program = self.daemon.programs.get(ref)
        if program is None:
            self._fail(404, "not_found", f"there is no program `{ref}`")
        elif program.error:
            self._json(422, {"error": program.error})
        else:
            self._json(
                status,
                {"digest": f"digest-{ref}", "name": ref, "version": "0.1.0", "signature": program.signature},
            )

    def _launch(self, body: dict[str, Any]) -> None:
        process = self.daemon.launch(body)
        if "text/event-stream" in self.headers.get("Accept", ""):
            self._events(process, {}, status=201)
        else:
            self._json(201, {"pid": process.pid, "digest": f"digest-{process.program}"})

    def _process(self, pid: str) -> Process | None:
        process = self.daemon.processes.get(pid)
        if process is None:
            self._fail(404, "not_found", f"there is no process `{pid}`")
        return process

    def _events(self, process: Process, query: dict[str, list[str]], status: int = 200) -> None:
        if query.get("format") == ["json"]:
            self._json(200, process.events)
            return
        after = int(self.headers.get("Last-Event-ID") or query.get("after", ["0"])[0])
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Pie-Pid", process.pid)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in self._follow(process, after):
            text = f"id: {event['seq']}\nevent: {event['kind']}\ndata: {json.dumps(event['data'])}\n\n"
            self._chunk(text.encode())
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _follow(self, process: Process, after: int) -> Iterator[dict[str, Any]]:
        while True:
            new = process.events_after(after)
            yield from new
            after += len(new)
            if process.has_ended and after >= len(process.events):
                return

    def _mismatch(self) -> None:
        other = self.headers.get("Pie-Protocol")
        message = f"the daemon speaks protocol {self.daemon.health['protocol']}, this command speaks {other}"
        self._json(426, {"error": {"code": "protocol_mismatch", "message": message, "hint": "`pie stop --drain`"}})

    def _fail(self, status: int, code: str, message: str) -> None:
        self._json(status, {"error": {"code": code, "message": message}})

    def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _ready_health() -> dict[str, Any]:
    members = [
        {"role": role, "name": name, "ready": True, "os_pid": os.getpid(), "detail": {}}
        for role, name in (("gateway", "gateway"), ("host", "host-0"), ("core", "pie-tiny"))
    ]
    pids = {"os_pid": os.getpid(), "daemon_os_pid": os.getpid()}
    return {
        "status": "ok",
        "version": "0.1.0",
        "protocol": 1,
        "uptime_s": 12.0,
        "incidents": [],
        **pids,
        "members": members,
    }


def _says_hello(given: dict[str, Any], inbox: Inbox) -> Iterator[Step]:
    yield "message", "hello\n"


def _detail_of_core(scene: str) -> dict[str, object]:
    if scene == "no-model":
        return {"failed": {"code": "model_error", "message": "there is no folder /no/model", "hint": "correct `path`"}}
    return {"progress": {"text": "loading weights", "fraction": 0.5}}


def play(home: Path, scene: str) -> int:
    """A daemon process: `ok`, `slow` to load, `stuck`, with `no-model`, or one that `dies` or `refuses` at once."""
    with (home / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if scene == "dies":
        sys.stderr.write("error: the disk is full\nhint: make room\ncode: error\n")
        return 78
    if scene == "refuses":
        sys.stderr.write("error: no such port\nhint: correct `listen`\ncode: invalid_config\n")
        return 78
    paths = load_config().paths
    lock = paths.daemon_lock.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    json.dump({"os_pid": os.getpid(), "instance": "x"}, lock)
    lock.flush()
    daemon = StandIn(paths.api_socket)
    daemon.add("hello", _says_hello)
    core = daemon.health["members"][-1]
    if scene != "ok":
        core |= {"ready": False, "detail": _detail_of_core(scene)}
    ended = threading.Event()
    daemon.on_stop = ended.set
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with daemon:
        if scene == "slow":
            ended.wait(0.5)
            core |= {"ready": True, "detail": {}}
        ended.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(play(Path(sys.argv[1]), sys.argv[2]))
