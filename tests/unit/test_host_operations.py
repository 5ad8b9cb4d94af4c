"""Contexts, passes and streams as programs see them, against a core that is only a list of messages."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import msgspec
import pytest

from pie_engine.config import HostSection
from pie_engine.errors import Busy, Cancelled, ContextTooLong, ErrorInfo, InvalidInput, LimitExceeded, Lost, NotFound
from pie_engine.host.cores import Cores
from pie_engine.host.interfaces import context as contexts
from pie_engine.host.interfaces import forward as passes
from pie_engine.host.interfaces import futures, generate, model
from pie_engine.host.interfaces import matcher as matchers
from pie_engine.host.models import HostAdapter, HostModel, unpack_tokens
from pie_engine.host.process import Job, Process
from pie_engine.host.programs import Program
from pie_engine.protocol.placement import Placement
from pie_engine.protocol.plan import BeamPlan, Grammar, Hypothesis, Plan, Speculation, Usage
from pie_engine.protocol.program import Bundle, Limits, Manifest
from pie_engine.protocol.sampling import Probed, Probes, Sampler, TopToken
from pie_engine.protocol.to_core import (
    Append,
    ChangeMatcher,
    CloseProcess,
    CreateContext,
    CreateMatcher,
    Delivered,
    Draft,
    Drop,
    Flush,
    Fork,
    ForkMatcher,
    Forward,
    Generate,
    Look,
    OpenProcess,
    Release,
    ReleaseMatcher,
    Restore,
    Save,
    Search,
    Slide,
    Steer,
    Stop,
    Truncate,
)
from pie_engine.protocol.to_host import Chunk, Failed, Flushed, Forwarded, Looked, Saved, Searched, Waits
from pie_engine.store.contexts import SavedContexts

PLAN = {
    "sampler": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "more": None},
    "max_tokens": 9,
    "stop": ["x"],
    "stop_tokens": [],
    "ignore_eos": False,
    "seed": None,
    "logprobs": False,
    "top_logprobs": 0,
    "entropy": False,
    "chunk_ms": 20,
}


class Services:
    """A host for one process."""

    def __init__(self) -> None:
        self.cores = Cores(["tiny", "other"])
        self.saved = SavedContexts(Path(tempfile.mkdtemp(prefix="pie-t-")))
        self.ids = count(1)
        self.ready: list[Process] = []

    def next_id(self) -> int:
        return next(self.ids)

    def make_ready(self, process: Process) -> None:
        self.ready.append(process)

    def wake_after(self, process: Process, timeout_us: int) -> None:
        raise AssertionError

    def has_output(self, process: Process) -> None:
        pass


class World:
    """A process with one core, whose messages are read and whose answers are given by the test."""

    def __init__(self, **limits: float) -> None:
        self.services = Services()
        self.services.cores.add("boot", HostModel("tiny", 100, 64, 16, None, None, "id-1"))  # type: ignore[arg-type]
        self.core = self.services.cores.of_model("")
        program = Program("d", Bundle(Manifest(name="p", limits=Limits(**limits)), files={"main.py": ""}))  # type: ignore[arg-type]
        job = Job("pid", "ann", program, "run", ("{}",), lambda _process, _ending: None)
        self.process = Process(job, self.services, HostSection())
        self.ctx = contexts.create(self.process, "", 7, "")
        assert self.sent() == [OpenProcess("pid", "p", "ann"), CreateContext(self.ctx, "pid", 7)]

    def sent(self):
        return self.core.take_outgoing()

    def answer(self, result) -> None:
        operation = self.core.operations.get(result.op)
        if operation is not None:
            operation.receive(result)

    def chunk(self, op, ids, index, *, epoch=0, text=None, finish=None) -> None:
        usage = Usage(3, 0, index + len(ids)) if finish else None
        words = "".join(f"<{token}>" for token in ids) if text is None else text
        self.answer(Chunk(op, epoch, ids, words, index, finish=finish, usage=usage))

    def stream(self) -> int:
        op = generate.start(self.process, self.ctx, msgspec.to_builtins(PLAN))
        assert self.sent()[-1] == Generate(op, self.ctx, Plan(max_tokens=9, stop=["x"]))
        return op

    def tokens(self, ctx=None) -> list[int]:
        return unpack_tokens(contexts.tokens(self.process, ctx or self.ctx, 0, 1000))

    def ready(self) -> list[int]:
        return self.process.futures.take_ready()


@pytest.fixture
def world() -> World:
    return World()


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


# Flushes and passes.


def test_a_flush_is_answered_once(world):
    op = contexts.flush(world.process, world.ctx)
    assert world.sent() == [Flush(op, world.ctx)]
    with pytest.raises(Busy):
        contexts.finish_flush(world.process, op)
    world.answer(Flushed(op))
    assert world.ready() == [op]
    contexts.finish_flush(world.process, op)
    with pytest.raises(NotFound):
        contexts.finish_flush(world.process, op)


def test_a_failed_flush_raises_its_error(world):
    op = contexts.flush(world.process, world.ctx)
    world.answer(Failed(op, ErrorInfo("out_of_pages", "needs 9 pages")))
    with pytest.raises(Exception, match="needs 9 pages") as caught:
        contexts.finish_flush(world.process, op)
    assert caught.value.code == "out_of_pages"


def test_a_pass_appends_its_tokens_and_gives_token_and_distribution(world):
    sampler = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "more": None}
    probes = {"top_k": 2, "logprobs_of": [9], "entropy": True, "logits": True, "hidden": True}
    op = passes.start(world.process, world.ctx, [4, 5], sampler, probes, 1, None, None)
    asked = Probes(2, [9], True, True, True)
    assert world.sent() == [Forward(op, world.ctx, [4, 5], Sampler(0.5, 3, 0.9, 0.1), asked, 1)]
    assert world.tokens() == [4, 5]
    probed = Probed([TopToken(6, -0.5), TopToken(7, -1.0)], [-3.0], 0.7, b"\0\0\x80?", b"")
    world.answer(Forwarded(op, 6, -0.5, probed))
    output = passes.finish(world.process, op)
    assert (output.token, output.logprob) == (6, -0.5)
    assert unpack_tokens(output.top)[::2] == [6, 7]
    assert (output.logprobs, output.entropy, output.logits, output.hidden) == ([-3.0], 0.7, "AACAPw==", "")
    assert world.tokens() == [4, 5]


def test_a_matcher_is_told_and_a_pass_names_it(world):
    held = matchers.create(world.process, world.ctx, {"kind": "regex", "text": "a+"})
    assert world.sent() == [CreateMatcher(world.ctx, held, Grammar("regex", "a+"))]
    matchers.advance(world.process, held, [4, 5])
    matchers.rollback(world.process, held, 1)
    child = contexts.fork(world.process, world.ctx)
    forked = matchers.fork(world.process, held, child)
    assert world.sent() == [
        ChangeMatcher(world.ctx, held, 0, [4, 5]),
        ChangeMatcher(world.ctx, held, 1, []),
        Fork(world.ctx, child, 0),
        ForkMatcher(world.ctx, held, child, forked),
    ]
    with pytest.raises(InvalidInput, match="cannot roll 2 tokens back: the matcher has taken 1"):
        matchers.rollback(world.process, forked, 2)
    with pytest.raises(InvalidInput, match="belongs to another context"):
        passes.start(world.process, world.ctx, [], None, None, 0, forked, None)
    with pytest.raises(InvalidInput):
        matchers.advance(world.process, held, [10**6])
    op = passes.start(world.process, child, [6], None, None, 0, forked, None)
    assert world.sent() == [Forward(op, child, [6], matcher=forked)]
    for change in (matchers.advance, matchers.rollback):
        with pytest.raises(Busy, match="a pass with this matcher is under way"):
            change(world.process, forked, [1] if change is matchers.advance else 1)
    world.answer(Forwarded(op, None, None))
    passes.finish(world.process, op)
    matchers.advance(world.process, forked, [1])


def test_a_pass_that_is_called_off_frees_its_matcher(world):
    held = matchers.create(world.process, world.ctx, {"kind": "regex", "text": "a+"})
    op = passes.start(world.process, world.ctx, [], None, None, 0, held, None)
    futures.forget(world.process, op)
    matchers.advance(world.process, held, [1])
    assert world.sent()[-2:] == [Stop(op), ChangeMatcher(world.ctx, held, 0, [1])]


def test_a_look_at_a_matcher_is_answered_once(world):
    held = matchers.create(world.process, world.ctx, {"kind": "regex", "text": "a+"})
    op = matchers.look(world.process, held, [1, 2])
    assert world.sent()[-1] == Look(op, world.ctx, held, [1, 2])
    world.answer(Looked(op, 1, True, False, [7]))
    assert matchers.finish_look(world.process, op) == Looked(op, 1, True, False, [7])
    with pytest.raises(NotFound):
        matchers.finish_look(world.process, op)


def test_matchers_go_with_their_context_or_before(world):
    one, two = (matchers.create(world.process, world.ctx, {"kind": "regex", "text": "a+"}) for _ in range(2))
    matchers.release(world.process, one)
    matchers.release(world.process, one)
    assert world.sent()[-1] == ReleaseMatcher(world.ctx, one)
    contexts.release(world.process, world.ctx)
    for handle in (one, two):
        with pytest.raises(NotFound, match="does not exist"):
            matchers.advance(world.process, handle, [1])


BEAM_PLAN = {
    "num_beams": 4,
    "max_tokens": 9,
    "length_penalty": 1.5,
    "early_stopping": "never",
    "num_returned": 2,
    "stop": ["x"],
    "stop_tokens": [7],
    "ignore_eos": True,
    "timeout_s": 2.0,
    "grammar": {"kind": "regex", "text": "a+"},
}


def test_a_beam_search_is_told_and_its_replies_and_usage_come_back(world):
    op = generate.search(world.process, world.ctx, msgspec.to_builtins(BEAM_PLAN))
    plan = BeamPlan(4, 9, 1.5, "never", 2, ["x"], [7], True, 2.0, Grammar("regex", "a+"))
    assert world.sent()[-1] == Search(op, world.ctx, plan)
    with pytest.raises(Busy, match="a beam search runs on it"):
        contexts.append(world.process, world.ctx, [3])
    world.answer(Searched(op, [Hypothesis([5, 6], "ab", -0.5, "stop")], Usage(3, 1, 20)))
    assert world.ready() == [op]
    result = generate.finish_search(world.process, op)
    [only] = result.hypotheses
    assert (unpack_tokens(only.ids), only.text, only.score, only.finish) == ([5, 6], "ab", -0.5, "stop")
    assert world.process.usage == Usage(3, 1, 20)
    assert world.tokens() == []
    contexts.append(world.process, world.ctx, [3])


def test_a_forgotten_beam_search_is_called_off(world):
    op = generate.search(world.process, world.ctx, msgspec.to_builtins(BEAM_PLAN))
    futures.forget(world.process, op)
    assert world.sent()[-1] == Stop(op)


def test_a_context_cannot_change_while_something_runs_on_it(world):
    op = contexts.flush(world.process, world.ctx)
    with pytest.raises(Busy, match="flush"):
        contexts.append(world.process, world.ctx, [1])
    with pytest.raises(Busy):
        contexts.truncate(world.process, world.ctx, 0)
    world.answer(Flushed(op))
    contexts.append(world.process, world.ctx, [1])


def test_a_fork_waits_for_a_pass_that_is_not_at_its_turn(world):
    passes.start(world.process, world.ctx, [1], None, None, 0, None, None)
    contexts.fork(world.process, world.ctx)
    passes.start(world.process, world.ctx, [2], None, None, 0, None, None)
    with pytest.raises(Busy):
        contexts.fork(world.process, world.ctx)


def test_a_forgotten_operation_is_called_off(world):
    op = contexts.flush(world.process, world.ctx)
    futures.forget(world.process, op)
    futures.forget(world.process, op)
    assert world.sent() == [Flush(op, world.ctx), Stop(op)]
    world.answer(Failed(op, Cancelled("called off").info))
    assert world.ready() == []
    contexts.append(world.process, world.ctx, [1])


def test_releasing_a_context_ends_what_runs_on_it(world):
    op = contexts.flush(world.process, world.ctx)
    contexts.release(world.process, world.ctx)
    assert world.ready() == [op]
    with pytest.raises(Cancelled):
        contexts.finish_flush(world.process, op)


# Streams.


def test_chunks_that_wait_are_taken_as_one(world):
    op = world.stream()
    assert generate.take_next(world.process, op) is None
    world.chunk(op, [1], 0)
    world.chunk(op, [2, 3], 1)
    assert world.ready() == [op]
    assert world.tokens() == []
    chunk = generate.take_next(world.process, op)
    assert (chunk.ids, chunk.text, chunk.index, chunk.finish) == ([1, 2, 3], "<1><2><3>", 0, None)
    assert world.tokens() == [1, 2, 3]
    assert generate.take_next(world.process, op) is None
    assert world.sent() == [Delivered(op, 0, 3)]


def test_deliveries_are_told_once_a_turn(world):
    op = world.stream()
    for index in range(3):
        world.chunk(op, [index], index)
        generate.take_next(world.process, op)
    assert world.sent() == [Delivered(op, 0, 3)]
    assert world.sent() == []


def test_the_last_chunk_closes_the_stream_and_frees_the_context(world):
    op = world.stream()
    world.chunk(op, [1], 0, finish="stop")
    with pytest.raises(Busy):
        contexts.append(world.process, world.ctx, [5])
    chunk = generate.take_next(world.process, op)
    assert (chunk.finish, chunk.usage) == ("stop", Usage(3, 0, 1))
    contexts.append(world.process, world.ctx, [5])
    assert world.tokens() == [1, 5]
    with pytest.raises(NotFound):
        generate.take_next(world.process, op)
    assert world.sent() == [Append(world.ctx, [5])]


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


def test_nothing_else_runs_on_a_context_that_generates_but_forks_are_free(world):
    op = world.stream()
    world.chunk(op, [1], 0)
    generate.take_next(world.process, op)
    world.chunk(op, [2], 1)
    for refused in (
        lambda: contexts.flush(world.process, world.ctx),
        lambda: passes.start(world.process, world.ctx, [], None, None, 0, None, None),
        lambda: generate.start(world.process, world.ctx, msgspec.to_builtins(PLAN)),
    ):
        with pytest.raises(Busy, match="generating"):
            refused()
    child = contexts.fork(world.process, world.ctx)
    assert world.tokens(child) == [1]
    assert Fork(world.ctx, child, 1) in world.sent()


def test_stopping_keeps_what_was_taken(world):
    op = world.stream()
    world.chunk(op, [1, 2], 0)
    generate.take_next(world.process, op)
    world.chunk(op, [3], 2)
    generate.stop(world.process, op)
    world.chunk(op, [], 2, finish="stopped")
    assert world.tokens() == [1, 2]
    assert world.sent() == [Stop(op, 2)]
    assert not world.process.futures.has_pending


def test_rewinding_drops_run_ahead_and_stale_chunks(world):
    op = world.stream()
    world.chunk(op, [1, 2, 3], 0)
    generate.take_next(world.process, op)
    world.chunk(op, [4], 3)
    generate.rewind(world.process, op, 2)
    assert world.tokens() == [1]
    assert generate.take_next(world.process, op) is None
    world.chunk(op, [5], 4)  # sent before the core had heard of it
    assert generate.take_next(world.process, op) is None
    world.chunk(op, [6], 1, epoch=1)
    assert generate.take_next(world.process, op).ids == [6]
    assert world.tokens() == [1, 6]
    assert world.sent() == [Steer(op, 1, 1), Delivered(op, 1, 2)]


def test_rewinding_more_than_was_delivered_is_an_error(world):
    op = world.stream()
    world.chunk(op, [1], 0)
    with pytest.raises(InvalidInput, match="delivered 0"):
        generate.rewind(world.process, op, 1)


def test_a_plan_that_ended_unseen_can_be_rewound(world):
    op = world.stream()
    world.chunk(op, [1], 0)
    generate.take_next(world.process, op)
    world.chunk(op, [2], 1, finish="length")
    generate.rewind(world.process, op, 1)
    world.chunk(op, [3], 0, epoch=1, finish="length")
    assert generate.take_next(world.process, op).ids == [3]
    assert world.tokens() == [3]


def test_injected_tokens_come_back_as_a_chunk(world):
    op = world.stream()
    world.chunk(op, [1], 0)
    generate.take_next(world.process, op)
    generate.inject(world.process, op, [8, 9])
    assert world.sent() == [Steer(op, 1, 1, [8, 9])]
    world.chunk(op, [8, 9], 1, epoch=1)
    generate.take_next(world.process, op)
    assert world.tokens() == [1, 8, 9]
    with pytest.raises(InvalidInput):
        generate.inject(world.process, op, [100])


def test_a_failure_comes_after_the_chunks_before_it(world):
    op = world.stream()
    world.chunk(op, [1], 0)
    world.answer(Failed(op, ErrorInfo("out_of_pages", "no room")))
    with pytest.raises(Busy):
        contexts.append(world.process, world.ctx, [5])
    world.ready()
    assert generate.take_next(world.process, op).ids == [1]
    assert world.ready() == [op]
    with pytest.raises(Exception, match="no room"):
        generate.take_next(world.process, op)
    contexts.append(world.process, world.ctx, [5])
    assert world.sent() == [Append(world.ctx, [5])]


def test_a_piped_stream_goes_to_the_client_and_wakes_the_program_at_its_end(world):
    op = world.stream()
    world.chunk(op, [1], 0)
    assert world.ready() == [op]
    generate.pipe(world.process, op)
    world.chunk(op, [2], 1)
    assert world.ready() == []
    assert world.sent() == [Delivered(op, 0, 2)]
    world.chunk(op, [3], 2, finish="stop")
    assert world.ready() == [op]
    last = generate.take_next(world.process, op)
    assert (last.ids, last.text, last.finish, last.usage) == ([], "<1><2><3>", "stop", Usage(3, 0, 3))
    assert world.tokens() == [1, 2, 3]
    assert [event.data for event in world.process.events.take_unsent()] == ['"<1>"', '"<2>"', '"<3>"']


def test_a_piped_stream_over_the_output_limit_dooms_the_program():
    world = World(output_mb=0.00001)
    op = world.stream()
    generate.pipe(world.process, op)
    world.chunk(op, [1], 0, text="far too long a text")
    assert isinstance(world.process.doom, LimitExceeded)
    assert world.services.ready == [world.process]


# Usage and drafts.


def test_stopping_says_what_was_used(world):
    contexts.append(world.process, world.ctx, [1, 2, 3])
    op = world.stream()
    world.answer(Chunk(op, 0, [4], "a", 0, so_far=Usage(3, 2, 1)))
    world.answer(Chunk(op, 0, [5, 6], "b", 1, so_far=Usage(3, 2, 3, 4, 1)))
    generate.take_next(world.process, op)
    assert generate.stop(world.process, op) == Usage(3, 2, 3, 4, 1)
    assert world.process.usage == Usage(3, 2, 3, 4, 1)


def test_stopping_before_anything_came_counts_the_prompt(world):
    contexts.append(world.process, world.ctx, [1, 2, 3])
    assert generate.stop(world.process, world.stream()) == Usage(3, 0, 0)


def test_the_usage_of_a_process_is_that_of_all_its_plans(world):
    for _ in range(2):
        op = world.stream()
        world.answer(Chunk(op, 0, [4], "a", 0, so_far=Usage(3, 2, 1)))
        world.answer(Chunk(op, 0, [5], "b", 1, finish="stop", usage=Usage(3, 2, 2, 4, 1)))
        generate.take_next(world.process, op)
    assert world.process.usage == Usage(6, 4, 4, 8, 2)


def test_a_draft_is_told_with_its_place_and_epoch(world):
    op = world.stream()
    world.chunk(op, [1, 2], 0)
    generate.take_next(world.process, op)
    generate.rewind(world.process, op, 1)
    world.sent()
    generate.draft(world.process, op, 1, [7, 8])
    assert world.sent() == [Draft(op, 1, 1, [7, 8])]
    with pytest.raises(InvalidInput, match="token id 100 is not in the vocabulary"):
        generate.draft(world.process, op, 1, [100])


def test_a_plan_crosses_with_its_time_and_its_guessing(world):
    fields = msgspec.to_builtins(Plan(timeout_s=1.5, speculation=Speculation("lookup", 5)))
    op = generate.start(world.process, world.ctx, {"sampler": {}, **fields})
    assert world.sent()[-1] == Generate(op, world.ctx, Plan(timeout_s=1.5, speculation=Speculation("lookup", 5)))


# Waiting for pages.


def test_a_wait_for_pages_is_a_line_of_the_log(world):
    world.process.wait_for_pages("tiny", Waits("pid", 7, 4, 24))
    (event,) = world.process.events.take_unsent()
    assert event.kind == "log"
    assert msgspec.json.decode(event.data) == {
        "level": "info",
        "message": "waiting for 7 KV pages of tiny: 4 of 24 are free, other contexts have the rest",
    }
