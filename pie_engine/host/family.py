"""The children of a process: asked of the gateway, run in the same host, and heard and ended by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pie_engine.config import HostSection
from pie_engine.errors import Cancelled, ErrorInfo, InvalidInput, LimitExceeded, PieError
from pie_engine.host.events import json_text
from pie_engine.host.futures import Future
from pie_engine.protocol.credits import shown
from pie_engine.protocol.to_gateway import LaunchChild
from pie_engine.protocol.to_host import Launch

if TYPE_CHECKING:
    from pie_engine.host.process import Ending, Process

ChildEventKind = Literal["launched", "message", "returned", "failed"]


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """`runtime.child-event`"""

    kind: ChildEventKind
    value: str


class FamilyServices(Protocol):
    """What a family needs of its host."""

    def next_id(self) -> int: ...

    def ask_for_child(self, wish: LaunchChild) -> None:
        """It goes to the gateway, and to the next one where that has died meanwhile."""

    def ask_to_end(self, process: Process) -> None:
        """As when it is terminated by its owner."""

    def end(self, process: Process, error: ErrorInfo) -> None:
        """Now, whatever it does."""


class Child(Future):
    """A launched program, as its parent has it."""

    kind = "a child"
    is_stream = True

    def __init__(self, family: Family, wish: LaunchChild) -> None:
        super().__init__(wish.request)
        self.wish = wish
        self.process: Process | None = None
        """None: the gateway has not answered yet, or has refused."""
        self.refusal: PieError | None = None
        self.is_over = False
        """All that it has said is here."""
        self._family = family
        self._news: deque[tuple[ChildEvent, int]] = deque()
        """With the number of the child's own event."""

    def launched(self, process: Process) -> None:
        self.process = process
        self._add("launched", process.pid)

    def refuse(self, error: PieError) -> None:
        """There will be no process, or there was none for long."""
        self.refusal, self.is_over = error, True
        self._family.notify(self)

    def said(self, value: str, seq: int) -> None:
        self._add("message", value, seq)

    def ended(self, kind: Literal["returned", "failed"], value: str) -> None:
        self.is_over = True
        self._add(kind, value)

    def take(self) -> ChildEvent | None:
        """The next event. Raises why there will be none. The parent is the client that has seen it then."""
        if not self._news:
            if self.refusal is not None:
                raise self.refusal
            return None
        event, seq = self._news.popleft()
        if seq and self.process is not None:
            self.process.seen(seq)
        return event

    @property
    def has_news(self) -> bool:
        return bool(self._news)

    def forget(self) -> None:
        self._family.let_go(self)

    def _add(self, kind: ChildEventKind, value: str, seq: int = 0) -> None:
        self._news.append((ChildEvent(kind, value), seq))
        self._family.notify(self)


