"""How much of each operation runs in a step: pure functions from a snapshot to a decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def share_step(
    num_decodes: int,
    prompts: Sequence[int],
    max_tokens: int,
    max_sequences: int,
    chunk: Callable[[int, int], int] | None = None,
) -> tuple[int, list[int]]:
    """How many of the decodes run in this step, and how many tokens of each prompt, 0 for none.

    `prompts`: their uncomputed tokens, in their order.

    Decodes come first, so that no prompt stalls them; prompts share the remaining tokens, in their order, in chunks.
    The first prompt always gets at least one token: it would wait for ever behind decodes that never end. `chunk` says
    how many tokens, of at most so many, prompt `index` may have beside decodes (`core.pace`); it is asked in order, and
    none comes after one that got less than that.
    """
    num_running = max(min(num_decodes, min(max_tokens, max_sequences) - bool(prompts)), 0)
    shares = [0] * len(prompts)
    tokens_left, rows_left = max_tokens - num_running, max_sequences - num_running
    for index, need in enumerate(prompts):
        if not tokens_left or not rows_left:
            break
        most = min(need, tokens_left)
        shares[index] = most if chunk is None else chunk(index, most)
        if shares[index] < most:
            break
        tokens_left -= most
        rows_left -= 1
    return num_running, shares


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
