"""Holes, windows, masks and positions together with what else a core does: each works, or is refused by name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pie_engine.driver.fake_script import FakeScript, Reply
from pie_engine.errors import ErrorInfo
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.plan import BeamPlan, Grammar, Speculation
from pie_engine.protocol.sampling import GREEDY
from pie_engine.protocol.to_core import Append, Drop, Restore, Save, Search
from pie_engine.store.contexts import SavedContexts
from tests.unit.test_core_basics import RANDOM, Heard, Rig
from tests.unit.test_core_draft_model import OTHER, SAME
from tests.unit.test_core_grammar import settle
from tests.unit.test_core_holes import PROMPT, created, num_pages, reply

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


@pytest.mark.parametrize("kind", ["drop", "window", "mask", "positions"])
def test_what_a_file_does_not_carry_is_not_saved(tmp_path: Path, kind: str) -> None:
    rig = Rig(saved=SavedContexts(tmp_path))
    ctx, _ = created(rig, PROMPT)
    match kind:
        case "drop":
            rig.send(Drop(ctx, 2, 9))
        case "window":
            rig.generate(ctx, max_tokens=1, window=4)
            rig.run()
        case "mask":
            rig.send(Append(ctx, [5], Placement(None, [[1, len(PROMPT)]])))
        case "positions":
            rig.send(Append(ctx, [5], Placement([3])))
    error = save(rig, ctx)
    assert error is not None
    assert error.code == "unsupported"
    assert error.message == "a context with holes, a window, masks or positions of its own cannot be saved"
    assert error.hint.endswith("or append what it sees to a new context")
    again, _ = created(rig, PROMPT)
    assert save(rig, again) is None


def test_what_a_model_has_forgotten_is_not_saved(tmp_path: Path) -> None:
    rig = Rig(saved=SavedContexts(tmp_path), script=FakeScript(window=9))
    ctx, _ = created(rig, PROMPT)
    error = save(rig, ctx)
    assert error is not None
    assert error.message == (
        "the context is longer than what test-model looks back, and the KV behind that is gone: 8 of 10 pages"
    )
    short, _ = created(rig, PROMPT[:9])
    assert save(rig, short) is None


def test_an_opened_context_takes_holes_and_windows(tmp_path: Path) -> None:
    """Its KV comes from the file up to the last token, which has to see less than it did."""
    ctx, _ = created(rig := Rig(saved=SavedContexts(tmp_path)), PROMPT)
    assert save(rig, ctx) is None
    for window in (None, 12):
        again = Rig(saved=SavedContexts(tmp_path))
        opened, story = created(again, PROMPT)
        again.send(Restore(opened, "name"), Drop(opened, 3, 21))
        story.drop(3, 21)
        fork = again.fork(opened, len(PROMPT))
        beside = story.fork(len(PROMPT))
        for each, its in ((opened, story), (fork, beside)):
            asked = {} if window is None else {"window": window, "sinks": 1}
            op = again.generate(each, max_tokens=1, ignore_eos=True, **asked)
            if window is not None:
                its.slide(window, 1)
            wait(again)
            its.extend(again.heard[op].ids)
            reply(again, each, its, 12)
        assert again.driver.num_pages_written, "the file was read"
