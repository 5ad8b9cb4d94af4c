"""What a process has to do with the markets of the cores: credits that it brings, bids, and looks at the prices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pie_engine.errors import Busy, ErrorInfo
from pie_engine.host.futures import Future
from pie_engine.protocol.to_core import Endow, LookAtMarket, OpenProcess, PauseProcess, ResumeProcess, SetProcessBid
from pie_engine.protocol.to_host import CoreResult, Failed, MarketSeen

if TYPE_CHECKING:
    from pie_engine.host.cores import CoreView
    from pie_engine.host.process import Job, Process


class Wallet:
    """What a process brings to each core that it uses, and what the cores have taken."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._endowment = job.endowment
        self._bid = job.bid
        self._spent: dict[str, int] = {}
        """Micro-credits so far, by the boot id of the core."""

    @property
    def spent(self) -> int:
        """Micro-credits, in all cores."""
        return sum(self._spent.values())

    def charged(self, core: CoreView, spent: int) -> None:
        self._spent[core.boot_id] = spent

    def enter(self, core: CoreView) -> None:
        """The core has to know the process from now on."""
        job = self._job
        is_profiled = "profile" in job.trace
        core.open(
            OpenProcess(job.pid, job.program.name, job.user, is_profiled, self._endowment, job.priority, self._bid)
        )

    def endow(self, endowment: int, cores: Iterable[CoreView]) -> None:
        """See `EndowProcess`."""
        amount = endowment - self._endowment
        if amount > 0:
            self._endowment = endowment
            self._tell(cores, Endow(self._job.pid, amount))

    def set_bid(self, bid: int | None, cores: Iterable[CoreView]) -> None:
        """See `BidForProcess`."""
        if bid != self._bid:
            self._bid = bid
            self._tell(cores, SetProcessBid(self._job.pid, bid))

    def stand_still(self, is_paused: bool, cores: Iterable[CoreView]) -> None:
        """The process is paused, or goes on."""
        pid = self._job.pid
        self._tell(cores, PauseProcess(pid) if is_paused else ResumeProcess(pid))

    def _tell(self, cores: Iterable[CoreView], message: Endow | SetProcessBid | PauseProcess | ResumeProcess) -> None:
        for core in cores:
            if core.is_open(self._job.pid):
                core.send(message)


class MarketLook(Future):
    """Answered once by a core."""

    kind = "a look at the market"

    def __init__(self, process: Process, core: CoreView) -> None:
        super().__init__(process.next_id())
        self.process, self.core = process, core
        self._seen: MarketSeen | None = None
        self._error: ErrorInfo | None = None
        core.operations[self.handle] = self
        core.send(LookAtMarket(self.handle, process.pid))

    def receive(self, result: CoreResult) -> None:
        if isinstance(result, Failed):
            self._error = result.error
        else:
            assert isinstance(result, MarketSeen)
            self._seen = result
            self.process.wallet.charged(self.core, result.endowment - result.balance)
        self.forget()
        self.process.notify(self.handle)

    def forget(self) -> None:
        self.core.operations.pop(self.handle, None)

    def take(self) -> MarketSeen:
        """What was seen, once. Raises the error instead."""
        if self._seen is None and self._error is None:
            raise Busy(f"{self.kind} {self.handle} is not done", hint="wait for its future first")
        self.process.futures.remove(self.handle)
        if self._error is not None:
            raise self._error.raised()
        assert self._seen is not None
        return self._seen
