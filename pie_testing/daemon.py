"""A daemon with a home of its own, for tests: `--pie-engine=daemon`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pie_client import PieClient, Process
from pie_engine.config import ModelSection, load_paths
from pie_engine.driver.fake_script import FakeScript
from pie_engine.errors import LimitExceeded, Lost, NotFound, Unsupported
from pie_engine.protocol.plan import Usage
from pie_testing.engines import Models, OnMessage, Order, Took
from pie_testing.fake import NUM_PAGES, FakeModel
from pie_testing.result import Event

CALL_S = 30.0
LOOK_S = 0.005

Answer = TypeVar("Answer")


class DaemonEngine:
    """Implements `engines.Engine`. The daemon starts with the first program, and anew for a test with another model."""

    def __init__(self) -> None:
        # Short on purpose: sockets live below it.
        self._home = Path(tempfile.mkdtemp(prefix="pie-t-"))
        self._script = self._home / "fake.json"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pie-client", daemon=True)
        self._thread.start()
        self._client: PieClient | None = None
        self._section: ModelSection | None = None
        self._fake: FakeModel | None = None
        self._said: FakeScript = FakeScript()
        self._user = ""

    def launch(self, order: Order) -> DaemonLaunched:
        client = self._serving(order.models)
        if order.user != self._user:
            self._user = order.user
            self.call(_forget(client))
        for name, value in order.secrets.items():
            self.call(client.set_secret(name, value))
        for program in order.programs:
            self.call(client.upload(program))
        process = self.call(client.launch_process(order.bundle, order.arguments, endowment=order.endowment))
        return DaemonLaunched(self, client, process)

    def call(self, what: Coroutine[Any, Any, Answer]) -> Answer:
        """Await in the thread of the client."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(CALL_S)

    def spawn(self, what: Coroutine[Any, Any, None]) -> None:
        """Let it run there."""
        asyncio.run_coroutine_threadsafe(what, self._loop)

    def close(self) -> None:
        self._stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self._home, ignore_errors=True)

    # The daemon.

    def _serving(self, models: Models) -> PieClient:
        section = models.section
        if not models.path:
            if section.num_pages != NUM_PAGES:
                raise Unsupported("`fake.limit(pages=…)` is for the embedded engine", hint="`--pie-engine=embedded`")
            section = msgspec.structs.replace(section, script=str(self._script))
            self._write_script(models.fake)
        if self._client is None or section != self._section:
            self._stop()
            self._client = self._start(section)
        return self._client

    def _write_script(self, fake: FakeModel) -> None:
        """What was said in this test before is not said again."""
        script, num_said = fake.script, 0
        if fake is self._fake:
            if script == self._said:
                return
            num_said = len(self._said.replies)
        replies = [reply for index, reply in enumerate(script.replies) if index >= num_said or not reply.once]
        draft = self._script.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(msgspec.structs.replace(script, replies=tuple(replies))))
        draft.replace(self._script)
        self._fake, self._said = fake, script

    def _start(self, section: ModelSection) -> PieClient:
        config: dict[str, Any] = msgspec.to_builtins(section)
        lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in config.items()]
        (self._home / "config.toml").write_text("\n".join(["[[models]]", *lines, ""]))
        self._pie("serve", "--background")
        self._section = section

        async def connect() -> PieClient:
            return PieClient(home=self._home)

        return self.call(connect())

    def _stop(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            self.call(client.close())
            self._pie("stop")

    def _pie(self, *words: str) -> None:
        """Raises `Lost` with what it says when it fails."""
        env = {
            **os.environ,
            "PIE_HOME": str(self._home),
            "PIE_CACHE": str(load_paths().cache),
            "PIE_CONFIG": str(self._home / "config.toml"),
        }
        command = [sys.executable, "-m", "pie_cli", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise Lost(f"`pie {' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")


class DaemonLaunched:
    """Implements `engines.Launched`."""

    def __init__(self, engine: DaemonEngine, client: PieClient, process: Process) -> None:
        self._engine, self._client, self._process = engine, client, process
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._failure: BaseException | None = None
        engine.spawn(self._listen())

    @property
    def events(self) -> list[Event]:
        with self._news:
            return list(self._events)

    @property
    def took(self) -> Took:
        view = self._engine.call(self._client.inspect(self._process.pid))
        usage = view.get("usage") or {}
        known = {key: value for key, value in usage.items() if key in Usage.__struct_fields__}
        return Took(Usage(**known))

    def send(self, value: Any) -> None:
        self._engine.call(self._process.send(value))

    def terminate(self) -> None:
        with suppress(NotFound):
            self._engine.call(self._process.terminate())

    def wait(self, timeout_s: float, on_message: OnMessage) -> None:
        end, num_seen = time.monotonic() + timeout_s, 0
        while True:
            with self._news:
                if len(self._events) == num_seen:
                    self._news.wait(max(0.0, end - time.monotonic()))
                news = self._events[num_seen:]
            self._check()
            for event in news:
                if event.kind == "message":
                    on_message(event.value)
                if event.is_terminal:
                    return
            num_seen += len(news)
            if not news and time.monotonic() >= end:
                raise LimitExceeded.of("wall_limit", f"{self._process.pid} has not ended in time")

    async def follow(self) -> AsyncIterator[Event]:
        num_seen = 0
        while True:
            news = self.events[num_seen:]
            num_seen += len(news)
            for event in news:
                yield event
                if event.is_terminal:
                    return
            self._check()
            if not news:
                await asyncio.sleep(LOOK_S)

    async def _listen(self) -> None:
        try:
            async for event, value in self._process:
                with self._news:
                    self._events.append(Event(event.value, value))
                    self._news.notify_all()
        except BaseException as error:
            with self._news:
                self._failure = error
                self._news.notify_all()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


async def _forget(client: PieClient) -> None:
    """What another test has saved and set."""
    for context in await client.contexts():
        await client.remove_context(context.name, model=context.model)
    for secret in await client.secrets():
        await client.remove_secret(secret.name)
