"""The gateway as a process: put together, run, ended in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn

from pie_engine.errors import Busy, InvalidConfig
from pie_engine.gateway.adapters import Adapters
from pie_engine.gateway.app import App, Services
from pie_engine.gateway.contexts import ContextShelf
from pie_engine.gateway.exchange import Exchange
from pie_engine.gateway.hosts import HostPool
from pie_engine.gateway.lookers import Lookers
from pie_engine.gateway.looking import Looking
from pie_engine.gateway.programs import Programs
from pie_engine.gateway.retention import Retention
from pie_engine.gateway.secret_shelf import SecretShelf
from pie_engine.gateway.single import SingleGateway
from pie_engine.gateway.snapshots import Snapshots
from pie_engine.gateway.sockets import ApiSocket, tcp_socket
from pie_engine.gateway.table import ProcessTable, daemon_stopped, lost
from pie_engine.gateway.turn import Turn
from pie_engine.gateway.views import Views
from pie_engine.ipc.child import Child
from pie_engine.ipc.link import Hub
from pie_engine.protocol.to_daemon import StopDaemon
from pie_engine.protocol.to_gateway import GatewayMessage
from pie_engine.store.store import Store

if TYPE_CHECKING:
    from pie_engine.gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
PRUNE_DELAY_S = 10.0
"""After the start, when whoever waited for it has been served."""
IDLE_BEFORE_IMPORT_S = 3.0
RESTART_GRACE_S = 5.0
"""On top of `disconnect_grace_s`, for clients to come back after this gateway was started again."""
LAST_WORDS_S = 0.5
"""For followers to get the terminal events of a daemon that stops."""
KEEP_CONNECTION_S = 75
LOCK_FILE = "gateway.lock"
INSTANCE_KEY = "instance"
DRAINING_KEY = "draining"


class Gateway:
    """Composition root of this process."""

    def __init__(self, child: Child) -> None:
        config, paths = child.config, child.config.paths
        self._child = child
        self._config = config
        self._instance = _instance(child)
        self._single = SingleGateway(paths.run / LOCK_FILE)
        self._sockets = [tcp_socket(config.gateway.listen)] if config.gateway.listen else []
        self._store = Store(paths.database)
        self._exchange = Exchange(
            Hub(child.context, child.birth.address, child.birth.boot_id, GatewayMessage), child.home
        )
        hosts = HostPool(config.host.max_processes)
        self._turn = Turn(self._store, self._exchange.send, lambda events: self._table.stored(events))
        self._programs = Programs(self._store, self._turn, hosts)
        secret_shelf = SecretShelf(self._store, self._turn)
        self._table = ProcessTable(self._store, self._turn, hosts, self._programs, secret_shelf, config)
        self._telemetry = self._table.telemetry = _telemetry(config.telemetry.otlp_endpoint)
        views = Views(config, self._exchange, hosts, self._table, self._store)
        shelf = ContextShelf(config, self._exchange)
        adapters = Adapters(config, self._exchange)
        days = config.gateway.retention_days
        self._retention = Retention(self._store, self._table, self._programs, days)
        snapshots = Snapshots(child.birth.boot_id, views.daemon_began, self._exchange, hosts, self._table)
        self._lookers = Lookers(self._exchange)
        looking = Looking(self._exchange, snapshots, self._lookers)
        services = Services(
            config,
            self._store,
            self._table,
            self._programs,
            views,
            shelf,
            adapters,
            secret_shelf,
            self._retention,
            looking,
        )
        services.stop_daemon = self._stop_daemon
        self._app = App(services)
        self._hosts = hosts
        self._views = views

    async def run(self) -> None:
        """Until the daemon says to end."""
        self._restore()
        self._exchange.connect(self._table, self._programs, self._hosts)
        api = ApiSocket(self._config.paths.api_socket)
        server = _server(self._app)
        serving = asyncio.create_task(server.serve([api.socket, *self._sockets]))
        self._child.ready()
        chores = [asyncio.create_task(chore()) for chore in self._chores()]
        asked = self._exchange.shutdown_asked
        ends: list[asyncio.Future[Any]] = [serving, asked]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            await self._end_processes(asked.result())
        for chore in chores:
            chore.cancel()
        self._lookers.close()
        server.should_exit = True
        await serving
        api.remove()
        self._exchange.close()
        self._store.close()
        self._single.release()

    # Start.

    def _restore(self) -> None:
        """A new gateway of the same daemon takes over; one of a new daemon says what was lost with the old one."""
        is_same_daemon = self._store.meta(INSTANCE_KEY) == self._instance
        with self._store.transaction():
            self._store.set_meta(INSTANCE_KEY, self._instance)
        self._table.restore(RESTART_GRACE_S)
        if not is_same_daemon:
            self._table.end_all(lost("the daemon that ran it ended"))
            self._turn.end()
        if self._store.meta(DRAINING_KEY) == self._instance:
            self._drain()

    def _chores(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        keep = partial(self._retention.keep, PRUNE_DELAY_S)
        traces = [] if self._telemetry is None else [self._telemetry.run]
        return [self._exchange.settle_orphans, self._keep_alive, keep, self._import_cold_routes, *traces]

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            self._table.audience.ping()

    async def _import_cold_routes(self) -> None:
        """When there is nothing else to do, so that the first who needs them does not wait for the import."""
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < IDLE_BEFORE_IMPORT_S:
            await asyncio.sleep(0.5)
            if self._views.health().status != "ok" or not self._table.is_empty:
                idle_since = time.monotonic()
        await self._app.cold()

    # End.

    async def _stop_daemon(self, drain: bool) -> None:
        if not drain:
            self._child.say(StopDaemon())
            return
        # Kept in the store: a gateway that dies while it drains goes on draining.
        await self._turn.write(lambda store: store.set_meta(DRAINING_KEY, self._instance), self._drain)

    def _drain(self) -> None:
        self._table.refusal = Busy("the daemon is draining and will end", hint="run again: a new daemon is started")
        self._table.on_empty = lambda: self._child.say(StopDaemon(drain=True))
        if self._table.is_empty:
            self._table.on_empty()

    async def _end_processes(self, grace_s: float) -> None:
        """Hosts end their programs and go; what is left then is lost, and whoever listens is told."""
        self._table.refusal = Busy("the daemon is stopping", hint="run again: a new daemon is started")
        end = time.monotonic() + grace_s
        while self._hosts.boot_ids and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._table.end_all(daemon_stopped())
        self._turn.end()
        end = time.monotonic() + LAST_WORDS_S
        while not self._table.audience.is_empty and time.monotonic() < end:
            await asyncio.sleep(0.01)


def _server(app: App) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_CONNECTION_S,
        timeout_graceful_shutdown=1,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Server(config)


def _telemetry(endpoint: str) -> Telemetry | None:
    if not endpoint:
        return None
    from pie_engine.gateway.telemetry import Telemetry

    return Telemetry(endpoint)


def _instance(child: Child) -> str:
    """Which daemon this is, from the file that it holds locked."""
    try:
        text = child.config.paths.daemon_lock.read_bytes()
        return str(msgspec.json.decode(text)["instance"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise InvalidConfig(f"{child.config.paths.daemon_lock} does not name a daemon") from error


async def serve(child: Child) -> None:
    """The life of a gateway; what keeps it from starting is told to the daemon."""
    try:
        gateway = Gateway(child)
    except Exception as error:
        log.exception("cannot start")
        child.fail_start(error)
    await gateway.run()
