"""The page pool and contexts against a reference that keeps every KV value by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pie_engine.kv.context import KvContext
from pie_engine.kv.pool import PagePool

PAGE_SIZE = 4
TOKENS = st.lists(st.integers(0, 9), max_size=11)


def compute(context: KvContext, end: int) -> tuple[int, int] | None:
    copy = context.reserve(end)
    context.advance(end)
    return copy


def test_pages_are_handed_out_in_the_order_in_which_they_became_free():
    pool = PagePool(4, PAGE_SIZE)
    pages = [pool.take() for _ in range(4)]
    pool.release([pages[2], pages[0]])
    assert [pool.take(), pool.take()] == [pages[2], pages[0]]


def test_a_fork_shares_full_pages_and_copies_the_working_page_once():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.tokens += range(6)
    compute(parent, 6)
    child = parent.fork(6)
    assert child.page_ids == parent.page_ids
    assert pool.num_free == 6
    parent.tokens.append(6)
    child.tokens.append(7)
    shared = child.page_ids[1]
    assert compute(parent, 7) == (shared, parent.page_ids[1])
    assert compute(child, 7) is None
    assert child.page_ids == [parent.page_ids[0], shared]


def test_a_fork_at_a_page_border_copies_nothing():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.tokens += range(9)
    compute(parent, 8)
    child = parent.fork(4)
    child.tokens.append(7)
    assert compute(child, 5) is None
    assert compute(parent, 9) is None


def test_reserved_pages_are_not_shared_by_a_fork():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.tokens += range(16)
    parent.reserve(16)
    parent.advance(5)
    child = parent.fork(16)
    assert child.num_computed == 5
    assert child.page_ids == parent.page_ids[:2]
    assert parent.num_new_pages(16) == 1


def test_recomputing_the_last_token_of_a_shared_page_copies_it():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.tokens += range(4)
    compute(parent, 4)
    child = parent.fork(4)
    child.uncompute(3)
    assert child.num_new_pages(4) == 1
    assert compute(child, 4) == (parent.page_ids[0], child.page_ids[0])


def test_a_leaked_page_is_reported():
    pool = PagePool(2, PAGE_SIZE)
    page = pool.take()
    assert pool.violations([[page]]) == []
    assert pool.violations([]) == [f"page {page} counts 1 holders but is in 0 page tables"]


def test_a_page_released_twice_is_our_bug():
    pool = PagePool(2, PAGE_SIZE)
    page = pool.take()
    pool.release([page])
    with pytest.raises(AssertionError, match="free already"):
        pool.release([page])


class Reference:
    """What a context must be: its tokens, and for each computed position the prefix that its KV was computed from."""

    def __init__(self, tokens: tuple[int, ...], num_computed: int) -> None:
        self.tokens = tokens
        self.num_computed = num_computed


class Interleavings(RuleBasedStateMachine):
    """Random operations on a few contexts; the memory of the device is simulated slot by slot."""

    @initialize(num_pages=st.integers(1, 12))
    def start(self, num_pages: int) -> None:
        self.pool = PagePool(num_pages, PAGE_SIZE)
        self.memory: list[list[object]] = [[None] * PAGE_SIZE for _ in range(num_pages)]
        self.pairs: list[tuple[KvContext, Reference]] = []
        self.writers: dict[int, KvContext] = {}

    def pick(self, data: st.DataObject) -> tuple[KvContext, Reference]:
        return data.draw(st.sampled_from(self.pairs))

    @precondition(lambda self: len(self.pairs) < 6)
    @rule(tokens=TOKENS)
    def create(self, tokens: list[int]) -> None:
        context = KvContext(self.pool)
        context.tokens += tokens
        self.pairs.append((context, Reference(tuple(tokens), 0)))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), tokens=TOKENS)
    def append(self, data: st.DataObject, tokens: list[int]) -> None:
        context, reference = self.pick(data)
        context.tokens += tokens
        reference.tokens += tuple(tokens)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        context, reference = self.pick(data)
        end = data.draw(st.integers(reference.num_computed, len(reference.tokens)))
        reserved = data.draw(st.integers(end, len(reference.tokens)))
        num_new = context.num_new_pages(reserved)
        if num_new > self.pool.num_free:
            return
        num_free = self.pool.num_free
        copy = context.reserve(reserved)
        # A copied page may become free at once when its other holder has gone, but never here: it was shared.
        assert self.pool.num_free == num_free - num_new
        if copy:
            self.memory[copy[1]] = list(self.memory[copy[0]])
        self.write(context, reference, end)
        context.advance(end)
        reference.num_computed = end

    def write(self, context: KvContext, reference: Reference, end: int) -> None:
        for position in range(reference.num_computed, end):
            page = context.page_ids[position // PAGE_SIZE]
            others = [other for other, _ in self.pairs if other is not context and page in other.page_ids]
            assert not others, f"page {page} is written while another context holds it"
            self.memory[page][position % PAGE_SIZE] = reference.tokens[: position + 1]

    @precondition(lambda self: 0 < len(self.pairs) < 6)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        context, reference = self.pick(data)
        length = data.draw(st.integers(0, len(reference.tokens)))
        num_free = self.pool.num_free
        child = context.fork(length)
        assert self.pool.num_free == num_free
        self.pairs.append((child, Reference(reference.tokens[:length], min(length, reference.num_computed))))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        context, reference = self.pick(data)
        length = data.draw(st.integers(0, len(reference.tokens)))
        context.truncate(length)
        reference.tokens = reference.tokens[:length]
        reference.num_computed = min(length, reference.num_computed)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def uncompute(self, data: st.DataObject) -> None:
        context, reference = self.pick(data)
        reference.num_computed = data.draw(st.integers(0, reference.num_computed))
        context.uncompute(reference.num_computed)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pair = self.pick(data)
        pair[0].release()
        self.pairs = [other for other in self.pairs if other is not pair]

    @invariant()
    def pages_add_up(self) -> None:
        if hasattr(self, "pool"):
            assert self.pool.violations([context.page_ids for context, _ in self.pairs]) == []

    @invariant()
    def contexts_read_what_was_written_for_them(self) -> None:
        for context, reference in getattr(self, "pairs", []):
            assert tuple(context.tokens) == reference.tokens
            assert context.num_computed == reference.num_computed
            for position in range(reference.num_computed):
                page = context.page_ids[position // PAGE_SIZE]
                assert self.memory[page][position % PAGE_SIZE] == reference.tokens[: position + 1]

    def teardown(self) -> None:
        for context, _ in getattr(self, "pairs", []):
            context.release()
        if hasattr(self, "pool"):
            assert self.pool.num_free == self.pool.num_pages


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
