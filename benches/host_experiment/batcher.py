"""Stands for the core: every step answers everybody who waits, one message to each host.

python batcher.py REQUESTS_ADDRESS STEP_MS HOST_ADDRESS...
"""

import sys
import time
from collections import defaultdict

import msgspec
import zmq


def main() -> None:
    requests_address, step_ms, *host_addresses = sys.argv[1:]
    context = zmq.Context()
    requests = context.socket(zmq.PULL)
    requests.bind(requests_address)
    hosts = [context.socket(zmq.PUSH) for _ in host_addresses]
    for socket, address in zip(hosts, host_addresses, strict=True):
        socket.connect(address)
    while True:
        pending = take_in(requests)
        time.sleep(float(step_ms) / 1000)
        for host_index, handles in pending.items():
            hosts[host_index].send(msgspec.msgpack.encode((time.monotonic_ns(), handles)))


def take_in(requests: zmq.Socket) -> dict[int, list[int]]:
    """Waits for one message, then takes all that are there."""
    pending, raw = defaultdict(list), requests.recv()
    while True:
        host_index, handles = msgspec.msgpack.decode(raw)
        pending[host_index].extend(handles)
        if not requests.poll(0):
            return pending
        raw = requests.recv()


if __name__ == "__main__":
    main()
