"""Secrets: taken out of texts, named in pie.toml, and in no message's `repr`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferlet import NotFound, runtime
from inferlet.testing import run_inferlet
from pie_cli.main import invoke
from pie_client import read_manifest
from pie_engine.errors import InvalidProgram
from pie_engine.host.redaction import Redaction
from pie_engine.protocol.http import SecretRequest
from pie_engine.protocol.to_host import Secrets

VALUES = st.text(st.characters(codec="utf-8", exclude_characters="[]"), min_size=4, max_size=12)


@given(VALUES, st.text(max_size=8), st.text(max_size=8), st.booleans(), st.booleans())
@example("0000", "\0", "", True, False)  # in the middle of an escape
@example("nabc", "", "\nabc", True, False)
@example('a"b\\', "", '"', False, True)
def test_no_value_is_left_in_json(value: str, before: str, after: str, escapes: bool, is_nested: bool) -> None:
    said = before + value + after
    text = json.dumps([json.dumps({"key": said}) if is_nested else said], ensure_ascii=escapes)
    (redacted,) = json.loads(Redaction({"KEY": value}).in_json(text))
    assert value not in redacted.replace("[secret KEY]", "")
    assert "[secret KEY]" in redacted


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('{"1234": [12345, 1234, 1234.0, true]}', '{"[secret KEY]":[12345,"[secret KEY]",1234.0,true]}'),
        ("1234", '"[secret KEY]"'),
        ('{"n": 1.50, "a": "x"}', '{"n": 1.50, "a": "x"}'),
    ],
)
def test_json_stays_json(text: str, redacted: str) -> None:
    assert Redaction({"KEY": "1234"}).in_json(text) == redacted


def test_one_that_begins_another_does_not_show_its_end() -> None:
    redact = Redaction({"A": "abcd", "B": "abcdefgh"})
    assert redact("abcdefgh abcd") == "[secret B] [secret A]"


def test_without_secrets_nothing_happens() -> None:
    assert Redaction({})("abcd") == "abcd"


def test_messages_do_not_show_values() -> None:
    assert "abcd" not in repr((Secrets({"A": "abcd"}), SecretRequest("abcd")))


@pytest.mark.parametrize("value", ['"API_KEY"', '["API-KEY"]', "[1]", '["1A"]'])
def test_pie_toml_names_them(value: str, tmp_path: Path) -> None:
    file = tmp_path / "pie.toml"
    file.write_text('[program]\nname = "a"\nsecrets = ["API_KEY", "_b2"]\n')
    assert read_manifest(file).secrets == ("API_KEY", "_b2")
    file.write_text(f'[program]\nname = "a"\nsecrets = {value}\n')
    with pytest.raises(InvalidProgram, match="`secrets` in `\\[program\\]` is"):
        read_manifest(file)


def test_a_program_under_test_is_given_them() -> None:
    async def main(name: str) -> str:
        return runtime.secret(name)

    assert run_inferlet(main, {"name": "KEY"}, secrets={"KEY": "abcd"}).value == "abcd"
    with pytest.raises(NotFound, match="no secret `OTHER`"):
        run_inferlet(main, {"name": "OTHER"}, secrets={"KEY": "abcd"})


@pytest.mark.parametrize("words", [["set"], ["set", "A", "value"], ["remove"], ["show", "A"]])
def test_wrong_words_are_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["secret", *words]) == 2
    assert "error: " in capsys.readouterr().err
