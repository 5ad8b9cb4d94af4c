"""A host as a child of the daemon: `python -m pie_engine.host`."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time

from pie_engine.errors import Lost
from pie_engine.host.host import Host
from pie_engine.host.links import Links
from pie_engine.host.make import make_host
from pie_engine.ipc.child import EXIT_BLOCKED, Child, be_born
from pie_engine.ipc.memory import resident_bytes
from pie_engine.protocol.to_daemon import Shutdown, Topology
from pie_engine.protocol.to_gateway import HostStats

log = logging.getLogger(__name__)

SLICE_S = 0.005
"""Guests run no longer than this (and the rest of the last one's turn) before the sockets are looked at again. Long
enough for all programs of a batch: what they say then goes out as one frame and becomes one commit."""
STATS_EVERY_S = 0.5
QUIET_S = 0.003
"""After so long without anything to do, guests are made ahead of need: whatever arrives meanwhile waits for that."""
QUIET_AT_WORK_S = 0.050
"""The same while a core works for a program here, which should not wait for its tokens."""


class HostProcess:
    """The main loop: sockets, guests, and in quiet moments the next guests."""

    def __init__(self, child: Child, host: Host) -> None:
        self._host = host
        self._links = Links(child, host)
        self._stats_at = 0.0
        self._is_stopping = False

    def run(self) -> None:
        """Until the daemon says to end."""
        while not self._is_stopping:
            if not self._links.wait(self._seconds_to_wait()) and self._is_quiet:
                self._host.guests.warm_up()
            self._links.receive()
            self._host.run(SLICE_S)
            self._links.send()
            self._host.guests.bury()
            self._listen_to_daemon()
            self._report()

    def close(self) -> None:
        """Nothing that runs here goes on; whoever waits for it is told."""
        self._host.end_all(Lost.of("daemon_stopped", "the daemon was stopped").info)
        self._links.send()
        self._links.close()
        self._host.close()

    def _seconds_to_wait(self) -> float:
        """Until something is to be done even if nothing arrives."""
        until_stats = max(0.0, self._stats_at - time.monotonic())
        seconds = until_stats if self._host.seconds_left is None else min(self._host.seconds_left, until_stats)
        if self._host.guests.is_warm:
            return seconds
        return min(seconds, QUIET_AT_WORK_S if self._host.cores.are_at_work else QUIET_S)

    @property
    def _is_quiet(self) -> bool:
        """Nothing has arrived, nothing is due, and there is use for the time."""
        return not self._host.guests.is_warm and self._host.seconds_left != 0.0

    def _listen_to_daemon(self) -> None:
        for message in self._links.receive_from_daemon():
            if isinstance(message, Topology):
                self._links.follow(message)
            elif isinstance(message, Shutdown):
                self._is_stopping = True

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self._stats_at:
            self._stats_at = now + STATS_EVERY_S
            num_running, num_warm = len(self._host.processes), self._host.guests.num_warm
            memory, activities = resident_bytes(), self._host.take_activities()
            self._links.report(HostStats(num_running, num_warm, time.process_time(), memory, activities))
            self._host.tidy_up()


def _give_up(pid: str, seconds: float) -> None:
    """A guest waits where nobody can wake or end it. The daemon starts a new host; the gateway tells who was here."""
    log.critical("process %s has blocked this host for %g s; it gives up", pid, seconds)
    os._exit(EXIT_BLOCKED)


def main() -> int:
    """Live as a host; the exit status is 0 after an orderly end."""
    child = be_born()
    try:
        host, ticker = make_host(child.config, child.progress, _give_up, only_components=bool(child.birth.user))
        while not host.guests.is_warm:
            host.guests.warm_up()
        process = HostProcess(child, host)
    except Exception as error:
        log.exception("cannot start")
        child.fail_start(error)
        raise  # not reached
    # What is there now stays for good; the collector need not look at it again.
    gc.freeze()
    child.ready()
    process.run()
    process.close()
    ticker.close()
    child.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
