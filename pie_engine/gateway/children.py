"""Programs that programs launch: as a client of the same user would, but in the host of the parent, and never queued.

A parent that waits for a child that waits for a place would hold the place that the child waits for.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from pie_engine.errors import InvalidInput, LimitExceeded, Lost, PieError, info_of
from pie_engine.gateway.hosts import Host, HostPool, lane_of
from pie_engine.gateway.launches import record_of
from pie_engine.gateway.process import Process
from pie_engine.gateway.programs import Programs
from pie_engine.gateway.turn import Turn
from pie_engine.protocol.http import LaunchRequest
from pie_engine.protocol.program import Bundle, is_named
from pie_engine.protocol.to_gateway import LaunchChild
from pie_engine.protocol.to_host import ChildRefused
from pie_engine.store.records import ProcessRecord

if TYPE_CHECKING:
    from pie_engine.gateway.table import ProcessTable

log = logging.getLogger(__name__)


class Children:
    """Answers hosts whose programs ask for children."""

    def __init__(
        self, table: ProcessTable, programs: Programs, hosts: HostPool, turn: Turn, max_input_bytes: int
    ) -> None:
        self._table = table
        self._programs = programs
        self._hosts = hosts
        self._turn = turn
        self._max_input_bytes = max_input_bytes

    def asked(self, host_boot: str, wish: LaunchChild) -> None:
        """Launch it, or say why not."""
        try:
            admission = self._launch(host_boot, wish)
        except Exception as error:
            if not isinstance(error, PieError):
                log.exception("child of %s", wish.parent)
            self._refuse(host_boot, wish, error)
            return
        if admission is not None:
            admission.add_done_callback(lambda done: self._settled(host_boot, wish, done))

    def _settled(self, host_boot: str, wish: LaunchChild, admission: asyncio.Future[Process]) -> None:
        error = admission.exception()
        if error is not None:
            self._refuse(host_boot, wish, error)

    def _refuse(self, host_boot: str, wish: LaunchChild, error: BaseException) -> None:
        self._turn.say(host_boot, ChildRefused(wish.parent, wish.request, info_of(error)))

    def _launch(self, host_boot: str, wish: LaunchChild) -> asyncio.Task[Process] | None:
        """None: there is nobody any more who would want to know."""
        parent, host = self._table.living(wish.parent), self._hosts.get(host_boot)
        if parent is None or host is None or parent.host_boot != host_boot:
            return None
        if len(wish.input) > self._max_input_bytes:
            raise InvalidInput(
                f"the input of a child is {len(wish.input)} characters, and {self._max_input_bytes} are the most",
                hint="send it in parts with `child.send`, or raise `gateway.max_body_mb` in the configuration",
            )
        user, key = parent.record.user, f"child {wish.request} of {wish.parent}"
        known = self._table.launched_before(user, key)
        if known is not None:
            if known.has_terminal:
                raise Lost.of("lost", f"child {known.pid} ended while there was no gateway")
            return None  # a gateway before this one launched it: its host is told of what it does not know
        digest, bundle = self._program_of(parent, wish.program)
        self._check_place(parent, host, wish.program, bundle)
        self._table.check_room(user, bundle.manifest, 0)
        record = self._record(parent, digest, bundle, wish, key)
        return asyncio.ensure_future(self._table.enter(record, bundle, host))

    def _record(self, parent: Process, digest: str, bundle: Bundle, wish: LaunchChild, key: str) -> ProcessRecord:
        request = LaunchRequest(digest, input=msgspec.Raw(wish.input.encode()), idempotency_key=key)
        record = record_of(self._table.new_id(), parent.record.user, digest, bundle.manifest, request)
        return msgspec.structs.replace(record, parent=parent.pid, request=wish.request, inherits=wish.endowment)

    def _program_of(self, parent: Process, reference: str) -> tuple[str, Bundle]:
        own = self._programs.bundle(parent.record.digest)
        if is_named(reference, own.manifest):
            return parent.record.digest, own
        digest = self._programs.resolve(parent.record.user, reference)
        return digest, self._programs.bundle(digest)

    def _check_place(self, parent: Process, host: Host, reference: str, bundle: Bundle) -> None:
        if lane_of(bundle.manifest, parent.record.user) != host.lane:
            kinds = "a standalone component", "a program in source"
            child, of_parent = kinds if bundle.manifest.runtime == "component" else kinds[::-1]
            raise InvalidInput(
                f"`{reference}` is {child}, and its parent `{parent.record.program}` is {of_parent}: they run in "
                "different hosts",
                hint="upload both in source, or both as `pie build` makes them",
            )
        if not self._hosts.has_room(host):
            raise LimitExceeded.of(
                "queue_limit",
                f"the host of `{parent.record.program}` runs {len(host.pids)} processes, and that is the most",
                hint="launch it again when some have ended, or raise `host.max_processes`",
            )
