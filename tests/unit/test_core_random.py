"""Random interleavings of everything a host may say, on a small pool, against what the host must believe.

After every step: tokens are those that the host believes in, every page and every slot of host memory is accounted for,
and the KV in the driver is that of the context's tokens, whoever has computed it and wherever it has been meanwhile: in
another page, in host memory, on the disk, in a file, in a core that is gone.
"""

from __future__ import annotations

import tempfile
from array import array
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pie_engine.errors import NotFound
from pie_engine.kv.address import Sharing
from pie_engine.kv.integrity import count_each, count_pages, distinct_pages
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CreateContext,
    OpenProcess,
    Release,
    Restore,
    Save,
    Truncate,
)
from pie_engine.store.contexts import SavedContexts
from pie_engine.store.portable import Import, export
from tests.unit.core_rig import Rig, run_at_once

TOKENS = st.lists(st.integers(0, 255), min_size=1, max_size=14)
NUM_SUNG = st.integers(0, 22)
"""How much of `SONG` a context begins or goes on with, so that many have the same pages; 0: with `TOKENS`."""
SONG = [7, 7, 7, 7, 8, 8, 8, 8] * 3
MAX_CONTEXTS = 5
USERS = {"p1": "ann", "p2": "bob"}
NAMES = st.sampled_from(["one", "two", "carried"])
MODEL = "test-model"
QUOTA_BYTES = 10 << 20
MIN_STEPS_OF_A_CORE = 100


class Believed:
    """A context as its host sees it: fixed tokens, then operations whose tokens come as they are delivered."""

    def __init__(self, ctx: int, pid: str, tokens: list[int]) -> None:
        self.ctx = ctx
        self.pid = pid
        self.tokens = tokens
        self.queue: list[tuple[int, str, list[int]]] = []
        """(operation, kind, tokens that it appends by itself) of those that the host has no answer of."""


