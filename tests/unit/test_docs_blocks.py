"""No block of a page is unchecked, but where the page says why."""

from __future__ import annotations

import re

import pytest

from tests.pages import CHECKED, PAGES, ROOT, all_blocks, blocks_of

BLOCKS = all_blocks()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_is_a_block_with_a_language(page):
    assert len(re.findall(r"^\s*(?:```|~~~)", page.read_text("utf-8"), re.MULTILINE)) == 2 * len(blocks_of(page))
    assert [str(block) for block in blocks_of(page) if not block.language] == []


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_checked_by_one_test_or_says_why_not(block):
    checking = [test for test, kinds in CHECKED.items() if block.page in kinds.get(block.kind, ())]
    assert len(checking) == (0 if block.why_not else 1), f"{block} ({block.kind}): {checking}"


@pytest.mark.parametrize("test", CHECKED)
def test_who_is_answerable_for_blocks_takes_them(test):
    assert "checked_by(__file__" in (ROOT / test).read_text("utf-8")


@pytest.mark.parametrize("test", CHECKED)
def test_nobody_is_answerable_for_what_is_not_there(test):
    there = {(block.page, block.kind) for block in BLOCKS}
    assert {(page, kind) for kind, pages in CHECKED[test].items() for page in pages} <= there
