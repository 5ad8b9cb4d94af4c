"""Flushes, passes, matchers and beam searches."""

from __future__ import annotations

import msgspec
import pytest

from pie_engine.errors import Busy, Cancelled, ErrorInfo, InvalidInput, NotFound
from pie_engine.host.interfaces import context as contexts
from pie_engine.host.interfaces import forward as passes
from pie_engine.host.interfaces import futures, generate
from pie_engine.host.interfaces import matcher as matchers
from pie_engine.host.models import unpack_tokens
from pie_engine.protocol.plan import BeamPlan, Grammar, Hypothesis, Usage
from pie_engine.protocol.sampling import Probed, Probes, Sampler, TopToken
from pie_engine.protocol.to_core import (
    ChangeMatcher,
    CreateMatcher,
    Flush,
    Fork,
    ForkMatcher,
    Forward,
    Look,
    ReleaseMatcher,
    Search,
    Stop,
)
from pie_engine.protocol.to_host import Failed, Flushed, Forwarded, Looked, Searched


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
