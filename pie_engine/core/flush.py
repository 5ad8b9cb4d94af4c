"""`flush`: compute the KV of everything that was appended."""

from __future__ import annotations

from pie_engine.core.operation import Operation
from pie_engine.driver.base import RowResult
from pie_engine.errors import Cancelled
from pie_engine.protocol.to_host import Flushed


class FlushOperation(Operation):
    """Over when nothing is uncomputed."""

    kind = "flush"
    __slots__ = ()

    def begin(self) -> None:
        self.has_begun = True
        self.check_context()
        if not self.kv.num_uncomputed:
            self._finish()

    def settle(self, result: RowResult, now: float) -> None:
        self._finish()

    def stop(self, keep: int) -> None:
        self.fail(Cancelled("the flush was called off").info)

    def _finish(self) -> None:
        self.is_over = True
        self.context.process.host.send(Flushed(self.op))
