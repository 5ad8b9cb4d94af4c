"""Runs small programs against a fake host: while the runtime is built, and again in an instance that is kept ready.

The instance then holds what a first run would otherwise pay for: specialised bytecode, caches of types, regular
expressions and encoders, and its own copy of the memory that every run writes to. Nothing else of these programs stays.
"""

from __future__ import annotations

import json
import linecache
import sys
from collections.abc import Callable

from inferlet import _transport
from inferlet._runtime.importer import BundleImporter
from inferlet.testing import FakeHost

NUM_ROUNDS = 24
"""Python specialises a function's bytecode within about this many calls."""
_MAIN = '''
import asyncio
from dataclasses import dataclass
from inferlet import Context, Sampler, runtime, session
from part import double

@dataclass
class Options:
    """Nested input."""
    depth: int = 1

async def child(n: int) -> int:
    await asyncio.sleep(0)
    return double(n)

async def main(prompt: str, max_tokens: int = 8, options: Options | None = None) -> dict:
    """Warm up."""
    with Context() as ctx:
        ctx.system("Be brief.")
        ctx.user(prompt)
        async for chunk in ctx.generate(Sampler.top_p(0.9, temperature=0.7), max_tokens=max_tokens):
            session.send(chunk.text)
        fork = ctx.fork()
        fork.user("More.")
        text = await fork.generate(logprobs=True).text()
        out = await fork.forward([104], Sampler.greedy(), top_k=2)
        fork.release()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child(n)) for n in range(3)]
    numbers = await asyncio.gather(*(child(n) for n in range(3)))
    try:
        async with asyncio.timeout(0.0001):
            await asyncio.sleep(1)
    except TimeoutError:
        print("done", len(text), out.token, runtime.process_id)
    await asyncio.sleep(0.0001)
    return {"text": ctx.last_text, "numbers": numbers, "tasks": [task.result() for task in tasks]}
'''
_SMALL = """
from inferlet import Context, session

async def main(prompt: str, options: dict) -> str:
    ctx = Context()
    ctx.user(prompt)
    async for chunk in ctx.generate():
        session.send(chunk.text)
    return ctx.last_text
"""
_PART = "def double(n):\n    return 2 * n\n\ndef missing(n):\n    return {}[n]\n"
_BAD = (
    "import part\n\nasync def main(n: int) -> int:\n    return part.missing(n)\n",
    "async def main(:\n",
    "import numpy\n",
    "def main(): ...",
)
_ARGUMENTS = json.dumps({"prompt": "Hi", "options": {"depth": 2}})
_REPLIES = ("Hello there", "And more")

Run = Callable[[str, str], tuple[bool, str]]
"""Bundle and arguments, as JSON, to whether it went well and JSON."""


class WarmUp:
    """The programs, with their compiled code once they have run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._bundle = self._compiled(_MAIN)
        self._small = self._compiled(_SMALL)
        self._watched = json.dumps({**json.loads(self._bundle), "watched": True})

    def specialise(self, describe: Callable[[str], object]) -> None:
        """Run good and bad programs as often as it takes Python to specialise the code that runs them.

        Those that are not watched last: what Python has learned of them is what it goes on with.
        """
        for _ in range(NUM_ROUNDS):
            self._run_good(self._watched)
        for _ in range(NUM_ROUNDS):
            self._run_good(self._bundle)
            self.touch()
            with Restored(FakeHost()):
                describe(self._bundle)
        for source in _BAD:
            with Restored(FakeHost()):
                self._run(_bundle_of(source, {}), '{"n": 1}')

    def touch(self) -> None:
        """Run a small program once. It calls nothing of the real host."""
        self._run_good(self._small)

    def _run_good(self, bundle: str) -> FakeHost:
        host = FakeHost(replies=_REPLIES)
        with Restored(host):
            is_ok, result = self._run(bundle, _ARGUMENTS)
        assert is_ok, result
        return host

    def _compiled(self, source: str) -> str:
        return _bundle_of(source, self._run_good(_bundle_of(source, {})).stored_code)


def _bundle_of(source: str, code: dict[str, str]) -> str:
    files = {"main.py": source, "part.py": _PART}
    return json.dumps({"name": "warm", "version": "0", "entry": "main", "files": files, "code": code})


class Restored:
    """Connects a fake host for a while, and afterwards removes what the import of a program left."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    def __enter__(self) -> None:
        self._before = _transport.connect(self._host)
        self._modules = set(sys.modules)

    def __exit__(self, *exc: object) -> None:
        _transport.connect(self._before)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, BundleImporter)]
        for name in sys.modules.keys() - self._modules:
            del sys.modules[name]
        linecache.clearcache()
