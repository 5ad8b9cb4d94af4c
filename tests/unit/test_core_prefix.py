"""The prefix cache in the core: what a prompt finds, what it waits for, who may find it, and what is said of it."""

from __future__ import annotations

import pytest

from pie_engine.driver.fake_script import FakeScript, Fault
from pie_engine.kv.address import Sharers, page_key, root_key
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import CloseProcess, OpenProcess, Release, Truncate
from tests.unit.core_rig import PAGE_SIZE, RANDOM, Rig

PREFIX = "abcdefgh" * 4
NUM_PREFIX_PAGES = len(PREFIX) // PAGE_SIZE


def page_ids(rig: Rig, ctx: int) -> list[int]:
    return next(iter(rig.core._hosts.values())).contexts[ctx].kv.page_ids


def computed(rig: Rig) -> int:
    """Tokens that went through the driver so far."""
    return sum(num_tokens for step in rig.driver.steps for _, num_tokens in step)


def cached_tokens(rig: Rig, op: int) -> int:
    usage = rig.heard[op].usage
    assert usage is not None
    return usage.cached_tokens


# Finding.


def test_a_second_prompt_computes_only_what_is_its_own():
    rig = Rig()
    first = rig.generate(rig.context(PREFIX + "one"), max_tokens=1)
    rig.run()
    before = computed(rig)
    second = rig.generate(rig.context(PREFIX + "other"), max_tokens=1)
    rig.run()
    assert computed(rig) - before == len("other")
    assert (cached_tokens(rig, first), cached_tokens(rig, second)) == (0, len(PREFIX))


def test_a_prompt_finds_the_pages_of_a_program_that_has_ended():
    rig = Rig()
    rig.send(OpenProcess("p2", "test"))
    rig.generate(rig.context(PREFIX + "one", pid="p2"), max_tokens=1)
    rig.run()
    rig.send(CloseProcess("p2"))
    assert rig.core.pool.num_free == rig.core.pool.num_pages
    assert rig.core.stats().num_cached_pages == NUM_PREFIX_PAGES
    op = rig.generate(rig.context(PREFIX + "two"), max_tokens=1)
    rig.run()
    assert cached_tokens(rig, op) == len(PREFIX)


def test_a_hit_ends_with_the_last_full_page_that_is_the_same():
    rig = Rig()
    rig.flush(rig.context("abcdefghijkl"))
    rig.run()
    op = rig.generate(rig.context("abcdefgXijkl"), max_tokens=1)
    rig.run()
    assert cached_tokens(rig, op) == 4


def test_the_same_tokens_after_another_page_are_another_content():
    rig = Rig()
    rig.flush(rig.context("aaaabbbbcccc"))
    rig.run()
    for prompt in ("bbbbcccc", "aaaacccc", "xxxxbbbbcccc"):
        op = rig.generate(rig.context(prompt), max_tokens=1)
        rig.run()
        assert cached_tokens(rig, op) <= 4, prompt


@pytest.mark.parametrize("holds", [True, False])
def test_of_a_prompt_that_is_known_to_its_end_the_last_token_runs(holds: bool):
    rig, alone = Rig(), Rig()
    first = rig.context(PREFIX)
    rig.flush(first)
    rig.run()
    if not holds:
        rig.send(Release(first))
    before = computed(rig)
    op = rig.generate(rig.context(PREFIX), sampler=RANDOM, max_tokens=9)
    rig.run()
    assert computed(rig) - before == 9
    assert cached_tokens(rig, op) == len(PREFIX) - 1
    same = alone.generate(alone.context(PREFIX), sampler=RANDOM, max_tokens=9)
    alone.run()
    assert rig.heard[op].ids == alone.heard[same].ids


