"""The options of `pie run`: its own, and those that a signature makes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from pie_cli import help as help_texts
from pie_cli.arguments import arguments_of
from pie_cli.options import Values, lacks_text, read_options, split_target, text_parameter
from pie_cli.stdin import Stdin
from pie_engine.errors import InvalidInput
from pie_engine.protocol.program import Parameter, Signature

PROMPT = Parameter("prompt", {"type": "string", "description": "What to answer."})
MAX_TOKENS = Parameter("max_tokens", {"type": "integer"}, required=False, default=128)
TAGS = Parameter("tags", {"type": "array", "items": {"type": "string"}}, required=False, default=[])
LOUD = Parameter("loud", {"type": "boolean"}, required=False, default=False)
RATIO = Parameter("ratio", {"type": "number"}, required=False, default=1.0)
CHAT = Signature(
    "Answer one question.\n\nArgs:\n    prompt: What to answer.\n", [PROMPT, MAX_TOKENS, TAGS, LOUD, RATIO]
)


def read(*words: str, signature: Signature = CHAT) -> Values:
    return read_options("chat", signature, words)


def arguments(*words: str, signature: Signature = CHAT) -> dict[str, object]:
    return arguments_of("chat", signature, read(*words, signature=signature), Stdin())


def refused(*words: str, signature: Signature = CHAT) -> str:
    with pytest.raises(InvalidInput) as caught:
        arguments(*words, signature=signature)
    return f"{caught.value.message} | {caught.value.hint}"


def test_options_come_from_the_parameters() -> None:
    words = ("--prompt", "hi", "--max-tokens=5", "--tags", "a", "--tags", "b", "--loud", "--ratio", "-0.5")
    assert arguments(*words) == {"prompt": "hi", "max_tokens": 5, "tags": ["a", "b"], "loud": True, "ratio": -0.5}


def test_an_option_may_be_spelled_as_the_parameter_is() -> None:
    assert arguments("--prompt", "hi", "--max_tokens", "5")["max_tokens"] == 5


def test_flags_have_a_negative_and_take_a_value_with_an_equals_sign() -> None:
    assert arguments("hi", "--no-loud")["loud"] is False
    assert arguments("hi", "--loud=false")["loud"] is False


def test_the_only_required_text_needs_no_name() -> None:
    assert arguments("hello", "--loud") == {"prompt": "hello", "loud": True}
    assert arguments("--loud", "--", "--hello") == {"prompt": "--hello", "loud": True}


def test_two_required_texts_have_no_short_form() -> None:
    assert text_parameter(Signature("", [PROMPT, Parameter("other", {"type": "string"})])) is None


def test_where_no_text_is_required_it_is_the_first_parameter_that_is_one() -> None:
    text, more = (
        Parameter("text", {"type": "string"}, required=False),
        Parameter("more", {"type": "string"}, required=False),
    )
    number = Parameter("n", {"type": "integer"}, required=False)
    assert text_parameter(Signature("", [text, more, number])) is text
    assert text_parameter(Signature("", [text, PROMPT])) is PROMPT
    assert text_parameter(Signature("", [number, text])) is None


@pytest.mark.parametrize(
    ("parameters", "given", "lacks"),
    [
        ([PROMPT], {"prompt": "hi"}, False),
        ([Parameter("text", {"type": "string"}, False, "")], {}, True),
        ([Parameter("text", {"type": "string"}, False, "")], {"text": ""}, True),
        ([Parameter("text", {"type": "string"}, False, "")], {"text": "hi"}, False),
        ([Parameter("text", {"type": "string"}, False, "Hello!")], {}, False),
        ([Parameter("n", {"type": "integer"}, False, 0)], {}, False),
        ([], {}, False),
    ],
)
def test_a_program_that_gets_no_text_to_begin_with(parameters: list[Parameter], given: Any, lacks: bool) -> None:
    assert lacks_text(Signature("", parameters), given) is lacks


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a long text\n"))
    assert arguments_of("chat", CHAT, read("-"), Stdin()) == {"prompt": "a long text\n"}


def test_input_is_the_base_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"prompt": "from file", "max_tokens": 1}')
    assert arguments("--input", f"@{file}", "--max-tokens", "2") == {"prompt": "from file", "max_tokens": 2}
    assert arguments("--input", '{"prompt": "x"}') == {"prompt": "x"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--promt", "x"), "`chat` has no option `--promt` | did you mean `--prompt`?"),
        (("--zzz",), "`chat` has no option `--zzz` | see `pie run chat --help`"),
        (("-x",), "`chat` has no option `-x` | see `pie run chat --help`"),
        (("hi", "--max-tokens", "many"), "`--max-tokens` needs an integer, got `many` | see `pie run chat --help`"),
        (("hi", "--max-tokens"), "`--max-tokens` needs an integer | see `pie run chat --help`"),
        (("--prompt", "--loud"), "`--prompt` needs text | see `pie run chat --help`"),
        (("hi", "--no-loud=1"), "`--no-loud` takes no value | "),
        ((), "`--prompt` is missing | see `pie run chat --help`"),
        (("tell", "me"), '`--prompt` takes one text, got 2 words | quote them: "tell me"'),
        (("hi", "--prompt", "ho"), "`--prompt` is given twice: also as `hi` | leave one out"),
        (
            ("--input", '{"promt": "x"}'),
            "`--input` has the key `promt`, which is no parameter | did you mean `prompt`?",
        ),
        (("--input", "{"), None),
        (("--input", '{"prompt": "\\ud800"}'), None),
        (("--input", '{"prompt": "x", "ratio": NaN}'), None),
        (("--input", "[1]"), "`--input` must be a JSON object of arguments, got `[1]` | "),
        (("--input", "@/no/such/file"), None),
    ],
)
def test_wrong_words_are_refused_by_name(words: tuple[str, ...], text: str | None) -> None:
    message = refused(*words)
    if text is None:
        assert "--input" in message
    else:
        assert message == text


def test_a_parameter_named_help_has_its_hint_before_the_target() -> None:
    signature = Signature("", [Parameter("help", {"type": "string"})])
    assert refused("--zzz", "x", signature=signature).endswith(" | see `pie run --help chat`")
    assert refused(signature=signature) == "`--help` is missing | see `pie run --help chat`"


def test_a_target_with_a_space_is_quoted() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_options("my chat.py", CHAT, ["--zzz"])
    assert caught.value.hint == "see `pie run 'my chat.py' --help`"
    assert help_texts.program_help("my chat.py", "chat", CHAT).startswith("Usage: pie run 'my chat.py' [OPTIONS]")


def test_words_without_a_text_parameter_are_refused() -> None:
    assert refused("x", signature=Signature()) == "`chat` takes options only, got `x` | see `pie run chat --help`"


def test_own_options_stand_on_either_side_of_the_target() -> None:
    before, rest = split_target(["--json", "--input", "{}", "chat", "--summary", "hi"])
    assert before.own == {"json": True, "input": "{}"}
    assert rest == ["chat", "--summary", "hi"]
    assert read(*rest[1:]).own == {"summary": True}


def test_own_flags_that_are_on_by_themselves_can_be_put_off() -> None:
    assert split_target(["--no-summary", "-i", "chat"])[0].own == {"summary": False, "interactive": True}
    with pytest.raises(InvalidInput):
        split_target(["--no-json", "chat"])


def test_an_option_of_the_program_before_the_target_is_explained() -> None:
    with pytest.raises(InvalidInput) as caught:
        split_target(["--prompt", "hi", "chat"])
    assert caught.value.hint == "the program's own options come after TARGET"


def test_a_parameter_hides_the_own_option_of_its_name() -> None:
    signature = Signature("", [Parameter("json", {"type": "string"})])
    values = read("--json", "text", signature=signature)
    assert values.program == {"json": "text"}
    assert values.own == {}
    assert "  --json TEXT" in help_texts.program_help("chat", "chat", signature)
    assert "Write every event" not in help_texts.program_help("chat", "chat", signature)


def test_help_shows_the_signature() -> None:
    text = help_texts.program_help("./chat", "chat", CHAT)
    assert text.startswith("Usage: pie run ./chat [OPTIONS] [PROMPT]\n\n  Answer one question.\n")
    assert "Args:" not in text
    assert "--prompt TEXT         What to answer. [required]" in text
    assert "--max-tokens INTEGER  [default: 128]" in text
    assert "--tags TEXT           [repeatable]" in text
    assert "--loud / --no-loud\n" in text
    assert "Options of pie run:" in text
