"""`save`: compute the KV of everything that was appended, and keep it on the disk under a name."""

from __future__ import annotations

import logging

from pie_engine.core.operation import ModelFacts, Operation
from pie_engine.core.state import Context
from pie_engine.driver.base import RowResult
from pie_engine.errors import Cancelled, ErrorInfo, InvalidInput, Unsupported
from pie_engine.protocol.to_core import Save
from pie_engine.protocol.to_host import Saved, SaveFailed
from pie_engine.store.contexts import check_name

log = logging.getLogger(__name__)

MAX_BEHIND = 4
"""Contexts that may be on their way to the disk for a save to be answered before it is there: each takes memory."""


class SaveOperation(Operation):
    """Over when the manifest is in its place, or need not be. Called off, the name may be written all the same."""

    kind = "save"
    __slots__ = ("_is_writing", "_message", "is_behind")

    def __init__(self, message: Save, context: Context, facts: ModelFacts, arrival: int) -> None:
        super().__init__(message.op, context, facts, arrival)
        self._message = message
        self._is_writing = False
        self.is_behind = False
        """Whether it was answered before it was written."""

    def begin(self) -> None:
        self.has_begun = True
        if self.facts.archive is None:
            raise Unsupported(f"{self.facts.label} keeps no contexts: its core has no data folder")
        check_name(self._message.name)
        self.check_context()
        if not self.kv.num_tokens:
            raise InvalidInput("the context is empty", hint="append at least one token before it is saved")
        if not self.kv.num_uncomputed:
            self._write()

    def settle(self, result: RowResult, now: float) -> None:
        self._write()

    def stop(self, keep: int) -> None:
        self.fail(Cancelled("the save was called off").info)

    @property
    def is_parked(self) -> bool:
        return self._is_writing

    def finish(self, error: ErrorInfo | None) -> None:
        """The file has been written, or could not be."""
        if self.is_behind:
            if error is not None:
                process = self.context.process
                log.warning("saving `%s` of process %s: %s", self._message.name, process.pid, error.message)
                process.host.send(SaveFailed(self.op, process.pid, self._message.name, error))
            return
        if error is not None:
            self.fail(error)
            return
        self._answer()

    def _answer(self) -> None:
        self.is_over = True
        self.context.process.host.send(Saved(self.op))

    def _write(self) -> None:
        archive, message = self.facts.archive, self._message
        assert archive is not None
        archive.save(self, self.context.process.user, message.name, message.meta)
        if not message.durable and archive.num_writing <= MAX_BEHIND:
            self.is_behind = True
            self._answer()
        else:
            self._is_writing = self.awaits_disk = True
