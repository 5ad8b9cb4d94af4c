"""How much a draft model may write while others decode beside its plans: all of them wait for it.

After Liu et al. 2024 (goodput): what counts are the tokens of all rows in the time that the step takes. Of a guess of k
tokens, k times the share that is right is gained; its k passes hold every row up.
"""

from __future__ import annotations

from collections.abc import Sequence

from pie_engine.protocol.plan import MAX_DRAFT_TOKENS


def most_passes(rates: Sequence[float], num_others: int, *, step_s: float, pass_s: float, limit_s: float) -> int:
    """How many passes of `pass_s` the draft model may make before a step that takes `step_s` without them.

    `rates`: of each plan that it guesses for, the share of its guesses that was right of late. `num_others`: rows of
    the step that gain nothing; without any it is the plans' own affair. 0 where all rows together would get fewer
    tokens a second; otherwise the step may become as long as `limit_s` (0: any length), or twice as long as it is.
    What is not known yet is 0, and limits nothing.
    """
    if not num_others or not pass_s or not step_s:
        return MAX_DRAFT_TOKENS
    if sum(rates) * step_s <= (len(rates) + num_others) * pass_s:
        return 0
    return min(int(time_left(step_s, limit_s) / pass_s), MAX_DRAFT_TOKENS) if limit_s else MAX_DRAFT_TOKENS


def time_left(step_s: float, limit_s: float) -> float:
    """For the draft model, beside a step that takes `step_s` without it."""
    return max(limit_s - step_s, step_s)
