"""What a process is said to do, out of the words of its host and its cores."""

from __future__ import annotations

import pytest

from pie_engine.gateway.activity import activity_of
from pie_engine.gateway.hosts import NOTHING_SAID, HostPool
from pie_engine.gateway.process import Process
from pie_engine.protocol.to_gateway import Activity, HostStats
from pie_engine.store.records import ProcessRecord

NOW = 1000.0
CLIENT = Activity("waiting: client", "to send a message")


def process(host: str | None = "host-boot") -> Process:
    return Process(
        ProcessRecord(
            id=1,
            pid="p1",
            user="ada",
            program="chat",
            version="1.0",
            digest="d",
            input="{}",
            on_disconnect="detach",
            idempotency_key=None,
            host_boot=host,
            host=host,
            is_terminating=False,
            created=990.0,
            ended=None,
            outcome=None,
        )
    )


@pytest.mark.parametrize(
    ("own", "core_state", "activity"),
    [
        # A model that does something for it is the better answer.
        (CLIENT, "running", "running"),
        (CLIENT, "waiting: pages (3 needed, 1 free)", "waiting: pages (3 needed, 1 free)"),
        (Activity("computing"), "waiting: grammar", "waiting: grammar"),
        # Else it is what the program does itself, whether it has used a model or not.
        (CLIENT, "idle", "waiting: client (to send a message)"),
        (CLIENT, "", "waiting: client (to send a message)"),
        (Activity("computing"), "idle", "computing"),
        (Activity("starting", "its component is being compiled"), "", "starting (its component is being compiled)"),
        (Activity("waiting: timer", "", 1001.4), "", "waiting: timer"),
        (Activity("waiting: timer", "", 1119.0), "", "waiting: timer (119 s left)"),
        (Activity("waiting: timer", "", 1000.0 + 36_000), "", "waiting: timer (10 h left)"),
        (Activity("waiting: timer", "", 1012.0), "", "waiting: timer (12 s left)"),
        (Activity("waiting: timer", "", 1600.0), "idle", "waiting: timer (10 min left)"),
        (Activity("waiting: timer", "", 900.0), "idle", "waiting: timer"),
        (Activity("waiting: client", "to read", 1030.0), "idle", "waiting: client (to read, 30 s left)"),
        # Who does not take a reply does something else instead.
        (Activity("computing"), "waiting: consumer", "waiting: consumer (which computes)"),
        (CLIENT, "waiting: consumer", "waiting: consumer (which waits for the client)"),
        (
            Activity("waiting: timer", "", 1009.0),
            "waiting: consumer",
            "waiting: consumer (which waits for a timer, 9 s left)",
        ),
        # Its host has said nothing, or that it waits for a core.
        (NOTHING_SAID, "idle", "idle"),
        (NOTHING_SAID, "", "running"),
        (NOTHING_SAID, "waiting: consumer", "waiting: consumer"),
    ],
)
def test_what_a_process_does(own: Activity, core_state: str, activity: str) -> None:
    assert activity_of(process(), own, core_state, NOW) == activity


def test_who_is_paused_or_queued_does_nothing_else() -> None:
    assert activity_of(process(host=None), CLIENT, "", NOW) == "queued"
    paused = process()
    paused.is_paused = True
    assert activity_of(paused, CLIENT, "running", NOW) == "paused"


def test_a_pool_knows_what_was_said_last_of_each_process_until_it_has_ended() -> None:
    pool = HostPool(10)
    host = pool.add("boot", "host-0")
    host.pids |= {"p1", "p2"}
    host.take(HostStats(2, 0, 0.0, 0, {"p1": CLIENT, "p2": Activity("computing"), "describe-7": Activity("computing")}))
    host.take(HostStats(2, 0, 0.0, 0, {"p2": Activity()}))
    assert pool.activity("boot", "p1") == CLIENT
    assert pool.activity("boot", "p2") == NOTHING_SAID
    assert pool.activity("another", "p1") == pool.activity(None, "p1") == NOTHING_SAID
    assert set(host.activities) == {"p1", "p2"}, "nothing is kept of others"
    pool.release("boot", "p1")
    assert pool.activity("boot", "p1") == NOTHING_SAID