class Family:
    """What a process has to do with its children and its parent."""

    def __init__(self, process: Process, services: FamilyServices, limits: HostSection) -> None:
        self._process = process
        self._services = services
        self._limits = limits
        self._children: dict[int, Child] = {}
        """By the handle, until the program has taken the last of each."""
        self._running: dict[str, Process] = {}

    @property
    def depth(self) -> int:
        """0: its parent is no program."""
        parent = self._process.job.parent
        return 0 if parent is None else parent.family.depth + 1

    # What the program asks for.

    def launch(self, program: str, input: str, endowment: int | None) -> int:
        """The handle of the child. Raises `InvalidInput` and `LimitExceeded`, before anything is asked for."""
        self._check_may_launch(program)
        self._check_room()
        self._check_endowment(endowment)
        wish = LaunchChild(self._process.pid, self._services.next_id(), program, input, endowment)
        child = self._children[wish.request] = Child(self, wish)
        self._process.futures.add(child)
        self._services.ask_for_child(wish)
        return child.handle

    def next_event(self, handle: int) -> ChildEvent | None:
        """Raises what has refused the launch, once."""
        child = self._child(handle)
        try:
            event = child.take()
        except PieError:
            self._drop(child)
            raise
        if child.is_over and not child.has_news:
            self._drop(child)
        return event

    def send(self, handle: int, value: str) -> None:
        process = self._child(handle).process
        if process is not None:
            process.mailbox.post(value)

    def terminate(self, handle: int) -> None:
        process = self._child(handle).process
        if process is not None:
            self._services.ask_to_end(process)

    def let_go(self, child: Child) -> None:
        """Its parent does not want it any more."""
        self._children.pop(child.handle, None)
        if child.process is not None:
            self._services.ask_to_end(child.process)

    def notify(self, child: Child) -> None:
        self._process.notify(child.handle)

    def _child(self, handle: int) -> Child:
        return self._process.futures.get(handle, Child)

    def _drop(self, child: Child) -> None:
        self._process.futures.remove(child.handle)
        self._children.pop(child.handle, None)

    def _check_may_launch(self, program: str) -> None:
        named = self._process.program.manifest.launches
        name = program.partition("@")[0]
        if not {program, name} & set(named):
            message = f"`{self._process.program.name}` may not launch `{program}`"
            listed = ", ".join(f'"{each}"' for each in (*named, name))
            raise InvalidInput(message, hint=f"write `launches = [{listed}]` under `[program]` in pie.toml")

    def _check_room(self) -> None:
        num_alive = sum(not child.is_over for child in self._children.values())
        most = self._limits.max_children
        if num_alive >= most:
            raise LimitExceeded.of(
                "child_limit",
                f"{num_alive} children of `{self._process.program.name}` are running, and {most} is the most",
                hint="await some of their results first, or raise `max_children` under [host] in the configuration",
            )
        if self.depth >= self._limits.max_depth:
            raise LimitExceeded.of(
                "child_limit",
                f"`{self._process.program.name}` is in generation {self.depth} of children, which may launch none",
                hint="let its parent launch it, or raise `max_depth` under [host] in the configuration",
            )

    def _check_endowment(self, endowment: int | None) -> None:
        most = self._process.wallet.most
        if endowment is not None and endowment > most:
            raise InvalidInput(
                f"an endowment of {shown(endowment)} credits is more than the {shown(most)} that its parent was given",
                hint="give it less, or None: an eighth of what its parent has left",
            )

    # What becomes of it.

    @property
    def wishes(self) -> list[LaunchChild]:
        """Those that no gateway has answered."""
        return [child.wish for child in self._children.values() if child.process is None and not child.is_over]

    def awaited(self, request: int) -> Child | None:
        """The child that was asked for, unless it is not wanted any more."""
        child = self._children.get(request)
        return None if child is None or child.process is not None or child.is_over else child

    def born(self, process: Process) -> None:
        """A child of this family has its process."""
        self._running[process.pid] = process
        bond = process.job.bond
        assert bond is not None
        bond.launched(process)

    @property
    def running(self) -> Iterator[Process]:
        """Its children."""
        return iter(list(self._running.values()))

    def end_children(self) -> None:
        """Nobody outlives its parent."""
        name, pid = self._process.program.name, self._process.pid
        message = f"its parent, `{name}` ({pid}), has ended"
        for process in self.running:
            self._services.end(process, Cancelled(message, hint="its parent can await `child.result()`").info)

    # What its parent hears.

    def tell_message(self, value: str) -> None:
        """It has sent one: its last event."""
        bond = self._process.job.bond
        if bond is not None:
            bond.said(self._redacted(value), self._process.events.last_seq)

    def tell_end(self, ending: Ending) -> None:
        parent, bond = self._process.job.parent, self._process.job.bond
        if parent is None or bond is None:
            return
        parent.family._running.pop(self._process.pid, None)
        if isinstance(ending, ErrorInfo):
            bond.ended("failed", self._redacted(json_text(ending)))
        else:
            bond.ended("returned", self._redacted(ending))

    def _redacted(self, text: str) -> str:
        """As in its events: its parent may be recorded."""
        process = self._process
        return process.redact.in_json(text) if process.job.secrets.values else text


def awaited(processes: Mapping[str, Process], parent: str, request: int) -> Child | None:
    """What `parent` has asked for, while it still wants it."""
    process = processes.get(parent)
    return None if process is None else process.family.awaited(request)


def bond_of(processes: Mapping[str, Process], order: Launch) -> Child:
    """Of a child to its parent. Raises `Cancelled` where that one does not wait for it any more."""
    bond = awaited(processes, order.parent, order.request)
    if bond is None:
        raise Cancelled(f"its parent, {order.parent}, has ended, or does not want it any more")
    return bond
