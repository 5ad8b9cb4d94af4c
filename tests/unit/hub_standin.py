"""A hub for tests: the model API and `resolve` with ETag and Range; it cuts connections and damages what it sends."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from pie_engine.hub.places import HubId

LFS_FROM_BYTES = 1000
"""Larger files have a SHA-256, smaller ones a Git hash."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def checksum_of(data: bytes) -> str:
    return sha256(data) if len(data) >= LFS_FROM_BYTES else git_hash(data)


@dataclass
class Repository:
    files: dict[str, bytes]
    commit: str = "c" * 40
    is_gated: bool = False

    def sibling(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        found: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_hash(data)}
        if len(data) >= LFS_FROM_BYTES:
            found["lfs"] = {"size": len(data), "sha256": sha256(data), "pointerSize": 130}
        return found


@dataclass
class HubStandIn:
    """`with HubStandIn() as hub:` serves on loopback until the end of the block."""

    models: dict[str, Repository] = field(default_factory=dict)
    """By `ORG/NAME` or `ORG/NAME@REVISION`."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """By path: after how many bytes each of the next answers breaks off."""
    damaged: dict[str, int] = field(default_factory=dict)
    """By path: how many of the next answers have a wrong byte."""
    status: int = 0
    """What everything is answered with, instead."""
    ranges: dict[str, list[str]] = field(default_factory=dict)
    """By path: the `Range` of each request so far."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Bodies wait for it, with `holds_rests` only those that a Range asks for."""
    holds_rests: bool = False

    def __post_init__(self) -> None:
        self.gate.set()
        self.lock = threading.Lock()

    def __enter__(self) -> HubStandIn:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def num_bodies(self) -> int:
        return sum(len(ranges) for ranges in self.ranges.values())

    def add(self, text: str, files: dict[str, bytes], commit: str = "c" * 40) -> Repository:
        hub_id = HubId.parse(text)
        assert hub_id is not None
        repository = self.models[str(hub_id)] = Repository(files, commit)
        return repository


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        words = [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]
        if self.hub.status:
            self._refuse(self.hub.status)
        elif words[:2] == ["api", "models"]:
            self._info("/".join(words[2:4]), words[5] if len(words) > 5 else "main")
        else:
            self._file("/".join(words[:2]), words[3], "/".join(words[4:]), has_body)

    def _info(self, name: str, revision: str) -> None:
        repository = self._find(name, revision)
        if repository is None:
            known = any(key.partition("@")[0] == name for key in self.hub.models)
            self._refuse(404, "RevisionNotFound" if known else "RepoNotFound")
            return
        body = {"id": name, "sha": repository.commit, "siblings": [repository.sibling(p) for p in repository.files]}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, path: str, has_body: bool) -> None:
        repository = self._find(name, revision)
        if repository is None or path not in repository.files:
            self._refuse(404, "EntryNotFound")
        elif repository.is_gated:
            self._refuse(403, "GatedRepo")
        else:
            self._send_file(repository, path, has_body)

    def _send_file(self, repository: Repository, path: str, has_body: bool) -> None:
        hub, data = self.hub, repository.files[path]
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").split("-")[0] or 0) if wanted else 0
        headers = {"ETag": f'"{checksum_of(data)}"', "X-Repo-Commit": repository.commit}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body, length = data[start:], len(data) - start
        if not has_body:
            self._send(200, b"", {**headers, "Content-Length": str(length)})
            return
        with hub.lock:
            hub.ranges.setdefault(path, []).append(wanted)
            if hub.damaged.get(path, 0) > 0:
                hub.damaged[path] -= 1
                body = body[:-1] + bytes([body[-1] ^ 1])
            cut = hub.cuts[path].pop(0) if hub.cuts.get(path) else None
        self._send(206 if wanted else 200, body[:cut], {**headers, "Content-Length": str(length)})
        if cut is not None:
            self.close_connection = True

    def _find(self, name: str, revision: str) -> Repository | None:
        by_commit = (r for key, r in self.hub.models.items() if key.partition("@")[0] == name and r.commit == revision)
        return self.hub.models.get(name if revision == "main" else f"{name}@{revision}") or next(by_commit, None)

    def _refuse(self, status: int, code: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if not self.hub.holds_rests or self.headers.get("Range"):
            self.hub.gate.wait(20)
        self.wfile.write(body)