def test_flush_and_forward_look_prompts_up_too():
    rig = Rig()
    rig.flush(rig.context(PREFIX + "one"))
    rig.run()
    before = computed(rig)
    flush = rig.flush(rig.context(PREFIX + "ab"))
    rig.run()
    forward = rig.forward(rig.context(), rig.tokenizer.encode(PREFIX + "cd"), Sampler())
    rig.run()
    assert rig.heard[flush].is_flushed
    assert rig.heard[forward].forwarded is not None
    assert computed(rig) - before == 4


def test_what_is_generated_is_found_as_well_as_prompts():
    rig = Rig()
    ctx = rig.context(PREFIX)
    op = rig.generate(ctx, max_tokens=16)
    rig.run()
    conversation = rig.tokens(ctx)
    again = rig.context()
    forward = rig.forward(again, [*conversation, 1, 2], Sampler())
    before = computed(rig)
    rig.run()
    assert rig.heard[forward].forwarded is not None
    # The last token that was generated has not been run.
    assert computed(rig) - before == len(conversation) + 2 - (len(PREFIX) + 15) // PAGE_SIZE * PAGE_SIZE
    assert len(rig.heard[op].ids) == 16


def test_a_context_that_was_put_back_finds_its_pages_again():
    rig = Rig(num_pages=24)
    ctx = rig.context(PREFIX + "ab")
    rig.flush(ctx)
    rig.run()
    rig.flush(rig.context("z" * 77))
    rig.run()
    assert rig.num_computed(ctx) == 0
    before = computed(rig)
    op = rig.generate(ctx, max_tokens=1)
    rig.run()
    # Four pages of the prefix went to the other prompt, its end before its beginning.
    assert cached_tokens(rig, op) == len(PREFIX) - 4 * PAGE_SIZE
    assert computed(rig) - before == len(PREFIX) + 2 - cached_tokens(rig, op)
    stats = rig.core.stats()
    assert stats.num_page_hits == 0, "to have its own pages again is no hit of its prompt"
    assert stats.num_page_misses == NUM_PREFIX_PAGES + 19, "nor to compute them again a miss"


def test_a_prompt_that_changes_within_a_page_takes_over_what_is_published_for_it():
    rig = Rig()
    rig.flush(rig.context("abcdefgh"))
    ctx = rig.context("abcdef")
    rig.flush(ctx)
    rig.run()
    before = computed(rig)
    op = rig.forward(ctx, rig.tokenizer.encode("gh"), Sampler())
    rig.run()
    assert rig.heard[op].forwarded is not None
    assert computed(rig) - before == 1


# Sharing and immutability.


def test_a_page_that_two_contexts_have_computed_is_kept_once():
    rig = Rig(max_batch_tokens=64)
    contexts = [rig.context("abc"), rig.context("abc")]
    for ctx in contexts:
        rig.flush(ctx)
    rig.run()
    assert set(page_ids(rig, contexts[0])).isdisjoint(page_ids(rig, contexts[1]))
    for ctx in contexts:
        rig.forward(ctx, rig.tokenizer.encode("d"))
    rig.run()
    assert page_ids(rig, contexts[0]) == page_ids(rig, contexts[1])
    assert rig.core.stats().num_pages - rig.core.stats().num_free_pages == 1


def test_a_published_page_is_not_changed_under_who_has_found_it():
    rig = Rig()
    ctx = rig.context("abcdefgh")
    rig.flush(ctx)
    rig.run()
    finder = rig.context("abcdefghij")
    op = rig.generate(finder, max_tokens=12)
    rig.step()
    rig.send(Truncate(ctx, 6))
    rig.forward(ctx, rig.tokenizer.encode("XY"), Sampler())
    rig.run()
    alone = Rig()
    same = alone.generate(alone.context("abcdefghij"), max_tokens=12)
    alone.run()
    assert rig.heard[op].ids == alone.heard[same].ids
    assert page_ids(rig, ctx)[0] == page_ids(rig, finder)[0]
    assert page_ids(rig, ctx)[1] != page_ids(rig, finder)[1]


