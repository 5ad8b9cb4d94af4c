"""What the core may rely on, whichever driver runs: the same tokens however the work is cut, placed and batched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pie_engine.driver.base import Driver, Row
from pie_engine.protocol.sampling import GREEDY
from tests.contract.conftest import NUM_PAGES, PAGE
from tests.contract.rows import PROMPT, decode, pages_for, prefill


def test_capabilities_describe_the_model(driver: Driver) -> None:
    capabilities = driver.capabilities
    assert capabilities.page_size == PAGE
    assert capabilities.vocab_size == 320
    assert capabilities.max_context_tokens >= 64
    assert capabilities.page_bytes > 0
    assert capabilities.max_top_k >= 20
    assert capabilities.model_id


def test_the_model_id_is_the_same_every_time(new_driver: Callable[[], Driver]) -> None:
    assert new_driver().capabilities.model_id == new_driver().capabilities.model_id


@pytest.mark.parametrize("chunk", [1, 2, 5, 8, 28])
def test_chunked_prefill_gives_the_same_tokens(driver: Driver, chunk: int) -> None:
    whole = prefill(driver, PROMPT, pages_for(64))
    chunked = prefill(driver, PROMPT, pages_for(64, first=20), chunk=chunk)
    assert chunked == whole
    continued = decode(driver, whole, len(PROMPT), pages_for(64), 20)
    assert decode(driver, chunked, len(PROMPT), pages_for(64, first=20), 20) == continued


def test_decoding_is_prefilling_what_was_generated(driver: Driver) -> None:
    tokens = decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 20)
    again = prefill(driver, [*PROMPT, *tokens[:-1]], pages_for(64, first=20))
    assert again == tokens[-1]


def test_the_order_of_pages_does_not_matter(driver: Driver) -> None:
    scattered = [63, 2, 40, 5, 61, 0, 17, 33]
    straight = decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 20)
    first = prefill(driver, PROMPT, scattered, chunk=6)
    assert decode(driver, first, len(PROMPT), scattered, 20) == straight


def test_a_page_used_before_leaves_no_trace(driver: Driver) -> None:
    fresh = decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 10)
    prefill(driver, list(range(10, 74)), pages_for(64))
    assert decode(driver, prefill(driver, PROMPT, pages_for(64)), len(PROMPT), pages_for(64), 10) == fresh


def test_a_batch_gives_each_row_what_it_gets_alone(driver: Driver) -> None:
    prompts = [PROMPT, PROMPT[:9], PROMPT[3:20], PROMPT[:1], list(range(30, 50))]
    tables = [pages_for(40, first=6 * i) for i in range(len(prompts))]
    alone = []
    for prompt, pages in zip(prompts, tables, strict=True):
        alone.append(decode(driver, prefill(driver, prompt, pages), len(prompt), pages, 10))
    results = driver.execute(
        [Row(prompt, 0, pages, GREEDY) for prompt, pages in zip(prompts, tables, strict=True)],
    )
    together = [[result.token] for result in results]
    for _ in range(10):
        rows = [
            Row([tokens[-1]], len(prompt) + len(tokens) - 1, pages, GREEDY)
            for prompt, tokens, pages in zip(prompts, together, tables, strict=True)
        ]
        for tokens, result in zip(together, driver.execute(rows), strict=True):
            tokens.append(result.token)
    assert together == alone


def test_chunks_and_decodes_share_a_step(driver: Driver) -> None:
    short, long = PROMPT[:9], PROMPT
    short_pages, long_pages = pages_for(40, first=0), pages_for(40, first=10)
    expected_short = decode(driver, prefill(driver, short, short_pages), len(short), short_pages, 3)
    expected_long = prefill(driver, long, long_pages)

    tokens = [prefill(driver, short, short_pages)]
    long_token = None
    for index, chunk in enumerate([(0, 10), (10, 11), (11, 29)]):
        step = [
            Row(long[slice(*chunk)], chunk[0], long_pages, GREEDY if chunk[1] == 29 else None),
            Row([tokens[-1]], len(short) + index, short_pages, GREEDY),
        ]
        chunk_result, decode_result = driver.execute(step)
        long_token = chunk_result.token
        tokens.append(decode_result.token)  # type: ignore[arg-type]
    assert tokens == expected_short
    assert long_token == expected_long


def test_very_different_lengths_share_a_step(driver: Driver) -> None:
    lengths = [2, 30, 200, 3, 90]
    tables = [list(range(sum(-(-(n + 1) // PAGE) for n in lengths[:i]), NUM_PAGES)) for i in range(len(lengths))]
    tables = [table[: -(-(length + 1) // PAGE)] for table, length in zip(tables, lengths, strict=True)]
    prompts = [[(3 * i + length) % 300 for i in range(length)] for length in lengths]
    firsts = [prefill(driver, prompt, pages) for prompt, pages in zip(prompts, tables, strict=True)]
    rows = [Row([token], length, pages, GREEDY) for token, length, pages in zip(firsts, lengths, tables, strict=True)]
    alone = [driver.execute([row])[0].token for row in rows]
    assert [result.token for result in driver.execute(rows)] == alone


def test_forks_share_the_pages_of_their_prefix(driver: Driver) -> None:
    shared, left, right = [0, 1], [2, 3, 4], [5, 6, 7]
    prefix = (PROMPT * 2)[: 2 * PAGE]
    prefill(driver, prefix, shared)
    branches = {"left": ([50, 51, 52], shared + left), "right": ([60, 61, 62], shared + right)}
    rows = [Row(tokens, len(prefix), pages, GREEDY) for tokens, pages in branches.values()]
    firsts = [result.token for result in driver.execute(rows)]
    for (tokens, pages), first in zip(branches.values(), firsts, strict=True):
        assert first is not None
        whole = [*prefix, *tokens]
        unshared = pages_for(60, first=20)
        expected = decode(driver, prefill(driver, whole, unshared), len(whole), unshared, 10)
        assert decode(driver, first, len(whole), pages, 10) == expected


def test_copied_pages_continue_like_the_original(driver: Driver) -> None:
    """Copy-on-write of a page that is not full."""
    original, copy = [0, 1, 2, 3, 4, 5], [0, 1, 2, 13, 14, 15]
    first = prefill(driver, PROMPT, original)
    driver.copy_pages([(3, 13)])
    expected = decode(driver, first, len(PROMPT), original, 15)
    assert decode(driver, first, len(PROMPT), copy, 15) == expected


def test_pages_are_copied_in_order(driver: Driver) -> None:
    first = prefill(driver, PROMPT, [0, 1, 2, 3, 4, 5])
    expected = decode(driver, first, len(PROMPT), [0, 1, 2, 3, 4, 5], 10)
    first = prefill(driver, PROMPT, [0, 1, 2, 3, 4, 5])
    driver.copy_pages([(3, 20), (20, 21), (0, 20)])
    assert decode(driver, first, len(PROMPT), [20, 1, 2, 21, 4, 5], 10) == expected


def test_pages_that_were_read_continue_elsewhere_like_the_original(new_driver: Callable[[], Driver]) -> None:
    """In other pages of another driver, the last page not full."""
    here, there = new_driver(), new_driver()
    for driver in (here, there):
        driver.allocate_kv(NUM_PAGES)
    pages, others = [0, 1, 2, 3, 4, 5], [9, 4, 7, 1, 2, 3]
    first = prefill(here, PROMPT, pages)
    num_pages = len(pages_for(len(PROMPT)))
    kept = here.read_pages(pages[:num_pages])
    assert all(len(array) == num_pages for array in kept.values())
    expected = decode(here, first, len(PROMPT), pages, 15)
    there.write_pages(others[:num_pages], kept)
    assert decode(there, first, len(PROMPT), others, 15) == expected
    # It was a copy.
    here.write_pages(pages[:num_pages], kept)
    assert decode(here, first, len(PROMPT), pages, 15) == expected


def test_pages_to_read_and_write_stay_inside_the_pool(driver: Driver) -> None:
    with pytest.raises(AssertionError, match="page id"):
        driver.read_pages([NUM_PAGES])
    kept = driver.read_pages([0, 1])
    with pytest.raises(AssertionError, match="2 pages, 1 are to be written"):
        driver.write_pages([0], kept)
    with pytest.raises(AssertionError, match="page id"):
        driver.write_pages([0, -1], kept)


def test_going_back_is_as_if_it_had_not_been_generated(driver: Driver) -> None:
    pages = pages_for(64)
    first = prefill(driver, PROMPT, pages)
    tokens = decode(driver, first, len(PROMPT), pages, 12)
    assert decode(driver, tokens[4], len(PROMPT) + 4, pages, 8) == tokens[4:]
