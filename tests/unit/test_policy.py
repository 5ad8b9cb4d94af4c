"""Who runs and who gives way."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from pie_engine.core.policy import num_pages_wanted, share_step


def test_decodes_come_first_and_prompts_share_the_rest_in_their_order():
    assert share_step(3, [100, 50], 110, 100) == (3, [100, 7])
    assert share_step(3, [100, 50], 32, 100) == (3, [29, 0])


def test_a_prompt_is_never_kept_out_by_decodes():
    assert share_step(4, [50], 4, 100) == (3, [1])
    assert share_step(4, [50], 64, 4) == (3, [50])


def test_as_many_decodes_run_as_there_are_tokens_and_sequences():
    assert share_step(4, [], 2, 100) == (2, [])
    assert share_step(4, [], 100, 3) == (3, [])


def test_one_row_at_a_time_still_serves_prompts():
    assert share_step(0, [50], 1, 1) == (0, [1])
    assert share_step(1, [50], 1, 1) == (0, [1])


@given(
    num_decodes=st.integers(0, 20),
    prompts=st.lists(st.integers(2, 40), max_size=20),
    max_tokens=st.integers(1, 64),
    max_sequences=st.integers(1, 12),
)
def test_shares_keep_the_limits_and_waste_nothing(num_decodes, prompts, max_tokens, max_sequences):
    num_running, shares = share_step(num_decodes, prompts, max_tokens, max_sequences)
    assert 0 <= num_running <= num_decodes
    assert all(0 <= part <= need for part, need in zip(shares, prompts, strict=True))
    num_rows, num_tokens = num_running + sum(part > 0 for part in shares), num_running + sum(shares)
    assert num_rows <= max_sequences
    assert num_tokens <= max_tokens
    if num_tokens < max_tokens and num_rows < min(max_sequences, max_tokens, num_decodes + len(prompts)):
        assert (num_running, shares) == (num_decodes, prompts)


def test_a_newcomer_leaves_a_page_to_each_that_grows():
    assert num_pages_wanted(3, 2) == 5
    assert num_pages_wanted(0, 2) == 0
