"""Dropped ranges, windows, masks and positions in the core, on a small pool, against a reference in sets."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pie_engine.driver.fake import FakeDriver
from pie_engine.driver.fake_script import FakeScript
from pie_engine.kv.address import Sharing
from pie_engine.kv.pool import NO_PAGE
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, CreateContext, Drop, Forward, Release, Restore, Save, Slide, Truncate
from pie_engine.store.contexts import SavedContexts
from pie_engine.store.portable import Import, export
from tests.stories import Story, next_tokens
from tests.unit.core_rig import PAGE_SIZE, Rig, run_at_once

TOKENS = st.lists(st.integers(0, 255), min_size=1, max_size=14)
NAMES = st.sampled_from(["one", "two"])
MODEL = "test-model"
PROMPT = [7 * i % 256 for i in range(40)]


def expected(rig: Rig, story: Story, num_prompt: int) -> list[int | None]:
    """What a plan gives behind `num_prompt` tokens, of which the others of the story are the first."""

    def driver(num_tokens: int) -> FakeDriver:
        made = FakeDriver(rig.tokenizer, rig.script, page_size=PAGE_SIZE)
        made.allocate_kv(num_tokens)
        return made

    return next_tokens(story, num_prompt, driver, PAGE_SIZE)


def created(rig: Rig, tokens: list[int]) -> tuple[int, Story]:
    ctx = rig.new_id()
    rig.send(CreateContext(ctx, "p1", 1), Append(ctx, tokens))
    return ctx, Story(tokens)


def reply(rig: Rig, ctx: int, story: Story, max_tokens: int, **fields: object) -> list[int]:
    """Generate, and check every token."""
    op = rig.generate(ctx, max_tokens=max_tokens, ignore_eos=True, **fields)
    if "window" in fields:
        story.slide(fields["window"], fields.get("sinks", 0))  # type: ignore[arg-type]
    rig.run()
    heard = rig.heard[op]
    assert heard.error is None, heard.error
    num_prompt = len(story.tokens)
    story.extend(heard.ids)
    assert heard.ids == expected(rig, story, num_prompt)[:-1]
    return heard.ids


def opened(rig: Rig, saved: SavedContexts, name: str) -> int:
    """A context from the disk, as a host makes it."""
    ctx, manifest = rig.new_id(), saved.read("", MODEL, name)
    rig.send(CreateContext(ctx, "p1", 1), Append(ctx, manifest.tokens), Restore(ctx, name, manifest.seen))
    return ctx


def runs(seen: set[int], number: int) -> list[int]:
    """The mask of token `number`, which sees `seen`, in run lengths: hidden first."""
    found, last = [0], False
    for other in range(number + 1):
        if (other in seen) != last:
            found.append(0)
            last = not last
        found[-1] += 1
    return found


class Machine(RuleBasedStateMachine):
    """Contexts of one process. Plans of several run together; what changes a context waits for its own."""

    @initialize(
        num_pages=st.integers(24, 60),
        max_tokens=st.integers(4, 24),
        window=st.sampled_from([0, 0, 9]),
        num_host_pages=st.sampled_from([0, 10, 100]),
        sharing=st.sampled_from(["user", "off"]),
    )
    def start(self, num_pages: int, max_tokens: int, window: int, num_host_pages: int, sharing: Sharing) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="pie-holes-")
        self.saved = SavedContexts(Path(self.folder.name))
        self.kept: dict[str, Story] = {}
        """Saved contexts by name."""
        self.options: dict[str, Any] = {
            "num_pages": num_pages,
            "max_batch_tokens": max_tokens,
            "script": FakeScript(window=window),
            "num_host_pages": num_host_pages,
            "prefix_cache": sharing,
        }
        self.begin()

    def begin(self) -> None:
        """A core, of which only the saved contexts are known."""
        self.rig = Rig(saved=self.saved, **self.options)
        archive = self.rig.core.facts.archive
        assert archive is not None
        # In its turn: how fast the disk is must not decide what happens.
        archive._run = run_at_once  # type: ignore[method-assign]
        self.stories: dict[int, Story] = {}
        self.plans: dict[int, int] = {}
        """Context → plan on it."""

    def settle(self) -> None:
        for ctx, op in list(self.plans.items()):
            heard = self.rig.heard.get(op)
            if heard is not None and (heard.finish or heard.error):
                assert heard.error is None, heard.error
                story = self.stories[ctx]
                num_prompt = len(story.tokens)
                story.extend(heard.ids)
                assert heard.ids == expected(self.rig, story, num_prompt)[:-1]
                del self.plans[ctx]

    def pick(self, data: st.DataObject) -> tuple[int, Story] | None:
        idle = [ctx for ctx in self.stories if ctx not in self.plans]
        if not idle:
            return None
        ctx = idle[data.draw(st.integers(0, len(idle) - 1))]
        return ctx, self.stories[ctx]

    @precondition(lambda self: len(self.stories) < 4)
    @rule(tokens=TOKENS, is_prompt=st.booleans())
    def create(self, tokens: list[int], is_prompt: bool) -> None:
        ctx, story = created(self.rig, PROMPT[: len(tokens) * 2] if is_prompt else tokens)
        self.stories[ctx] = story

    @rule(data=st.data(), tokens=TOKENS)
    def append(self, data: st.DataObject, tokens: list[int]) -> None:
        if picked := self.pick(data):
            ctx, story = picked
            if len(story.tokens) < 70:
                self.rig.send(Append(ctx, tokens))
                story.extend(tokens)

    @rule(data=st.data(), tokens=st.lists(st.integers(0, 255), min_size=1, max_size=5))
    def forward(self, data: st.DataObject, tokens: list[int]) -> None:
        """With a mask, positions, both or none."""
        picked = self.pick(data)
        if picked is None or len(picked[1].tokens) > 70:
            return
        ctx, story = picked
        first = len(story.tokens)
        masks, positions = [], []
        if data.draw(st.booleans()):
            masks = [data.draw(st.sets(st.integers(0, max(first + i - 1, 0)), max_size=12)) for i in range(len(tokens))]
        if data.draw(st.booleans()):
            positions = [data.draw(st.integers(0, 99)) for _ in tokens]
        encoded = [runs(seen | {first + index}, first + index) for index, seen in enumerate(masks)]
        placement = Placement(positions or None, encoded or None)
        op = self.rig.new_id()
        self.rig.send(Forward(op, ctx, tokens, Sampler(), placement=placement))
        story.extend(tokens, positions, masks)
        self.rig.run()
        self.settle()
        result = self.rig.heard[op].forwarded
        assert result is not None, self.rig.heard[op].error
        assert result.token == expected(self.rig, story, len(story.tokens))[-1]

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if picked := self.pick(data):
            ctx, story = picked
            first = data.draw(st.integers(0, len(story.tokens) - 1))
            end = data.draw(st.integers(first + 1, len(story.tokens)))
            self.rig.send(Drop(ctx, first, end))
            story.drop(first, end)

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        if picked := self.pick(data):
            ctx, story = picked
            length = data.draw(st.integers(1, len(story.tokens)))
            self.rig.send(Truncate(ctx, length))
            story.truncate(length)

    @precondition(lambda self: len(self.stories) < 4)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        if picked := self.pick(data):
            ctx, story = picked
            length = data.draw(st.integers(1, len(story.tokens)))
            self.stories[self.rig.fork(ctx, length)] = story.fork(length)

    @rule(data=st.data(), max_tokens=st.integers(1, 30), window=st.sampled_from([None, 3, 8]), sinks=st.integers(0, 5))
    def generate(self, data: st.DataObject, max_tokens: int, window: int | None, sinks: int) -> None:
        picked = self.pick(data)
        if picked is None or len(picked[1].tokens) > 60:
            return
        ctx, story = picked
        asked = {} if window is None else {"window": window, "sinks": sinks}
        self.plans[ctx] = self.rig.generate(ctx, max_tokens=max_tokens, ignore_eos=True, chunk_ms=0, **asked)
        if window is not None:
            story.slide(window, sinks)

    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        """Back to what was delivered before, at any time."""
        live = [op for op in self.plans.values() if op in self.rig.heard]
        if live:
            op = live[data.draw(st.integers(0, len(live) - 1))]
            self.rig.steer(op, data.draw(st.integers(0, len(self.rig.heard[op].ids))))

    @rule(num_steps=st.integers(1, 12))
    def step(self, num_steps: int) -> None:
        self.rig.step(num_steps, after_s=0.05)
        self.rig.take_all()
        self.settle()

    @rule()
    def run(self) -> None:
        self.run_out()
        assert not self.plans

    def run_out(self) -> None:
        self.rig.run()
        while self.rig.core.has_disk_work:
            self.rig.run()
        self.settle()

    @rule(data=st.data(), name=NAMES)
    def save(self, data: st.DataObject, name: str) -> None:
        if picked := self.pick(data):
            ctx, story = picked
            op = self.rig.new_id()
            self.rig.send(Save(op, ctx, name))
            self.run_out()
            assert self.rig.heard[op].is_flushed, self.rig.heard[op].error
            self.kept[name] = story.fork(len(story.tokens))

    @precondition(lambda self: len(self.stories) < 4 and self.kept)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        """As a host does it."""
        name = data.draw(st.sampled_from(sorted(self.kept)))
        story = self.kept[name]
        ctx = opened(self.rig, self.saved, name)
        self.stories[ctx] = story.fork(len(story.tokens))

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def carry(self, data: st.DataObject) -> None:
        """A saved context becomes a file, and the file another saved context."""
        name = data.draw(st.sampled_from(sorted(self.kept)))
        facts = self.rig.driver.capabilities
        arriving = Import(
            self.saved, "", MODEL, model_id=facts.model_id, page_size=facts.page_size, quota_bytes=1 << 30
        )
        arriving.take(b"".join(export(self.saved, "", MODEL, name)[1]))
        arriving.finish("carried", replace=True)
        arriving.drop()
        self.kept["carried"] = self.kept[name]

    @precondition(lambda self: self.kept)
    @rule()
    def restart(self) -> None:
        self.run_out()
        self.begin()

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.run_out()
            self.folder.cleanup()

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if picked := self.pick(data):
            self.rig.send(Release(picked[0]))
            del self.stories[picked[0]]

    @invariant()
    def pages_add_up(self) -> None:
        if hasattr(self, "rig"):
            self.rig.check()
            for ctx, story in self.stories.items():
                if ctx not in self.plans:
                    assert self.rig.tokens(ctx) == story.tokens


TestHoles = Machine.TestCase
TestHoles.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestLongHoles(Machine.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(max_examples=500, stateful_step_count=60, deadline=None)


def num_pages(rig: Rig, ctx: int) -> int:
    return rig.kv(ctx).num_pages


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
