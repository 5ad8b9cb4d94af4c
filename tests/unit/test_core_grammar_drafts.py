"""Guesses in a reply that follows a grammar: cut where the grammar refuses them, and the reply stays what it was."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pie_engine.driver.fake_script import FakeScript, Fault
from pie_engine.protocol.plan import Grammar, Speculation, Usage
from pie_engine.protocol.sampling import Sampler
from pie_engine.protocol.to_core import Draft
from tests import thoroughness
from tests.unit.core_rig import RANDOM, Heard, Rig
from tests.unit.test_core_grammar import grammar, settle
from tests.unit.test_core_grammar_property import schemas

LOOKUP = Speculation("lookup", 8)
PHONE = Grammar("regex", "[0-9]{3}(-[0-9]{3}){2}")


def write(rig: Rig, plan: dict[str, Any], guesses: list[list[int]] | None = None, *, prompt: str = "ab") -> Heard:
    """The reply to a plan to which a guess is handed in before each step."""
    op = rig.generate(rig.context(prompt, seed=5), **plan)
    settle(rig)
    for guess in guesses or []:
        at = len(rig.heard[op].ids) if op in rig.heard else 0
        rig.send(Draft(op, 0, at, guess[at:]))
        rig.step(after_s=0.1)
        rig.take_all()
    rig.run()
    assert rig.heard[op].error is None, rig.heard[op].error
    return rig.heard[op]


def told(heard: Heard) -> tuple[object, ...]:
    return heard.ids, heard.text, heard.finish, [each for chunk in heard.chunks for each in chunk.logprobs]


@settings(
    max_examples=thoroughness.count(16, 80),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
@given(
    schema=schemas, seed=st.integers(0, 2**16), temperature=st.sampled_from([0.0, 1.0]), num_guesses=st.integers(0, 9)
)
def test_any_guesses_give_the_same_reply(schema: Any, seed: int, temperature: float, num_guesses: int) -> None:
    plan = {
        "sampler": Sampler(temperature=temperature),
        "seed": seed,
        "grammar": grammar("json-schema", schema),
        "logprobs": True,
        "max_tokens": 60,
    }
    expected = write(Rig(), plan)
    choice = random.Random(seed)
    guesses = [[each if choice.random() < 0.85 else 65 for each in expected.ids] for _ in range(num_guesses)]
    heard = write(Rig(), {**plan, "speculation": LOOKUP}, guesses)
    assert told(heard) == told(expected)


def test_a_right_guess_under_a_grammar_saves_passes():
    plan = {"sampler": RANDOM, "seed": 3, "grammar": Grammar("regex", "[0-9]{40}")}
    plain, rig = Rig(), Rig()
    expected = write(plain, plan, prompt="x")
    heard = write(rig, plan, [expected.ids], prompt="x")
    assert told(heard) == told(expected)
    assert rig.driver.steps == [[(0, 33)], [(33, 7)]], "32 guesses at once, then what is left but the last token"
    assert heard.usage is not None
    assert heard.usage.drafted_tokens == heard.usage.accepted_tokens == 38, "one more comes of each pass"


def test_a_lookup_guesses_under_a_grammar():
    rig = Rig(reply="ab" * 20)
    heard = write(rig, {"grammar": Grammar("regex", "(a|b){40}"), "speculation": LOOKUP}, prompt="ab" * 10 + "|")
    assert heard.text == "ab" * 20
    assert heard.usage is not None
    assert heard.usage.accepted_tokens > 20


def test_a_guess_is_cut_where_the_grammar_refuses_it():
    rig = Rig(reply="123456x89")
    heard = write(rig, {"grammar": Grammar("regex", "[0-9]{6}.[0-9]{2}")}, [rig.tokenizer.encode("1234xx")], prompt="x")
    assert rig.driver.steps[0] == [(0, 5)], "the prompt, and the 4 that fit"
    assert (heard.text, heard.usage) == ("123456x89", Usage(1, 0, 9, 4, 4))


def test_a_guess_ends_where_the_grammar_dictates_what_comes_next():
    """Behind the dictated tokens the next guess begins; the passes are those of the digits alone, and fewer."""
    plan = {"sampler": RANDOM, "seed": 11, "grammar": PHONE}
    plain, rig = Rig(), Rig()
    expected = write(plain, plan)
    heard = write(rig, plan, [expected.ids] * 8)
    assert told(heard) == told(expected)
    assert len(rig.driver.steps) < len(plain.driver.steps) / 2


@pytest.mark.parametrize("text", ["yes", "yesterday", "no"])
def test_a_guess_does_not_go_past_the_end_of_the_grammar(text: str):
    choices = Grammar("choice", json.dumps(["yes", "yesterday", "yes and no", "no"]))
    plain, rig = Rig(reply=text), Rig(reply=text)
    expected = write(plain, {"grammar": choices})
    heard = write(rig, {"grammar": choices}, [rig.tokenizer.encode("yesterday and more")] * 4)
    assert told(heard) == told(expected)
    assert heard.finish == "stop"


def test_steering_and_guesses_under_a_grammar_go_together():
    plan = {"sampler": RANDOM, "seed": 2, "grammar": Grammar("regex", "[0-9]{30}")}
    replies = []
    for guesses in ([], [48, 49, 50, 51, 52, 53]):
        rig = Rig()
        op = rig.generate(rig.context("ab"), **plan, chunk_ms=0)
        settle(rig)
        rig.step(6, after_s=0.1)
        rig.steer(op, 4)
        for _ in range(4):
            rig.send(Draft(op, 1, len(rig.heard[op].ids), guesses))
            rig.step(after_s=0.1)
        rig.steer(op, 8, rig.tokenizer.encode("777"))
        rig.run()
        replies.append(told(rig.heard[op]))
    assert replies[0] == replies[1]
    assert replies[0][2] == "stop"


def test_a_fault_behind_a_guess_is_looked_at_again_without_it():
    rig = Rig(script=FakeScript(faults=(Fault(1, 0),)))
    plan = {"grammar": Grammar("regex", "[0-9]{12}")}
    expected = write(Rig(), plan)
    heard = write(rig, plan, [expected.ids[:1], expected.ids[:9]])
    assert told(heard) == told(expected)


def test_a_fault_without_a_guess_is_a_fault():
    rig = Rig(script=FakeScript(faults=(Fault(1, 0), Fault(2, 0))))
    op = rig.generate(rig.context("ab"), grammar=Grammar("regex", "[0-9]{12}"))
    settle(rig)
    rig.step(after_s=0.1)
    rig.send(Draft(op, 0, 1, [48, 49, 50]))
    rig.run()
    assert rig.heard[op].error is not None
    assert "scripted failure" in rig.heard[op].error.message


@pytest.mark.parametrize("max_batch_tokens", [3, 5, 64])
def test_small_batches_change_nothing(max_batch_tokens: int):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}, "required": ["name"]}
    plan = {"sampler": RANDOM, "seed": 9, "grammar": grammar("json-schema", schema)}
    expected = write(Rig(), plan)
    heard = write(Rig(max_batch_tokens=max_batch_tokens), {**plan, "speculation": LOOKUP}, [expected.ids] * 9)
    assert told(heard) == told(expected)
