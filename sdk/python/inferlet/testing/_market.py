"""The fake host's market, in which everything fits."""

from __future__ import annotations

from types import SimpleNamespace

from inferlet.testing._contexts import FakeContexts


class FakeMarket(FakeContexts):
    """The interface `scheduling`."""

    def __init__(self) -> None:
        super().__init__()
        self.bids: dict[int, float | None] = {}
        """The bid of each context that has named one."""
        self.away: set[int] = set()
        """Contexts whose program needs them for nothing."""
        self.market = SimpleNamespace(
            policy="market", price=0.0, balance=1000.0, endowment=1000.0, rent=0.0, dividends=0.0, bid=0.0,
            num_made=0, num_pages=0, num_free_pages=64, num_pages_in_all=64, num_sequences=0, max_sequences=8,
            num_tokens=0, max_tokens=128, num_waiting=0, step_s=0.01, num_moved_out=0,
        )  # fmt: skip
        """What a look at it shows."""
        self.scheduling = self._interface(
            "scheduling",
            set_bid=self._set_bid,
            set_away=self._set_away,
            look=self._look_at_market,
            finish_look=lambda handle: self.market,
        )

    def _set_bid(self, ctx: int, credits: float | None) -> None:
        self._tokens_of(ctx)
        self.bids[ctx] = credits

    def _set_away(self, ctx: int, away: bool) -> None:
        self._tokens_of(ctx)
        (self.away.add if away else self.away.discard)(ctx)

    def _look_at_market(self, model: str) -> int:
        self._describe(model)
        return self._new_handle(is_ready=True)
