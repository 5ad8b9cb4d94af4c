"""Grammars in the pass tier: what a pass draws, and what a held matcher takes, gives back and tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pie_engine.grammar import compile as compiling
from pie_engine.protocol.plan import Grammar
from pie_engine.protocol.sampling import GREEDY, Probes, Sampler
from pie_engine.protocol.to_core import (
    ChangeMatcher,
    CreateMatcher,
    ForkMatcher,
    Forward,
    Look,
    Release,
    ReleaseMatcher,
)
from pie_engine.protocol.to_host import Forwarded, Looked
from tests.unit.core_rig import RANDOM, Rig
from tests.unit.test_core_grammar import grammar, run

DIGITS = Grammar("regex", "[0-9]{6}")


def matcher(rig: Rig, ctx: int, what: Grammar = DIGITS) -> int:
    handle = rig.new_id()
    rig.send(CreateMatcher(ctx, handle, what))
    return handle


def forward(
    rig: Rig, ctx: int, held: int, tokens: list[int] | None = None, sampler: Sampler | None = GREEDY, **probes: Any
) -> Forwarded:
    op = rig.new_id()
    rig.send(Forward(op, ctx, tokens or [], sampler, Probes(**probes), 0, held))
    run(rig)
    assert rig.heard[op].error is None, rig.heard[op].error
    forwarded = rig.heard[op].forwarded
    assert forwarded is not None
    return forwarded


def look(rig: Rig, ctx: int, held: int, tokens: list[int] | None = None) -> Looked:
    op = rig.new_id()
    rig.send(Look(op, ctx, held, tokens or []))
    run(rig)
    assert rig.heard[op].error is None, rig.heard[op].error
    looked = rig.heard[op].looked
    assert looked is not None
    return looked


def failed(rig: Rig, ctx: int, held: int) -> str:
    op = rig.new_id()
    rig.send(Look(op, ctx, held, []))
    run(rig)
    error = rig.heard[op].error
    assert error is not None
    assert error.code == "invalid_input"
    return error.message


def write(rig: Rig, ctx: int, held: int, sampler: Sampler = RANDOM) -> list[int]:
    """As a program writes a reply: pass by pass, until nothing can follow or the model stops."""
    ids: list[int] = []
    step: list[int] = []
    while len(ids) < 100:
        token = forward(rig, ctx, held, step, sampler).token
        if token is None or token in rig.tokenizer.eos_ids:
            break
        ids.append(token)
        rig.send(ChangeMatcher(ctx, held, 0, [token]))
        step = [token]
    return ids


@pytest.mark.parametrize("seed", range(5))
def test_a_reply_pass_by_pass_is_that_of_a_plan_with_the_same_grammar(seed: int):
    schema = grammar("json-schema", {"type": "array", "items": {"type": "integer"}, "maxItems": 3, "minItems": 1})
    rig = Rig()
    ctx = rig.context("ab", seed=seed)
    ids = write(rig, ctx, matcher(rig, ctx, schema))
    value = json.loads(rig.tokenizer.decode(ids))
    assert 1 <= len(value) <= 3
    # A plan takes what is forced without drawing it; without such tokens the two are the same.
    free, plan = rig.context("ab", seed=seed), rig.context("ab", seed=seed)
    op = rig.generate(plan, sampler=RANDOM, grammar=DIGITS)
    run(rig)
    assert write(rig, free, matcher(rig, free)) == rig.heard[op].ids


def test_the_mask_rules_what_is_drawn_and_probes_do_not_see_it_unless_they_are_asked_to():
    rig = Rig()
    ctx = rig.context("ab")
    held = matcher(rig, ctx, Grammar("choice", '["7", "8"]'))
    free = forward(rig, ctx, 0, top_k=5)
    seen = forward(rig, ctx, held, top_k=5)
    assert rig.tokenizer.decode([seen.token or 0]) in "78"
    assert seen.probed.top == free.probed.top
    allowed = forward(rig, ctx, held, top_k=5, of_allowed=True).probed.top
    assert {rig.tokenizer.decode([entry.token]) for entry in allowed} <= {"7", "8"}
    assert allowed[0].token == seen.token


def test_where_nothing_can_follow_no_token_comes():
    rig = Rig()
    ctx = rig.context("ab")
    held = matcher(rig, ctx)
    assert len(write(rig, ctx, held)) == 6
    state = look(rig, ctx, held)
    assert (state.may_end, state.is_complete) == (True, True)
    seen = forward(rig, ctx, held, top_k=3)
    assert (seen.token, len(seen.probed.top)) == (None, 3)


def test_stop_tokens_are_let_in_where_it_may_end():
    rig = Rig(reply="12")
    ctx = rig.context("x")
    held = matcher(rig, ctx, Grammar("regex", "[0-9]{2,9}"))
    assert rig.tokenizer.decode(write(rig, ctx, held, GREEDY)) == "12"
    state = look(rig, ctx, held)
    assert (state.may_end, state.is_complete) == (True, False)
    assert forward(rig, ctx, held).token in rig.tokenizer.eos_ids


def test_tokens_are_taken_and_given_back_also_while_it_is_compiled():
    rig = Rig()
    ctx = rig.context("ab")
    held = matcher(rig, ctx, Grammar("choice", '["abc", "abd", "xyz"]'))
    encode = rig.tokenizer.encode
    rig.send(ChangeMatcher(ctx, held, 0, encode("xy")), ChangeMatcher(ctx, held, 2, encode("ab")))
    assert look(rig, ctx, held, encode("d")).num_fitting == 1
    assert look(rig, ctx, held, encode("z")).num_fitting == 0
    rig.send(ChangeMatcher(ctx, held, 2, []))
    assert look(rig, ctx, held, encode("xyzw")).num_fitting == 3
    rig.send(ChangeMatcher(ctx, held, 0, encode("x")))
    assert rig.tokenizer.decode(look(rig, ctx, held).forced) == "yz"


def test_forks_go_their_own_way_in_another_context():
    rig = Rig()
    ctx = rig.context("ab")
    encode = rig.tokenizer.encode
    held, early = matcher(rig, ctx, Grammar("choice", '["abc", "axy"]')), rig.new_id()
    child = rig.fork(ctx, 2)
    rig.send(ForkMatcher(ctx, held, child, early), ChangeMatcher(child, early, 0, encode("ax")))
    rig.send(ChangeMatcher(ctx, held, 0, encode("ab")))
    assert rig.tokenizer.decode(look(rig, ctx, held).forced) == "c"
    assert rig.tokenizer.decode(look(rig, child, early).forced) == "y"
    late = rig.new_id()
    rig.send(ForkMatcher(ctx, held, child, late), ChangeMatcher(child, late, 1, encode("x")))
    assert rig.tokenizer.decode(look(rig, child, late).forced) == "y"
    assert rig.tokenizer.decode(look(rig, ctx, held).forced) == "c"


def test_what_does_not_fit_fails_the_next_use_and_every_one_after_it():
    rig = Rig()
    ctx = rig.context("ab")
    held, spare = matcher(rig, ctx), rig.new_id()
    rig.send(ForkMatcher(ctx, held, ctx, spare))
    rig.send(ChangeMatcher(ctx, held, 0, rig.tokenizer.encode("12x4")))
    says = "('x') does not fit the grammar after its first 2 tokens"
    assert says in failed(rig, ctx, held)
    rig.send(ChangeMatcher(ctx, held, 2, []))
    assert says in failed(rig, ctx, held)
    op = rig.new_id()
    rig.send(Forward(op, ctx, [], GREEDY, Probes(), 0, held))
    run(rig)
    assert says in rig.heard[op].error.message  # type: ignore[union-attr]
    assert len(write(rig, ctx, spare)) == 6, "the context and a fork are as good as ever"


def test_a_grammar_that_is_wrong_fails_what_it_is_used_for():
    rig = Rig()
    ctx = rig.context("ab")
    assert "regular expression" in failed(rig, ctx, matcher(rig, ctx, Grammar("regex", "(")))
    later = rig.generate(ctx, max_tokens=2)
    run(rig)
    assert rig.heard[later].finish == "length"


def test_matchers_that_are_not_there_are_not_found():
    rig = Rig()
    ctx, other = rig.context("ab"), rig.context("cd")
    held = matcher(rig, ctx)
    op = rig.new_id()
    rig.send(Look(op, other, held, []))
    assert rig.heard == {}
    rig.hear()
    assert rig.heard[op].error.code == "not_found"  # type: ignore[union-attr]
    rig.send(ReleaseMatcher(ctx, held), ReleaseMatcher(ctx, held))
    gone = rig.new_id()
    rig.send(Forward(gone, ctx, [], GREEDY, Probes(), 0, held), Release(other), ReleaseMatcher(other, 5))
    rig.hear()
    assert rig.heard[gone].error.code == "not_found"  # type: ignore[union-attr]


def test_called_off_while_its_grammar_is_compiled_nobody_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiling.Compilation, "is_done", property(lambda self: False))
    rig = Rig()
    ctx = rig.context("ab")
    held = matcher(rig, ctx)
    ops = [rig.new_id(), rig.new_id()]
    rig.send(Forward(ops[0], ctx, [65], GREEDY, Probes(), 0, held), Look(ops[1], ctx, held, []))
    later = rig.generate(ctx, max_tokens=2)
    rig.step()
    assert rig.heard == {}
    assert rig.core.is_compiling
    for op in ops:
        rig.stop(op)
    rig.run()
    assert [rig.heard[op].error.code for op in ops] == ["cancelled"] * 2  # type: ignore[union-attr]
    assert rig.heard[later].finish == "length"
    assert rig.tokens(ctx)[2] == 65, "its tokens are there all the same"
