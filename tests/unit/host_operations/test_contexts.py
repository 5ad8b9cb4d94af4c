"""Contexts: what is in them, saving, holes, and waiting for pages."""

from __future__ import annotations

import msgspec
import pytest

from pie_engine.errors import Busy, ContextTooLong, InvalidInput, Lost, NotFound
from pie_engine.host.interfaces import context as contexts
from pie_engine.host.interfaces import forward as passes
from pie_engine.host.interfaces import model
from pie_engine.host.models import HostAdapter
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.sight import Sight
from pie_engine.protocol.to_core import (
    Append,
    CloseProcess,
    CreateContext,
    Drop,
    Fork,
    Forward,
    Release,
    Restore,
    Save,
    Slide,
    Truncate,
)
from pie_engine.protocol.to_host import Forwarded, Saved, Waits
from tests.pages import checked_by

# Contexts.


def test_appending_is_mirrored_and_told(world):
    contexts.append(world.process, world.ctx, [1, 2])
    contexts.append(world.process, world.ctx, [3])
    assert world.tokens() == [1, 2, 3]
    assert contexts.length(world.process, world.ctx) == 3
    assert world.sent() == [Append(world.ctx, [1, 2]), Append(world.ctx, [3])]


def test_a_fork_has_its_parents_tokens_and_its_own_from_then_on(world):
    contexts.append(world.process, world.ctx, [1, 2])
    child = contexts.fork(world.process, world.ctx)
    contexts.append(world.process, child, [3])
    assert (world.tokens(), world.tokens(child)) == ([1, 2], [1, 2, 3])
    assert world.sent()[1:] == [Fork(world.ctx, child, 2), Append(child, [3])]


def test_truncating_keeps_the_first_tokens(world):
    contexts.append(world.process, world.ctx, [1, 2, 3])
    contexts.truncate(world.process, world.ctx, 1)
    assert world.tokens() == [1]
    assert world.sent()[-1] == Truncate(world.ctx, 1)
    with pytest.raises(InvalidInput, match="it has 1"):
        contexts.truncate(world.process, world.ctx, 2)


def test_too_many_tokens_and_unknown_ones_are_refused_at_once(world):
    with pytest.raises(ContextTooLong, match=r"65 tokens; tiny takes 64"):
        contexts.append(world.process, world.ctx, [1] * 65)
    with pytest.raises(InvalidInput, match="100"):
        contexts.append(world.process, world.ctx, [100])
    assert world.tokens() == []
    assert world.sent() == []


def test_contexts_of_nobody_are_not_found(world):
    with pytest.raises(NotFound):
        contexts.length(world.process, 12345)
    contexts.release(world.process, 12345)
    contexts.release(world.process, world.ctx)
    assert world.sent() == [Release(world.ctx)]
    with pytest.raises(NotFound):
        contexts.length(world.process, world.ctx)


def test_models_are_known_even_when_their_core_is_not_up(world):
    with pytest.raises(Lost) as caught:
        contexts.create(world.process, "other", None, "")
    assert caught.value.code == "core_lost"
    with pytest.raises(NotFound, match="nobody"):
        contexts.create(world.process, "nobody", None, "")


def test_the_end_of_a_process_closes_it_in_its_cores(world):
    world.stream()
    world.process.close()
    assert world.sent() == [CloseProcess("pid")]
    assert not world.core.operations


# Saved contexts.


def write_saved(world, name, *, model_id="id-1", user="ann", **fields):
    fields = {"page_size": 16, "tokens": [4, 5, 6], "meta": "{}", "quota_bytes": 1 << 20, **fields}
    world.services.saved.write(user, "tiny", name, b"kv", model_id=model_id, **fields)


def test_a_save_is_told_with_its_name_and_done_when_the_core_says_so(world):
    contexts.append(world.process, world.ctx, [1, 2])
    op = contexts.save(world.process, world.ctx, "story", "meta", True)
    assert world.sent()[-1] == Save(op, world.ctx, "story", "meta")
    with pytest.raises(Busy):
        contexts.append(world.process, world.ctx, [3])
    world.answer(Saved(op))
    assert world.ready() == [op]
    contexts.finish_save(world.process, op)
    with pytest.raises(InvalidInput, match="cannot be the name"):
        contexts.save(world.process, world.ctx, "", "", True)


def test_opening_gives_a_context_with_the_saved_tokens(world):
    write_saved(world, "story")
    opened = contexts.open_saved(world.process, "", "story", 3)
    assert (world.tokens(opened.ctx), opened.meta) == ([4, 5, 6], "{}")
    told = [CreateContext(opened.ctx, "pid", 3), Append(opened.ctx, [4, 5, 6]), Restore(opened.ctx, "story")]
    assert world.sent() == told


def test_what_its_tokens_see_is_told_with_a_saved_context_which_may_have_more_of_them_than_positions(world):
    sight = Sight(jumps=[(60, 0)])
    write_saved(world, "story", tokens=[4] * 70, sight=sight)
    opened = contexts.open_saved(world.process, "", "story", 3)
    assert world.sent()[-1] == Restore(opened.ctx, "story", sight)
    write_saved(world, "plain", tokens=[4] * 70)
    with pytest.raises(ContextTooLong, match="70 tokens; tiny takes 64"):
        contexts.open_saved(world.process, "", "plain", 3)


def test_a_context_of_another_model_is_refused_with_both(world):
    write_saved(world, "story", model_id="id-0")
    with pytest.raises(InvalidInput, match="saved with id-0, and tiny is id-1 now"):
        contexts.open_saved(world.process, "", "story", None)
    assert world.sent() == []


