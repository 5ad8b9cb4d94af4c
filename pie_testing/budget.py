"""`@pytest.mark.budget(tokens=…, passes=…, pages=…)`: what a test's programs may take together."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pie_testing.result import Result

KEYS = ("tokens", "passes", "pages")
MARKER = (
    "budget(tokens=None, passes=None, pages=None): the most tokens that the models read and write for all programs of "
    "the test, forward passes that they run, and KV pages that one of them holds at once"
)


def wrong_budget(args: Sequence[Any], budget: Mapping[str, Any]) -> str:
    """What is wrong with the arguments of the marker; empty: nothing."""
    if args or not budget:
        return f"`budget` takes {', '.join(f'`{key}`' for key in KEYS)} by name"
    for key, most in budget.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            return f"`budget` has no `{key}`; " + (
                f"did you mean `{near[0]}`?" if near else f"known: {', '.join(KEYS)}"
            )
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            return f"`{key}` of `budget` is {most!r}; it must be a whole number"
    return ""


def overspent(budget: Mapping[str, int], results: Sequence[Result]) -> list[str]:
    """A sentence for each part of the budget that was not enough. What an engine does not see is not checked."""
    spent = {
        "tokens": sum(result.tokens for result in results),
        "passes": sum(result.num_passes or 0 for result in results),
        "pages": max((result.num_pages or 0 for result in results), default=0),
    }
    return [f"{spent[key]} {key}, and the budget is {most}" for key, most in budget.items() if spent[key] > most]
