"""As much of the Debug Adapter Protocol as an IDE speaks with debugpy."""

from __future__ import annotations

import json
import socket
from typing import Any

PATIENCE_S = 60


class Ide:
    """Attached to HOST:PORT, with breakpoints. A context manager that detaches."""

    def __init__(self, port: int, file: str, lines: list[int]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._answers = self._socket.makefile("rb")
        self._num_sent = 0
        self._events: list[dict[str, Any]] = []
        self.ask("initialize", adapterID="pie", pathFormat="path")
        attached = self._send("attach", {"justMyCode": True})
        self.event("initialized")
        places = [{"line": line} for line in lines]
        self.breakpoints = self.ask("setBreakpoints", source={"path": file}, breakpoints=places)["breakpoints"]
        self.ask("configurationDone")
        self._answer(attached)

    def __enter__(self) -> Ide:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self._answer(self._send(command, arguments))

    def event(self, name: str) -> dict[str, Any]:
        """The body of the next one of this name."""
        while True:
            for event in self._events:
                if event["event"] == name:
                    self._events.remove(event)
                    return dict(event.get("body", {}))
            self._keep(self._read())

    def stopped(self) -> tuple[int, dict[str, Any]]:
        """The thread, and the frame in which it stands."""
        thread = int(self.event("stopped")["threadId"])
        return thread, self.ask("stackTrace", threadId=thread)["stackFrames"][0]

    def value(self, frame: dict[str, Any], expression: str) -> str:
        return str(self.ask("evaluate", expression=expression, frameId=frame["id"], context="repl")["result"])

    def _send(self, command: str, arguments: dict[str, Any]) -> int:
        self._num_sent += 1
        request = {"seq": self._num_sent, "type": "request", "command": command, "arguments": arguments}
        raw = json.dumps(request).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        return self._num_sent

    def _answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self._read()
            if message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return dict(message.get("body") or {})
            self._keep(message)

    def _keep(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            self._events.append(message)

    def _read(self) -> dict[str, Any]:
        size = 0
        while header := self._answers.readline().strip():
            name, _, value = header.partition(b":")
            size = int(value) if name.lower() == b"content-length" else size
        assert size, "the debugger has left"
        return dict(json.loads(self._answers.read(size)))
