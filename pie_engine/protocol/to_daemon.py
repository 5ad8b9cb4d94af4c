"""Messages between the daemon and its children, both ways, and what a child gets at birth."""

from __future__ import annotations

from typing import Literal

import msgspec

from pie_engine.errors import ErrorInfo

Role = Literal["gateway", "host", "core"]


class Birth(msgspec.Struct, frozen=True):
    """The one line of JSON on a child's standard input. End of file there means that the daemon is gone."""

    role: Role
    name: str
    """`gateway`, `host-0`, or the model's name for a core."""
    boot_id: str
    address: str
    """The ZeroMQ endpoint that the child binds."""
    daemon_address: str
    config: dict[str, object]
    """`EngineConfig` as builtins."""
    user: str = ""
    """A host: whose standalone components it runs, and nothing else. Empty: it runs the Python programs of all."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what daemon and children tell each other."""


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One child as the others see it."""

    role: Role
    name: str
    boot_id: str
    address: str
    is_ready: bool
    os_pid: int
    detail: dict[str, object] = {}
    """A core: its capabilities and model folder. While starting: `progress`."""
    user: str = ""
    """As in `Birth`."""


# From a child.


class Ready(Message, frozen=True):
    detail: dict[str, object] = {}


class Progress(Message, frozen=True):
    """What a starting child is doing; shown to who waits."""

    text: str
    fraction: float | None = None


class StartFailed(Message, frozen=True):
    """The child cannot start, for a reason that starting it again will not change; it exits after this."""

    error: ErrorInfo


class StopDaemon(Message, frozen=True):
    """From the gateway: end the daemon. With `drain`, when no process runs any more."""

    drain: bool = False


class NeedHost(Message, frozen=True):
    """From the gateway: there shall be a host for the standalone components of this user. Again: nothing."""

    user: str


# From the daemon.


class Topology(Message, frozen=True):
    """All children, sent to each of them on every change. A member that is gone, or has another boot id, is dead."""

    members: list[Member]
    incidents: list[str] = []
    """Last deaths, newest last, for people."""
    blocked: list[str] = []
    """Boot ids of hosts that have given up lately, since a program held them where nothing can interrupt it."""


class Shutdown(Message, frozen=True):
    """End in an orderly way within `grace_s`."""

    grace_s: float


DaemonMessage = Ready | Progress | StartFailed | StopDaemon | NeedHost
ChildMessage = Topology | Shutdown
