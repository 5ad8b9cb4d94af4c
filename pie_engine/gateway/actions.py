"""What its owner does to a process that runs: pause, resume, bid for it, give it credits."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from pie_engine.gateway.http import decoded
from pie_engine.gateway.process import Process
from pie_engine.gateway.table import ProcessTable
from pie_engine.protocol.credits import bid_of, endowment_of
from pie_engine.protocol.http import BidRequest, EndowRequest

Action = Literal["pause", "resume", "bid", "endow"]
ACTIONS: frozenset[str] = frozenset(get_args(Action))

_decode_bid = msgspec.json.Decoder(BidRequest).decode
_decode_endow = msgspec.json.Decoder(EndowRequest).decode


async def act(table: ProcessTable, process: Process, action: str, body: bytes) -> None:
    """Raises `InvalidInput`, and `Conflict` for a process that has ended. Its children stand still with it."""
    orders = table.orders
    if action == "pause":
        orders.pause(process)
        for child in table.descendants(process):
            if not child.is_terminating:
                orders.pause(child)
    elif action == "resume":
        orders.resume(process)
        for child in table.descendants(process):
            orders.resume(child)
    elif action == "bid":
        credits = decoded(_decode_bid, body).credits
        await orders.bid(process, None if credits is None else bid_of(credits))
    else:
        await orders.endow(process, endowment_of(decoded(_decode_endow, body).credits))
