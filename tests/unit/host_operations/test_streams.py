"""Streams: chunks, steering, pipes, usage and drafts."""

from __future__ import annotations

import msgspec
import pytest

from pie_engine.errors import Busy, ErrorInfo, InvalidInput, LimitExceeded, NotFound
from pie_engine.host.generations import GenerationLog
from pie_engine.host.interfaces import context as contexts
from pie_engine.host.interfaces import forward as passes
from pie_engine.host.interfaces import generate
from pie_engine.protocol.plan import Plan, Speculation, Usage
from pie_engine.protocol.to_core import (
    Append,
    Delivered,
    Draft,
    Fork,
    Generate,
    Steer,
    Stop,
)
from pie_engine.protocol.to_gateway import Generation
from pie_engine.protocol.to_host import Chunk, Failed
from tests.unit.host_operations.world import PLAN, World

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


def test_generations_are_written_down_for_traces(world):
    now = [10.0]
    world.process.generations = log = GenerationLog("p1", lambda: now[0])
    op = world.stream()
    now[0] = 11.0
    world.chunk(op, [1], 0)
    now[0] = 12.0
    world.chunk(op, [2], 1, finish="stop")
    generate.take_next(world.process, op)
    world.answer(Failed(world.stream(), ErrorInfo("out_of_pages", "no")))
    done, failed = log.told().generations
    assert done == Generation("tiny", 10.0, 11.0, 12.0, "stop", Usage(3, 0, 2))
    assert (failed.first_token, failed.ended, failed.finish) == (None, 12.0, "error")