def test_a_context_alone_with_its_page_writes_it_again_without_a_copy():
    rig = Rig(num_pages=2)
    ctx = rig.context("abcdefgh")
    rig.flush(ctx)
    rig.run()
    rig.send(Truncate(ctx, 6))
    op = rig.forward(ctx, rig.tokenizer.encode("XY"), Sampler())
    rig.run()
    assert rig.heard[op].forwarded is not None
    assert rig.driver.num_copies == 0
    # Nobody finds what was there before.
    other = rig.generate(rig.context("abcdefg"), max_tokens=1)
    rig.run()
    assert cached_tokens(rig, other) == 4


def test_cached_pages_are_available_and_the_longest_unused_go_first():
    rig = Rig(num_pages=8)
    for letter in "abcd":
        ctx = rig.context(letter * 8)
        rig.flush(ctx)
        rig.run()
        rig.send(Release(ctx))
    assert (rig.core.pool.num_free, rig.core.stats().num_cached_pages) == (8, 8)
    assert rig.core.stats().processes[0].num_pages == 0
    large = rig.context("z" * 14)
    rig.flush(large)
    rig.run()
    hits = []
    for letter in "abcd":
        op = rig.forward(rig.context(), rig.tokenizer.encode(letter * 9), Sampler())
        before = rig.core.stats().num_page_hits
        rig.run()
        assert rig.heard[op].forwarded is not None
        hits.append(rig.core.stats().num_page_hits - before)
        if letter == "b":
            break
    assert hits == [0, 0]


def test_a_hit_makes_a_page_young_again():
    rig = Rig(num_pages=8)
    for prompt in ("a" * 8, "b" * 8, "a" * 8):
        ctx = rig.context(prompt)
        rig.flush(ctx)
        rig.run()
        rig.send(Release(ctx))
    large = rig.context("z" * 23)
    rig.flush(large)
    rig.run()
    op = rig.generate(rig.context("a" * 8), max_tokens=1)
    rig.run()
    assert cached_tokens(rig, op) == 7


# Prompts in flight together.


def test_prompts_that_come_together_compute_their_prefix_once():
    rig = Rig(max_batch_tokens=512, num_pages=512)
    ops = [rig.generate(rig.context(PREFIX * 4 + letter * 3), max_tokens=1) for letter in "abcdefgh"]
    rig.run()
    assert computed(rig) == len(PREFIX) * 4 + 8 * 3
    assert [cached_tokens(rig, op) for op in ops] == [0, *[len(PREFIX) * 4] * 7]


def test_prompts_in_chunks_follow_the_first_of_them():
    rig = Rig(max_batch_tokens=24, num_pages=512)
    ops = [rig.generate(rig.context(PREFIX * 4 + letter * 3), max_tokens=1) for letter in "abcdefgh"]
    rig.run()
    assert computed(rig) == len(PREFIX) * 4 + 8 * 3
    assert all(rig.heard[op].finish == "length" for op in ops)


def test_nobody_waits_for_a_small_part_of_his_prompt():
    rig = Rig(max_batch_tokens=512)
    rig.flush(rig.context("abcd" + "x" * 40))
    rig.flush(rig.context("abcd" + "y" * 40))
    rig.step()
    assert rig.driver.steps == [[(0, 44), (0, 44)]]
    rig.run()


def test_who_waited_for_a_prompt_that_failed_computes_it():
    rig = Rig(max_batch_tokens=512, script=FakeScript(faults=(Fault(step=0, row=0),)))
    first = rig.generate(rig.context(PREFIX + "a"), max_tokens=1)
    second = rig.generate(rig.context(PREFIX + "b"), max_tokens=1)
    rig.run()
    assert rig.heard[first].error is not None
    assert rig.heard[second].finish == "length"
    assert cached_tokens(rig, second) == 0


def test_who_waits_lets_others_run():
    rig = Rig(max_batch_tokens=80)
    rig.flush(rig.context(PREFIX + "a"))
    rig.flush(rig.context(PREFIX + "b"))
    rig.flush(rig.context("other"))
    rig.step()
    assert rig.driver.steps == [[(0, 33), (0, 5)]]
    rig.run()


