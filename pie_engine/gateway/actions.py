"""What its owner does to a process that runs: pause, resume, bid for it, give it credits."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from pie_engine.gateway.http import decoded
from pie_engine.gateway.orders import Orders
from pie_engine.gateway.process import Process
from pie_engine.protocol.credits import bid_of, endowment_of
from pie_engine.protocol.http import BidRequest, EndowRequest

Action = Literal["pause", "resume", "bid", "endow"]
ACTIONS: frozenset[str] = frozenset(get_args(Action))

_decode_bid = msgspec.json.Decoder(BidRequest).decode
_decode_endow = msgspec.json.Decoder(EndowRequest).decode


async def act(orders: Orders, process: Process, action: str, body: bytes) -> None:
    """Raises `InvalidInput`, and `Conflict` for a process that has ended."""
    if action == "pause":
        orders.pause(process)
    elif action == "resume":
        orders.resume(process)
    elif action == "bid":
        credits = decoded(_decode_bid, body).credits
        await orders.bid(process, None if credits is None else bid_of(credits))
    else:
        await orders.endow(process, endowment_of(decoded(_decode_endow, body).credits))