def test_a_context_is_made_with_the_adapter_that_its_name_stands_for(world):
    world.core.adapters = {"pirate": HostAdapter("pirate", "id-p", 8, 1024)}
    ctx = contexts.create(world.process, "", 1, "pirate")
    assert world.sent() == [CreateContext(ctx, "pid", 1, "id-p")]
    with pytest.raises(NotFound, match="tiny has no adapter called `poet`") as caught:
        contexts.create(world.process, "", 1, "poet")
    assert caught.value.hint == "adapters of tiny: pirate"
    assert model.adapters(world.process, "") == list(world.core.adapters.values())


def test_a_saved_context_comes_with_its_adapter_or_not_at_all(world):
    write_saved(world, "story", adapter="pirate", adapter_id="id-p")
    with pytest.raises(InvalidInput, match="computed with the adapter `pirate`, which is not loaded"):
        contexts.open_saved(world.process, "", "story", 3)
    world.core.adapters = {"pirate": HostAdapter("pirate", "id-q", 8, 1024)}
    with pytest.raises(InvalidInput, match="`pirate`, which has other content now"):
        contexts.open_saved(world.process, "", "story", 3)
    assert world.sent() == []
    world.core.adapters = {"pirate": HostAdapter("pirate", "id-p", 8, 1024)}
    opened = contexts.open_saved(world.process, "", "story", 3)
    assert opened.adapter == "pirate"
    assert world.sent()[0] == CreateContext(opened.ctx, "pid", 3, "id-p")


def test_saved_contexts_are_listed_and_deleted_for_the_user_alone(world):
    for name in ("b", "a"):
        write_saved(world, name)
    write_saved(world, "c", user="bob")
    listed = contexts.list_saved(world.process, "")
    assert [(each.name, each.num_tokens, each.num_bytes) for each in listed] == [("a", 3, 2), ("b", 3, 2)]
    contexts.delete(world.process, "", "a")
    assert [each.name for each in contexts.list_saved(world.process, "")] == ["b"]
    for name in ("a", "c"):
        with pytest.raises(NotFound):
            contexts.delete(world.process, "", name)
        with pytest.raises(NotFound):
            contexts.open_saved(world.process, "", name, None)


# Holes, positions and masks.


def test_dropped_tokens_stay_in_the_list(world):
    contexts.append(world.process, world.ctx, [1, 2, 3])
    contexts.drop(world.process, world.ctx, 1, 3)
    assert world.sent()[-1] == Drop(world.ctx, 1, 3)
    assert world.tokens() == [1, 2, 3]
    for first, end in ((1, 1), (2, 4), (3, 2)):
        with pytest.raises(InvalidInput, match=f"cannot drop tokens {first} … {end - 1} of context .*: it has 3"):
            contexts.drop(world.process, world.ctx, first, end)
    contexts.flush(world.process, world.ctx)
    world.sent()
    with pytest.raises(Busy):
        contexts.drop(world.process, world.ctx, 1, 3)
    assert world.sent() == []


def test_a_window_goes_to_the_core(world):
    contexts.slide(world.process, world.ctx, 9, 2)
    assert world.sent() == [Slide(world.ctx, 9, 2)]
    with pytest.raises(InvalidInput, match="window must be 1 or more"):
        contexts.slide(world.process, world.ctx, 0, 2)


def test_positions_and_masks_are_checked_and_go_to_the_core(world):
    contexts.place(world.process, world.ctx, [1, 2], {"positions": [0, 5], "mask": [[0, 1], [1, 1]]})
    assert world.sent() == [Append(world.ctx, [1, 2], Placement([0, 5], [[0, 1], [1, 1]]))]
    op = passes.start(world.process, world.ctx, [3], None, None, 0, None, {"positions": None, "mask": [[1, 2]]})
    assert world.sent() == [Forward(op, world.ctx, [3], placement=Placement(None, [[1, 2]]))]
    assert world.tokens() == [1, 2, 3]
    with pytest.raises(InvalidInput, match="position 64 is out of range: the model takes 0 … 63"):
        passes.start(world.process, world.ctx, [3], None, None, 0, None, {"positions": [64], "mask": None})
    world.answer(Forwarded(op))
    with pytest.raises(InvalidInput, match="the mask of token 0 covers 3 tokens; there are 4 up to it"):
        contexts.place(world.process, world.ctx, [3], {"positions": None, "mask": [[1, 2]]})
    assert world.tokens() == [1, 2, 3]
    assert world.sent() == []


# Waiting for pages.


def test_a_wait_for_pages_is_a_line_of_the_log_as_the_page_shows_it(world):
    world.process.wait_for_pages("pie-tiny", Waits("pid", 7, 4, 24))
    (event,) = world.process.events.take_unsent()
    assert event.kind == "log"
    log = msgspec.json.decode(event.data)
    assert log == {
        "level": "info",
        "message": "waiting for 7 KV pages of pie-tiny: 4 of 24 are free, other contexts have the rest",
    }
    assert [block.text for block in checked_by(__file__)] == [f"{log['level']}: {log['message']}\n"]


def test_a_wait_for_pages_that_are_free_says_whom_they_are_for(world):
    world.process.wait_for_pages("tiny", Waits("pid", 35, 35, 96))
    (event,) = world.process.events.take_unsent()
    assert msgspec.json.decode(event.data)["message"] == (
        "waiting for 35 KV pages of tiny: 35 of 96 are free, but left for those before it, and for those that grow"
    )
