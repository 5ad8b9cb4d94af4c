"""What contexts bid, and what the program sees of the market."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from inferlet import _checks, _transport
from inferlet._context_handle import ContextHandle
from inferlet._loop import finished
from inferlet.errors import InvalidInput
from inferlet.model import Model

MAX_BID = 1_000_000
"""Credits for a page and a step."""
SMALLEST_BID = 1e-6


@dataclass(frozen=True, slots=True)
class Market:
    """What a program sees of the market of a model. Amounts are in credits; a bid or a price is for a KV page and a
    step of the model."""

    policy: str
    """`market`, `fcfs` or `priority`: who goes first. Bids and prices count with `market` alone."""
    price: float
    """The highest bid that did not fit into the last step; 0: everything fits, and pages cost nothing to hold."""
    balance: float
    """What the program has left. Less than 0: it has made pages on debt."""
    endowment: float
    """All that it was ever given."""
    rent: float
    """Paid so far for pages that it held while others wanted them."""
    dividends: float
    """Got so far: its part of everybody's rent."""
    bid: float
    """The highest of its contexts."""
    num_made: int
    """Pages that it has made so far, at one credit each."""
    num_pages: int
    """That it holds now."""
    num_free_pages: int
    num_pages_in_all: int
    """Of the model."""
    num_sequences: int
    """Contexts of all programs in the last step; `max_sequences` fit."""
    max_sequences: int
    num_tokens: int
    """Tokens of the last step; `max_tokens` fit."""
    max_tokens: int
    num_waiting: int
    """Contexts of all programs that could run and had no place in the last step."""
    step_s: float
    """How long the last step took, in seconds: what a token takes now."""
    num_moved_out: int
    """Times that a context of the program has lost its pages. They come back before they are needed."""

    @property
    def occupancy(self) -> float:
        """How full the last step was, 0 to 1: in contexts or in tokens, whichever is fuller."""
        return max(self.num_sequences / self.max_sequences, self.num_tokens / self.max_tokens)

    @property
    def spent(self) -> float:
        """Pages made and rent, less dividends."""
        return self.endowment - self.balance


async def scheduling(model: Model | str | None = None) -> Market:
    """What the program sees of the market of `model` (None: the default one) now.

    >>> market = await scheduling()
    >>> if market.price > 0.01:
    ...     await asyncio.sleep(60)

    It takes a round trip to the engine, at most as long as a step. Raises `NotFound` for a model that is not loaded.
    """
    wire = _transport.host.scheduling
    name = model._name if isinstance(model, Model) else _checks.text("the name of a model", model or "")
    seen = await finished(_transport.call(wire.look, name), wire.finish_look)
    return Market(**{field: getattr(seen, field) for field in Market.__dataclass_fields__})


class Away:
    """Of `Context.idle`: the end of a `with` block says that the program is back."""

    def __init__(self, context: Bidding) -> None:
        self._context = context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._context._id is not None:
            _transport.call(_transport.host.scheduling.set_away, self._context._id, False)


class Bidding(ContextHandle):
    """What a `Context` offers for its place in the batch and for its pages."""

    def bid(self, credits: float | None) -> Self:
        """Offer up to `credits` for each page and step, while others want the room; None: the default, which spreads
        the balance over the rest of the program.

        It costs nothing while everything fits, and never more than the price, which is the highest offer that did not
        fit. 0: only what nobody else wants. Forks offer what their parent did; it can be changed at any time, during a
        `generate`, too. Raises `InvalidInput` for what is not from 0 to 1,000,000, or between 0 and 0.000001.
        """
        _transport.call(_transport.host.scheduling.set_bid, self._live_id(), bid_of(credits))
        return self

    def idle(self) -> Away:
        """The program is away, waiting for a tool or a person say: the context offers 0, and gives its pages up first.
        They come back by themselves.

        It ends with the next operation on the context, or, before that, with a `with` block:

        >>> with ctx.idle():
        ...     answer = await session.receive()

        Raises `Busy` while a reply is being generated.
        """
        _transport.call(_transport.host.scheduling.set_away, self._idle_id("leave it idle"), True)
        return Away(self)


def bid_of(credits: Any) -> float | None:
    """`credits`, checked."""
    if credits is None:
        return None
    is_number = isinstance(credits, int | float) and not isinstance(credits, bool)
    if not is_number or not 0 <= credits <= MAX_BID:
        raise InvalidInput(f"a bid has to be a number of credits from 0 to {MAX_BID}, or None; got {credits!r}")
    if 0 < credits < SMALLEST_BID:
        raise InvalidInput(f"a bid of {credits!r} is less than the smallest, {SMALLEST_BID:f} credits")
    return float(credits)
