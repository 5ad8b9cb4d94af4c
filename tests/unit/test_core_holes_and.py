"""Holes, windows, masks and positions together with what else a core does: each works, or is refused by name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.errors import ErrorInfo
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.plan import BeamPlan, Grammar, Speculation
from pie_engine.protocol.sampling import GREEDY
from pie_engine.protocol.sight import Sight
from pie_engine.protocol.to_core import Append, Drop, Restore, Save, Search, Slide, Truncate
from pie_engine.store.contexts import SavedContexts
from tests.stories import Story
from tests.unit.core_rig import PAGE_SIZE, RANDOM, Heard, Rig
from tests.unit.hole_stories import MODEL, PROMPT, created, expected, num_pages, opened, reply
from tests.unit.test_core_draft_model import OTHER, SAME
from tests.unit.test_core_grammar import settle
from tests.unit.test_core_prefix import computed

COUNTING = FakeScript(replies=(Reply("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20."),))


def written(rig: Rig, **plan: Any) -> tuple[Heard, int]:
    """Behind a hole and a jump of positions, with a window; and the most pages that it took."""
    ctx, _ = created(rig, PROMPT)
    rig.send(Drop(ctx, 6, 17), Append(ctx, [7, 8, 9], Placement([60, 61, 70])))
    op = rig.generate(ctx, window=10, sinks=2, chunk_ms=0, **plan)
    settle(rig)
    most = 0
    while not rig.core.is_idle:
        rig.step(after_s=0.1)
        rig.take_all()
        most = max(most, num_pages(rig, ctx))
    rig.run()
    assert rig.heard[op].error is None, rig.heard[op].error
    return rig.heard[op], most


@pytest.mark.parametrize("sampler", [GREEDY, RANDOM], ids=["greedy", "random"])
@pytest.mark.parametrize("draft", [SAME, OTHER], ids=["good", "bad"])
def test_a_draft_model_changes_no_token_and_takes_no_page(draft: FakeScript, sampler: Any) -> None:
    """It sees everything, with plain positions, so it may guess wrongly; what it guesses is checked as the rest is."""
    plan = {"sampler": sampler, "max_tokens": 60, "ignore_eos": True}
    plain, most = written(Rig(), **plan)
    guessed, most_guessed = written(Rig(draft=draft), speculation=Speculation("model", 4), **plan)
    assert guessed.ids == plain.ids
    assert guessed.usage is not None
    assert guessed.usage.drafted_tokens
    # One for the guesses behind the end.
    assert most_guessed <= most + 1


def test_a_grammar_holds_where_little_is_seen() -> None:
    """A model that sees ten letters counts no further than four; the grammar sees all."""
    numbers = Grammar("regex", "([0-9]+, ){19}20")
    heard, most = written(Rig(script=COUNTING), grammar=numbers)
    assert heard.text == "1, 2, 3, 4, " * 4 + "1, 2, 3, 20"
    assert heard.finish == "stop"
    assert most < 12 + 6
    guessed, _ = written(Rig(script=COUNTING), grammar=numbers, speculation=Speculation("lookup", 8))
    assert guessed.ids == heard.ids


def test_beams_hold_the_pages_of_a_window_each() -> None:
    rig = Rig(num_pages=40)
    ctx, _ = created(rig, PROMPT)
    reply_op = rig.generate(ctx, max_tokens=1, window=10, sinks=2, ignore_eos=True)
    rig.run()
    assert rig.heard[reply_op].finish == "length"
    op = rig.new_id()
    rig.send(Search(op, ctx, BeamPlan(num_beams=4, max_tokens=90, ignore_eos=True)))
    least = 40
    while rig.heard.get(op) is None:
        rig.step(after_s=0.1)
        least = min(least, rig.core.pool.num_free)
    assert rig.heard[op].error is None, rig.heard[op].error
    assert least >= 40 - 5 * (1 + 3 + 2), "a beam would need 32 pages in the end"
    rig.check()


def wait(rig: Rig) -> None:
    end = time.monotonic() + 20
    rig.run()
    while rig.core.has_disk_work:
        assert time.monotonic() < end
        time.sleep(0.001)
        rig.run()


def save(rig: Rig, ctx: int) -> ErrorInfo | None:
    op = rig.new_id()
    rig.send(Save(op, ctx, "name"))
    wait(rig)
    return rig.heard[op].error


def changed(rig: Rig, ctx: int, story: Story, kind: str) -> None:
    """What a file has to carry beside tokens."""
    match kind:
        case "drop":
            rig.send(Drop(ctx, 2, 29))
            story.drop(2, 29)
        case "window":
            rig.send(Slide(ctx, 6, 1))
            story.slide(6, 1)
        case "two windows":
            rig.send(Slide(ctx, 9, 2))
            story.slide(9, 2)
            reply(rig, ctx, story, 20, window=5)
        case "mask":
            rig.send(Append(ctx, [5], Placement(None, [[1, len(PROMPT)]])))
            story.extend([5], masks=[set(range(1, len(PROMPT)))])
        case "positions":
            rig.send(Append(ctx, [5], Placement([3])))
            story.extend([5], positions=[3])


KINDS = ["drop", "window", "two windows", "mask", "positions"]


@pytest.mark.parametrize("model_window", [0, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_context_sees_what_it_saw(tmp_path: Path, kind: str, model_window: int) -> None:
    """In another core, forked, cut, carried and saved again; and its KV comes from the file."""
    saved, script = SavedContexts(tmp_path), FakeScript(window=model_window)
    ctx, story = created(rig := Rig(saved=saved, script=script), PROMPT)
    changed(rig, ctx, story, kind)
    assert save(rig, ctx) is None
    again = Rig(saved=saved, script=script, prefix_cache="off")
    ctx = opened(again, saved, "name")
    again.send(Append(ctx, [1, 2, 3]))
    story.extend([1, 2, 3])
    before = len(story.tokens)
    reply_of_opened(again, ctx, story, 12)
    assert again.driver.num_pages_written
    assert computed(again) <= 3 + 12, "only what was appended and written"
    child, beside = again.fork(ctx, before - 2), story.fork(before - 2)
    for each, its in ((ctx, story), (child, beside)):
        reply_of_opened(again, each, its, 5)
    assert save(again, ctx) is None
    last = Rig(saved=saved, script=script)
    reply_of_opened(last, opened(last, saved, "name"), story, 5)
    last.check()


def reply_of_opened(rig: Rig, ctx: int, story: Story, max_tokens: int) -> None:
    op = rig.generate(ctx, max_tokens=max_tokens, ignore_eos=True)
    wait(rig)
    num_prompt = len(story.tokens)
    story.extend(rig.heard[op].ids)
    assert rig.heard[op].ids == expected(rig, story, num_prompt)[:-1]


def test_a_file_has_the_pages_that_are_seen(tmp_path: Path) -> None:
    """And who opens it needs room for those, not for what is between them."""
    saved = SavedContexts(tmp_path)
    ctx, story = created(rig := Rig(saved=saved), PROMPT)
    rig.send(Slide(ctx, 8, 4))
    story.slide(8, 4)
    reply(rig, ctx, story, 160)
    assert save(rig, ctx) is None
    manifest = saved.read("", MODEL, "name")
    assert manifest.seen is not None
    assert manifest.seen.windows[-1][1:] == (8, 4)
    [part] = {len(part) for part in load(saved.read_blob("", MODEL, manifest)).values()}
    assert part == 200 // PAGE_SIZE - manifest.seen.num_gone <= 5
    small = Rig(saved=saved, num_pages=8)
    ctx = opened(small, saved, "name")
    reply_of_opened(small, ctx, story, 30)
    assert computed(small) <= 31
    small.check()


def test_what_a_model_has_forgotten_is_not_needed(tmp_path: Path) -> None:
    saved, script = SavedContexts(tmp_path), FakeScript(window=9)
    ctx, story = created(rig := Rig(saved=saved, script=script), PROMPT)
    assert save(rig, ctx) is None
    seen = saved.read("", MODEL, "name").seen
    assert seen is not None
    assert (seen.is_view, seen.num_gone) == (False, 7)
    again = Rig(saved=saved, script=script, num_pages=6)
    reply_of_opened(again, opened(again, saved, "name"), story, 20)
    assert computed(again) <= 21


def test_a_part_that_sees_what_the_file_lacks_is_computed(tmp_path: Path) -> None:
    saved = SavedContexts(tmp_path)
    ctx, story = created(rig := Rig(saved=saved), PROMPT)
    rig.send(Slide(ctx, 6, 0))
    story.slide(6, 0)
    reply(rig, ctx, story, 20)
    assert save(rig, ctx) is None
    again = Rig(saved=saved)
    ctx = opened(again, saved, "name")
    again.send(Truncate(ctx, 45))
    story.truncate(45)
    reply_of_opened(again, ctx, story, 9)
    assert computed(again) >= 45
    again.check()


def test_a_name_that_was_saved_with_another_sight_meanwhile_is_computed(tmp_path: Path) -> None:
    saved = SavedContexts(tmp_path)
    ctx, story = created(rig := Rig(saved=saved), PROMPT)
    assert save(rig, ctx) is None
    again = Rig(saved=saved)
    ctx_opened = opened(again, saved, "name")
    rig.send(Drop(ctx, 0, 20))
    assert save(rig, ctx) is None
    reply_of_opened(again, ctx_opened, story, 9)
    assert not again.driver.num_pages_written


def test_kv_of_holes_that_is_lost_is_computed(tmp_path: Path) -> None:
    saved = SavedContexts(tmp_path)
    ctx, story = created(rig := Rig(saved=saved), PROMPT)
    changed(rig, ctx, story, "drop")
    assert save(rig, ctx) is None
    next(tmp_path.rglob("kv-*")).unlink()
    again = Rig(saved=saved)
    reply_of_opened(again, opened(again, saved, "name"), story, 9)
    assert computed(again) > len(PROMPT)


@pytest.mark.parametrize(
    ("sight", "says"),
    [
        (Sight(jumps=[(2, 1 << 30)]), "its positions go beyond those of test-model"),
        (Sight(drops=[(40, [(0, 1)])]), "are of tokens that are not there"),
    ],
)
def test_what_a_model_cannot_see_is_refused(sight: Sight, says: str) -> None:
    """A manifest may come from elsewhere."""
    rig = Rig()
    ctx, _ = created(rig, PROMPT)
    rig.send(Restore(ctx, "name", sight))
    op = rig.generate(ctx, max_tokens=1)
    rig.run()
    error = rig.heard[op].error
    assert error is not None
    assert error.message.startswith("what was saved cannot be used: its ")
    assert says in error.message
    rig.check()


def test_a_truncated_context_is_read_only_up_to_where_it_sees_the_same(tmp_path: Path) -> None:
    """Its last token was read plainly for the file, and sees less now."""
    ctx, _ = created(rig := Rig(saved=SavedContexts(tmp_path)), PROMPT)
    assert save(rig, ctx) is None
    for forks in (False, True):
        again = Rig(saved=SavedContexts(tmp_path))
        ctx, story = created(again, PROMPT)
        again.send(Restore(ctx, "name"), Drop(ctx, 3, 21))
        story.drop(3, 21)
        if forks:
            ctx = again.fork(ctx, 30)
        else:
            again.send(Truncate(ctx, 30))
        story = story.fork(30)
        more = [9, 8, 7, 6, 5, 4]
        again.send(Append(ctx, more))
        story.extend(more)
        reply_of_opened(again, ctx, story, 9)


def test_an_opened_context_takes_holes_and_windows(tmp_path: Path) -> None:
    """Its KV comes from the file up to the last token, which has to see less than it did."""
    ctx, _ = created(rig := Rig(saved=SavedContexts(tmp_path)), PROMPT)
    assert save(rig, ctx) is None
    for window in (None, 12):
        again = Rig(saved=SavedContexts(tmp_path))
        ctx, story = created(again, PROMPT)
        again.send(Restore(ctx, "name"), Drop(ctx, 3, 21))
        story.drop(3, 21)
        fork = again.fork(ctx, len(PROMPT))
        beside = story.fork(len(PROMPT))
        for each, its in ((ctx, story), (fork, beside)):
            asked = {} if window is None else {"window": window, "sinks": 1}
            op = again.generate(each, max_tokens=1, ignore_eos=True, **asked)
            if window is not None:
                its.slide(window, 1)
            wait(again)
            its.extend(again.heard[op].ids)
            reply(again, each, its, 12)
        assert again.driver.num_pages_written, "the file was read"
