import msgspec
import pytest
import zmq

from pie_engine.ipc.link import Envelope, Hub, Link
from pie_engine.protocol.to_core import Append, CoreMessage, Fork
from pie_engine.protocol.to_host import CoreResult, Flushed


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def address(tmp_path):
    return f"ipc://{tmp_path}/s"


def when_ready(end):
    assert end.socket.poll(2000), "nothing arrived"
    return end.receive()


def test_messages_go_both_ways_typed_and_in_order(context, address):
    hub = Hub(context, address, "core-1", CoreMessage)
    link = Link(context, address, "host-1", "core-1", CoreResult)
    link.send([Append(1, [2, 3]), Fork(1, 2, 2)])
    assert when_ready(hub) == [("host-1", [Append(1, [2, 3]), Fork(1, 2, 2)])]
    hub.send("host-1", [Flushed(7)])
    assert when_ready(link) == [Flushed(7)]
    assert link.receive() == []


def test_what_was_meant_for_a_dead_process_is_dropped(context, address):
    hub = Hub(context, address, "core-2", CoreMessage)
    stale = Link(context, address, "host-1", "core-1", CoreResult)
    stale.send([Fork(1, 2, 2)])
    fresh = Link(context, address, "host-2", "core-2", CoreResult)
    fresh.send([Fork(3, 4, 5)])
    arrived = when_ready(hub)
    while not arrived:
        arrived = when_ready(hub)
    assert arrived == [("host-2", [Fork(3, 4, 5)])]


def test_an_answer_from_another_boot_is_dropped(context, address):
    router = context.socket(zmq.ROUTER)
    router.bind(address)
    link = Link(context, address, "host-1", "core-1", CoreResult)
    link.send([])
    router.recv_multipart()
    for boot in ("core-0", "core-1"):
        header = msgspec.msgpack.encode(Envelope(boot, "host-1"))
        router.send_multipart([b"host-1", header, msgspec.msgpack.encode([Flushed(len(boot))])])
    arrived = when_ready(link) or when_ready(link)
    assert arrived == [Flushed(6)]


def test_sending_to_a_peer_that_is_gone_does_not_block(context, address):
    hub = Hub(context, address, "core-1", CoreMessage)
    hub.send("nobody", [Flushed(1)])
