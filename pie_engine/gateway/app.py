"""The ASGI application: the routes that programs wait for, by hand; the others in FastAPI, imported when first used."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from pie_engine.config import MIB, EngineConfig
from pie_engine.gateway.actions import ACTIONS, act
from pie_engine.gateway.adapters import Adapters
from pie_engine.gateway.contexts import ContextShelf
from pie_engine.gateway.http import STREAM_HEADERS, Headers, Receive, Reply, Request, Scope, Send, decoded
from pie_engine.gateway.looking import Looking
from pie_engine.gateway.native import native_is_local
from pie_engine.gateway.problems import translated
from pie_engine.gateway.process import Follower, Process
from pie_engine.gateway.programs import Programs
from pie_engine.gateway.retention import Retention
from pie_engine.gateway.secret_shelf import SecretShelf
from pie_engine.gateway.table import ProcessTable
from pie_engine.gateway.views import Views
from pie_engine.protocol.http import (
    DIGEST_HEADER,
    PID_HEADER,
    AdapterRequest,
    CollectRequest,
    EventView,
    Launched,
    LaunchRequest,
    MessageAccepted,
    MessageRequest,
    SecretRequest,
    StopRequest,
)
from pie_engine.protocol.program import Bundle
from pie_engine.store.store import Store

log = logging.getLogger(__name__)

LOCAL_USER = "local"
"""Whoever may open the socket."""
LOG_PAGE_EVENTS = 256

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_decode_launch = msgspec.json.Decoder(LaunchRequest).decode
_decode_bundle = msgspec.json.Decoder(Bundle).decode
_decode_message = msgspec.json.Decoder(MessageRequest).decode
_decode_adapter = msgspec.json.Decoder(AdapterRequest).decode
_decode_secret = msgspec.json.Decoder(SecretRequest).decode
_decode_collect = msgspec.json.Decoder(CollectRequest).decode
_decode_stop = msgspec.json.Decoder(StopRequest).decode
_encode = msgspec.json.Encoder().encode


class Services:
    """What the routes need, hot and cold."""

    def __init__(
        self,
        config: EngineConfig,
        store: Store,
        table: ProcessTable,
        programs: Programs,
        views: Views,
        contexts: ContextShelf,
        adapters: Adapters,
        secrets: SecretShelf,
        retention: Retention,
        looking: Looking,
    ) -> None:
        self.max_body_bytes = int(config.gateway.max_body_mb * MIB)
        self.store = store
        self.table = table
        self.programs = programs
        self.views = views
        self.contexts = contexts
        self.adapters = adapters
        self.secrets = secrets
        self.retention = retention
        self.looking = looking
        self.stop_daemon: Callable[[bool], Awaitable[None]]


class App:
    """Entry of every request. An error becomes `{"error": …}` here and nowhere else."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._cold: Asgi | None = None
        self._cold_lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request, reply = Request(scope, receive), Reply(send)
        try:
            request.check_origin()
            if not await self._serve(request, reply):
                request.check()
                await (await self.cold())(scope, receive, reply.send)
        except Exception as error:
            problem = translated(error)
            if reply.has_begun:
                # The rest cannot be an answer any more: break the connection, so that the client sees it.
                raise
            await reply.problem(problem)

    async def cold(self) -> Asgi:
        """The FastAPI part. Its import takes a good part of a second, so it happens in a thread."""
        async with self._cold_lock:
            if self._cold is None:
                self._cold = await asyncio.get_running_loop().run_in_executor(None, self._import_cold)
            assert self._cold is not None
            return self._cold

    def _import_cold(self) -> Asgi:
        from pie_engine.gateway.cold import create_app

        return create_app(self._services)

    async def _serve(self, request: Request, reply: Reply) -> bool:
        """Answers a hot route; False: it is not one."""
        match request.method, request.path.split("/")[1:]:
            case "GET", ["healthz"]:
                await reply.json(200, self._services.views.health())
            case "POST", ["v1", "daemon", "stop"]:
                await self._stop(request, reply)
            case "POST", ["v1", "daemon", "collect"]:
                request.check()
                asked = decoded(_decode_collect, await request.body(self._services.max_body_bytes))
                collect = self._services.retention.collect
                await reply.json(200, await collect(asked.older_than_s, is_dry=asked.dry_run))
            case "POST", ["v1", "processes"]:
                request.check()
                await self._launch(request, reply)
            case "POST", ["v1", "programs"]:
                request.check()
                await self._upload(request, reply)
            case "GET", ["v1", "programs", reference] if reference:
                request.check()
                await reply.json(200, self._services.programs.view(LOCAL_USER, reference))
            case "GET", ["v1", "processes", pid] if pid:
                request.check()
                await reply.json(200, self._services.views.process(self._find(pid)))
            case "DELETE", ["v1", "processes", pid] if pid:
                request.check()
                await self._services.table.orders.terminate(self._find(pid))
                await reply.json(202, {})
            case "POST", ["v1", "adapters"]:
                request.check()
                body = await request.body(self._services.max_body_bytes)
                await reply.json(201, await self._services.adapters.add(decoded(_decode_adapter, body)))
            case "DELETE", ["v1", "adapters", name] if name:
                request.check()
                await self._services.adapters.remove(request.query("model") or "", name)
                await reply.json(200, {})
            case "PUT", ["v1", "secrets", name] if name:
                request.check()
                body = await request.body(self._services.max_body_bytes)
                value = decoded(_decode_secret, body).value
                await reply.json(200, await self._services.secrets.set(LOCAL_USER, name, value))
            case "DELETE", ["v1", "secrets", name] if name:
                request.check()
                await self._services.secrets.remove(LOCAL_USER, name)
                await reply.json(200, {})
            case "GET", ["v1", "stats"]:
                request.check()
                await self._services.looking.snapshot(reply, LOCAL_USER)
            case "GET", ["v1", "stats", "stream"]:
                request.check()
                await self._services.looking.stream(request, reply, LOCAL_USER)
            case "GET", ["v1", "processes", pid, "contexts"]:
                request.check()
                await reply.json(200, await self._services.looking.contexts(self._find(pid)))
            case "POST", ["v1", "processes", pid, action] if action in ACTIONS:
                request.check()
                body = await request.body(self._services.max_body_bytes)
                await act(self._services.table, self._find(pid), action, body)
                await reply.json(202, {})
            case "POST", ["v1", "processes", pid, "messages"]:
                request.check()
                await self._message(request, reply, pid)
            case "GET", ["v1", "processes", pid, "events"]:
                request.check()
                await self._events(request, reply, pid)
            case _:
                return False
        return True

    def _find(self, pid: str) -> Process:
        return self._services.table.find(LOCAL_USER, pid)

    # Programs and launches.

    async def _upload(self, request: Request, reply: Reply) -> None:
        body = await request.body(self._services.max_body_bytes)
        bundle = decoded(_decode_bundle, body)
        publishes = request.query("publish") != "false"
        view = await self._services.programs.upload(LOCAL_USER, bundle, publishes=publishes)
        await reply.json(201, view)

    async def _launch(self, request: Request, reply: Reply) -> None:
        body = await request.body(self._services.max_body_bytes)
        launch = decoded(_decode_launch, body)
        if launch.native and not request.is_local:
            raise native_is_local()
        process = await self._services.table.launch(LOCAL_USER, launch)
        names: Headers = [
            (PID_HEADER.lower().encode(), process.pid.encode()),
            (DIGEST_HEADER.lower().encode(), process.record.digest.encode()),
        ]
        if request.wants_stream:
            await self._stream(request, reply, process, request.last_event_id or 0, 201, names)
        else:
            await reply.json(201, Launched(process.pid, process.record.digest), names)

    async def _message(self, request: Request, reply: Reply, pid: str) -> None:
        body = await request.body(self._services.max_body_bytes)
        value = bytes(decoded(_decode_message, body).value).decode()
        seq = await self._services.table.orders.message(self._find(pid), value)
        await reply.json(202, MessageAccepted(seq))

    async def _stop(self, request: Request, reply: Reply) -> None:
        body = await request.body(self._services.max_body_bytes)
        stop = decoded(_decode_stop, body or b"{}")
        await reply.json(202, {})
        await self._services.stop_daemon(stop.drain)

    # Events.

    async def _events(self, request: Request, reply: Reply, pid: str) -> None:
        process = self._find(pid)
        after = request.int_query("after")
        if request.query("format") == "json":
            await self._event_list(reply, process, after or 0, with_trace=_wants_trace(request))
            return
        if after is None:
            after = request.last_event_id or 0
        await self._stream(request, reply, process, after, 200, [])

    async def _stream(
        self, request: Request, reply: Reply, process: Process, after: int, status: int, headers: Headers
    ) -> None:
        """Every event after `after`, until the terminal one or the client is gone."""
        audience = self._services.table.audience
        follower = audience.join(process, after, with_trace=_wants_trace(request))
        watch = asyncio.create_task(_leave_when_gone(request.receive, follower))
        try:
            await reply.begin(status, STREAM_HEADERS + headers)
            await reply.write(f": pid {process.pid}\n\n".encode())
            piece = await follower.next()
            while piece is not None and not follower.is_at_end:
                await reply.write(piece)
                audience.seen(follower)
                piece = await follower.next()
            # The terminal event and the end of the body in one packet: the client can use the connection again.
            await reply.finish(piece or b"")
        finally:
            watch.cancel()
            audience.leave(follower)

    async def _event_list(self, reply: Reply, process: Process, after: int, *, with_trace: bool) -> None:
        """What is stored so far, as one JSON array, page by page."""
        await reply.begin(200, [(b"content-type", b"application/json")])
        separator = b"["
        store = self._services.store
        while rows := list(store.events(process.id, after, LOG_PAGE_EVENTS, with_trace=with_trace)):
            views = (EventView(row.seq, row.kind, msgspec.Raw(row.data.encode()), row.time) for row in rows)
            await reply.write(separator + b",\n".join(map(_encode, views)))
            separator, after = b",\n", rows[-1].seq
        await reply.finish(b"]" if separator != b"[" else b"[]")


def _wants_trace(request: Request) -> bool:
    return request.query("trace") == "1"


async def _leave_when_gone(receive: Receive, follower: Follower) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        follower.leave()
