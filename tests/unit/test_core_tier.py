"""The host tier: pages whose place is needed move out to host memory and come back, instead of being computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_engine.config import ModelSection, SchedulingSection
from pie_engine.core.host_pages import HostPages
from pie_engine.core.reserve import num_slots_of
from pie_engine.core.waiting import NOTICE_AFTER_S, PageWait
from pie_engine.driver.base import Row
from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.kv.tier import HostTier, Moves
from pie_engine.protocol.to_core import CloseProcess, OpenProcess, Release
from pie_engine.protocol.to_host import Waits
from pie_engine.store.contexts import SavedContexts
from tests.unit.core_rig import PAGE_SIZE, RANDOM, Rig, byte_tokenizer
from tests.unit.test_core_saved import opened, save

PROMPTS = [letter * 18 for letter in "abcd"]
"""Four pages and two tokens each."""


def tokens_run(rig: Rig, first_step: int = 0) -> int:
    """Tokens that went through the model from this step on."""
    return sum(length for step in rig.driver.steps[first_step:] for _, length in step)


def flushed(rig: Rig, prompt: str, **options: object) -> int:
    ctx = rig.context(prompt, **options)  # type: ignore[arg-type]
    rig.flush(ctx)
    rig.run()
    return ctx


# In the core.


def test_a_context_that_lost_its_pages_gets_them_back_from_host_memory():
    rig = Rig(num_pages=10, num_host_pages=20)
    first, *_ = [flushed(rig, prompt) for prompt in PROMPTS]
    assert rig.num_computed(first) == 0
    assert rig.core.stats().num_used_host_pages == 8
    num_steps = len(rig.driver.steps)
    op = rig.generate(first, sampler=RANDOM, max_tokens=6)
    rig.run()
    # The two tokens behind the last whole page, and those of the reply.
    assert tokens_run(rig, num_steps) == 2 + 5
    assert rig.core.stats().num_page_returns == 4
    alone = Rig()
    same = alone.generate(alone.context(PROMPTS[0]), sampler=RANDOM, max_tokens=6)
    alone.run()
    assert rig.heard[op].ids == alone.heard[same].ids


def test_without_host_memory_it_is_computed_again():
    rig = Rig(num_pages=10, num_host_pages=0)
    first, *_ = [flushed(rig, prompt) for prompt in PROMPTS]
    num_steps = len(rig.driver.steps)
    rig.generate(first, max_tokens=1)
    rig.run()
    assert tokens_run(rig, num_steps) == 18
    assert rig.driver.num_pages_read == 0
    assert rig.core.stats().num_host_pages == 0


@pytest.mark.parametrize("num_host_pages", [50, 70, 100])
def test_in_too_little_host_memory_some_keep_all_instead_of_all_losing_theirs(num_host_pages: int):
    """Contexts that take turns come back for what was unused longest."""
    rig = Rig(num_pages=100, num_host_pages=num_host_pages)
    for letter in "abcdefghijkl":
        rig.send(OpenProcess(letter, "test"))
        rig.generate(rig.context(letter * 80, pid=letter), max_tokens=80, ignore_eos=True)
    rig.run(max_steps=5000)
    stats = rig.core.stats()
    assert stats.num_page_returns > 2 * num_host_pages
    # Besides what comes back, each page once: when its program has ended.
    assert rig.driver.num_pages_read <= stats.num_page_returns + stats.market.made
    rig.check()


def test_who_is_called_off_while_it_is_out_awaits_nothing():
    rig = Rig(num_pages=20, num_host_pages=12)
    for letter in "abcd":
        rig.send(OpenProcess(letter, "test"))
        rig.generate(rig.context(letter * 36, pid=letter), max_tokens=30, ignore_eos=True)
    while not rig.core.pool.tier._awaited:
        rig.step(after_s=0.01)
        rig.take_all()
    rig.send(*(CloseProcess(letter) for letter in "abcd"))
    assert not rig.core.pool.tier._awaited
    rig.check()


def test_plans_that_are_put_back_are_not_computed_again():
    rig, alone = Rig(num_pages=20, num_host_pages=100), Rig()
    ops = [rig.generate(rig.context(prompt, seed=1), sampler=RANDOM, max_tokens=30) for prompt in PROMPTS]
    rig.run()
    for op, prompt in zip(ops, PROMPTS, strict=True):
        same = alone.generate(alone.context(prompt, seed=1), sampler=RANDOM, max_tokens=30)
        alone.run()
        assert rig.heard[op].ids == alone.heard[same].ids
    stats = rig.core.stats()
    assert stats.num_preemptions > 0
    assert stats.num_page_returns > 0
    # Each time a context comes back, what is behind its last whole page is computed again.
    assert tokens_run(rig) <= tokens_run(alone) + stats.num_preemptions * (PAGE_SIZE - 1)


def test_what_nobody_overwrites_is_not_moved():
    rig = Rig(num_pages=12, num_host_pages=20)
    first = flushed(rig, PROMPTS[0])
    flushed(rig, PROMPTS[1])
    flushed(rig, "cc")
    rig.generate(first, max_tokens=1)
    rig.run()
    assert rig.driver.num_pages_read == 1, "the one that says how much memory a page is"


def test_pages_that_are_shared_are_moved_once_for_all_who_share_them():
    rig = Rig(num_pages=12, num_host_pages=40)
    first = flushed(rig, PROMPTS[0])
    forks = [rig.fork(first, 18) for _ in range(3)]
    for letter in "xyz":
        flushed(rig, letter * 40)
    assert [rig.num_computed(ctx) for ctx in (first, *forks)] == [0, 0, 0, 0]
    stats = rig.core.stats()
    assert stats.processes[0].num_host_pages == 4 + 10 + 8
    num_steps = len(rig.driver.steps)
    for ctx in forks:
        rig.flush(ctx)
    rig.run()
    assert rig.core.stats().num_page_returns == 4
    assert tokens_run(rig, num_steps) == 3 * 2
    pages = [rig.kv(ctx).page_ids[:4] for ctx in forks]
    assert pages[0] == pages[1] == pages[2]


def test_pages_that_are_in_host_memory_are_not_written_there_again():
    rig = Rig(num_pages=5, num_host_pages=20)
    contexts = [flushed(rig, prompt) for prompt in PROMPTS[:2]]
    for _ in range(5):
        for ctx in contexts:
            rig.forward(rig.fork(ctx, 18), [1])
            rig.run()
    assert rig.core.stats().num_page_returns > 30
    assert rig.driver.num_pages_read - 1 == 8


def test_when_host_memory_is_full_the_longest_unused_is_computed_again():
    rig = Rig(num_pages=5, num_host_pages=4)
    contexts = [flushed(rig, prompt) for prompt in PROMPTS[:3]]
    num_steps = len(rig.driver.steps)
    rig.generate(contexts[1], max_tokens=1)
    rig.run()
    assert tokens_run(rig, num_steps) == 2
    num_steps = len(rig.driver.steps)
    rig.generate(contexts[0], max_tokens=1)
    rig.run()
    assert tokens_run(rig, num_steps) == 18
    assert rig.core.stats().num_used_host_pages == 4


def test_a_prompt_of_a_program_that_has_ended_is_found_in_host_memory():
    rig = Rig(num_pages=10, num_host_pages=20)
    rig.send(Release(flushed(rig, PROMPTS[0])))
    for prompt in PROMPTS[1:]:
        rig.send(Release(flushed(rig, prompt)))
    num_steps = len(rig.driver.steps)
    flushed(rig, PROMPTS[0])
    assert tokens_run(rig, num_steps) == 2


def test_users_do_not_find_each_others_pages_in_host_memory():
    rig = Rig(num_pages=10, num_host_pages=20)
    rig.send(OpenProcess("a", "test", "ann"), OpenProcess("b", "test", "bob"))
    for prompt in PROMPTS:
        flushed(rig, prompt, pid="a")
    num_steps = len(rig.driver.steps)
    flushed(rig, PROMPTS[0], pid="b")
    assert tokens_run(rig, num_steps) == 18


def test_with_the_prefix_cache_switched_off_contexts_get_their_own_pages_back_and_leave_nothing():
    rig = Rig(num_pages=10, num_host_pages=20, prefix_cache="off")
    contexts = [flushed(rig, prompt) for prompt in PROMPTS]
    num_steps = len(rig.driver.steps)
    rig.generate(contexts[0], max_tokens=1)
    rig.run()
    assert tokens_run(rig, num_steps) == 2
    rig.send(*map(Release, contexts))
    stats = rig.core.stats()
    assert (stats.num_cached_pages, stats.num_used_host_pages, stats.num_free_pages) == (0, 0, 10)


def test_a_saved_context_that_is_in_host_memory_is_not_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rig = Rig(num_pages=10, num_host_pages=20, saved=SavedContexts(tmp_path))
    save(rig, flushed(rig, PROMPTS[0]), "a")
    ctx = opened(rig, SavedContexts(tmp_path), "a")
    for prompt in PROMPTS[1:]:
        flushed(rig, prompt)
    monkeypatch.setattr(SavedContexts, "read_blob", lambda *_: pytest.fail("it was read"))
    rig.flush(ctx)
    rig.run()
    assert rig.core.stats().num_page_returns == 4


def test_a_process_that_waits_for_pages_says_so_with_the_numbers():
    rig = Rig(num_pages=8, num_host_pages=20)
    rig.send(OpenProcess("p2", "later"))
    rig.generate(rig.context("a" * 12), max_tokens=18)
    rig.step(3)
    waiting = rig.flush(rig.context("b" * 27, pid="p2"))
    rig.step()
    usage = {usage.pid: usage.state for usage in rig.core.stats().processes}
    assert usage == {"p1": "running", "p2": "waiting: pages (7 needed, 4 free, p1 has 4)"}
    waits = {each.pid: each.num_pages_needed for each in rig.core.stats().processes}
    assert waits == {"p1": 0, "p2": 7}
    rig.run()
    assert rig.heard[waiting].is_flushed
    assert {each.num_pages_needed for each in rig.core.stats().processes} == {0}


def test_a_process_that_waits_for_pages_that_are_free_says_that_they_are_for_others():
    rig = Rig(num_pages=8)
    rig.send(OpenProcess("p2", "later"))
    rig.generate(rig.context("a" * 12), max_tokens=18)
    rig.step(3)
    rig.flush(rig.context("b" * 16, pid="p2"))
    rig.step()
    states = [usage.state for usage in rig.core.stats().processes]
    assert states == ["running", "waiting: pages (4 needed, 4 free but left for others, p1 has 4)"]


def test_who_waits_for_pages_for_a_while_is_told_once():
    rig = Rig(num_pages=8)
    rig.send(OpenProcess("p2", "later"))
    running = rig.generate(rig.context("a" * 12))
    rig.step(3)
    rig.flush(rig.context("b" * 27, pid="p2"))
    for _ in range(4):
        rig.step(after_s=NOTICE_AFTER_S / 2)
        rig.core.tell_waiting()
    rig.hear()
    assert rig.waits == [Waits("p2", 7, 3, 8)]
    rig.stop(running)
    rig.run()
    rig.core.tell_waiting()
    rig.hear()
    assert rig.waits == [Waits("p2", 7, 3, 8)]


def test_a_short_wait_is_not_told():
    wait = PageWait()
    assert not any([wait.is_news(3, 0.0), wait.is_news(4, NOTICE_AFTER_S - 0.1), wait.is_news(0, NOTICE_AFTER_S)])
    assert [wait.is_news(3, 10.0), wait.is_news(2, 10.0 + NOTICE_AFTER_S), wait.is_news(2, 20.0)] == [
        False,
        True,
        False,
    ]


def test_who_waits_again_and_again_is_told_once_a_minute():
    """Programs that take turns on the same pages would hear of nothing else."""
    wait = PageWait()
    told = [second for second in range(1000) if wait.is_news(3 * (second % 10 > 2), float(second))]
    assert told == [4, 64, 124, 184, 244, 304, 364, 424, 484, 544, 604, 664, 724, 784, 844, 904, 964]
    assert not wait.is_news(0, 1000.0)
    assert [wait.is_news(1, 2000.0), wait.is_news(1, 2001.0), wait.is_news(1, 3000.0)] == [False, True, False]


def test_who_is_ended_while_it_waits_gives_its_place_to_the_next():
    rig = Rig(num_pages=8, scheduling=SchedulingSection(policy="fcfs"))
    rig.send(OpenProcess("p2", "large"), OpenProcess("p3", "small"))
    running = rig.generate(rig.context("a" * 12))
    rig.step(3)
    rig.flush(rig.context("b" * 27, pid="p2"))
    small = rig.flush(rig.context("c" * 4, pid="p3"))
    rig.step(2)
    assert {each.pid: each.num_pages_needed for each in rig.core.stats().processes} == {"p1": 0, "p2": 7, "p3": 1}
    rig.send(CloseProcess("p2"))
    rig.step()
    assert rig.heard[small].is_flushed
    assert rig.heard[running].finish is None
    rig.check()


def test_a_context_that_lets_pages_go_comes_back_bit_by_bit():
    """It takes pages for some of it at a time: that these are all filled from host memory is no reason to stop."""
    rig = Rig(num_pages=8, num_host_pages=100, script=FakeScript(window=9), max_batch_tokens=8)
    alone = Rig(script=FakeScript(window=9))
    ctx = flushed(rig, "a" * 60)
    for letter in "bcd":
        flushed(rig, letter * 60)
    assert rig.num_computed(ctx) == 0
    op = rig.generate(ctx, max_tokens=5)
    rig.run()
    same = alone.generate(alone.context("a" * 60), max_tokens=5)
    alone.run()
    assert rig.heard[op].ids == alone.heard[same].ids
    assert rig.core.stats().num_page_returns > 0


@pytest.mark.parametrize(("num_host_pages", "most_computed"), [(24, 8 + PAGE_SIZE), (4, 190)])
@pytest.mark.parametrize("options", [{"script": FakeScript(window=16)}, {}])
def test_a_context_that_forgets_comes_back_with_what_it_still_sees(num_host_pages, most_computed, options):
    """However long it has lived: what it let go long ago is not in host memory any more, and nobody asks for it."""
    window = {} if options else {"window": 16, "sinks": 5}
    rig, alone = Rig(num_pages=12, num_host_pages=num_host_pages, **options), Rig(**options)
    said = []
    for each in (rig, alone):
        ctx = each.context("a" * 20)
        each.generate(ctx, sampler=RANDOM, max_tokens=150, ignore_eos=True, **window)
        each.run()
        if each is rig:
            for letter in "bc":
                flushed(rig, letter * 40)
            assert rig.kv(ctx).num_pages == 0
            num_steps = len(rig.driver.steps)
        op = each.generate(ctx, sampler=RANDOM, max_tokens=9, ignore_eos=True, **window)
        each.run()
        said.append(each.heard[op].ids)
    assert said[0] == said[1]
    computed = tokens_run(rig, num_steps)
    assert computed <= most_computed
    assert (computed < 100) == (num_host_pages == 24), "where a page that it sees is lost all is computed again"


def test_stats_count_pages_in_both_tiers():
    rig = Rig(num_pages=10, num_host_pages=20)
    for index, prompt in enumerate(PROMPTS):
        rig.send(OpenProcess(f"q{index}", "test", "ann"))
        flushed(rig, prompt, pid=f"q{index}")
    stats = rig.core.stats()
    usage = {each.pid: (each.num_pages, each.num_host_pages) for each in stats.processes if each.pid != "p1"}
    assert usage == {"q0": (0, 4), "q1": (0, 4), "q2": (5, 0), "q3": (5, 0)}
    assert (stats.num_host_pages, stats.num_used_host_pages, stats.num_page_returns) == (20, 8, 0)
    rig.send(CloseProcess("q0"))
    assert rig.core.stats().num_used_host_pages == 8, "as cached as pages on the device are"


# Slots and moves.


def test_the_longest_unused_slot_is_given_up_first():
    tier = HostTier(2)
    assert [tier.put(b"a"), tier.put(b"b"), tier.put(b"a")] == [0, 1, None]
    assert tier.put(b"c") == 1
    assert [tier.run([key]) for key in (b"a", b"b", b"c")] == [[0], [], [1]]
    tier.retire([b"c"])
    assert tier.put(b"d") == 1, "what is in a page again goes first"
    tier.forget(b"a")
    assert (len(tier), tier.put(b"f"), tier.violations()) == (1, 0, [])


def test_what_is_wanted_is_not_pushed_out_by_what_makes_room_for_it():
    tier = HostTier(3)
    for key in (b"1", b"2", b"x"):
        tier.put(key)
    tier.want([b"1", b"2"])
    assert [tier.put(b"y"), tier.put(b"z")] == [2, 2]
    tier.want([b"1", b"2", b"z"])
    assert tier.put(b"w") is None
    tier.retire([b"1"])
    assert tier.put(b"w") == 0


def test_a_tier_without_slots_takes_nothing():
    tier = HostTier(0)
    assert tier.put(b"a") is None
    assert tier.run([b"a"]) == []


def test_a_slot_that_is_lost_is_a_violation():
    tier = HostTier(2)
    tier.put(b"a")
    del tier._slots[b"a"]
    assert "slots of the host tier: [] used, [1] free" in tier.violations()


def test_what_is_given_up_first_has_to_be_what_nobody_awaits():
    tier = HostTier(2)
    tier.put(b"a")
    tier.expect([b"a"])
    tier._spare[b"a"] = None
    assert tier.violations() == ["content of the host tier is neither awaited nor spare, or both"]


def test_what_somebody_comes_back_for_is_kept_and_the_rest_given_up():
    tier = HostTier(3)
    for key in (b"a1", b"a2", b"x"):
        tier.put(key)
    awaited = tier.expect([b"a1", b"a2"])
    assert tier.put(b"y") == 2, "of which nobody knows whether it is wanted again"
    assert tier.put(b"z") == 2
    tier.expect([b"b1"])
    assert tier.put(b"b1") == 2
    assert (tier.put(b"c1"), tier.put(b"b2")) == (None, None), "all are awaited"
    tier.settle(awaited)
    assert tier.put(b"c1") == 0, "who has come, or does not, awaits nothing"
    assert tier.violations() == []


def test_of_what_somebody_awaits_the_end_gives_way_to_the_beginning():
    """Without that it cannot be used. Pages move out from the end on."""
    tier = HostTier(3)
    tier.put(b"a")
    tier.expect([b"a"])
    tier.expect([b"1", b"2", b"3", b"4"])
    assert [tier.put(key) for key in (b"4", b"3", b"2", b"1")] == [1, 2, 1, 2]
    assert (tier.run([b"a"]), tier.run([b"1", b"2", b"3"])) == ([0], [2, 1])
    assert tier.put(b"4") is None
    assert tier.violations() == []


def test_what_two_await_does_not_give_way_for_one_of_them():
    tier = HostTier(2)
    first, _ = tier.expect([b"1", b"2"]), tier.expect([b"0", b"1", b"2"])
    assert [tier.put(key) for key in (b"2", b"1", b"0")] == [0, 1, None]
    tier.settle(first)
    assert tier.put(b"0") == 0
    assert tier.violations() == []


def test_moves_keep_their_order_and_go_together_where_they_can():
    moves = Moves()
    moves.move_out(1, 10)
    moves.move_out(2, 11)
    moves.move_out(3, 10)
    moves.copy(4, 1)
    moves.copy(5, 1)
    moves.move_in(11, 2)
    moves.move_out(1, 12)
    assert list(moves.take()) == [
        ("out", [(3, 10), (2, 11)]),
        ("copy", [(4, 1), (5, 1)]),
        ("in", [(11, 2)]),
        ("out", [(1, 12)]),
    ]
    assert not moves


# Host memory.


def test_slots_keep_what_was_written_to_them():
    driver = FakeDriver(byte_tokenizer(), FakeScript(), page_size=PAGE_SIZE)
    driver.allocate_kv(4)
    driver.execute([Row([7, 8, 9, 10, 11], 0, [2, 3])])
    pages = HostPages(driver, 3)
    pages.write([2, 0], driver.read_pages([2, 3]))
    driver.write_pages([0, 1], pages.read([2, 0]))
    assert list(driver.tokens_in([0, 1], 5)) == [7, 8, 9, 10, 11]
    assert len(pages.regions) == len(driver.read_pages([0]))
    assert all(num_bytes > 0 for _, num_bytes in pages.regions)


def test_without_slots_there_is_no_memory():
    driver = FakeDriver(byte_tokenizer(), FakeScript(), page_size=PAGE_SIZE)
    driver.allocate_kv(1)
    assert HostPages(driver, 0).regions == []


@pytest.mark.parametrize(
    ("asked_mb", "free_mb", "num_slots"), [(10, 100, 10), (10, 20, 10), (60, 100, 50), (0, 100, 0)]
)
def test_at_most_half_of_what_is_free_is_taken(
    asked_mb: int, free_mb: int, num_slots: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("pie_engine.core.reserve.available_bytes", lambda: free_mb << 20)
    assert num_slots_of(ModelSection(path="m", offload_memory_mb=asked_mb), 1 << 20) == num_slots
    assert bool(caplog.records) == (num_slots < asked_mb)
