"""Dropped ranges, windows, masks and positions in any order, on a small pool, against a reference in sets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pie_engine.driver.fake_script import FakeScript
from pie_engine.kv.address import Sharing
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Append, Drop, Forward, Release, Save, Truncate
from pie_engine.store.contexts import SavedContexts
from pie_engine.store.portable import Import, export
from tests.stories import Story
from tests.unit.core_rig import Rig, run_at_once
from tests.unit.hole_stories import MODEL, PROMPT, created, expected, opened, runs

TOKENS = st.lists(st.integers(0, 255), min_size=1, max_size=14)
NAMES = st.sampled_from(["one", "two"])


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