class Machine(RuleBasedStateMachine):
    """One host with a process for each of two users. A plan's chunks count as delivered when they have arrived; nothing
    queues behind a plan, as hosts see to."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        # Blocks are as small as they can be, so that these contexts have some.
        self.patch.setattr("pie_engine.kv.table.BLOCK_PAGES", 1)
        self.patch.setattr("pie_engine.kv.shared.BLOCK_ITEMS", 2)

    @initialize(
        num_pages=st.integers(6, 12) | st.integers(6, 40),
        max_tokens=st.integers(1, 24),
        max_sequences=st.integers(1, 6),
        sharing=st.sampled_from(["user", "user", "shared", "off"]),
        num_host_pages=st.sampled_from([0, 5, 30]),
        openers=st.lists(st.tuples(TOKENS, NUM_SUNG, st.integers(10, 40)), min_size=3, max_size=MAX_CONTEXTS),
    )
    def start(
        self,
        num_pages: int,
        max_tokens: int,
        max_sequences: int,
        sharing: Sharing,
        num_host_pages: int,
        openers: list[tuple[list[int], int, int]],
    ) -> None:
        """With contexts that write together what there may be no room for."""
        self.folder = tempfile.TemporaryDirectory(prefix="pie-random-")
        self.saved = SavedContexts(Path(self.folder.name))
        self.options: dict[str, Any] = {
            "num_host_pages": num_host_pages,
            "num_pages": num_pages,
            "max_batch_tokens": max_tokens,
            "max_batch_sequences": max_sequences,
            "prefix_cache": sharing,
        }
        self.sharing = sharing
        self.begin()
        for number, (tokens, num_sung, num_written) in enumerate(openers):
            self.create(tokens, num_sung, number, "p1" if number % 3 else "p2")
            self.write(self.contexts[-1], num_written, 0)

    def begin(self) -> None:
        """A core, of which only the saved contexts are known."""
        self.rig = Rig(saved=self.saved, **self.options)
        self.rig.send(CloseProcess("p1"), *(OpenProcess(pid, "test", user) for pid, user in USERS.items()))
        archive = self.rig.core.facts.archive
        assert archive is not None
        # In its turn: how fast the disk is must not decide what happens.
        archive._run = run_at_once  # type: ignore[method-assign]
        self.contexts: list[Believed] = []
        self.forced: dict[int, dict[int, int]] = {}
        """Of each plan, index → token of what was injected."""
        self.prefix: dict[int, list[int]] = {}
        self.content: dict[bytes, list[int]] = {}
        """Of pages by their keys, as far as contexts have had them: the tokens in them."""

    def settle(self) -> None:
        """What has been answered becomes fixed tokens."""
        for context in self.contexts:
            while context.queue:
                op, kind, tokens = context.queue[0]
                heard = self.rig.heard.get(op)
                is_answered = heard is not None and bool(
                    heard.finish or heard.error or heard.is_flushed or heard.forwarded
                )
                if not is_answered:
                    break
                assert heard is not None
                if kind == "plan":
                    self.prefix[op] = list(context.tokens)
                context.tokens += heard.ids if kind == "plan" else tokens
                context.queue.pop(0)
                if kind == "save" and heard.error is None:
                    self.check_saved(context)

    def pick(self, data: st.DataObject, *without: str) -> Believed | None:
        """A context on which no operation of these kinds is queued; a new one where there is none at all."""
        if not self.contexts:
            self.create(data.draw(TOKENS), data.draw(NUM_SUNG), 1, data.draw(st.sampled_from(list(USERS))))
        fitting = [each for each in self.contexts if not any(kind in without for _, kind, _ in each.queue)]
        return fitting[data.draw(st.integers(0, len(fitting) - 1))] if fitting else None

    def pick_plan(self, data: st.DataObject) -> int | None:
        plans = [op for each in self.contexts for op, kind, _ in each.queue if kind == "plan"]
        return plans[data.draw(st.integers(0, len(plans) - 1))] if plans else None

    @precondition(lambda self: len(self.contexts) < MAX_CONTEXTS)
    @rule(tokens=TOKENS, num_sung=NUM_SUNG, seed=st.integers(0, 3), pid=st.sampled_from(list(USERS)))
    def create(self, tokens: list[int], num_sung: int, seed: int, pid: str) -> None:
        tokens = SONG[:num_sung] or tokens
        ctx = self.rig.new_id()
        self.rig.send(CreateContext(ctx, pid, seed), Append(ctx, tokens))
        self.contexts.append(Believed(ctx, pid, list(tokens)))

    @rule(data=st.data(), tokens=TOKENS, num_sung=NUM_SUNG)
    def append(self, data: st.DataObject, tokens: list[int], num_sung: int) -> None:
        if context := self.pick(data, "plan", "pass", "flush", "save"):
            tokens = SONG[len(context.tokens) :][:num_sung] or tokens
            self.rig.send(Append(context.ctx, tokens))
            context.tokens += tokens

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        if context := self.pick(data, "plan", "pass", "flush", "save"):
            length = data.draw(st.integers(1, len(context.tokens)))
            self.rig.send(Truncate(context.ctx, length))
            del context.tokens[length:]

    @precondition(lambda self: len(self.contexts) < MAX_CONTEXTS)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        if context := self.pick(data, "pass", "flush", "save"):
            delivered = list(context.tokens)
            for op, _, _ in context.queue:
                delivered += self.rig.heard[op].ids if op in self.rig.heard else []
            length = data.draw(st.integers(1, len(delivered)))
            self.contexts.append(Believed(self.rig.fork(context.ctx, length), context.pid, delivered[:length]))

    @rule(data=st.data(), max_tokens=st.integers(0, 90))
    def generate(self, data: st.DataObject, max_tokens: int) -> None:
        if context := self.pick(data, "plan"):
            self.write(context, max_tokens, data.draw(st.sampled_from([0, 20])))

    def write(self, context: Believed, max_tokens: int, chunk_ms: int) -> None:
        op = self.rig.generate(context.ctx, max_tokens=max_tokens, chunk_ms=chunk_ms)
        context.queue.append((op, "plan", []))
        self.forced[op] = {}

    @rule(data=st.data(), tokens=TOKENS, top_k=st.integers(0, 2))
    def forward(self, data: st.DataObject, tokens: list[int], top_k: int) -> None:
        if context := self.pick(data, "plan"):
            sampler = data.draw(st.sampled_from([None, Sampler()]))
            op = self.rig.forward(context.ctx, tokens, sampler, top_k)
            context.queue.append((op, "pass", tokens))

    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        if context := self.pick(data, "plan"):
            context.queue.append((self.rig.flush(context.ctx), "flush", []))

    @rule(data=st.data(), name=NAMES, durable=st.booleans())
    def save(self, data: st.DataObject, name: str, durable: bool) -> None:
        if context := self.pick(data, "plan"):
            op = self.rig.new_id()
            self.rig.send(Save(op, context.ctx, name, durable=durable))
            context.queue.append((op, "save", []))

    @precondition(lambda self: len(self.contexts) < MAX_CONTEXTS)
    @rule(pid=st.sampled_from(list(USERS)), name=NAMES, seed=st.integers(0, 3))
    def open(self, pid: str, name: str, seed: int) -> None:
        """As a host does it."""
        try:
            tokens = self.saved.read(USERS[pid], MODEL, name).tokens
        except NotFound:
            return
        ctx = self.rig.new_id()
        self.rig.send(CreateContext(ctx, pid, seed), Append(ctx, tokens), Restore(ctx, name))
        self.contexts.append(Believed(ctx, pid, list(tokens)))

    @rule(pid=st.sampled_from(list(USERS)), name=NAMES)
    def delete(self, pid: str, name: str) -> None:
        try:
            self.saved.delete(USERS[pid], MODEL, name)
        except NotFound:
            return

    @rule(giver=st.sampled_from(list(USERS)), taker=st.sampled_from(list(USERS)), name=NAMES)
    def carry(self, giver: str, taker: str, name: str) -> None:
        """A saved context becomes a file, and the file another saved context, of another user perhaps."""
        try:
            num_bytes, pieces = export(self.saved, USERS[giver], MODEL, name)
        except NotFound:
            return
        data = b"".join(pieces)
        assert len(data) == num_bytes
        facts = self.rig.driver.capabilities
        arriving = Import(
            self.saved,
            USERS[taker],
            MODEL,
            model_id=facts.model_id,
            page_size=facts.page_size,
            quota_bytes=QUOTA_BYTES,
        )
        arriving.take(data)
        arriving.finish("carried", replace=True)
        arriving.drop()

    @precondition(lambda self: self.rig.core.num_steps > MIN_STEPS_OF_A_CORE)
    @rule()
    def restart(self) -> None:
        """The daemon ends and starts: contexts are gone, and what was saved is there."""
        self.finish()
        self.begin()

    @rule(data=st.data(), tokens=st.just([]) | TOKENS)
    def steer(self, data: st.DataObject, tokens: list[int]) -> None:
        if op := self.pick_plan(data):
            heard = self.rig.heard.get(op)
            keep = data.draw(st.integers(0, len(heard.ids) if heard else 0))
            self.rig.steer(op, keep, tokens)
            forced = {index: token for index, token in self.forced[op].items() if index < keep}
            self.forced[op] = forced | dict(enumerate(tokens, keep))

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        if op := self.pick_plan(data):
            heard = self.rig.heard.get(op)
            self.rig.stop(op, data.draw(st.integers(0, len(heard.ids) if heard else 0)))
            self.forget(op)

    def forget(self, op: int) -> None:
        """The host expects nothing more of a plan that it has stopped."""
        for context in self.contexts:
            if context.queue and context.queue[-1][0] == op:
                self.prefix[op] = list(context.tokens)
                context.tokens += self.rig.heard[op].ids
                context.queue.pop()
                self.rig.heard[op].epoch = -1

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if context := self.pick(data):
            self.rig.send(Release(context.ctx))
            self.contexts.remove(context)

    @rule(pid=st.sampled_from(list(USERS)))
    def close(self, pid: str) -> None:
        """The process ends; another one of the same user comes."""
        self.rig.send(CloseProcess(pid), OpenProcess(pid, "test", USERS[pid]))
        for context in [context for context in self.contexts if context.pid == pid]:
            self.contexts.remove(context)

    @rule(num_steps=st.integers(1, 12), takes=st.booleans())
    def step(self, num_steps: int, takes: bool = True) -> None:
        self.rig.step(num_steps, after_s=0.01)
        self.settle()
        if takes:
            self.rig.take_all()

    @rule(data=st.data(), tokens=TOKENS)
    def change_its_mind(self, data: st.DataObject, tokens: list[int]) -> None:
        """What has been computed is taken back, and something else comes in its place."""
        self.run_out()
        if context := self.pick(data, "plan"):
            length = data.draw(st.integers(max(1, len(context.tokens) - 9), len(context.tokens)))
            self.rig.send(Truncate(context.ctx, length), Append(context.ctx, tokens))
            context.tokens[length:] = tokens
            context.queue.append((self.rig.flush(context.ctx), "flush", []))

    @rule()
    def run_out(self) -> None:
        """Everything that was asked for ends."""
        self.rig.run()
        while self.rig.core.has_disk_work:
            self.rig.run()
        self.settle()

    @invariant()
    def pages_add_up(self) -> None:
        if hasattr(self, "rig"):
            self.rig.check()

    @invariant()
    def every_page_and_slot_is_somewhere(self) -> None:
        if not hasattr(self, "rig"):
            return
        pool = self.rig.core.pool
        held = distinct_pages(self.rig.kv(context.ctx) for context in self.contexts)
        assert len(held) + pool.num_free == pool.num_pages
        assert count_pages(pool, [self.rig.kv(context.ctx) for context in self.contexts]) == (len(held), 0)
        alone = [[self.rig.kv(one.ctx)] for one in self.contexts]
        counted = []
        for one, kvs in zip(self.contexts, alone, strict=True):
            others = distinct_pages(self.rig.kv(each.ctx) for each in self.contexts if each is not one)
            own = distinct_pages(kvs)
            counted.append((len(own), len(own & others)))
            assert count_pages(pool, kvs) == counted[-1]
        together = [kv for kvs in alone for kv in kvs]
        assert count_each(pool, [*alone, together, []]) == [*counted, (len(held), 0), (0, 0)]
        stats = self.rig.core.stats()
        assert stats.num_used_host_pages <= stats.num_host_pages == self.options["num_host_pages"]
        if self.options["num_host_pages"] == 0:
            assert stats.num_page_returns == 0

    @invariant()
    def host_memory_holds_what_it_says(self) -> None:
        if not hasattr(self, "rig"):
            return
        core = self.rig.core
        for context in self.contexts:
            kv = self.rig.kv(context.ctx)
            size = core.pool.page_size
            self.content |= {
                kv.key(page): kv.tokens[page * size : (page + 1) * size] for page in range(kv.num_tokens // size)
            }
        assert not core.pool.moves, "something was to be moved, and nobody has done it"
        for key, slot in core.pool.tier._slots.items():
            if key in self.content:
                assert core.host_pages.read([slot])["tokens"][0].tolist() == self.content[key]

    @invariant()
    def contexts_hold_the_kv_of_their_tokens(self) -> None:
        for context in getattr(self, "contexts", []):
            kv = self.rig.kv(context.ctx)
            assert self.rig.driver.tokens_in(kv.page_ids, kv.num_computed) == kv.tokens[: kv.num_computed]
            if not context.queue:
                assert kv.tokens[:] == context.tokens

    @invariant()
    def users_share_pages_only_when_told(self) -> None:
        if not hasattr(self, "rig") or self.sharing == "shared":
            return
        pages: dict[str, set[int]] = {pid: set() for pid in USERS}
        for context in self.contexts:
            pages[context.pid].update(self.rig.kv(context.ctx).page_ids)
        assert pages["p1"].isdisjoint(pages["p2"])

    def check_saved(self, context: Believed) -> None:
        """What a save that was answered has left may be replaced by another one by now, but is never broken."""
        for manifest in self.saved.list(USERS[context.pid], MODEL):
            assert manifest.is_whole
            self.saved.read_blob(USERS[context.pid], MODEL, manifest)

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            self.patch.undo()

    def end(self) -> None:
        if hasattr(self, "rig"):
            self.finish()
            self.folder.cleanup()

    def finish(self) -> None:
        self.run_out()
        for context in self.contexts:
            assert context.queue == [], "an operation without an answer"
            assert self.rig.tokens(context.ctx) == context.tokens
        for op, prefix in self.prefix.items():
            self.check_text(prefix, self.rig.heard[op].ids, self.forced[op])
        self.rig.send(*map(CloseProcess, USERS))
        assert self.rig.core.pool.num_free == self.rig.core.pool.num_pages

    def check_text(self, prefix: list[int], ids: list[int], forced: dict[int, int]) -> None:
        """Every token is the one that the model gives after the tokens before it, or was forced."""
        writer = self.rig.driver._inner._writer
        for index, token in enumerate(ids):
            expected = forced.get(index)
            if expected is None:
                expected = writer.pseudo(array("i", prefix + ids[:index]), 0)[0].token
            assert token == expected


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestLongMachine(Machine.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(max_examples=1000, stateful_step_count=80, deadline=None)
