"""The client of a Pie daemon."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from pie_client.body import json_of
from pie_client.errors import Interrupted, NoDaemon, explained
from pie_client.files import FileBody, free_path, write_file
from pie_client.process import Process
from pie_client.programs import Program, named, packed, with_folder
from pie_client.snapshots import snapshots
from pie_client.transport import SILENCE_TIMEOUT_S, Reply, Transport
from pie_engine.config import load_paths
from pie_engine.errors import InvalidInput, NotFound, PieError
from pie_engine.protocol.credits import bid_of, endowment_of
from pie_engine.protocol.http import (
    EVENT_STREAM,
    PID_HEADER,
    AdapterRequest,
    AdapterView,
    Collected,
    ContextView,
    LaunchRequest,
    OnDisconnect,
    ProgramView,
    SecretView,
)
from pie_engine.protocol.program import Bundle
from pie_engine.protocol.stats import DEFAULT_INTERVAL_MS, ContextState, Snapshot
from pie_engine.protocol.to_host import TraceKind

RECONNECT_S = 30.0
"""How long a client that was connected waits for a gateway that is started again."""
MAX_PAUSE_S = 0.25

Answer = TypeVar("Answer")


class PieClient:
    """Launches and follows processes. An asynchronous context manager; one connection pool, of one event loop.

    `home`: the data folder of the daemon, by default the user's. `url`: a daemon that listens on TCP instead.
    It starts no daemon: calls raise `NoDaemon` when there is none.
    """

    def __init__(self, *, home: str | Path | None = None, url: str | None = None) -> None:
        paths = load_paths({} if home is None else {"home": str(home)})
        self.home = paths.home
        self._transport = Transport(paths, url)
        self._processes: set[Process] = set()

    async def __aenter__(self) -> PieClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all event streams; processes launched with `on_disconnect="terminate"` end soon after.

        Whoever waits for an event gets `Interrupted`; later calls raise `InvalidInput`.
        """
        self._transport.refuse_more()
        for process in list(self._processes):
            await process.close()
        await self._transport.close()

    # Processes.

    async def launch_process(
        self,
        program: Program,
        input: Mapping[str, object] | None = None,
        *,
        on_disconnect: OnDisconnect = "terminate",
        idempotency_key: str | None = None,
        trace: Sequence[TraceKind] = (),
        native: str = "",
        endowment: float | None = None,
    ) -> Process:
        """Start `program` with the arguments `input` of its `main`. Returns when the daemon has it safely.

        program: a path ("./hello", "hello.py", a `Path`), the name of an uploaded program, or a `Bundle`.
        on_disconnect: `terminate` ends it when nobody has listened for a while, `detach` lets it go on.
        idempotency_key: the same key again gives the same process.
        trace: what is written down of it, as events of kind `Trace`: `record`.
        native: path of a Unix socket at which a Python waits to run it, in place of the sandbox; see docs/wire.md.
        endowment: credits that it brings to the market, docs/market.md; None: what the program
            names, else what the user's processes get.
        Raises `InvalidInput`, also for a part of `input` that JSON does not have, `NotFound`, `InvalidProgram`,
        `LimitExceeded`, `NoDaemon`, …; what the program itself does wrong comes as its `Error` event.
        """
        request = LaunchRequest(
            **named(program),
            input=msgspec.Raw(json_of("the input", input or {})),
            on_disconnect=on_disconnect,
            # With a key the daemon knows a repeated request for what it is, so a broken connection is no risk.
            idempotency_key=idempotency_key or uuid.uuid4().hex,
            trace=tuple(trace),
            native=native,
            endowment=endowment,
        )
        if endowment is not None:
            endowment_of(endowment)  # JSON has no NaN
        body = msgspec.json.encode(request)
        headers = {"Accept": EVENT_STREAM}
        path = "/v1/processes" + _query(trace="1" if trace else None)

        async def launch() -> Reply:
            return await self._transport.open("POST", path, body, headers, timeout_s=SILENCE_TIMEOUT_S)

        try:
            reply = await self._persistently(launch)
        except NotFound as error:
            raise with_folder(error, program) from None
        return self._process(reply.headers[PID_HEADER.lower()], reply, after=0, with_trace=bool(trace))

    async def attach(self, pid: str, after: int = 0, *, with_trace: bool = False) -> Process:
        """The events after number `after` of a process that runs or has ended; 0: all. Raises `NotFound`.

        with_trace: also those that hold what was recorded of it.
        """
        reply = await self.open_events(pid, after, with_trace=with_trace)
        return self._process(pid, reply, after, with_trace=with_trace)

    async def send(self, pid: str, value: object) -> int:
        """A message to a process; returns its number when the daemon has it safely.

        Raises `NotFound`, `Conflict` when the process has ended, and `InvalidInput` for what JSON does not have.
        """
        encoded = msgspec.Raw(json_of("the message", value))
        reply = await self.request("POST", f"/v1/processes/{pid}/messages", {"value": encoded})
        seq: int = reply["seq"]
        return seq

    async def pause(self, pid: str) -> None:
        """Its program does not run until `resume`; wall limits and deadlines stand still. Again: nothing.

        Raises `NotFound`, and `InvalidInput` when it has ended.
        """
        await self.request("POST", f"/v1/processes/{pid}/pause", can_repeat=True)

    async def resume(self, pid: str) -> None:
        """It goes on where it was. Raises `NotFound`, and `InvalidInput` when it has ended."""
        await self.request("POST", f"/v1/processes/{pid}/resume", can_repeat=True)

    async def bid(self, pid: str, credits: float | None) -> None:
        """What all contexts of a process bid from now on, in credits for a page and a step; None: it says itself.

        Raises `NotFound`, and `InvalidInput` for what is no bid and when it has ended.
        """
        if credits is not None:
            bid_of(credits)  # JSON has no NaN, and would say None
        await self.request("POST", f"/v1/processes/{pid}/bid", {"credits": credits}, can_repeat=True)

    async def endow(self, pid: str, credits: float) -> None:
        """Give a process so many credits more, in each model.

        Raises `NotFound`, and `InvalidInput` for what is no amount, when that is more than it may have and when it has
        ended.
        """
        endowment_of(credits)  # JSON has no NaN
        await self.request("POST", f"/v1/processes/{pid}/endow", {"credits": credits})

    async def list_processes(self, *, with_ended: bool = False, limit: int | None = None) -> list[dict[str, Any]]:
        """Those alive; with `with_ended` all that are kept, the newest first, and of these at most `limit`."""
        query = _query(all="true" if with_ended else None, limit=None if limit is None else str(limit))
        return _as_list(await self.request("GET", f"/v1/processes{query}"))

    async def inspect(self, pid: str) -> dict[str, Any]:
        """State, host, outcome and usage of one process."""
        return _as_dict(await self.request("GET", f"/v1/processes/{pid}"))

    async def events(self, pid: str, after: int = 0, *, with_trace: bool = False) -> list[dict[str, Any]]:
        """What is stored of a process so far: `seq`, `kind`, `data`, `time` of each event.

        with_trace: also those that hold what was recorded of it.
        """
        query = _query(format="json", after=str(after), trace="1" if with_trace else None)
        return _as_list(await self.request("GET", f"/v1/processes/{pid}/events{query}"))

    async def contexts_of(self, pid: str) -> list[ContextState]:
        """The contexts that a process has now, of all models; forks behind what they were forked from.

        None of one that has ended. Raises `NotFound`, and `Lost` when a core does not answer.
        """
        body = await self._ask("GET", f"/v1/processes/{pid}/contexts", b"", can_repeat=True)
        return msgspec.json.decode(body, type=list[ContextState])

    # Programs.

    async def upload(self, program: Path | str | Bundle) -> ProgramView:
        """Publish a folder, a `.py` file or a bundle under its name and version.

        Raises `NotFound`, or `InvalidProgram` when it cannot be run.
        """
        bundle = program if isinstance(program, Bundle) else packed(program)
        body = await self._ask("POST", "/v1/programs", msgspec.json.encode(bundle), can_repeat=True)
        return msgspec.json.decode(body, type=ProgramView)

    async def describe(self, program: Path | str | Bundle) -> ProgramView:
        """The signature of a program that is not published. Raises `InvalidProgram` when it cannot be run."""
        bundle = program if isinstance(program, Bundle) else packed(program)
        known = await self._known_component(bundle)
        if known is not None:
            return known
        body = await self._ask("POST", "/v1/programs?publish=false", msgspec.json.encode(bundle), can_repeat=True)
        return msgspec.json.decode(body, type=ProgramView)

    async def _known_component(self, bundle: Bundle) -> ProgramView | None:
        """A component is tens of MiB, which the daemon may have already."""
        if bundle.manifest.runtime != "component":
            return None
        try:
            view = await self.program(bundle.digest)
        except NotFound:
            return None
        return view if view.signature is not None else None

    async def programs(self) -> list[ProgramView]:
        """All that are uploaded, each with the signature of its `main`."""
        body = await self._ask("GET", "/v1/programs", b"", can_repeat=True)
        return msgspec.json.decode(body, type=list[ProgramView])

    async def program(self, reference: str) -> ProgramView:
        """One of them, by name, `name@version` or digest. Raises `NotFound`."""
        body = await self._ask("GET", f"/v1/programs/{reference}", b"", can_repeat=True)
        return msgspec.json.decode(body, type=ProgramView)

    # Saved contexts. `model` None: the default one.

    async def contexts(self, model: str | None = None) -> list[ContextView]:
        """All that programs of this user have saved; with `model` those saved with it."""
        body = await self._ask("GET", "/v1/contexts" + _query(model=model), b"", can_repeat=True)
        return msgspec.json.decode(body, type=list[ContextView])

    async def context(self, name: str, *, model: str | None = None) -> ContextView:
        """One of them. Raises `NotFound`, or `InvalidInput` when it is damaged."""
        body = await self._ask("GET", _context_path(name, model=model), b"", can_repeat=True)
        return msgspec.json.decode(body, type=ContextView)

    async def remove_context(self, name: str, *, model: str | None = None) -> None:
        """Delete a saved context. Those that programs have opened from it live on. Raises `NotFound`."""
        await self._ask("DELETE", _context_path(name, model=model), b"", can_repeat=False)

    async def export_context(
        self, name: str, path: str | Path, *, model: str | None = None, replace: bool = False
    ) -> int:
        """Write a saved context to a file, from which `import_context` takes it back, here or on another machine.

        Returns its size in bytes. It is safetensors with the KV, and its metadata say the rest. Raises `NotFound`, and
        `InvalidInput` when the context is damaged or the file cannot be written or is there and may not be replaced.
        """
        target = free_path(path, replace=replace)

        async def fetch() -> Reply:
            url = _context_path(name, model=model, format="file")
            return await self._transport.open("GET", url, timeout_s=SILENCE_TIMEOUT_S)

        reply = await self._persistently(fetch)
        try:
            return await write_file(target, reply.pieces(), replace=replace)
        finally:
            await reply.close()

    async def import_context(
        self, path: str | Path, name: str | None = None, *, model: str | None = None, replace: bool = False
    ) -> ContextView:
        """Save what `export_context` has written, as `name` or as it was called.

        Raises `InvalidInput` when the file is damaged, of another model, page size or format, or the name is taken and
        may not be replaced; `LimitExceeded` with the numbers; `Busy` while the model is not loaded.
        """
        url = "/v1/contexts" + _query(model=model, name=name, replace="true" if replace else None)
        ask = partial(self._transport.send_file, "POST", url, FileBody(path))
        return msgspec.json.decode(await self._persistently(ask, can_repeat=False), type=ContextView)

    # The daemon.

    async def models(self) -> list[dict[str, Any]]:
        """The loaded models, the default one first."""
        return _as_list(_as_dict(await self.request("GET", "/v1/models"))["models"])

    async def adapters(self) -> list[AdapterView]:
        """The LoRA adapters of all models."""
        return msgspec.json.decode(await self._ask("GET", "/v1/adapters", b"", can_repeat=True), type=list[AdapterView])

    async def add_adapter(self, name: str, folder: str | Path, model: str = "") -> AdapterView:
        """Load the adapter in `folder`, as PEFT has written it, under `name`; the daemon keeps it until it is removed.

        model: the one that it is for; empty: the default one. Raises `NotFound`, `ModelError`, `Unsupported`, `Busy`
        when another one has the name and is in use, and `LimitExceeded` with the numbers when memory is short.
        """
        asked = AdapterRequest(name, _absolute(folder), model)
        body = await self._ask("POST", "/v1/adapters", msgspec.json.encode(asked), can_repeat=True)
        return msgspec.json.decode(body, type=AdapterView)

    async def remove_adapter(self, name: str, model: str = "") -> None:
        """Unload it. Raises `NotFound`, and `Busy` naming the processes that use it."""
        await self.request("DELETE", f"/v1/adapters/{quote(name, safe='')}?model={quote(model, safe='')}")

    async def secrets(self) -> list[SecretView]:
        """Names of the secrets that are set. Their values are shown to nobody."""
        return msgspec.json.decode(await self._ask("GET", "/v1/secrets", b"", can_repeat=True), type=list[SecretView])

    async def set_secret(self, name: str, value: str) -> None:
        """For programs whose `pie.toml` names it. Raises `InvalidInput`."""
        if not name:
            raise explained(InvalidInput("a secret needs a name", hint="like `API_KEY`: letters, digits, `_`"))
        await self.request("PUT", f"/v1/secrets/{quote(name, safe='')}", {"value": value}, can_repeat=True)

    async def remove_secret(self, name: str) -> None:
        """Raises `NotFound`."""
        if not name:
            raise explained(NotFound("a secret has a name", hint="`secrets()` has those that are set"))
        await self.request("DELETE", f"/v1/secrets/{quote(name, safe='')}")

    async def stats(self) -> Snapshot:
        """How everything is now: models, hosts, programs, requests."""
        body = await self._ask("GET", "/v1/stats", b"", can_repeat=True)
        return msgspec.json.decode(body, type=Snapshot)

    def stats_stream(self, *, interval_ms: int = DEFAULT_INTERVAL_MS) -> AsyncGenerator[Snapshot, None]:
        """The same again and again. Whoever is slower than that gets the newest and misses those before it.

        It goes on when the gateway is started again. Raises `InvalidInput` for an interval that is not served, and
        `NoDaemon` when there is no daemon, or none any more.
        """
        path = f"/v1/stats/stream?interval_ms={interval_ms}"

        async def follow() -> Reply:
            headers = {"Accept": EVENT_STREAM}
            return await self._transport.open("GET", path, headers=headers, timeout_s=SILENCE_TIMEOUT_S)

        return snapshots(partial(self._persistently, follow))

    async def health(self) -> dict[str, Any]:
        """What the daemon says of itself, once and at once. Raises `NoDaemon`."""
        return _as_dict(msgspec.json.decode(await self._transport.request("GET", "/healthz")))

    async def collect(self, older_than_s: float, *, dry_run: bool = False) -> Collected:
        """Delete the processes that ended longer ago than that, with their events, and programs that nothing names."""
        body = {"older_than_s": older_than_s, "dry_run": dry_run}
        answer = await self._ask("POST", "/v1/daemon/collect", msgspec.json.encode(body), can_repeat=True)
        return msgspec.json.decode(answer, type=Collected)

    async def stop_daemon(self, *, drain: bool = False) -> None:
        """End the daemon; with `drain` it first waits for all processes and launches no more."""
        await self._transport.request("POST", "/v1/daemon/stop", msgspec.json.encode({"drain": drain}))

    # For Process.

    async def request(self, method: str, path: str, body: object = None, *, can_repeat: bool = False) -> Any:
        """The JSON of an answer. `can_repeat`: asking twice does no more than asking once."""
        data = b"" if body is None else json_of("the request", body)
        return msgspec.json.decode(await self._ask(method, path, data, can_repeat=can_repeat or method == "GET"))

    async def open_events(self, pid: str, after: int, *, with_trace: bool = False) -> Reply:
        headers = {"Accept": EVENT_STREAM, "Last-Event-ID": str(after)}
        path = f"/v1/processes/{pid}/events" + _query(trace="1" if with_trace else None)

        async def follow() -> Reply:
            return await self._transport.open("GET", path, headers=headers, timeout_s=SILENCE_TIMEOUT_S)

        return await self._persistently(follow)

    def remember(self, process: Process) -> None:
        self._processes.add(process)

    def forget(self, process: Process) -> None:
        self._processes.discard(process)

    def _process(self, pid: str, reply: Reply, after: int, *, with_trace: bool) -> Process:
        process = Process(self, pid, reply, after, with_trace=with_trace)
        self.remember(process)
        return process

    async def _ask(self, method: str, path: str, body: bytes, *, can_repeat: bool) -> bytes:
        return await self._persistently(lambda: self._transport.request(method, path, body), can_repeat=can_repeat)

    async def _persistently(self, ask: Callable[[], Awaitable[Answer]], *, can_repeat: bool = True) -> Answer:
        """Ask again while a gateway that was there is being started again."""
        end, pause_s = time.monotonic() + RECONNECT_S, 0.01
        while True:
            try:
                return await ask()
            except PieError as error:
                if not self._may_come_back(error, can_repeat) or time.monotonic() > end:
                    # Without the frames below: the caller's own lines are what helps.
                    raise error.with_traceback(None) from None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    def _may_come_back(self, error: PieError, can_repeat: bool) -> bool:
        if isinstance(error, Interrupted):
            return can_repeat
        return isinstance(error, NoDaemon) and self._transport.has_connected and not self._transport.is_gone()


def _query(**fields: str | None) -> str:
    given = {name: value for name, value in fields.items() if value}
    return f"?{urlencode(given)}" if given else ""


def _context_path(name: str, **fields: str | None) -> str:
    return f"/v1/contexts/{quote(name, safe='')}{_query(**fields)}"


def _absolute(folder: str | Path) -> str:
    return str(Path(folder).expanduser().absolute())


def _as_dict(value: object) -> dict[str, Any]:
    assert isinstance(value, dict)
    return value


def _as_list(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value