# Who may find what.


def with_users(sharing: str) -> int:
    """Cached tokens of a prompt that another user has had before."""
    rig = Rig(prefix_cache=sharing)  # type: ignore[arg-type]
    rig.send(OpenProcess("a", "test", "ann"), OpenProcess("b", "test", "bob"))
    rig.generate(rig.context(PREFIX, pid="a"), max_tokens=1)
    rig.run()
    op = rig.generate(rig.context(PREFIX, pid="b"), max_tokens=1)
    rig.run()
    return cached_tokens(rig, op)


def test_by_default_only_the_same_user_finds_a_prompt():
    assert with_users("user") == 0
    assert with_users("shared") == len(PREFIX) - 1
    assert with_users("off") == 0


def test_switched_off_nothing_is_kept_or_found():
    rig = Rig(prefix_cache="off")
    for _ in range(2):
        ctx = rig.context(PREFIX)
        op = rig.generate(ctx, max_tokens=1)
        rig.run()
        rig.send(Release(ctx))
        assert cached_tokens(rig, op) == 0
    assert rig.core.stats().num_cached_pages == 0
    assert rig.core.stats().num_page_hits == 0


# Addresses.


def test_everything_that_kv_depends_on_is_in_the_key():
    root = root_key("model-bfloat16", 16)
    others = [
        root_key("model-float32", 16),
        root_key("model-bfloat16", 32),
        root_key("model-bfloat16", 16, adapter_id="a"),
        root_key("model-bfloat16", 16, salt="a"),
        root_key("model-bfloat16", 16, adapter_id="a", salt=""),
    ]
    assert root not in others
    assert len(set(others)) == 4
    key = page_key(root, 0, [1, 2, 3])
    different = [
        page_key(others[0], 0, [1, 2, 3]),
        page_key(root, 3, [1, 2, 3]),
        page_key(root, 0, [1, 2, 4]),
        page_key(root, 0, [1, 2, 3], b"mask"),
        page_key(key, 0, [1, 2, 3]),
    ]
    assert len({key, *different}) == 6
    assert page_key(root, 0, (1, 2, 3)) == key


def test_no_user_name_leads_to_the_root_of_everybody():
    everybody = Sharers("shared", "m", 4).root_of("ann")
    own = Sharers("user", "m", 4)
    assert own.root_of("ann") != own.root_of("bob")
    assert own.root_of("") != everybody
    nobody = Sharers("off", "m", 4)
    assert nobody.root_of("ann") != nobody.root_of("ann")


# Looking.


def test_stats_count_hits_and_misses_in_pages_of_prompts():
    rig = Rig()
    for tail in ("one", "two"):
        rig.generate(rig.context(PREFIX + tail), max_tokens=20)
        rig.run()
    stats = rig.core.stats()
    assert (stats.num_page_hits, stats.num_page_misses) == (NUM_PREFIX_PAGES, NUM_PREFIX_PAGES)


def test_pages_that_are_found_while_a_prompt_waits_for_room_are_counted_once():
    rig = Rig(num_pages=14)
    rig.flush(rig.context(PREFIX))
    rig.run()
    rig.generate(rig.context("z" * 8), max_tokens=15)
    rig.step(2)
    rig.flush(rig.context(PREFIX + "y" * 16))
    rig.run()
    assert rig.core.stats().num_page_hits == NUM_PREFIX_PAGES


def test_a_page_under_a_wrong_key_is_a_violation():
    rig = Rig()
    rig.flush(rig.context(PREFIX))
    rig.run()
    index = rig.core.pool.index
    page = page_ids(rig, next(iter(rig.core._hosts["host-1"].contexts)))[0]
    index.forget(page)
    index.publish(page, b"wrong")
    assert any(f"page {page}" in violation for violation in rig.core.check_integrity())
