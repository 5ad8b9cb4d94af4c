"""The engine within pytest's own process: `--pie-engine=embedded`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from pie_engine.config import HostSection
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.embedded import Embedded, EmbeddedProcess
from pie_engine.errors import ErrorInfo
from pie_engine.host.process import Process
from pie_engine.protocol.to_gateway import TRACE_KIND
from pie_engine.protocol.to_gateway import Event as HostEvent
from pie_testing.engines import Models, OnMessage, Order, Took
from pie_testing.fake import NAME, FakeModel
from pie_testing.result import Event
from pie_testing.watch import Watch

HOST = HostSection(warm_instances=1, cancel_grace_s=0.5)


class EmbeddedEngine:
    """Implements `engines.Engine`."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        """`progress` is told of what takes long, once each."""
        self._said = ""
        self._progress = progress
        self.engine = Embedded(HOST, progress=self._tell)
        self._fake: FakeModel | None = None
        self._script = FakeScript()

    def launch(self, order: Order) -> EmbeddedLaunched:
        self._load(order.models)
        watches: list[Watch] = []

        def watch(process: Process) -> Watch:
            watches.append(Watch(process))
            return watches[0]

        for program in order.programs:
            self.engine.publish(program, user=order.user)
        process = self.engine.launch(
            order.bundle,
            order.arguments,
            user=order.user,
            secrets=order.secrets,
            watch=watch,
            seed=order.number,
            endowment=order.endowment,
        )
        return EmbeddedLaunched(process, watches[0] if watches else None)

    def close(self) -> None:
        self.engine.close()

    def _tell(self, text: str, fraction: float | None) -> None:
        if text != self._said:
            self._said = text
            self._progress(text)

    def _load(self, models: Models) -> None:
        """What the test wants, as the only model; one that is there already stays."""
        if not models.path:
            self._load_fake(models.fake)
            return
        label = models.section.label
        for name in self.engine.models:
            if name != label:
                self.engine.unload(name)
        if label not in self.engine.models:
            self.engine.load(models.section)

    def _load_fake(self, fake: FakeModel) -> None:
        script = fake.script
        if self._fake is fake and self.engine.models == [NAME] and _differ_in_replies_only(self._script, script):
            driver = self.engine.driver(NAME)
            assert isinstance(driver, FakeDriver)
            for reply in script.replies[len(self._script.replies) :]:
                driver.replies.add(reply)
        else:
            for name in self.engine.models:
                self.engine.unload(name)
            self.engine.load(fake.section, script)
        self._fake, self._script = fake, script


class EmbeddedLaunched:
    """Implements `engines.Launched`."""

    def __init__(self, process: EmbeddedProcess, watch: Watch | None) -> None:
        self._process = process
        self._watch = watch

    @property
    def events(self) -> list[Event]:
        return [_event(event) for event in self._process.events if event.kind != TRACE_KIND]

    @property
    def took(self) -> Took:
        process = self._process
        seen = self._watch.seen if self._watch is not None else None
        return Took(process.usage, process.num_passes, process.num_pages, seen)

    def send(self, value: Any) -> None:
        self._process.send(value)

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout_s: float, on_message: OnMessage) -> None:
        end, num_seen = time.monotonic() + timeout_s, 0
        while True:
            events = self._process.events
            while num_seen < len(events):
                num_seen += 1
                if events[num_seen - 1].kind == "message":
                    on_message(msgspec.json.decode(events[num_seen - 1].data))
            if self._process.has_ended:
                return
            self._process.work(end)

    async def follow(self) -> AsyncIterator[Event]:
        async for event in self._process.follow():
            if event.kind != TRACE_KIND:
                yield _event(event)


def _event(event: HostEvent) -> Event:
    if event.kind == "error":
        return Event("error", msgspec.json.decode(event.data, type=ErrorInfo))
    return Event(event.kind, msgspec.json.decode(event.data))


def _differ_in_replies_only(before: FakeScript, now: FakeScript) -> bool:
    num_before = len(before.replies)
    is_longer = now.replies[:num_before] == before.replies
    return is_longer and msgspec.structs.replace(now, replies=()) == msgspec.structs.replace(before, replies=())
