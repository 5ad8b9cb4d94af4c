"""`pie repl`: a prompt at which a context is alive. What is awaitable need not be awaited: showing it does that."""

from __future__ import annotations

import ast
import asyncio
import code
import contextlib
import inspect
import json
import math
import signal
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

import inferlet
from inferlet import Context, PieError, Stream, _transport
from inferlet._loop import HostLoop
from inferlet._native.host import is_sdk
from inferlet._native.terminal import Terminal, last_of

BANNER = """\
{model}: {page} tokens a page, {context} tokens of context. Python {python}; Ctrl-C interrupts, Ctrl-D leaves.
ctx is a Context; try: ctx.user("Hello!")  ctx.generate(max_tokens=40)  top()  tokens()  fork = ctx.fork()"""
MAX_HISTORY = 1000


class Helpers:
    """What the prompt has besides all that inferlets import."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    async def top(self, k: int = 10, ctx: Context | None = None) -> Table:
        """The `k` likeliest next tokens. The context stays as it is."""
        with self._context(ctx).fork() as look:
            seen = await look.forward(top_k=k)
            decode = look.model.tokenizer.decode
            rows = [(f"{math.exp(each):7.2%}", str(token), repr(decode([token]))) for token, each in seen.top]
        return Table(("p", "id", "text"), rows)

    def tokens(self, first: int = 0, end: int | None = None, ctx: Context | None = None) -> Table:
        """The tokens of the context, or those from `first` up to `end`; a negative `first` counts from the end."""
        context = self._context(ctx)
        ids = context.tokens
        numbers = range(len(ids))[first:end]
        decode = context.model.tokenizer.decode
        return Table(("place", "id", "text"), [(str(n), str(ids[n]), repr(decode([ids[n]]))) for n in numbers])

    def _context(self, given: Context | None) -> Context:
        context = self._names["ctx"] if given is None else given
        if not isinstance(context, Context):
            raise TypeError(f"`ctx` is of type {type(context).__name__}, not a Context")
        return context


class Table:
    """Rows that a prompt shows in columns."""

    def __init__(self, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        self.rows = rows
        self._header = header

    def __repr__(self) -> str:
        lines = [self._header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self._header) - 1)]
        return "\n".join(
            "  ".join([*(cell.rjust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
            for line in lines
        )


class Console(code.InteractiveConsole):
    """Python's own, with `await` at the top and the loop of inferlets."""

    def __init__(self, loop: HostLoop, names: dict[str, Any]) -> None:
        super().__init__(names)
        self._loop = loop
        self._shown: list[Any] = []
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def runcode(self, code: types.CodeType) -> None:
        task = self._loop.create_task(self._run(code))
        before = signal.signal(signal.SIGINT, _transport.host.on_ctrl_c)
        try:
            self._loop.run_until_complete(task)
        except SystemExit:
            raise
        except KeyboardInterrupt:
            task.cancel()
            with contextlib.suppress(BaseException):
                self._loop.run_until_complete(task)
            self.write("\nKeyboardInterrupt\n")
        except BaseException as error:
            self._show_error(error)
        finally:
            signal.signal(signal.SIGINT, before)

    async def _run(self, code: types.CodeType) -> None:
        hook, sys.displayhook = sys.displayhook, self._shown.append
        try:
            result = types.FunctionType(code, self.locals)()  # type: ignore[arg-type]
            if inspect.iscoroutine(result):
                await result
        finally:
            sys.displayhook = hook
            shown, self._shown[:] = list(self._shown), []
        for value in shown:
            await self._show(value)

    def _show_error(self, error: BaseException) -> None:
        """Without the frames between the loop and what was typed, and those of the SDK below."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != self.filename:
            trace = trace.tb_next
        if trace is not None:
            trace = last_of(trace, lambda file: not is_sdk(file))
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
        self.write("".join(traceback.format_exception(type(error), error, trace)))
        if isinstance(error, PieError) and error.hint:
            self.write(f"hint: {error.hint}\n")

    async def _show(self, value: Any) -> None:
        if isinstance(value, Stream):
            try:
                async for chunk in value:
                    print(chunk.text, end="", flush=True)  # noqa: T201
            finally:
                if not value.is_finished:
                    await value.stop()
                print()  # noqa: T201
            self.locals["_"] = value  # type: ignore[index]
            return
        if inspect.isawaitable(value):
            value = await value
        sys.displayhook(value)


def run(loop: HostLoop, terminal: Terminal, *, model: str, history: str) -> tuple[bool, str]:
    """Until the user leaves. Everything that was made here ends with the process."""
    names: dict[str, Any] = {name: getattr(inferlet, name) for name in inferlet.__all__}
    helpers = Helpers(names)
    names |= {"__name__": "__console__", "asyncio": asyncio, "top": helpers.top, "tokens": helpers.tokens}
    try:
        names["ctx"] = context = Context(model or None)
    except PieError as error:
        return False, json.dumps({"code": error.code, "message": error.message, "hint": error.hint})
    with terminal.own(), _readline(names, history), contextlib.suppress(SystemExit):
        console = Console(loop, names)
        _transport.host.owns = lambda file: file == console.filename
        console.interact(_banner(context), exitmsg="")
    return True, "null"


def _banner(context: Context) -> str:
    info = context.model.info
    python = ".".join(map(str, sys.version_info[:2]))
    return BANNER.format(model=info.name, page=info.page_size, context=info.max_context_tokens, python=python)


@contextlib.contextmanager
def _readline(names: dict[str, Any], history: str) -> Iterator[None]:
    """Lines of the last time, and completion. Some Pythons have no readline."""
    try:
        import readline
        import rlcompleter
    except ImportError:
        yield
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    with contextlib.suppress(OSError):
        readline.read_history_file(history)

    yield
    with contextlib.suppress(OSError):
        readline.set_history_length(MAX_HISTORY)
        readline.write_history_file(history)
