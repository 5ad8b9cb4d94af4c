"""The sandbox side: asyncio over the one call that waits. Runs inside the component, never on the host."""

import asyncio
import json
import traceback
import types
from asyncio import base_events

import wit_world
from wit_world.imports import core

CANCELLED = 0


class HostSelector:
    """The part of a selector that BaseEventLoop uses: `select` waits on the host."""

    def __init__(self) -> None:
        self.futures: dict[int, asyncio.Future] = {}

    def select(self, timeout):
        timeout_ms = None if timeout is None else max(0, int(timeout * 1000 + 0.999))
        return core.wait_any(list(self.futures), timeout_ms)

    def close(self) -> None:
        self.futures.clear()


class HostLoop(base_events.BaseEventLoop):
    main_task: asyncio.Task | None = None

    def __init__(self) -> None:
        super().__init__()
        self._selector = HostSelector()

    def _process_events(self, handles) -> None:
        for handle in handles:
            if handle == CANCELLED:
                self.main_task.cancel()
            elif (future := self._selector.futures.pop(handle, None)) and not future.done():
                future.set_result(None)

    def _write_to_self(self) -> None:
        """Only threads need to wake a loop from outside; there are none here."""

    def watch(self, handle: int) -> asyncio.Future:
        future = self.create_future()
        self._selector.futures[handle] = future
        future.add_done_callback(lambda _: self._selector.futures.pop(handle, None))
        return future


async def ask(request: str) -> str:
    """One controlled token: submit, wait, take."""
    handle = core.submit(request)
    await asyncio.get_running_loop().watch(handle)
    return core.take(handle)


async def run_main(main):
    loop = asyncio.get_running_loop()
    loop.main_task = asyncio.current_task()
    return await main()


class WitWorld(wit_world.WitWorld):
    def run(self, source: str) -> str:
        module = types.ModuleType("program")
        module.ask = ask
        try:
            exec(compile(source, "program.py", "exec"), module.__dict__)
            with asyncio.Runner(loop_factory=HostLoop) as runner:
                return json.dumps({"result": runner.run(run_main(module.main))})
        except BaseException as error:
            return json.dumps({"error": type(error).__name__, "traceback": traceback.format_exc()})
