"""Grammars by themselves: compiled, matched, turned into masks."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from llguidance import LLParserLimits
from tokenizers import models, normalizers

from pie_engine.errors import InvalidInput, PieError, Unsupported
from pie_engine.grammar import compile as compiling
from pie_engine.grammar.compile import COMPILE_TIMEOUT_S, MAX_KEPT, Compiler
from pie_engine.grammar.dialects import MAX_GRAMMAR_BYTES
from pie_engine.grammar.mask import Masks
from pie_engine.grammar.match import Matcher
from pie_engine.grammar.vocabulary import Vocabulary
from pie_engine.hub.places import resolve
from pie_engine.model.pieces import piece_decoder
from pie_engine.model.tokenizer import Tokenizer
from pie_engine.protocol.plan import Grammar, GrammarKind

TINY = Tokenizer.load(resolve("pie-tiny"))
COMPILER = Compiler(TINY, TINY.vocab_size)


def done(compiler: Compiler, grammar: Grammar) -> compiling.Compilation:
    compilation = compiler.compile(grammar)
    while not compilation.is_done:
        time.sleep(0.001)
    return compilation


def matcher_of(kind: GrammarKind, text: Any) -> Matcher:
    grammar = Grammar(kind, text if isinstance(text, str) else json.dumps(text))
    return done(COMPILER, grammar).matcher()


def take(matcher: Matcher, text: str) -> bool:
    return all(matcher.take(token) for token in TINY.encode(text, special=False))


def tokens_of(mask: bytes) -> set[int]:
    return {token for token in range(len(mask) * 8) if mask[token >> 3] >> (token & 7) & 1}


def allowed(matcher: Matcher, stops: tuple[int, ...] = ()) -> set[int]:
    masks = Masks()
    mask = masks.ask(matcher, matcher.vocabulary.words_of(stops))
    masks.start()
    found = tokens_of(mask())
    masks.finish()
    return found


# Kinds.


@pytest.mark.parametrize(
    ("kind", "text", "fits", "does_not"),
    [
        ("json-schema", {"type": "integer"}, "-12", "1.5"),
        ("json-schema", {"type": "array", "items": {"enum": ["a", 2]}}, '["a", 2]', '["b"'),
        ("json-schema", {"oneOf": [{"type": "string"}, {"type": "null"}]}, "null", "1"),
        ("regex", r"\d{3}-[a-z]+", "123-abc", "12-"),
        ("lark", 'start: greeting " " NAME\ngreeting: "Hi" | "Hello"\nNAME: /[A-Z][a-z]+/', "Hello Bob", "Hey"),
        ("ebnf", 'root ::= item ("," item)*\nitem ::= [0-9]+', "1,22,3", "1,,"),
        ("choice", ["né", 'q"x\n', "\\d", "a\u2028"], 'q"x\n', "9"),
    ],
)
def test_each_kind_takes_what_it_describes_and_nothing_else(kind, text, fits, does_not):
    matcher = matcher_of(kind, text)
    wrong = matcher.fork()
    assert take(matcher, fits)
    assert matcher.may_end
    assert not take(wrong, does_not)


@pytest.mark.parametrize("choice", ["né", 'q"x\n', "\\d", "a\u2028"])
def test_a_choice_is_taken_as_it_is_written(choice):
    matcher = matcher_of("choice", ["né", 'q"x\n', "\\d", "a\u2028"])
    assert take(matcher, choice)
    assert matcher.is_complete


def test_json_is_written_on_one_line_unless_the_schema_says_otherwise():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    assert take(matcher_of("json-schema", schema), '{"a": 1, "b": 2}')
    assert not take(matcher_of("json-schema", schema), '{"a":1')
    free = schema | {"x-guidance": {"whitespace_flexible": True, "item_separator": ",", "key_separator": ":"}}
    assert take(matcher_of("json-schema", free), '{\n  "a" : 1,"b":2 }')


# What is refused.


@pytest.mark.parametrize(
    ("kind", "text", "error", "says"),
    [
        ("json-schema", {"properties": {"x": {"uniqueItems": True}}}, Unsupported, "`$.properties.x.uniqueItems`"),
        ("json-schema", {"$ref": "https://a.example/b"}, Unsupported, "`https://a.example/b`"),
        ("json-schema", {"type": "string", "format": "colour"}, Unsupported, "format `colour`"),
        ("json-schema", {"type": "string", "pattern": "(?=a)b"}, Unsupported, "look-around"),
        ("json-schema", {"type": "strin"}, InvalidInput, "Invalid type: strin"),
        ("json-schema", {"type": "integer", "minimum": 4, "maximum": 2}, InvalidInput, "no value satisfies"),
        ("json-schema", "{", InvalidInput, "has to be an object"),
        ("json-schema", "[" * 100_000, InvalidInput, "has to be an object"),
        ("json-schema", [1], InvalidInput, "has to be an object; got [1]"),
        ("regex", r"(a", InvalidInput, "unclosed group"),
        ("regex", r"(a)\1", Unsupported, "back references"),
        ("regex", "x" * (MAX_GRAMMAR_BYTES + 1), InvalidInput, f"at most {MAX_GRAMMAR_BYTES}"),
        ("lark", "start: foo", InvalidInput, 'unknown name: "foo"'),
        ("lark", 'root: "a"', InvalidInput, "no start rule"),
        ("ebnf", "root ::= foo", InvalidInput, "'foo' not found"),
        ("choice", [], InvalidInput, "at least one"),
        ("choice", ["a", ""], InvalidInput, "none of them empty"),
        ("choice", {"a": 1}, InvalidInput, "has to be a list"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(kind, text, error, says):
    with pytest.raises(PieError) as refused:
        matcher_of(kind, text)
    assert type(refused.value) is error
    assert says in refused.value.message
    assert "\n\n" not in refused.value.message
    assert len(refused.value.message) < 1000
    if error is Unsupported:
        assert refused.value.hint


def test_a_grammar_past_the_limits_of_the_compiler_is_refused_with_a_hint(monkeypatch):
    monkeypatch.setattr(compiling, "_LIMITS", LLParserLimits(initial_lexer_fuel=100))
    with pytest.raises(InvalidInput, match="the JSON schema is too complex") as refused:
        done(Compiler(TINY, TINY.vocab_size), Grammar("json-schema", '{"type": "string"}')).matcher()
    assert refused.value.hint


# Compiling in the background.


def test_equal_grammars_are_compiled_once_and_each_matcher_is_its_own():
    compiler = Compiler(TINY, TINY.vocab_size)
    first = done(compiler, Grammar("regex", "[ab]+"))
    assert compiler.compile(Grammar("regex", "[ab]+")) is first
    one, other = first.matcher(), first.matcher()
    assert take(one, "aab")
    assert (one.num_tokens > 0, other.num_tokens, other.may_end) == (True, 0, False)


def test_the_longest_unused_grammar_is_forgotten():
    compiler = Compiler(TINY, TINY.vocab_size)
    first, second = (compiler.compile(Grammar("regex", text)) for text in ("first", "second"))
    for number in range(MAX_KEPT - 2):
        compiler.compile(Grammar("regex", str(number)))
    assert compiler.compile(Grammar("regex", "first")) is first
    compiler.compile(Grammar("regex", "one more"))
    assert compiler.compile(Grammar("regex", "first")) is first
    assert compiler.compile(Grammar("regex", "second")) is not second


def test_a_compilation_that_takes_too_long_is_given_up_and_can_be_had_later(monkeypatch):
    go_on = threading.Event()
    compiled = compiling._compiled

    def slow(grammar: Grammar, vocabulary: Vocabulary) -> Matcher:
        go_on.wait(10)
        return compiled(grammar, vocabulary)

    monkeypatch.setattr(compiling, "_compiled", slow)
    now = [50.0]
    compiler = Compiler(TINY, TINY.vocab_size, clock=lambda: now[0])
    compilation = compiler.compile(Grammar("regex", "a"))
    assert not compilation.is_done
    now[0] += COMPILE_TIMEOUT_S
    assert compilation.is_done
    with pytest.raises(InvalidInput, match="not been compiled within 20 s"):
        compilation.matcher()
    go_on.set()
    compilation._future.result(10)
    assert take(compiler.compile(Grammar("regex", "a")).matcher(), "a")


def test_the_interpreter_is_free_while_a_large_schema_is_compiled():
    properties = {
        f"p{i}": {"type": "object", "properties": {f"q{j}": {"type": "string", "pattern": f"^[a-z]{{1,{j + 3}}}$"}}}
        for i in range(100)
        for j in range(10)
    }
    compilation = COMPILER.compile(Grammar("json-schema", json.dumps({"type": "object", "properties": properties})))
    num_turns = 0
    while not compilation.is_done:
        num_turns += 1
        time.sleep(0.0005)
    assert compilation.matcher().num_tokens == 0
    assert num_turns > 5


# Matching.


def test_rewinding_and_forking_leave_the_matcher_as_if_nothing_had_been_taken():
    matcher = matcher_of("json-schema", {"enum": ["red", "green", "grey"]})
    start = allowed(matcher)
    tokens = TINY.encode('"green"', special=False)
    for token in tokens:
        assert matcher.take(token)
    assert matcher.is_complete
    fork = matcher.fork()
    matcher.rewind(len(tokens))
    assert (matcher.num_tokens, matcher.is_complete, allowed(matcher)) == (0, False, start)
    assert take(matcher, '"red"')
    assert fork.num_tokens == len(tokens)
    fork.rewind(1)
    assert fork.take(tokens[-1])


def test_a_token_that_does_not_fit_is_not_taken():
    matcher = matcher_of("regex", "[0-9]+")
    assert not take(matcher, "x")
    assert matcher.num_tokens == 0
    assert take(matcher, "42")


def test_what_is_injected_is_checked_and_the_first_wrong_token_named():
    matcher = matcher_of("regex", "[0-9]+")
    tokens = TINY.encode("12a4", special=False)
    with pytest.raises(InvalidInput, match=r"cannot inject these 4 tokens: number 3, token \d+ \('a'\)"):
        matcher.inject(tokens)
    assert matcher.num_tokens == 0


def test_forced_tokens_spell_what_has_to_come():
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    matcher = matcher_of("json-schema", schema | {"additionalProperties": False})
    forced = matcher.forced()
    assert TINY.decode(forced) in ('{"name":', '{"name": "')  # the last one may depend on what follows
    assert matcher.num_tokens == 0
    for token in forced:
        assert matcher.take(token)
    assert matcher.forced() == []


def metaspace() -> Tokenizer:
    """As Llama 2 has it: a space is put before what it takes for the start of a text."""

    def load() -> tokenizers.Tokenizer:
        vocab = {piece: index for index, piece in enumerate(["<unk>", "▁", *"abehrt:0123456789", "▁t", "▁th", "▁the"])}
        made = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "t"), ("▁t", "h"), ("▁th", "e")], unk_token="<unk>"))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        return made

    steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
    return Tokenizer(load, piece_decoder({"type": "Sequence", "decoders": steps}, "test"))


def test_a_sentencepiece_tokenizer_forces_no_space_of_its_own():
    tokenizer = metaspace()
    forced = done(Compiler(tokenizer, tokenizer.vocab_size), Grammar("regex", "the bear: [0-9]")).matcher().forced()
    assert b"".join(map(tokenizer.token_bytes, forced)) == b"the bear: "


def test_a_dead_end_breaks_the_matcher_and_says_so():
    matcher = matcher_of("lark", 'start: "a" B\nB: /[a-z]/ & /[0-9]/')
    assert take(matcher, "a")
    assert allowed(matcher, stops=TINY.eos_ids) == set()
    assert matcher.is_broken
    assert "dead end after 1 tokens" in matcher.fault.message
    matcher.rewind(1)
    assert matcher.is_broken


def test_going_over_a_limit_of_a_step_breaks_the_matcher_and_says_so(monkeypatch):
    monkeypatch.setattr(compiling, "_LIMITS", LLParserLimits(max_lexer_states=5, verbose_errors=False))
    compiler = Compiler(TINY, TINY.vocab_size)
    matcher = done(compiler, Grammar("regex", "[a-z]{3,40}x?y[b-d]+")).matcher()
    take(matcher, "abcdef")
    allowed(matcher)
    assert matcher.is_broken
    assert "too complex: lexer error: too many states" in matcher.fault.message


# Masks.


def test_a_mask_is_exactly_what_could_be_taken():
    matcher = matcher_of("json-schema", {"type": "array", "items": {"type": "string", "maxLength": 8}})
    take(matcher, '["a')
    assert allowed(matcher) == {token for token in range(TINY.vocab_size) if matcher.num_fitting([token])}


def test_stop_tokens_are_allowed_only_where_the_grammar_may_end():
    matcher, stops = matcher_of("regex", "(ab)*"), (*TINY.eos_ids, 7)
    assert allowed(matcher, stops) >= set(stops)
    take(matcher, "a")
    assert not allowed(matcher, stops) & set(stops)
    take(matcher, "b")
    assert allowed(matcher, stops) >= set(stops)
    assert not allowed(matcher) & set(stops)


def test_a_lark_grammar_may_name_special_tokens():
    matcher = matcher_of("lark", 'start: <|assistant|> "x"')
    assert allowed(matcher) == {TINY.token_id("<|assistant|>")}


def test_the_masks_of_a_step_do_not_mix():
    kinds = ["[ab]", "[0-9]", "x+"]
    matchers = [matcher_of("regex", regex) for regex in kinds]
    masks, nothing = Masks(), COMPILER.vocabulary.words_of([])
    for _ in range(3):
        asked = [masks.ask(matcher, nothing) for matcher in matchers]
        masks.start()
        found = [{TINY.decode([token]) for token in tokens_of(mask())} for mask in reversed(asked)]
        masks.finish()
        assert found[2] == {"a", "b"}
        assert found[1] >= set("0123456789")
        assert all(set(text) == {"x"} for text in found[0])


@pytest.mark.parametrize("num_tokens", [TINY.vocab_size, TINY.vocab_size + 3, TINY.vocab_size + 31])
def test_a_mask_has_a_bit_for_each_logit_and_padding_is_never_allowed(num_tokens):
    compiler = Compiler(TINY, num_tokens)
    matcher = done(compiler, Grammar("regex", "(.|\n)*")).matcher()
    masks = Masks()
    mask = masks.ask(matcher, compiler.vocabulary.words_of([]))
    masks.start()
    assert len(mask()) == -(-num_tokens // 8)
    assert max(tokens_of(mask())) < TINY.vocab_size
    masks.finish()


def test_masks_that_take_long_are_computed_beside_the_model_and_are_the_same(monkeypatch):
    from pie_engine.grammar import mask as masking

    monkeypatch.setattr(masking, "HAND_OVER_FROM_S", 0.0)
    matchers = [matcher_of("regex", f"[a-{last}]+") for last in "bcdefghijkl"]
    callers = []
    write_mask = Matcher.write_mask

    def write(matcher: Matcher, address: int, num_bytes: int) -> None:
        callers.append(threading.current_thread())
        write_mask(matcher, address, num_bytes)

    monkeypatch.setattr(Matcher, "write_mask", write)
    masks, nothing = Masks(), COMPILER.vocabulary.words_of([])
    for _ in range(3):
        asked = [masks.ask(matcher, nothing) for matcher in matchers]
        masks.start()
        found = [tokens_of(mask()) for mask in asked]
        masks.finish()
        assert found == [{token for token in range(TINY.vocab_size) if m.num_fitting([token])} for m in matchers]
    assert len(callers) == 3 * len(matchers)
    assert threading.current_thread() not in callers


def test_masks_are_waited_for_although_nobody_wants_them(monkeypatch):
    from pie_engine.grammar import mask as masking

    monkeypatch.setattr(masking, "HAND_OVER_FROM_S", 0.0)
    matcher, ends = matcher_of("regex", "[ab]+"), []
    write_mask = Matcher.write_mask

    def write(matcher: Matcher, address: int, num_bytes: int) -> None:
        time.sleep(0.05)
        write_mask(matcher, address, num_bytes)
        ends.append(time.monotonic())

    monkeypatch.setattr(Matcher, "write_mask", write)
    masks = Masks()
    masks.ask(matcher, matcher.vocabulary.words_of([]))
    masks.start()
    masks.finish()
    assert len(ends) == 1


def test_cheap_masks_are_computed_by_who_asks_and_dear_ones_handed_over_from_the_next_step_on(monkeypatch):
    masks, matcher = Masks(), matcher_of("regex", "[ab]+")
    spent = iter([0.0, 0.0001, 0.0, 0.5])
    monkeypatch.setattr("pie_engine.grammar.mask.time.thread_time", lambda: next(spent, 0.0))
    handed_over = []
    for _ in range(3):
        mask = masks.ask(matcher, matcher.vocabulary.words_of([]))
        masks.start()
        handed_over.append(bool(masks._running))
        mask()
        masks.finish()
    assert handed_over == [False, False, True]


# What the page says.

PAGE = (Path(__file__).parents[2] / "docs" / "grammar.md").read_text("utf-8")
REFUSED = re.findall(r"`([$\w]+)`", PAGE.split("cannot be enforced while writing: ")[1].split("|")[0])
FORMATS = re.findall(r"`([\w-]+)`", PAGE.split("Known formats: ")[1].split(". ")[0])
VALUES = {"uniqueItems": True, "dependentRequired": {"a": ["b"]}, "unevaluatedItems": False, "$dynamicRef": "#x"}


@pytest.mark.parametrize("keyword", REFUSED)
def test_keywords_that_the_page_calls_refused_are_refused(keyword):
    with pytest.raises(Unsupported, match=re.escape(f"`$.{keyword}`")):
        matcher_of("json-schema", {keyword: VALUES.get(keyword, {})})


@pytest.mark.parametrize("name", FORMATS)
def test_formats_that_the_page_calls_known_are_known(name):
    assert matcher_of("json-schema", {"type": "string", "format": name}).num_tokens == 0


def test_a_lenient_schema_ignores_what_cannot_be_enforced():
    lenient = {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}
    assert take(matcher_of("json-schema", lenient), "[1, 1]")


def test_a_lark_grammar_may_hold_a_schema():
    rules = 'start: "<think>" /[^<]{1,20}/ "</think>" answer\nanswer: %json {"type": "boolean"}'
    matcher = matcher_of("lark", rules)
    assert take(matcher, "<think>hm</think>true")
    assert matcher.is_complete
