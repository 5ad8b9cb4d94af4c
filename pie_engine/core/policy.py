"""How much of each operation runs in a step: pure functions from a snapshot to a decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def share_step(
    needs: Sequence[int],
    max_tokens: int,
    max_sequences: int,
    in_turn: Callable[[Sequence[int]], Sequence[int]],
    chunk: Callable[[int, int], int] | None = None,
) -> Sequence[int]:
    """How many tokens each operation runs in this step, 0 for none.

    `needs`: uncomputed tokens of each runnable operation; 1 is a decode, more is a prefill.

    Decodes come first, so that no prompt stalls them; prefills share the remaining tokens, in their order, in chunks.
    When not all decodes fit, those run that are first `in_turn`: given their indices, it puts them in order. The first
    prefill always gets at least one token: it would wait for ever behind decodes that never end. `chunk` says how many
    tokens, of at most so many, prefill `index` may have beside decodes (`core.pace`); it is asked in order, and none
    comes after one that got less than that.
    """
    num_prefills = len(needs) - needs.count(1)
    max_rows = min(max_tokens, max_sequences)
    if not num_prefills and len(needs) <= max_rows:
        return needs
    shares = [0] * len(needs)
    decodes: Sequence[int] = [index for index, need in enumerate(needs) if need == 1]
    num_decode_rows = max(max_rows - bool(num_prefills), 0)
    if len(decodes) > num_decode_rows:
        decodes = in_turn(decodes)[:num_decode_rows]
    for index in decodes:
        shares[index] = 1
    tokens_left, rows_left = max_tokens - len(decodes), max_sequences - len(decodes)
    for index, need in enumerate(needs):
        if not tokens_left or not rows_left:
            break
        if need > 1:
            most = min(need, tokens_left)
            shares[index] = most if chunk is None else chunk(index, most)
            if shares[index] < most:
                break
            tokens_left -= most
            rows_left -= 1
    return shares


def num_pages_wanted(num_new: int, num_growing: int) -> int:
    """Free pages that must be there before a context takes `num_new` of them.

    For a newcomer `num_growing` is the number of contexts before it that grow: one page is left for each of them, else
    it would be put back at their next page.
    """
    return num_new + num_growing if num_new else 0


def is_worth_waiting(num_coming: int, num_otherwise: int) -> bool:
    """Whether a prefill should sit a step out, because another one computes its next `num_coming` tokens in that step.

    `num_otherwise` is what it would run itself. Half of that has to come: for less, the delay of a step costs more than
    the work that it saves.
    """
    return num_coming > 0 and 2 * num_coming >= num_otherwise
