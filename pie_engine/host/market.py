"""What a process has to do with the markets of the cores: credits that it brings, bids, and looks at the prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pie_engine.errors import Busy, ErrorInfo
from pie_engine.host.futures import Future
from pie_engine.protocol.to_core import Endow, LookAtMarket, OpenProcess, PauseProcess, ResumeProcess, SetProcessBid
from pie_engine.protocol.to_gateway import Settled
from pie_engine.protocol.to_host import Charged, CoreResult, Failed, MarketSeen

if TYPE_CHECKING:
    from pie_engine.host.cores import CoreView
    from pie_engine.host.process import Job, Process


class Wallet:
    """What a process brings to each core that it uses, and what the cores have taken."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._endowment = job.endowment
        """By its owner: of a child, beside what it inherits."""
        self._bid = job.bid
        self.accounts: dict[str, tuple[int, int]] = {}
        """By the boot id of the core: micro-credits that it has taken so far, of those that it was given."""

    @property
    def spent(self) -> int:
        """Micro-credits, in all cores."""
        return sum(spent for spent, _ in self.accounts.values())

    @property
    def endowment(self) -> int:
        """That the cores were given which it has used."""
        return sum(endowment for _, endowment in self.accounts.values())

    def charged(self, core: CoreView, spent: int, endowment: int) -> None:
        self.accounts[core.boot_id] = spent, endowment

    @property
    def most(self) -> int:
        """Micro-credits that it can have been given in a core, less dividends."""
        if self._job.parent is None:
            return self._endowment
        inherited = self._job.parent.wallet.most if self._job.inherits is None else self._job.inherits
        return self._endowment + inherited

    def enter(self, core: CoreView) -> None:
        """The core has to know the process from now on."""
        self.accounts.setdefault(core.boot_id, (0, self._endowment))
        if core.is_open(self._job.pid):
            return
        job, parent = self._job, self._job.parent
        if parent is not None:
            parent.wallet.enter(core)
        core.open(
            OpenProcess(
                job.pid,
                job.program.name,
                job.user,
                is_profiled="profile" in job.trace,
                endowment=self._endowment if parent is None else job.inherits,
                priority=job.priority,
                bid=self._bid,
                parent="" if parent is None else parent.pid,
            )
        )
        if parent is not None and self._endowment:
            core.send(Endow(job.pid, self._endowment))

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


class Settlements:
    """Processes that have ended, until each core that they used has said what they paid in the end.

    Rent falls due after the last operation, too, and the last event does not wait for that.
    """

    def __init__(self, tell: Callable[[Settled], None]) -> None:
        """`tell`: called where it is another sum than the last event said."""
        self._tell = tell
        self._open: dict[str, tuple[Wallet, Settled, set[str]]] = {}
        """By pid: what was told of it, and the boot ids of the cores that are yet to speak."""

    def begin(self, pid: str, wallet: Wallet, cores: Iterable[CoreView]) -> None:
        """`cores`: those that are there."""
        boots = {core.boot_id for core in cores} & wallet.accounts.keys()
        if boots:
            self._open[pid] = wallet, _settled(pid, wallet), boots

    def charged(self, core: CoreView, charged: Charged) -> None:
        """Of a process that has ended."""
        if charged.pid in self._open:
            self._open[charged.pid][0].charged(core, charged.spent, charged.endowment)
            if charged.is_final:
                self._close(charged.pid, core)

    def lost(self, core: CoreView) -> None:
        """It will not speak any more."""
        for pid in list(self._open):
            self._close(pid, core)

    def _close(self, pid: str, core: CoreView) -> None:
        wallet, told, boots = self._open[pid]
        boots.discard(core.boot_id)
        if boots:
            return
        del self._open[pid]
        settled = _settled(pid, wallet)
        if settled != told:
            self._tell(settled)


def _settled(pid: str, wallet: Wallet) -> Settled:
    return Settled(pid, wallet.spent, wallet.endowment)


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
            self.process.wallet.charged(self.core, result.endowment - result.balance, result.endowment)
        self.forget()
        self.process.notify(self.handle)

    @property
    def is_at_core(self) -> bool:
        return self.handle in self.core.operations

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
