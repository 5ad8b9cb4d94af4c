"""Plans with a grammar, on the fake driver: what they may write, where they end, and how they are steered."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pie_engine.driver.fake_script import FakeScript, Fault
from pie_engine.grammar import compile as compiling
from pie_engine.protocol.plan import Grammar, GrammarKind
from pie_engine.protocol.to_core import Append, OpenProcess, Truncate
from tests.unit.core_rig import END, RANDOM, Rig

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def grammar(kind: GrammarKind, text: Any) -> Grammar:
    return Grammar(kind, text if isinstance(text, str) else json.dumps(text))


DIGITS = grammar("regex", "[0-9]{200}")


def settle(rig: Rig) -> None:
    """Until every grammar is compiled: milliseconds for any of these, and a test that says so where it is not."""
    end = time.monotonic() + 30
    while rig.core.is_compiling:
        assert time.monotonic() < end, [context.queue[0]._plan.grammar for context in rig.core._turns.waiting]
        time.sleep(0.001)
        rig.core._turns.begin_waiting()


def run(rig: Rig, *, takes: bool = True) -> None:
    settle(rig)
    rig.run(takes=takes)


# What is written.


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_drawn_the_reply_satisfies_the_schema(seed):
    rig = Rig()
    op = rig.generate(rig.context("Who?"), sampler=RANDOM, seed=seed, grammar=grammar("json-schema", PERSON))
    run(rig)
    person = json.loads(rig.heard[op].text)
    assert sorted(person) == ["age", "name"]
    assert len(person["name"]) <= 12
    assert 0 <= person["age"] <= 150
    assert rig.heard[op].finish == "stop"


def test_a_scripted_reply_that_follows_the_grammar_is_written_as_it_is():
    rig = Rig(reply='{"name": "Ann", "age": 31}')
    op = rig.generate(rig.context("Who?"), grammar=grammar("json-schema", PERSON))
    run(rig)
    assert rig.heard[op].text == '{"name": "Ann", "age": 31}'


def test_plans_with_and_without_a_grammar_share_a_batch():
    rig = Rig()
    free = rig.generate(rig.context("abc"), max_tokens=30)
    bound = [rig.generate(rig.context("abc"), max_tokens=30, grammar=DIGITS) for _ in range(3)]
    other = rig.generate(rig.context("abc"), max_tokens=30, grammar=grammar("regex", "[x-z]{99}"))
    run(rig)
    alone = Rig()
    same = alone.generate(alone.context("abc"), max_tokens=30)
    alone.run()
    assert rig.heard[free].text == alone.heard[same].text
    assert all(rig.heard[op].text.isdigit() and len(rig.heard[op].ids) == 30 for op in bound)
    assert set(rig.heard[other].text) <= set("xyz")


def test_a_plan_without_a_grammar_on_the_same_context_is_free_again():
    rig = Rig()
    ctx = rig.context("abc")
    rig.generate(ctx, max_tokens=5, grammar=DIGITS)
    run(rig)
    op = rig.generate(ctx, max_tokens=20)
    run(rig)
    assert not rig.heard[op].text.isdigit()


# Where it ends.


def test_the_reply_ends_where_nothing_can_follow_without_another_pass():
    rig = Rig()
    op = rig.generate(rig.context("abc"), grammar=grammar("regex", "[0-9]{3}"))
    run(rig)
    heard = rig.heard[op]
    assert (heard.finish, len(heard.ids)) == ("stop", 3)
    assert len(rig.driver.steps) == 3


def test_a_stop_token_ends_the_reply_where_the_grammar_may_end_and_is_not_let_in_before():
    rig = Rig(reply="12")  # the script goes on with the stop token
    op = rig.generate(rig.context("abc"), grammar=grammar("regex", "[0-9]+"))
    too_early = rig.generate(rig.context("abc"), grammar=grammar("regex", "[0-9]{4}"))
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish) == ("12", "stop")
    assert rig.heard[too_early].text.startswith("12")
    assert len(rig.heard[too_early].text) == 4


def test_a_stop_token_of_the_plan_is_let_in_where_the_grammar_may_end():
    rig = Rig(reply="12;34")
    semicolon = rig.tokenizer.encode(";")
    op = rig.generate(rig.context("abc"), grammar=grammar("regex", "[0-9]+"), stop_tokens=[*semicolon, 10**9])
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish) == ("12", "stop")


def test_a_stop_token_that_the_grammar_wants_before_it_may_end_is_a_token_like_any_other():
    rig = Rig(reply="1;2;")
    semicolon = rig.tokenizer.encode(";")
    op = rig.generate(rig.context("abc"), grammar=grammar("regex", "[0-9];[0-9];?"), stop_tokens=semicolon)
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish) == ("1;2", "stop")


def test_ignore_eos_goes_on_to_the_end_of_the_grammar():
    rig = Rig(reply="12")
    op = rig.generate(rig.context("abc"), grammar=grammar("regex", "[0-9]{1,5}"), ignore_eos=True)
    run(rig)
    assert (len(rig.heard[op].text), rig.heard[op].finish) == (5, "stop")


def test_an_end_that_shows_only_in_the_mask_is_an_end():
    rig = Rig()
    optional_nothing = grammar("lark", 'start: "ab" NOTHING?\nNOTHING: /[a-z]/ & /[0-9]/')
    op = rig.generate(rig.context("abc"), grammar=optional_nothing, ignore_eos=True)
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish, rig.heard[op].error) == ("ab", "stop", None)


def test_max_tokens_within_the_grammar_is_length():
    rig = Rig()
    ctx = rig.context("abc")
    op = rig.generate(ctx, max_tokens=4, grammar=grammar("json-schema", PERSON))
    run(rig)
    assert (rig.heard[op].finish, rig.heard[op].text) == ("length", '{"na')
    assert rig.text(ctx) == 'abc{"na'


def test_the_end_of_the_context_within_the_grammar_is_context():
    rig = Rig(script=FakeScript(max_context_tokens=20))
    op = rig.generate(rig.context("abc"), grammar=DIGITS)
    run(rig)
    assert (rig.heard[op].finish, len(rig.heard[op].ids)) == ("context", 17)


def test_a_stop_text_ends_the_reply_also_within_the_grammar_and_within_what_is_forced():
    rig = Rig(reply="123456")
    op = rig.generate(rig.context("abc"), grammar=DIGITS, stop=["45"])
    forced = rig.generate(rig.context("abc"), grammar=grammar("json-schema", PERSON), stop=["ame"])
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish) == ("123", "stop")
    assert (rig.heard[forced].text, rig.heard[forced].finish) == ('{"n', "stop")


def test_a_dead_end_is_an_error_that_says_so_and_what_came_before_it_is_kept():
    rig = Rig()
    ctx = rig.context("abc")
    op = rig.generate(ctx, grammar=grammar("lark", "start: /[0-9]{3}/ B\nB: /[a-z]/ & /[0-9]/"))
    run(rig)
    heard = rig.heard[op]
    assert heard.error is not None
    assert heard.error.code == "invalid_input"
    assert "dead end after 3 tokens" in heard.error.message
    assert rig.tokens(ctx)[3:] == heard.ids
    assert len(heard.ids) == 3
    after = rig.generate(ctx, max_tokens=2)
    run(rig)
    assert rig.heard[after].finish == "length"


# What is forced.


def test_forced_tokens_take_no_passes_of_their_own():
    rig = Rig(reply='{"name": "Ann", "age": 31}')
    op = rig.generate(rig.context("abcd"), grammar=grammar("json-schema", PERSON), logprobs=True)
    run(rig)
    heard = rig.heard[op]
    assert heard.text == '{"name": "Ann", "age": 31}'
    sizes = [size for step in rig.driver.steps for _, size in step]
    assert sizes[0] == 4 + len('{"name": "')
    assert len('", "age": ') in sizes
    assert len(sizes) == 6  # Ann", 3 and 1
    logprobs = [logprob for chunk in heard.chunks for logprob in chunk.logprobs]
    assert len(logprobs) == len(heard.ids) == heard.usage.completion_tokens
    assert logprobs[: len('{"name": "')] == [0.0] * len('{"name": "')


def test_a_reply_that_is_forced_altogether_needs_no_pass():
    rig = Rig()
    ctx = rig.context("abcd")
    op = rig.generate(ctx, grammar=grammar("choice", ["nothing else"]))
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish) == ("nothing else", "stop")
    assert rig.driver.steps == []
    assert rig.text(ctx) == "abcdnothing else"


def test_where_the_grammar_may_end_nothing_is_forced():
    rig = Rig(reply="ab")
    op = rig.generate(rig.context("abcd"), grammar=grammar("regex", "ab(cde)?"))
    run(rig)
    assert rig.heard[op].text == "ab"


def test_max_tokens_0_forces_nothing():
    rig = Rig()
    op = rig.generate(rig.context("abc"), max_tokens=0, grammar=grammar("choice", ["x"]))
    run(rig)
    assert (rig.heard[op].finish, rig.heard[op].ids) == ("length", [])


def test_an_empty_context_is_refused_although_the_grammar_forces_tokens():
    rig = Rig()
    op = rig.generate(rig.context(""), grammar=grammar("choice", ["xy"]))
    run(rig)
    assert "empty" in rig.heard[op].error.message


# Steering.


def test_a_rewound_reply_follows_the_grammar_from_where_it_went_back_to():
    rig = Rig()
    op = rig.generate(rig.context("Who?"), sampler=RANDOM, seed=3, grammar=grammar("json-schema", PERSON))
    run(rig)
    first = rig.heard[op].text
    for keep in (len(rig.heard[op].ids) - 1, 12, 3, 0):
        rig.steer(op, keep)
        run(rig)
        assert rig.heard[op].finish == "stop"
        assert rig.heard[op].text[:keep] == first[:keep]
        json.loads(rig.heard[op].text)


def test_what_is_injected_follows_the_grammar_and_the_reply_goes_on_after_it():
    rig = Rig()
    op = rig.generate(rig.context("Who?"), grammar=grammar("json-schema", PERSON))
    settle(rig)
    rig.step(2)
    rig.steer(op, 0, rig.tokenizer.encode('{"name": "Zoe", "a'))
    run(rig)
    assert rig.heard[op].text.startswith('{"name": "Zoe", "age": ')
    json.loads(rig.heard[op].text)


def test_an_injection_that_completes_the_grammar_ends_the_reply():
    rig = Rig()
    op = rig.generate(rig.context("Who?"), grammar=grammar("json-schema", PERSON))
    settle(rig)
    rig.steer(op, 0, rig.tokenizer.encode('{"name": "Zoe", "age": 4}'))
    run(rig)
    assert (rig.heard[op].text, rig.heard[op].finish) == ('{"name": "Zoe", "age": 4}', "stop")


def test_an_injection_before_the_grammar_is_compiled_is_checked_when_it_is():
    rig = Rig()
    good, bad = (rig.generate(rig.context("Who?"), grammar=grammar("regex", f"{name}[0-9]{{3}}")) for name in "ab")
    assert rig.core.is_compiling
    rig.steer(good, 0, rig.tokenizer.encode("a1"))
    rig.steer(bad, 0, rig.tokenizer.encode("a1"))
    run(rig)
    assert rig.heard[good].text.startswith("a1")
    assert "number 1" in rig.heard[bad].error.message


def test_an_injection_that_does_not_fit_ends_the_plan_and_names_the_token():
    rig = Rig()
    ctx = rig.context("Who?")
    op = rig.generate(ctx, grammar=DIGITS, max_tokens=50)
    settle(rig)
    rig.run()
    given = rig.heard[op].ids[:20]
    rig.steer(op, 20, rig.tokenizer.encode("12x4"))
    run(rig)
    error = rig.heard[op].error
    assert error.code == "invalid_input"
    assert "number 3" in error.message
    assert "'x'" in error.message
    assert rig.tokens(ctx)[4:] == given


def test_a_stopped_plan_leaves_what_was_delivered_and_frees_the_context():
    rig = Rig()
    ctx = rig.context("Who?")
    op = rig.generate(ctx, grammar=DIGITS)
    settle(rig)
    rig.step(10, after_s=0.1)
    rig.stop(op, 4)
    assert len(rig.tokens(ctx)) == 8
    rig.send(Append(ctx, [1]), Truncate(ctx, 5))
    again = rig.generate(ctx, grammar=DIGITS, max_tokens=3)
    run(rig)
    assert rig.heard[again].text.isdigit()


def test_a_fork_during_a_plan_is_free_of_its_grammar():
    rig = Rig()
    ctx = rig.context("Who?")
    rig.generate(ctx, grammar=DIGITS, max_tokens=40)
    settle(rig)
    rig.step(6)
    child = rig.fork(ctx, 6)
    op = rig.generate(child, max_tokens=20)
    bound = rig.generate(rig.fork(ctx, 6), max_tokens=20, grammar=DIGITS)
    run(rig)
    assert not rig.heard[op].text.isdigit()
    assert rig.heard[bound].text.isdigit()


def test_a_plan_that_is_put_back_for_want_of_pages_goes_on_within_its_grammar():
    rig = Rig(num_pages=12)
    ops = [
        rig.generate(rig.context("Who?"), sampler=RANDOM, seed=seed, grammar=grammar("json-schema", PERSON))
        for seed in range(4)
    ]
    run(rig)
    assert rig.core.stats().num_preemptions > 0
    alone = Rig()
    for seed, op in enumerate(ops):
        json.loads(rig.heard[op].text)
        same = alone.generate(alone.context("Who?"), sampler=RANDOM, seed=seed, grammar=grammar("json-schema", PERSON))
        run(alone)
        assert alone.heard[same].text == rig.heard[op].text


def test_a_failed_step_of_one_row_is_that_plans_error_and_not_the_grammars():
    rig = Rig(script=FakeScript(faults=(Fault(2, 0, "broken row"),)))
    op, other = (rig.generate(rig.context("Who?"), grammar=DIGITS, max_tokens=9) for _ in range(2))
    run(rig)
    assert "broken row" in rig.heard[op].error.message
    assert rig.heard[other].text.isdigit()


# Compiling.


def test_others_go_on_while_a_grammar_is_compiled(monkeypatch):
    import threading

    go_on, compiled = threading.Event(), compiling._compiled
    monkeypatch.setattr(compiling, "_compiled", lambda *args: go_on.wait(10) and compiled(*args))
    rig = Rig()
    ctx = rig.context("Who?")
    waiting = rig.generate(ctx, grammar=DIGITS, max_tokens=5)
    behind = rig.flush(ctx)
    other = rig.generate(rig.context("Who?"), max_tokens=50)
    rig.run()
    assert rig.heard[other].finish == "length"
    assert waiting not in rig.heard
    assert rig.core.is_compiling
    assert rig.core.stats().processes[0].state == "waiting: grammar"
    go_on.set()
    run(rig)
    assert rig.heard[waiting].text.isdigit()
    assert rig.heard[behind].is_flushed
    assert not rig.core.is_compiling


def test_a_profile_says_how_long_a_grammar_was_compiled(monkeypatch):
    import threading

    go_on, compiled = threading.Event(), compiling._compiled
    monkeypatch.setattr(compiling, "_compiled", lambda *args: go_on.wait(10) and compiled(*args))
    rig = Rig()
    rig.send(OpenProcess("p2", "test", is_profiled=True))
    ctx = rig.context("Who?", pid="p2")
    rig.generate(ctx, max_tokens=2, ignore_eos=True)
    waiting = rig.generate(ctx, grammar=DIGITS, max_tokens=5)
    rig.run()
    rig.step(3, after_s=0.1)
    go_on.set()
    run(rig)
    plain, times = [each for said in rig.profiled for each in said.operations]
    assert (plain.compiling, times.op) == (0, waiting)
    assert times.queued < times.compiling == plain.ended, "its turn on the context has come"
    assert times.begun - times.compiling >= 300_000


def test_a_plan_can_be_stopped_or_released_while_its_grammar_is_compiled(monkeypatch):
    import threading

    go_on, compiled = threading.Event(), compiling._compiled
    monkeypatch.setattr(compiling, "_compiled", lambda *args: go_on.wait(10) and compiled(*args))
    rig = Rig()
    ctx = rig.context("Who?")
    op = rig.generate(ctx, grammar=DIGITS)
    behind = rig.generate(ctx, max_tokens=5)
    rig.stop(op)
    rig.run()
    assert rig.heard[op].finish == "stopped"
    assert rig.heard[behind].finish == "length"
    go_on.set()
    run(rig)
    assert rig.heard[op].num_answers == 1


def test_a_grammar_that_does_not_compile_fails_its_plan_and_leaves_the_context():
    rig = Rig()
    ctx = rig.context("Who?")
    op = rig.generate(ctx, grammar=grammar("json-schema", {"type": "array", "uniqueItems": True}))
    behind = rig.generate(ctx, max_tokens=3)
    run(rig)
    assert (rig.heard[op].error.code, rig.heard[behind].finish) == ("unsupported", "length")
    assert "`$.uniqueItems`" in rig.heard[op].error.message
    assert END not in rig.text(ctx)
