"""The fixtures `run` and `start`: programs from launch to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pie_client.errors import explained
from pie_engine.errors import InvalidInput, LimitExceeded, PieError
from pie_engine.protocol.program import Bundle
from pie_testing.built import Builds
from pie_testing.engines import Engine, Launched, Models, Order
from pie_testing.programs import Program, bundle_of, is_source, with_manifest
from pie_testing.result import Event, Result

TIMEOUT_S = 60.0
END_S = 5.0
"""How long a program that a test leaves behind may take to end."""

Answer = Callable[[Any], Any]
"""From a message of the program to what its client answers; None: nothing."""


class Programs:
    """What the programs of one test share."""

    def __init__(self, engine: Engine, models: Models, here: Path, user: str, builds: Builds | None = None) -> None:
        """here: the folder of the test. builds: where programs run as components."""
        self.results: list[Result] = []
        """Of all programs, in the order in which they ended."""
        self._engine = engine
        self._models = models
        self._here = here
        self._user = user
        self._builds = builds
        self._num_launched = 0
        self._alive: list[tuple[str, Launched]] = []

    def launch(
        self,
        program: Program,
        input: Mapping[str, Any],
        secrets: Mapping[str, str] | None,
        endowment: float | None,
        programs: Mapping[str, Program] | None,
    ) -> tuple[str, Launched]:
        programs = programs or {}
        bundle = self._bundle(program)
        if is_source(program):  # it has no pie.toml that could name them
            bundle = with_manifest(bundle, launches=tuple(programs))
        others = tuple(with_manifest(self._bundle(other), name=name) for name, other in programs.items())
        order = Order(bundle, input, self._models, self._user, secrets or {}, self._num_launched, endowment, others)
        self._num_launched += 1
        launched = self._engine.launch(order)
        self._alive.append((bundle.manifest.name, launched))
        return bundle.manifest.name, launched

    def _bundle(self, program: Program) -> Bundle:
        bundle = bundle_of(program, self._here)
        return bundle if self._builds is None or is_source(program) else self._builds.component_of(bundle)

    def finish(self, name: str, launched: Launched) -> Result:
        """It has ended, or is not followed any more."""
        took = launched.took
        result = Result(name, launched.events, took.usage, took.num_passes, took.num_pages, took.seen)
        self._alive = [(other, each) for other, each in self._alive if each is not launched]
        self.results.append(result)
        return result

    def end(self) -> None:
        """End what the test has left running."""
        for name, launched in list(self._alive):
            if not any(event.is_terminal for event in launched.events):
                launched.terminate()
                _wait(launched, END_S)
            self.finish(name, launched)


class Run:
    """`run(main, prompt="Hi")`: a program from launch to end."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def __call__(
        self,
        program: Program = None,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        inbox: Iterable[Any] = (),
        answer: Answer | None = None,
        secrets: Mapping[str, str] | None = None,
        endowment: float | None = None,
        programs: Mapping[str, Program] | None = None,
        timeout_s: float = TIMEOUT_S,
        **arguments: Any,
    ) -> Result:
        """Run a program and return what it did.

        program: its folder or file, counted from the test's own folder; its `main`; its source, if it has several
            lines. None: the program that the test belongs to.
        input: arguments of `main`, for those that are called as a parameter here is.
        inbox: what its client sends; None last, as `pie run` does at the end of its input.
        answer: called with each message of the program; what it returns is sent to the program, unless it is None.
        secrets: values of those that its pie.toml names.
        endowment: its credits, if not the 1000 that all get.
        programs: what it may launch as its children, by name, each as `program`. A program of which the test holds the
            source may launch all of them; others name them in their pie.toml.
        arguments: of `main`.

        Raises the error that the program ends with: `PieError` or a subclass, with the program's own `traceback`, and
        the `Result` as `result`. `InvalidInput` when it waits for a message that nobody sends, `LimitExceeded` after
        `timeout_s`.
        """
        __tracebackhide__ = True
        given = {**(input or {}), **arguments}
        name, launched = self._programs.launch(program, given, secrets, endowment, programs)
        for message in inbox:
            launched.send(message)

        def on_message(message: Any) -> None:
            said = answer(message) if answer is not None else None
            if said is not None:
                launched.send(said)

        try:
            launched.wait(timeout_s, on_message)
        except (LimitExceeded, InvalidInput) as error:
            launched.terminate()
            _wait(launched, END_S)
            raise _with(error, self._programs.finish(name, launched)) from None
        result = self._programs.finish(name, launched)
        if result.error is not None:
            raise _with(result.error.raised(), result)
        return result


class Start:
    """`async with start(main, prompt="Hi") as process`: a program while it runs."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def __call__(
        self,
        program: Program = None,
        input: Mapping[str, Any] | None = None,
        /,
        *,
        secrets: Mapping[str, str] | None = None,
        endowment: float | None = None,
        programs: Mapping[str, Program] | None = None,
        **arguments: Any,
    ) -> Running:
        """Arguments as those of `run`. The program runs while the test awaits something of it."""
        __tracebackhide__ = True
        given = {**(input or {}), **arguments}
        name, launched = self._programs.launch(program, given, secrets, endowment, programs)
        return Running(self._programs, name, launched)


class Running:
    """A program that runs: events out, messages in. An asynchronous context manager and iterator of events."""

    def __init__(self, programs: Programs, name: str, launched: Launched) -> None:
        self._programs = programs
        self._name = name
        self._launched = launched
        self._following = launched.follow()
        self._result: Result | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._following

    async def recv(self) -> Event:
        """The next event. Raises `StopAsyncIteration` behind the last one."""
        return await anext(self._following)

    async def messages(self) -> AsyncIterator[Any]:
        """What it sends, as it comes; other events are passed over."""
        async for event in self._following:
            if event.kind == "message":
                yield event.value

    async def send(self, value: Any) -> None:
        """A message to it."""
        self._launched.send(value)

    async def terminate(self) -> None:
        """Ask it to end."""
        self._launched.terminate()

    async def result(self) -> Result:
        """What it did, when it has ended. Raises what it ends with, as `run` does."""
        __tracebackhide__ = True
        async for _ in self._following:
            pass
        if self._result is None:
            self._result = self._programs.finish(self._name, self._launched)
        if self._result.error is not None:
            raise _with(self._result.error.raised(), self._result)
        return self._result

    async def __aenter__(self) -> Running:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._result is None and not any(event.is_terminal for event in self._launched.events):
            self._launched.terminate()
            async for _ in self._following:
                pass


def _wait(launched: Launched, timeout_s: float) -> None:
    """For the end of a program that has been told to end; what does not is left behind."""
    try:
        launched.wait(timeout_s, lambda message: None)
    except (LimitExceeded, InvalidInput):
        return


def _with(error: PieError, result: Result) -> PieError:
    error.result = result  # type: ignore[attr-defined]
    return explained(error)
