"""What has to add up over all contexts of a pool, and how many pages some of them hold.

Looked at when a core is idle, and by tests after every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pie_engine.kv.context import KvContext
from pie_engine.kv.pool import NO_PAGE, PagePool
from pie_engine.kv.table import PageBlock


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
    if len(contexts) == 1 and next(contexts[0].table.blocks(), None) is None:
        own = contexts[0].table.own
        return contexts[0].num_pages, sum(page != NO_PAGE and pool.is_shared(page) for page in own)
    blocks = _blocks(contexts)
    held = Counter(page for context in contexts for page in context.table.own)
    held.update(page for block in blocks for page in block.pages)
    del held[NO_PAGE]
    shared = {page for page, num_holders in held.items() if pool.num_holders(page) > num_holders}
    shared.update(page for block in _blocks_of_others(blocks, contexts) for page in block.pages if page != NO_PAGE)
    return len(held), len(shared)


def _blocks_of_others(blocks: Iterable[PageBlock], contexts: Iterable[KvContext]) -> set[PageBlock]:
    """Those of `blocks`, all that `contexts` have, that are also in other tables."""
    holds = Counter(next(context.table.blocks(), None) for context in contexts)
    holds.update(block.before for block in blocks)
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
