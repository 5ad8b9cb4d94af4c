"""`scheduling`: what a program bids for its contexts, and what it sees of the market."""

from __future__ import annotations

import msgspec

from pie_engine.host.imports import Function
from pie_engine.host.market import MarketLook
from pie_engine.host.process import Process
from pie_engine.protocol.credits import CREDIT, PolicyName, bid_of
from pie_engine.protocol.to_core import SetAway, SetBid
from pie_engine.protocol.to_host import MarketSeen


class Market(msgspec.Struct, frozen=True):
    """`scheduling.market`"""

    policy: PolicyName
    price: float
    balance: float
    endowment: float
    rent: float
    dividends: float
    bid: float
    num_made: int
    num_pages: int
    num_free_pages: int
    num_pages_in_all: int
    num_sequences: int
    max_sequences: int
    num_tokens: int
    max_tokens: int
    num_waiting: int
    step_s: float
    num_moved_out: int

    @classmethod
    def of(cls, seen: MarketSeen) -> Market:
        return cls(
            seen.policy,
            seen.price / CREDIT,
            seen.balance / CREDIT,
            seen.endowment / CREDIT,
            seen.rent / CREDIT,
            seen.dividends / CREDIT,
            seen.bid / CREDIT,
            seen.num_made,
            seen.num_pages,
            seen.num_free_pages,
            seen.num_pages_in_all,
            seen.num_sequences,
            seen.max_sequences,
            seen.num_tokens,
            seen.max_tokens,
            seen.num_waiting,
            seen.step_s,
            seen.num_moved_out,
        )


def set_bid(process: Process, ctx: int, credits: float | None) -> None:
    context = process.context(ctx)
    context.core.send(SetBid(ctx, None if credits is None else bid_of(credits)))


def set_away(process: Process, ctx: int, away: bool) -> None:
    process.context(ctx).core.send(SetAway(ctx, away))


def look(process: Process, model: str) -> int:
    core = process.core(model)
    process.wallet.enter(core)
    return process.futures.add(MarketLook(process, core))


def finish_look(process: Process, done: int) -> Market:
    return Market.of(process.futures.get(done, MarketLook).take())


FUNCTIONS: dict[str, Function] = {
    "set-bid": set_bid,
    "set-away": set_away,
    "look": look,
    "finish-look": finish_look,
}
