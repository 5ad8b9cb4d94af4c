"""What cores say to a host, and whom it concerns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from pie_engine.errors import ErrorInfo, info_of
from pie_engine.host.cores import CoreView
from pie_engine.host.market import Settlements
from pie_engine.host.process import Process
from pie_engine.protocol.to_host import Charged, CoreAnswer, CoreNews, CoreResult, Profiled, SaveFailed, Waits

log = logging.getLogger(__name__)


class CoreResults:
    """Hands results on to operations, and what is said beside them to processes."""

    def __init__(
        self,
        processes: Mapping[str, Process],
        settlements: Settlements,
        end: Callable[[Process, ErrorInfo], None],
    ) -> None:
        """`end`: ends a process, as its result cannot be taken in."""
        self._processes, self._settlements = processes, settlements
        self._end = end

    def receive(self, core: CoreView, results: Iterable[CoreResult]) -> None:
        """In the order in which they came."""
        for result in results:
            if not isinstance(result, CoreNews):
                self._answer(core, result)
            elif (process := self._processes.get(result.pid)) is not None:
                _tell(process, core, result)
            elif isinstance(result, Charged):  # nothing else concerns one that has ended
                self._settlements.charged(core, result)

    def _answer(self, core: CoreView, result: CoreAnswer) -> None:
        operation = core.operations.get(result.op)
        if operation is None:  # the program has called it off
            return
        try:
            operation.receive(result)
        except Exception as error:
            log.exception("result %.200r", result)
            self._end(operation.process, info_of(error))


def _tell(process: Process, core: CoreView, news: CoreNews) -> None:
    if isinstance(news, Profiled):
        if process.profile is not None:
            process.profile.core(core.model.name, news)
    elif isinstance(news, SaveFailed):
        # The program has its answer: what is left is to log it.
        process.tell("error", f"context `{news.name}` could not be saved: {news.error.message}")
    elif isinstance(news, Waits):
        process.wait_for_pages(core.model.name, news)
    else:
        process.wallet.charged(core, news.spent, news.endowment)
