"""The page pool and contexts against a reference that keeps every KV value by hand."""

from __future__ import annotations

from array import array

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pie_engine.kv.context import KvContext
from pie_engine.kv.integrity import violations
from pie_engine.kv.pool import PagePool
from pie_engine.kv.shared import BLOCK_ITEMS, SharedList
from pie_engine.kv.table import BLOCK_PAGES
from tests import thoroughness

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


def test_pages_are_handed_out_together_as_one_by_one():
    pools = [PagePool(6, PAGE_SIZE, 1) for _ in range(2)]
    for pool in pools:
        pages = pool.take_all(5)
        pool.index.publish(pages[1], b"first")
        pool.index.publish(pages[0], b"second")
        pool.release([pages[1], pages[0], pages[3]])
    one_by_one, together = pools
    assert together.take_all(4) == [one_by_one.take() for _ in range(4)] == [5, 3, 1, 0]
    assert list(together.moves.take()) == list(one_by_one.moves.take()) != []
    assert together.num_free == one_by_one.num_free == 0


def test_a_fork_shares_full_pages_and_copies_the_working_page_once():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.extend(range(6))
    compute(parent, 6)
    child = parent.fork(6)
    assert child.page_ids == parent.page_ids
    assert pool.num_free == 6
    parent.append(6)
    child.append(7)
    shared = child.page_ids[1]
    assert compute(parent, 7) == (shared, parent.page_ids[1])
    assert compute(child, 7) is None
    assert child.page_ids.tolist() == [parent.page_ids[0], shared]


def test_a_fork_at_a_page_border_copies_nothing():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.extend(range(9))
    compute(parent, 8)
    child = parent.fork(4)
    child.append(7)
    assert compute(child, 5) is None
    assert compute(parent, 9) is None


def test_reserved_pages_are_not_shared_by_a_fork():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.extend(range(16))
    parent.reserve(16)
    parent.advance(5)
    child = parent.fork(16)
    assert child.num_computed == 5
    assert child.page_ids == parent.page_ids[:2]
    assert parent.num_new_pages(16) == 1


def test_a_decode_at_the_end_of_its_page_takes_a_free_one():
    pool = PagePool(3, 4)
    context = KvContext(pool)
    assert not context.grow(), "there is no token"
    context.extend([1, 2, 3, 4])
    assert not context.grow(), "it needs more than a page for the next token"
    compute(context, 4)
    assert not context.grow(), "no token is left to run"
    context.append(5)
    fork = context.fork(4)
    assert context.grow()
    assert not context.grow(), "there is room"
    assert (list(context.page_ids), context.writable_end, list(fork.page_ids)) == ([0, 1], 8, [0])
    context.advance(5)
    other = context.fork(5)
    other.append(6)
    assert not other.grow(), "its page is shared"
    fork.append(5)
    assert fork.grow()
    another = context.fork(4)
    another.append(5)
    assert not another.grow(), "no page is free"
    assert violations(pool, [context, fork, other, another]) == []


def test_recomputing_the_last_token_of_a_shared_page_copies_it():
    pool = PagePool(8, PAGE_SIZE)
    parent = KvContext(pool)
    parent.extend(range(4))
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


