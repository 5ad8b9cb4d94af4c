"""Dropped ranges, windows, masks and positions in the core: what each frees, refuses and keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pie_engine.driver.fake_script import FakeScript
from pie_engine.kv.pool import NO_PAGE
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CreateContext, Drop, Forward, Slide, Truncate
from tests.stories import Story
from tests.unit.core_rig import PAGE_SIZE, Rig
from tests.unit.hole_stories import PROMPT, created, expected, num_pages, reply


def test_a_dropped_range_frees_its_pages_and_is_not_seen() -> None:
    rig = Rig(num_pages=40)
    ctx, story = created(rig, PROMPT)
    reply(rig, ctx, story, 9)
    before = rig.core.pool.num_free, num_pages(rig, ctx)
    rig.send(Drop(ctx, 6, 30))
    story.drop(6, 30)
    # Of the pages 2 … 7; the half of page 1 stays, masked.
    assert rig.kv(ctx).page_ids[1:9].count(NO_PAGE) == 5
    assert (rig.core.pool.num_free, num_pages(rig, ctx)) == (before[0] + 5, before[1] - 5)
    rig.send(Drop(ctx, 4, 6))
    story.drop(4, 6)
    assert rig.kv(ctx).page_ids[1] == NO_PAGE
    reply(rig, ctx, story, 9)
    rig.check()


def test_a_window_with_sinks_bounds_the_pages_of_a_plan() -> None:
    rig = Rig(num_pages=12)
    ctx, story = created(rig, PROMPT[:10])
    op = rig.generate(ctx, max_tokens=300, window=16, sinks=3, ignore_eos=True, chunk_ms=0)
    story.slide(16, 3)
    most = 0
    while rig.heard.get(op) is None or rig.heard[op].finish is None:
        rig.step(after_s=0.1)
        rig.take_all()
        most = max(most, num_pages(rig, ctx))
    assert most <= 1 + 16 // PAGE_SIZE + 2
    ids = rig.heard[op].ids
    story.extend(ids)
    assert len(ids) == 300
    assert ids == expected(rig, story, 10)[:-1]


def test_a_prompt_longer_than_the_pool_runs_where_the_context_has_a_window() -> None:
    rig = Rig(num_pages=12, max_batch_tokens=8)
    ctx, story = rig.new_id(), Story()
    rig.send(CreateContext(ctx, "p1", 1), Slide(ctx, 9, 2), Append(ctx, PROMPT * 3))
    story.slide(9, 2)
    story.extend(PROMPT * 3)
    reply(rig, ctx, story, 40)
    assert num_pages(rig, ctx) <= 5


def test_a_prompt_longer_than_the_pool_runs_where_layers_all_slide() -> None:
    """The model itself forgets: pages behind its window are let go, also while the prompt is read."""
    rig = Rig(num_pages=12, script=FakeScript(window=9), max_batch_tokens=8)
    ctx, story = created(rig, PROMPT * 3)
    reply(rig, ctx, story, 40)
    assert num_pages(rig, ctx) <= 5
    # What was read is still found by who begins alike.
    again, other = created(rig, [*PROMPT, 1, 2])
    reply(rig, again, other, 5)


def test_a_context_that_slides_comes_back_from_host_memory_piece_by_piece() -> None:
    """The pieces are of three pages; what is reserved for each of them is there already."""
    rig = Rig(num_pages=12, script=FakeScript(window=9), num_host_pages=60)
    ctx, story = created(rig, PROMPT)
    reply(rig, ctx, story, 9)
    other, another = created(rig, [*range(40)])
    reply(rig, other, another, 7, window=200)
    assert rig.driver.num_pages_read
    rig.send(Truncate(ctx, 40))
    story.truncate(40)
    reply(rig, ctx, story, 9)
    assert rig.driver.num_pages_written > 3


def test_a_rewind_beyond_what_is_left_computes_it_again() -> None:
    rig = Rig(num_pages=30)
    ctx, story = created(rig, PROMPT[:12])
    op = rig.generate(ctx, max_tokens=60, window=8, ignore_eos=True, chunk_ms=0)
    story.slide(8, 0)
    rig.run()
    first = list(rig.heard[op].ids)
    assert rig.kv(ctx).num_gone > 10
    rig.steer(op, 5)
    rig.run()
    assert rig.heard[op].ids == first
    story.extend(first)
    assert first == expected(rig, story, 12)[:-1]


def test_the_same_holes_have_the_same_pages_and_others_do_not() -> None:
    rig = Rig(num_pages=60)

    def after_drop(first: int) -> tuple[list[int], int]:
        ctx, _ = created(rig, PROMPT)
        rig.send(Drop(ctx, first, first + 8), Append(ctx, PROMPT[:20]))
        rig.flush(ctx)
        hits = rig.core.stats().num_page_hits
        rig.run()
        return rig.kv(ctx).page_ids[10:14], rig.core.stats().num_page_hits - hits

    one, _ = after_drop(4)
    other, num_shared = after_drop(12)
    assert not set(one) & set(other)
    assert num_shared <= 9
    again, _ = after_drop(4)
    assert again == one


@pytest.mark.parametrize("num_host_pages", [0, 60])
@pytest.mark.parametrize("num_tokens", [20, 21, 22], ids=["itself-too", "up-to-the-last-page", "one-more"])
def test_a_prompt_that_is_known_is_dropped_before_it_is_read(num_tokens: int, num_host_pages: int) -> None:
    """The last token sees itself, and what is in front of the hole: nothing else has to be there."""
    rig = Rig(num_pages=20, num_host_pages=num_host_pages)
    known, _ = created(rig, PROMPT[:num_tokens])
    rig.flush(known)
    rig.run()
    if num_host_pages:  # what is known is in host memory then
        other, story = created(rig, [7] * 60)
        reply(rig, other, story, 19)
    ctx, story = created(rig, PROMPT[:num_tokens])
    rig.send(Drop(ctx, PAGE_SIZE, 20))
    story.drop(PAGE_SIZE, 20)
    reply(rig, ctx, story, 9)
    assert (rig.core.stats().num_page_returns > 0) == (num_host_pages > 0)
    rig.check()


def test_a_context_is_cut_where_it_was_dropped() -> None:
    rig = Rig(num_pages=30)
    ctx, story = created(rig, PROMPT[:24])
    rig.send(Drop(ctx, PAGE_SIZE, 22))
    story.drop(PAGE_SIZE, 22)
    reply(rig, ctx, story, 9)
    for length in (21, 20):
        rig.send(Truncate(ctx, length))
        story.truncate(length)
        reply(rig, ctx, story, 9)
    rig.check()


def test_a_new_window_keeps_hidden_what_the_one_before_has_hidden() -> None:
    rig = Rig(num_pages=40)
    ctx, story = created(rig, PROMPT[:30])
    for window, sinks in ((8, 2), (30, 0), (30, 0), (5, 9)):
        reply(rig, ctx, story, 10, window=window, sinks=sinks)
    reply(rig, ctx, story, 10)


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        (Placement([1, 2, 3], None), "positions has to be of 2 tokens, one entry each; got 3"),
        (Placement([5, 4096], None), "position 4096 is out of range: the model takes 0 … 4095"),
        (Placement([-1, 0], None), "position -1 is out of range"),
        (Placement(None, [[0, 5]]), "the mask has to be of 2 tokens, one entry each; got 1"),
        (Placement(None, [[0, 5], [0, 5]]), "the mask of token 1 covers 5 tokens; there are 6 up to it"),
        (Placement(None, [[5], [0, 6]]), "token 0 sees nothing by its mask"),
        (Placement(None, [[0, 4, 1], [0, 6]]), "token 0 does not see itself by its mask"),
        (Placement(None, [[0, 9, -4], [0, 6]]), "the mask of token 0 covers 5 tokens"),
    ],
)
def test_a_placement_that_does_not_fit_is_refused(placement: Placement, says: str) -> None:
    rig = Rig()
    ctx, _ = created(rig, PROMPT[:4])
    op = rig.new_id()
    rig.send(Forward(op, ctx, [8, 9], Sampler(), placement=placement))
    rig.run()
    error = rig.heard[op].error
    assert error is not None
    assert (error.code, says in error.message) == ("invalid_input", True), error.message
    other = rig.new_id()
    rig.send(CreateContext(other, "p1", 1), Append(other, PROMPT[:4]), Append(other, [8, 9], placement))
    op = rig.flush(other)
    rig.run()
    assert rig.heard[op].error == error


def test_positions_beyond_the_model_end_a_plan_and_refuse_a_prompt() -> None:
    rig = Rig()
    ctx = rig.new_id()
    rig.send(CreateContext(ctx, "p1", 1), Append(ctx, [5, 6], Placement([0, 4090])))
    op = rig.generate(ctx, ignore_eos=True)
    rig.run()
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("context", 5)
    rig.send(Append(ctx, [7]))
    op = rig.flush(ctx)
    rig.run()
    error = rig.heard[op].error
    assert error is not None
    assert error.message == "the context has a token at position 4096; test-model takes 4096"
    assert error.hint == "what was dropped keeps its positions: append what is still seen to a new context"


@pytest.mark.parametrize(
    ("window", "sinks", "says"),
    [
        (0, 0, "window must be 1 or more and sinks 0 or more, not 0 and 0"),
        (None, 4, "sinks need a window: they are what is seen besides it"),
    ],
)
def test_a_window_that_is_none_is_refused(window: int | None, sinks: int, says: str) -> None:
    rig = Rig()
    ctx, _ = created(rig, PROMPT)
    op = rig.generate(ctx, window=window, sinks=sinks)
    rig.run()
    error = rig.heard[op].error
    assert error is not None
    assert error.message == says


def test_a_model_with_attention_of_its_own_refuses_all_of_it() -> None:
    rig = Rig()
    rig.core.facts = replace(rig.core.facts, has_layouts=False)
    rig.core._intake._facts = rig.core.facts
    ctx, _ = created(rig, PROMPT)
    ops = [rig.generate(ctx, window=8), rig.new_id()]
    rig.send(Forward(ops[1], ctx, [8], Sampler(), placement=Placement([3])))
    other, _ = created(rig, PROMPT)
    rig.send(Drop(other, 1, 3))
    ops.append(rig.flush(other))
    third, _ = created(rig, PROMPT)
    rig.send(Slide(third, 8, 2))
    ops.append(rig.flush(third))
    rig.run()
    errors = [rig.heard[op].error for op in ops]
    assert [error.code for error in errors if error] == ["unsupported"] * 4
    assert all("attention of its own" in error.message for error in errors if error)


def test_a_token_further_back_sees_what_was_out_of_the_models_reach() -> None:
    rig = Rig(num_pages=40, script=FakeScript(window=9))
    ctx, story = created(rig, PROMPT)
    reply(rig, ctx, story, 9)
    assert rig.kv(ctx).num_gone
    op = rig.new_id()
    rig.send(Forward(op, ctx, [8], Sampler(), placement=Placement([15])))
    story.extend([8], [15])
    rig.run()
    result = rig.heard[op].forwarded
    assert result is not None
    assert [result.token] == expected(rig, story, len(story.tokens))
