"""asyncio over the host's one waiting call: the standard `BaseEventLoop` with `futures.wait-any` as its selector."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from asyncio import base_events
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NoReturn, TypeVar

from inferlet import _transport
from inferlet.errors import InvalidInput, NotInSandbox, Unsupported

T = TypeVar("T")

TERMINATION = 0
"""The future by which the host asks the program to end."""
SKIPPED_POLLS = 8
"""While callbacks are ready, the host is asked for news only every so many turns: each call costs microseconds."""


def no_network() -> NotInSandbox:
    """The error of whatever would need a socket."""
    hint = "let the client fetch what is needed and hand it over with `session`"
    return NotInSandbox("a sandbox has no network of its own", hint=hint)


def no_processes() -> NotInSandbox:
    """The error of whatever would start another program."""
    return NotInSandbox("a sandbox cannot start processes", hint="do the work in Python, or let the client do it")


class Deadlock(RuntimeError):
    """Every task waits, and nothing that is under way can wake one of them."""


class Signal:
    """One host future: remembers that it was reported until somebody waits for it."""

    __slots__ = ("_is_set", "_waiter", "handle")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_set(self) -> bool:
        """Reported, and not waited for since."""
        return self._is_set

    @property
    def is_awaited(self) -> bool:
        return self._waiter is not None

    async def wait(self) -> None:
        """Returns once for each time (or several times together) that the host has reported the future."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._is_set = False


class _HostSelector:
    """What `BaseEventLoop` needs of a selector. Its events are the handles of host futures."""

    def __init__(self) -> None:
        self._num_skipped = 0

    def select(self, timeout: float | None) -> Iterable[int]:
        if timeout is not None and timeout <= 0:
            self._num_skipped += 1
            if self._num_skipped < SKIPPED_POLLS:
                return ()
        self._num_skipped = 0
        return wait_any(timeout)

    def close(self) -> None:
        pass


def wait_any(timeout: float | None) -> list[int]:
    """Futures that became ready within `timeout` seconds (None: however long it takes).

    Raises `Deadlock` when nothing could ever become ready.
    """
    if timeout is None or timeout > 0:
        _flush_output()
    microseconds = None if timeout is None else max(0, math.ceil(timeout * 1e6))
    try:
        return _transport.call(_transport.host.futures.wait_any, microseconds)
    except InvalidInput as error:
        raise Deadlock(f"deadlock: {error.message}") from None


def _flush_output() -> None:
    """Text printed without a newline shows before the program waits, as a token stream should."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


class HostLoop(base_events.BaseEventLoop):
    """The event loop of inferlets: all of asyncio but threads, processes and sockets, which a sandbox does not have."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _HostSelector()
        self._signals: dict[int, Signal] = {}
        self._main: asyncio.Task[Any] | None = None
        self.is_terminated = False

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of `main`, which is cancelled (once) when the host asks the program to end.

        Tasks that are left over are cancelled, as `asyncio.run` does.
        """
        self._main = self.create_task(main, name="main")
        try:
            return self.run_until_complete(self._main)
        except Deadlock as deadlock:
            raise Deadlock(f"{deadlock}{_waiting_places(self)}") from None
        finally:
            self._cancel_leftovers()

    @property
    def main(self) -> asyncio.Task[Any] | None:
        """The task of the program's `main`, once it runs."""
        return self._main

    def _cancel_leftovers(self) -> None:
        leftovers = asyncio.all_tasks(self)
        for task in leftovers:
            task.cancel()
        if leftovers:
            with contextlib.suppress(Deadlock):
                self.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
        if self._asyncgens:
            self.run_until_complete(self.shutdown_asyncgens())

    def watch(self, handle: int) -> Signal:
        """The signal of a host future. Every future that the host hands out is watched, or its report is lost."""
        signal = self._signals[handle] = Signal(handle)
        return signal

    def unwatch(self, handle: int) -> None:
        self._signals.pop(handle, None)

    def block(self, seconds: float) -> None:
        """Let the whole program wait, tasks and all. Raises `CancelledError` when it is asked to end meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            self._process_events(wait_any(max(0.0, deadline - time.monotonic())))
            if self.is_terminated:
                self._cancel_here()
            if time.monotonic() >= deadline:
                return

    def _process_events(self, event_list: Iterable[int]) -> None:
        for handle in event_list:
            if handle == TERMINATION:
                self._terminate()
            elif handle in self._signals:
                self._signals[handle].set()

    def _terminate(self) -> None:
        if not self.is_terminated and self._main is not None:
            self._main.cancel()
        self.is_terminated = True

    def _cancel_here(self) -> None:
        """Raise the cancellation now, instead of at the next `await`: blocking code has none."""
        task = asyncio.current_task(self)
        if task is not None and task is self._main:
            task.uncancel()
        raise asyncio.CancelledError("the program was asked to end")

    def _write_to_self(self) -> None:
        """Nothing can wake this loop from another thread: there is none."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> NoReturn:  # type: ignore[override]
        raise Unsupported(
            "a sandbox has no threads, so asyncio.to_thread and run_in_executor do not work here",
            hint="call the function directly, or split long work with `await asyncio.sleep(0)`",
        )

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:  # type: ignore[override]
        raise no_processes()

    subprocess_shell = subprocess_exec  # type: ignore[assignment]

    async def _no_network(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise no_network()

    create_connection = create_server = create_datagram_endpoint = _no_network  # type: ignore[assignment]
    create_unix_connection = create_unix_server = connect_accepted_socket = _no_network  # type: ignore[assignment]
    getaddrinfo = getnameinfo = sock_connect = sock_accept = _no_network  # type: ignore[assignment]


def _waiting_places(loop: asyncio.AbstractEventLoop) -> str:
    """Where each task waits, for the message of a deadlock."""
    places = []
    for task in asyncio.all_tasks(loop):
        for frame in task.get_stack(limit=1):
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
    return f" (waiting: {', '.join(sorted(places))})" if places else ""


def host_loop() -> HostLoop:
    """The running loop, which has to be Pie's own."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, HostLoop):
        raise RuntimeError(
            "this waits for the engine, which only works in Pie's event loop; "
            "outside of an inferlet use `inferlet.testing.run_inferlet`"
        )
    return loop


async def finished(handle: int, take: Callable[[int], T]) -> T:
    """The result of a one-shot host future; when the caller is cancelled the future is forgotten."""
    loop = host_loop()
    signal = loop.watch(handle)
    try:
        await signal.wait()
    except BaseException:
        _transport.call(_transport.host.futures.forget, handle)
        raise
    finally:
        loop.unwatch(handle)
    return _transport.call(take, handle)
