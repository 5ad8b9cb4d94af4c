"""A token sequence and the KV pages of the part that has been computed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice

from pie_engine.kv.address import page_key
from pie_engine.kv.laid_out import laid_out
from pie_engine.kv.layout import Layout, Range, Spans, common, outside, united, without
from pie_engine.kv.pool import NO_PAGE, PagePool
from pie_engine.kv.shared import SharedList
from pie_engine.kv.table import PageTable
from pie_engine.kv.view import View


class KvContext:
    """Tokens, of which the first `num_computed` have their KV in `page_ids`.

    Page `page_ids[i]` holds tokens `i * page_size …`. Pages before `num_committed_pages` are full; with a `root`
    they are published for every context with the same one, and not written while they are. The working pages behind
    them are written from `num_computed` on, after `reserve`. Forks share pages by reference; a shared page that has to
    be written is copied first. Forking costs the same at any length (`kv.shared`, `kv.table`).

    Full pages that no later token sees are let go: they are `NO_PAGE` in the table.
    """

    __slots__ = (
        "_keys",
        "_pool",
        "gone",
        "is_bounded",
        "is_plain",
        "num_computed",
        "num_tokens",
        "root",
        "table",
        "tokens",
        "view",
        "writable_end",
    )

    def __init__(self, pool: PagePool, root: bytes | None = None) -> None:
        """`root`: see `kv.address`; without one its pages are neither published nor looked up."""
        self._pool = pool
        self.root = root
        self._keys: SharedList[bytes] = SharedList([])
        """Of the first full pages of `tokens`, computed or not; made when they are asked for."""
        self.tokens: SharedList[int] = SharedList(array("i"))
        """To be read only: `append`, `extend` and `truncate` change them."""
        self.num_tokens = 0
        """Of `tokens`; the loop asks for it all the time."""
        self.num_computed = 0
        self.table = PageTable(pool)
        self.writable_end = 0
        """Tokens `num_computed … writable_end - 1` lie in pages of this context alone."""
        self.view: View | None = None
        """What its tokens see; None: everything before them."""
        self.gone: list[Range] = []
        """Places in the table whose pages were let go."""
        self._mark()

    def _mark(self) -> None:
        """After another view, and after other pages were let go; the loop asks for this all the time."""
        self.is_plain = self.view is None and not self.gone
        """Whether its slots are its positions, and each token sees everything before it."""
        self.is_bounded = self._pool.window is not None or (self.view is not None and self.view.is_bounded)
        """Whether pages are let go as it grows, so that it never needs them all at once."""

    @property
    def page_ids(self) -> array[int]:
        """All pages; to be read only."""
        return self.table.listed()

    @property
    def num_gone(self) -> int:
        return _size(self.gone) if self.gone else 0

    @property
    def num_pages(self) -> int:
        return len(self.table) - self.num_gone

    @property
    def next_position(self) -> int:
        """Where the next token stands."""
        return self.num_tokens if self.view is None else self.view.positions(self.num_tokens, self.num_tokens + 1)[0]

    @property
    def num_uncomputed(self) -> int:
        return self.num_tokens - self.num_computed

    @property
    def num_writable(self) -> int:
        """Tokens that can run before there are more pages."""
        return self.writable_end - self.num_computed

    @property
    def num_decodable(self) -> int:
        """Tokens that it can decode one after the other before it needs a page."""
        return self.writable_end - self.num_computed if self.num_tokens == self.num_computed + 1 else 0

    @property
    def num_committed_pages(self) -> int:
        return self.num_computed // self._pool.page_size

    def num_full_at(self, length: int) -> int:
        """Pages that `length` tokens fill."""
        return length // self._pool.page_size

    def append(self, token: int) -> None:
        self.tokens.own.append(token)
        self.num_tokens += 1

    def extend(self, tokens: Sequence[int], positions: Sequence[int] = (), masks: Sequence[Spans] = ()) -> None:
        """`positions` and `masks`, of all of the tokens or none: see `View.placed`."""
        if positions or masks:
            self.view = (self.view or View()).placed(self.num_tokens, positions, masks)
            self._mark()
            if self.gone:
                # At a position further back, what was out of the model's reach is not any more.
                self._recover()
        self.tokens.extend(tokens)
        self.num_tokens += len(tokens)

    def see(self, view: View | None) -> None:
        """What the tokens see that are there, before any of them is computed."""
        assert not self.num_computed, self.num_computed
        self.view = view
        self._keys.truncate(0)
        self._mark()

    def drop(self, first: int, end: int) -> None:
        """The last token, read again, and all later ones do not see the tokens `first … end - 1`."""
        assert 0 <= first < end <= self.num_tokens, (first, end, self.num_tokens)
        last = self.num_tokens - 1
        self._look((self.view or View()).dropped(last, first, end), last)

    def slide(self, window: int, sinks: int) -> None:
        """The last token and all later ones see the first `sinks` tokens and the last `window`."""
        last = max(self.num_tokens - 1, 0)
        view = (self.view or View()).within(last, window, sinks)
        if view != self.view:
            self._look(view, last)

    def _look(self, view: View, since: int) -> None:
        """Another view from token `since` on."""
        self.view = view
        self._keys.truncate(min(since // self._pool.page_size, len(self._keys)))
        self._mark()
        self.uncompute(min(since, self.num_computed))
        self._let_go()

    def num_new_pages(self, end: int, gaps: Spans = ()) -> int:
        """Free pages that `reserve(end, gaps)` takes."""
        num_pages, num_there = self._pool.num_pages_for(end), len(self.table)
        num_missing = max(0, num_pages - num_there) - (_size(common(gaps, [(num_there, num_pages)])) if gaps else 0)
        return num_missing + (self._shared_working_page() is not None)

    def num_pages_at(self, end: int, gaps: Spans = ()) -> int:
        """Pages that it holds when `end` tokens are computed, before it lets any go."""
        num_pages, num_there = self._pool.num_pages_for(end), len(self.table)
        num_left_out = _size(common(gaps, [(num_there, num_pages)])) if gaps else 0
        return max(num_pages, num_there) - self.num_gone - num_left_out

    def grow(self) -> bool:
        """Take a free page for the next token, if that is all it lacks and there is one: `reserve` for a decode at the
        end of its page, which is asked for every page of every reply."""
        pool, table, end = self._pool, self.table, self.writable_end
        num_lacking = self.num_tokens - end
        if num_lacking != 1 or end != self.num_computed or end != len(table) * pool.page_size or not pool.num_free:
            return False
        table.append(pool.take())
        self.writable_end = end + pool.page_size
        return True

    def reserve(self, end: int, gaps: Spans = ()) -> tuple[int, int] | None:
        """Make the positions up to `end` writable. Returns the page copy `(source, destination)` that this needs.

        The copy has to be done before the pages are written; the pool must have `num_new_pages(end, gaps)` pages free.
        The pages `gaps` get no space: what is written now is KV that lacks them, see `reachable`.
        """
        pool, table, copy = self._pool, self.table, None
        index, num_pages = self.num_committed_pages, pool.num_pages_for(end)
        lacking = common(gaps, [(index, num_pages)]) if gaps else []
        for first, stop in common(without(lacking, self.gone), [(index, len(table))]):
            table.let_go(first, stop)
        working = self._shared_working_page()
        if working is not None:
            copy = (working, pool.take())
            table.replace(index, [copy[1]])
        elif index < len(table) and table.page(index) != NO_PAGE:
            pool.index.forget(table.page(index))
        if lacking:
            for place in range(len(table), num_pages):
                table.append(NO_PAGE if common(lacking, [(place, place + 1)]) else pool.take())
        elif num_pages > len(table):
            table.extend(pool.take_all(num_pages - len(table)))
        self.writable_end = len(table) * pool.page_size
        if lacking:
            self.gone = united([*self.gone, *lacking])
            self._mark()
        return copy

    def reachable(self, end: int, gaps: Spans) -> int:
        """How many of the first `end` tokens can be put back from KV that lacks the pages `gaps`.

        From there on it can be computed: no later token sees what is not there.
        """
        size = self._pool.page_size
        lacking = common(gaps, [(self.num_committed_pages, self._pool.num_pages_for(end))])
        if not lacking:
            return end
        if end % size and lacking[-1][1] > end // size:
            end -= end % size
        needed = without([(0, end)], self._hidden_from(end))
        return lacking[0][0] * size if common(lacking, _pages_of(needed, size)) else end

    def advance(self, end: int) -> int:
        """The KV up to `end` has been written. Returns how many pages became full by that."""
        assert self.num_computed <= end <= self.writable_end, (self.num_computed, end, self.writable_end)
        size = self._pool.page_size
        first, num_full = self.num_computed // size, end // size
        self.num_computed = end
        if num_full > first:
            if self.root is not None:
                for index in range(first, num_full):
                    self._publish(index)
            self.table.seal(num_full)
            if self.is_bounded:
                self._let_go()
        return num_full - first

    def coming_keys(self) -> Sequence[bytes]:
        """Keys of the pages that become full when all tokens are computed, in their order; none without a root."""
        first, end = self.num_committed_pages, self.num_tokens // self._pool.page_size
        if self.root is None or first >= end:
            return ()
        self._make_keys(end)
        return self._keys.part(first, end)

    def out_of_sight(self) -> list[Range]:
        """Full pages that nobody sees when what is behind the last full page is computed, and what comes later."""
        num_full = self.num_full_at(self.num_tokens)
        return self._hidden_pages(min(num_full * self._pool.page_size, max(self.num_tokens - 1, 0)), num_full)

    def adopt(self, pages: list[int], gaps: Spans = ()) -> int:
        """Go on with published pages, at least one, of the first `coming_keys`, which were not computed here.

        Those of the places `gaps`, which are `out_of_sight`, are left out. The last token stays uncomputed: its logits
        may be wanted. Returns how many full pages it has then, or has let go.
        """
        first = self.num_committed_pages
        *places, end = islice(outside(gaps, first), len(pages) + 1)  # past the gap that the last one ends at
        laid = [NO_PAGE] * (end - first)
        for place, page in zip(places, pages, strict=True):
            laid[place - first] = page
        self._pool.share(pages)
        self.table.replace(first, laid)
        if gaps:
            self.gone = united([*self.gone, *common(gaps, [(first, end)])])
            self._mark()
        self.num_computed = min(end * self._pool.page_size, self.num_tokens - 1)
        self.writable_end = self.num_computed
        self.table.seal(self.num_committed_pages)
        if self.is_bounded:
            self._let_go()
        return end

    def fork(self, length: int) -> KvContext:
        """A context of the first `length` tokens that shares the pages of those that are computed."""
        assert 0 <= length <= self.num_tokens, (length, self.num_tokens)
        pool, num_computed = self._pool, min(length, self.num_computed)
        child = KvContext.__new__(KvContext)
        child._pool, child.root = pool, self.root
        child.tokens, child.num_tokens = self.tokens.fork(length), length
        child._keys = self._keys.fork(min(length // pool.page_size, len(self._keys)))
        child.num_computed = child.writable_end = num_computed
        child.table = self.table.fork(pool.num_pages_for(num_computed), num_computed // pool.page_size)
        child.view, child.gone = self.view, common(self.gone, [(0, len(child.table))])
        child._mark()
        # The working page may now be shared.
        self.writable_end = self.num_computed
        if length < self.num_tokens and not child.is_plain:
            child._keep_view(length)
        return child

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens, as if the others had never been."""
        assert 0 <= length <= self.num_tokens, (length, self.num_tokens)
        self.tokens.truncate(length)
        self.num_tokens = length
        self._keys.truncate(min(length // self._pool.page_size, len(self._keys)))
        self.uncompute(min(length, self.num_computed))
        if not self.is_plain:
            self._keep_view(length)

    def _keep_view(self, length: int) -> None:
        """Of the first `length` tokens, the only ones left. What was dropped after them stays dropped."""
        last = length - 1
        if self.view is not None:
            clips, self.view = self.view.clips(length), self.view.cut(length)
            if clips:
                self._keys.truncate(min(last // self._pool.page_size, len(self._keys)))
                self.uncompute(min(last, self.num_computed))
            self._mark()
        self._recover()

    def uncompute(self, num_computed: int) -> None:
        """Keep the KV of the first `num_computed` tokens only, or less, if what comes next sees what was let go."""
        assert 0 <= num_computed <= self.num_computed, (num_computed, self.num_computed)
        self._cut(num_computed)
        if self.gone:
            self._recover()

    def _recover(self) -> None:
        """Begin again where a page is missing. Tokens are computed anew as they were, see what they saw."""
        size, working = self._pool.page_size, self.num_committed_pages
        if self.num_computed % size and common(self.gone, [(working, working + 1)]):
            self._cut(working * size)
        needed = without([(0, self.num_computed)], self._hidden_from(self.num_computed))
        if common(self.gone, _pages_of(needed, size)):
            self._cut(0)

    def _cut(self, num_computed: int) -> None:
        self.num_computed = self.writable_end = num_computed
        self.table.cut(self._pool.num_pages_for(num_computed), self.num_committed_pages)
        if self.gone:
            self.gone = common(self.gone, [(0, len(self.table))])
            self._mark()

    def _let_go(self) -> None:
        """Give up the full pages that no token sees from here on.

        Nor the last one, which may be read again: its logits may be wanted.
        """
        seen_from = min(self.num_computed, max(self.num_tokens - 1, 0))
        going = without(self._hidden_pages(seen_from, self.num_committed_pages), self.gone)
        for first, end in going:
            self.table.let_go(first, end)
        self.gone = united([*self.gone, *going])
        self._mark()

    def _hidden_pages(self, number: int, num_full: int) -> list[Range]:
        """Of the first `num_full` pages, those of which no token from `number` on sees anything."""
        size = self._pool.page_size
        return united((-(-first // size), min(end // size, num_full)) for first, end in self._hidden_from(number))

    def _hidden_from(self, number: int) -> list[Range]:
        """What no token from `number` on sees."""
        hidden = [] if self.view is None else self.view.hidden_from(number)
        return united([*hidden, *self._out_of_reach(number)])

    def _out_of_reach(self, number: int) -> list[Range]:
        """What no layer of the model lets token `number`, or a later one, see."""
        window = self._pool.window
        if window is None or number < window or (self.view is not None and self.view.jumps):
            return []
        return [(0, number + 1 - window)]

    def laid_out(self, first: int, end: int) -> tuple[list[int], int, Layout]:
        """For the row of the tokens `first … end - 1`: the page table of what is left, the first slot, the layout."""
        seen = (self.view or View()).seen(first, end)
        if self._pool.window is not None:
            seen = (without(spans, self._out_of_reach(number)) for number, spans in enumerate(seen, first))
        return laid_out(self.table.listed(), self.gone, self._pool.page_size, self.view or View(), end, list(seen))

    def release(self) -> None:
        """Give everything back; the context is empty."""
        self.truncate(0)

    def key(self, index: int) -> bytes:
        """Of page `index`, which `tokens` fill; there has to be a root."""
        self._make_keys(index + 1)
        return self._keys[index]

    def _make_keys(self, end: int) -> None:
        """Those of the first `end` pages."""
        assert self.root is not None, "without a root pages have no keys"
        keys, tokens, size = self._keys, self.tokens, self._pool.page_size
        num_known = len(keys)
        if num_known >= end:
            return
        parent, start = keys[-1] if num_known else self.root, num_known * size
        new = tokens.part(start, end * size)
        for first in range(start, end * size, size):
            view_id = b"" if self.view is None else self.view.identity(first, first + size)
            parent = page_key(parent, first, new[first - start : first - start + size], view_id)
            keys.append(parent)

    def _publish(self, index: int) -> None:
        """Page `index` has become full. If another page has this content already, that one is kept."""
        page, key = self.table.page(index), self.key(index)
        if page == NO_PAGE:
            return
        known = self._pool.index.page_of(key)
        if known is None:
            self._pool.index.publish(page, key)
        else:
            self._pool.share([known])
            self.table.replace(index, [known])

    def _shared_working_page(self) -> int | None:
        index = self.num_committed_pages
        if index < len(self.table):
            page = self.table.page(index)
            if page != NO_PAGE and self._pool.is_shared(page):
                return page
        return None


def _size(spans: Spans) -> int:
    return sum(end - first for first, end in spans)


def _pages_of(tokens: Spans, page_size: int) -> list[Range]:
    """The pages that hold any of these."""
    return united((first // page_size, -(-end // page_size)) for first, end in tokens)
