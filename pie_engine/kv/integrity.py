"""What has to add up over all contexts of a pool, and how many pages some of them hold.

Looked at when a core is idle, and by tests after every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from pie_engine.kv.context import KvContext
from pie_engine.kv.pool import NO_PAGE, PagePool
from pie_engine.kv.table import PageBlock, PageTable, joined


def violations(pool: PagePool, contexts: Sequence[KvContext]) -> list[str]:
    """What does not add up when `contexts` are all there are; empty when every page is accounted for."""
    blocks = _blocks(contexts)
    found = pool.violations([*(block.pages for block in blocks), *(context.table.own for context in contexts)])
    for context in contexts:
        found += context.table.violations()
        if context.num_tokens != len(context.tokens):
            found.append(f"a context counts {context.num_tokens} tokens and has {len(context.tokens)}")
        places = [place for first, end in context.gone for place in range(first, end)]
        if [place for place, page in enumerate(context.table.listed()) if page == NO_PAGE] != places:
            found.append(f"the pages that a context let go, {context.gone}, are not those that its table lacks")
        own = context.table.own
        first = len(context.table) - len(own)
        found += _of_content(pool, context, first, own[: context.num_committed_pages - first])
    for block, context in blocks.items():
        found += _of_content(pool, context, block.start, block.pages)
    holds = Counter(next(context.table.blocks(), None) for context in contexts)
    holds.update(block.before for block in blocks)
    for block in blocks:
        if holds[block] != block.num_holders:
            found.append(f"block of page {block.start} counts {block.num_holders} holders; there are {holds[block]}")
    return found


def distinct_pages(contexts: Iterable[KvContext]) -> set[int]:
    """The pages that these hold, each once; what they share is looked at once."""
    contexts = list(contexts)
    pages = {page for block in _blocks(contexts) for page in block.pages}
    return pages.union(*(context.table.own for context in contexts)) - {NO_PAGE}


def count_pages(pool: PagePool, contexts: Sequence[KvContext]) -> tuple[int, int]:
    """How many pages these hold, each once; and how many of those others hold as well."""
    blocks = _blocks(contexts)
    in_blocks = [block.pages for block in blocks]
    own = Counter(chain.from_iterable([context.table.own for context in contexts]))
    pages = set(own).union(*in_blocks)
    others = _blocks_of_others(blocks, contexts) if blocks else ()
    if NO_PAGE not in pages and len(pages) == len(own) + sum(map(len, in_blocks)):
        num_shared = pool.num_shared_beyond(own)
        for block in blocks:
            num_shared += len(block.pages) if block in others else pool.num_shared(block.pages)
        return len(pages), num_shared
    pages.discard(NO_PAGE)
    held = own + Counter(chain.from_iterable(in_blocks))
    shared = {page for page in pages if pool.num_holders(page) > held[page]}
    shared.update(page for block in others for page in block.pages if page != NO_PAGE)
    return len(pages), len(shared)


def count_each(pool: PagePool, groups: Sequence[Sequence[KvContext]]) -> list[tuple[int, int]]:
    """`count_pages` of many: of those with a single table, all pages are looked at at once."""
    found: list[tuple[int, int]] = []
    places, tables = [], []
    for place, contexts in enumerate(groups):
        paged = [context for context in contexts if len(context.table)]
        if len(paged) == 1 and not paged[0].gone:
            # Each page is in it once.
            table = paged[0].table
            num_of_others = _num_of_others(table)
            found.append((len(table), num_of_others))
            places.append(place)
            tables.append(table.listed()[num_of_others:])
        else:
            found.append(count_pages(pool, paged))
    if tables:
        are_shared = pool.are_shared(np.frombuffer(joined(tables), np.int64))
        ends = np.cumsum([len(table) for table in tables])
        num_shared = np.diff(np.concatenate(([0], np.cumsum(are_shared)))[np.concatenate(([0], ends))])
        for place, number in zip(places, num_shared.tolist(), strict=True):
            found[place] = found[place][0], found[place][1] + number
    return found


def _num_of_others(table: PageTable) -> int:
    """Pages at its beginning that are in blocks of others, too: whoever holds a block holds everything before it."""
    for block in table.blocks():
        if block.num_holders > 1:
            return block.start + len(block.pages)
    return 0


def _blocks_of_others(blocks: Iterable[PageBlock], contexts: Iterable[KvContext]) -> set[PageBlock]:
    """Those of `blocks`, all that `contexts` have, that are also in other tables."""
    holds: dict[PageBlock | None, int] = {}
    for last in [next(context.table.blocks(), None) for context in contexts]:
        holds[last] = holds.get(last, 0) + 1
    for block in blocks:
        holds[block.before] = holds.get(block.before, 0) + 1
    found: set[PageBlock] = set()
    for block in blocks:
        if block.num_holders > holds[block]:
            above: PageBlock | None = block
            while above is not None and above not in found:
                found.add(above)
                above = above.before
    return found


def _blocks(contexts: Iterable[KvContext]) -> dict[PageBlock, KvContext]:
    """Every block, and one of the contexts that have it."""
    found: dict[PageBlock, KvContext] = {}
    for context in contexts:
        for block in context.table.blocks():
            if block in found:
                break
            found[block] = context
    return found


def _of_content(pool: PagePool, context: KvContext, first: int, pages: Sequence[int]) -> list[str]:
    """Pages, from number `first` of the context on, that are published as something else than its tokens."""
    return [
        f"page {page} is published as something else than the tokens of a context that holds it"
        for index, page in enumerate(pages, first)
        if page != NO_PAGE
        if pool.index.key_of(page) not in (None, None if context.root is None else context.key(index))
    ]
