"""Who runs and who gives way."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from pie_engine.core.policy import num_pages_wanted, share_step


def share(needs: list[int], max_tokens: int, max_sequences: int = 100) -> list[int]:
    return list(share_step(needs, max_tokens, max_sequences, in_turn=lambda indices: indices[::-1]))


def test_decodes_come_first_and_prefills_share_the_rest_in_their_order():
    assert share([100, 1, 50, 1, 1], max_tokens=110) == [100, 1, 7, 1, 1]
    assert share([100, 1, 50, 1, 1], max_tokens=32) == [29, 1, 0, 1, 1]


def test_a_prefill_is_never_kept_out_by_decodes():
    assert share([1, 1, 1, 1, 50], max_tokens=4) == [0, 1, 1, 1, 1]
    assert share([1, 1, 1, 1, 50], max_tokens=64, max_sequences=4) == [0, 1, 1, 1, 50]


def test_decodes_run_in_turn_where_not_all_fit():
    assert share([1, 1, 1, 1], max_tokens=2) == [0, 0, 1, 1]


def test_one_row_at_a_time_still_serves_prefills():
    assert share([50], max_tokens=1, max_sequences=1) == [1]
    assert share([1, 50], max_tokens=1, max_sequences=1) == [0, 1]


@given(
    needs=st.lists(st.integers(1, 40), max_size=30),
    max_tokens=st.integers(1, 64),
    max_sequences=st.integers(1, 12),
)
def test_shares_keep_the_limits_and_waste_nothing(needs, max_tokens, max_sequences):
    shares = share(needs, max_tokens, max_sequences)
    assert all(0 <= part <= need for part, need in zip(shares, needs, strict=True))
    num_rows, num_tokens = sum(part > 0 for part in shares), sum(shares)
    assert num_rows <= max_sequences
    assert num_tokens <= max_tokens
    if num_tokens < max_tokens and num_rows < min(max_sequences, max_tokens, len(needs)):
        assert shares == needs


def test_a_newcomer_leaves_a_page_to_each_that_grows():
    assert num_pages_wanted(3, 2) == 5
    assert num_pages_wanted(0, 2) == 0
