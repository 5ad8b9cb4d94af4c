"""The guests of a host: where each process gets its own, and where they go when it has ended."""

from __future__ import annotations

from pie_engine.host.components import ComponentRunners, fitting
from pie_engine.host.native import NativeFunctions, NativeGuest
from pie_engine.host.process import Process
from pie_engine.host.recorded import RecordedRunners
from pie_engine.host.runner import Guest
from pie_engine.host.warm import WarmGuests
from pie_engine.ipc.memory import give_memory_back

CROWD = 50


class Guests:
    """Warm ones of the shared runtime, those of standalone components, recorded ones, and programs outside."""

    def __init__(
        self, warm: WarmGuests, components: ComponentRunners, recorded: RecordedRunners, native: NativeFunctions
    ) -> None:
        self._warm = warm
        self._components = components
        self._recorded = recorded
        self._native = native
        self._outside: dict[int, tuple[Process, NativeGuest]] = {}
        """Processes that run outside of the sandbox, by their sockets."""
        self._dead: list[Guest] = []
        self._num_buried = 0

    # Coming.

    def find(self, process: Process) -> Guest | None:
        """One for a process that has none yet; None while its component is being compiled."""
        program = process.program
        if process.job.native:
            outside = NativeGuest(self._native, process.job.native)
            self._outside[outside.fileno()] = process, outside
            return outside
        if not (program.is_component or process.is_recorded):
            return self._warm.take(program)
        runner = self._recorded.find(program) if process.is_recorded else self._components.find(program)
        if runner is None:
            return None
        with fitting():
            return self._warm.of(runner, program)

    @property
    def num_warm(self) -> int:
        return len(self._warm)

    @property
    def is_warm(self) -> bool:
        """Whether there are as many ahead of need as there should be."""
        return self._warm.is_full

    def warm_up(self) -> None:
        """One step towards that, of some milliseconds."""
        self._warm.work()

    @property
    def runtime_build(self) -> str:
        """Of the shared runtime that guests to be recorded run in."""
        return self._recorded.runtime_build

    # Outside of the sandbox.

    @property
    def sockets(self) -> dict[int, bool]:
        """Of programs that run in a Python of their own; whether one is to be told when more can be sent there."""
        return {number: guest.has_unsent for number, (_, guest) in self._outside.items()}

    def look_outside(self, socket: int) -> Process | None:
        """Something may have come there, or may be sent. Whose guest has something to do now, if anybody's."""
        found = self._outside.get(socket)
        return found[0] if found is not None and found[1].exchange() else None

    # Going.

    def leave(self, guest: Guest) -> None:
        """Its process has ended; it is to be buried."""
        self._dead.append(guest)
        if isinstance(guest, NativeGuest):
            del self._outside[guest.fileno()]

    def bury(self) -> None:
        """Free those that have ended. Best when their last words are on the way, since it takes a millisecond."""
        while self._dead:
            self._dead.pop().close()
            self._num_buried += 1

    def tidy_up(self) -> None:
        """While nobody is here: after a crowd has left, its memory goes back."""
        if self._num_buried >= CROWD:
            self._num_buried = 0
            give_memory_back()

    def close(self) -> None:
        self.bury()
        self._warm.close()
        self._components.close()
        self._recorded.close()