def computed(num_tokens: int, chunk: int = 512) -> KvContext:
    """A context of its own pool, computed in chunks."""
    context = KvContext(PagePool(num_tokens // PAGE_SIZE + 100, PAGE_SIZE), root=b"root")
    context.extend(range(num_tokens))
    for end in range(chunk, num_tokens + chunk, chunk):
        compute(context, min(end, num_tokens))
    return context


@pytest.mark.parametrize("num_tokens", [100, 10_000, 100_000])
def test_a_fork_touches_as_much_at_any_length(num_tokens: int, monkeypatch: pytest.MonkeyPatch):
    context = computed(num_tokens)
    num_shared = 0

    def share(pool: PagePool, pages: list[int]) -> None:
        nonlocal num_shared
        num_shared += len(pages)
        original(pool, pages)

    original = PagePool.share
    monkeypatch.setattr(PagePool, "share", share)
    branches = [context.fork(num_tokens)]
    for _ in range(20):
        branches.append(branches[-1].fork(num_tokens))
    assert num_shared <= 21 * 2 * BLOCK_PAGES
    assert sum(len(branch.tokens.own) for branch in branches) <= 21 * BLOCK_ITEMS
    assert all(branch.table.ids is None for branch in branches), "a list of all pages was made"
    assert violations(context._pool, [context, *branches]) == []


def test_pages_of_blocks_are_freed_with_their_last_holder():
    context = computed(4_000)
    pool = context._pool
    first = context.fork(4_000)
    second = first.fork(2_001)
    num_free = pool.num_free
    context.release()
    assert pool.num_free == num_free
    first.truncate(1_000)
    assert pool.num_free == num_free + 1_000 - 501
    assert violations(pool, [first, second]) == []
    first.release()
    second.release()
    assert pool.num_free == pool.num_pages


def test_a_block_whose_holders_are_miscounted_is_reported():
    context = computed(200)
    next(context.table.blocks()).num_holders += 1
    assert len(violations(context._pool, [context])) == 1


def test_a_page_table_that_differs_from_its_blocks_is_reported():
    context = computed(200)
    context.page_ids[0] += 1
    assert violations(context._pool, [context]) == ["a page table and its blocks differ"]


@given(st.data())
@settings(max_examples=thoroughness.count(40, 200), deadline=None)
def test_shared_lists_are_lists(data: st.DataObject):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pie_engine.kv.shared.BLOCK_ITEMS", 3)
        pairs: list[tuple[SharedList[int], list[int]]] = [(SharedList(array("i")), [])]
        for _ in range(data.draw(st.integers(1, 12))):
            shared, plain = data.draw(st.sampled_from(pairs))
            length = data.draw(st.integers(0, len(plain)))
            match data.draw(st.sampled_from(["extend", "fork", "append", "truncate"])):
                case "extend":
                    items = data.draw(TOKENS)
                    shared.extend(items)
                    plain += items
                case "fork":
                    pairs.append((shared.fork(length), plain[:length]))
                case "append":
                    shared.append(7)
                    plain.append(7)
                case _:
                    shared.truncate(length)
                    del plain[length:]
        start, end = data.draw(st.integers(-9, 40)), data.draw(st.integers(-9, 40))
        for shared, plain in pairs:
            assert (len(shared), list(shared), shared[start:end]) == (len(plain), plain, plain[start:end])
            assert [shared[index] for index in range(-len(plain), len(plain))] == plain * 2
            with pytest.raises(IndexError):
                shared[len(plain)]
            with pytest.raises(IndexError):
                shared[-len(plain) - 1]


class Reference:
    """What a context must be: its tokens, and for each computed position the prefix that its KV was computed from."""

    def __init__(self, tokens: tuple[int, ...], num_computed: int) -> None:
        self.tokens = tokens
        self.num_computed = num_computed


class Interleavings(RuleBasedStateMachine):
    """Random operations on a few contexts; the memory of the device is simulated slot by slot."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()

    @initialize(num_pages=st.integers(1, 12), block_pages=st.integers(1, 3))
    def start(self, num_pages: int, block_pages: int) -> None:
        self.patch.setattr("pie_engine.kv.table.BLOCK_PAGES", block_pages)
        self.patch.setattr("pie_engine.kv.shared.BLOCK_ITEMS", 3)
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
        context.extend(tokens)
        self.pairs.append((context, Reference(tuple(tokens), 0)))

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), tokens=TOKENS)
    def append(self, data: st.DataObject, tokens: list[int]) -> None:
        context, reference = self.pick(data)
        context.extend(tokens)
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
            assert violations(self.pool, [context for context, _ in self.pairs]) == []

    @invariant()
    def contexts_read_what_was_written_for_them(self) -> None:
        for context, reference in getattr(self, "pairs", []):
            assert tuple(context.tokens) == reference.tokens
            assert context.num_computed == reference.num_computed
            for position in range(reference.num_computed):
                page = context.page_ids[position // PAGE_SIZE]
                assert self.memory[page][position % PAGE_SIZE] == reference.tokens[: position + 1]

    def teardown(self) -> None:
        self.patch.undo()
        for context, _ in getattr(self, "pairs", []):
            context.release()
        if hasattr(self, "pool"):
            assert self.pool.num_free == self.pool.num_pages


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=thoroughness.count(30, 300), stateful_step_count=40, deadline=None)
