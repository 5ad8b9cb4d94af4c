"""The arguments of `main`, from everything that a command line gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pie_cli.options import RUN, Values, Verb, missing_parameters, see_help, spelled, text_parameter
from pie_engine.config import nearest_hint
from pie_engine.errors import InvalidInput
from pie_engine.protocol.program import Signature

if TYPE_CHECKING:
    from pie_cli.stdin import Stdin

STDIN = "-"


def arguments_of(
    target: str, signature: Signature, values: Values, stdin: Stdin, verb: Verb = RUN
) -> dict[str, object]:
    """The arguments, options over `--input`. Raises `InvalidInput` naming the parameter."""
    given = _input_object(values.own.get("input"), signature) | values.program
    if values.words:
        name, text = _positional(target, signature, values.words, given, verb)
        given[name] = stdin.text() if text == STDIN else text
    missing = missing_parameters(signature, given)
    if missing:
        names = ", ".join(f"`{spelled(parameter.name)}`" for parameter in missing)
        is_or_are = "is" if len(missing) == 1 else "are"
        raise InvalidInput(f"{names} {is_or_are} missing", hint=see_help(target, signature, verb))
    return given


def _positional(
    target: str, signature: Signature, words: list[str], given: dict[str, object], verb: Verb
) -> tuple[str, str]:
    """The parameter that stands without its name, and its value."""
    parameter = text_parameter(signature)
    if parameter is None:
        raise InvalidInput(f"`{target}` takes options only, got `{words[0]}`", hint=see_help(target, signature, verb))
    name = spelled(parameter.name)
    if len(words) > 1:
        raise InvalidInput(f"`{name}` takes one text, got {len(words)} words", hint=f'quote them: "{" ".join(words)}"')
    if parameter.name in given:
        raise InvalidInput(f"`{name}` is given twice: also as `{words[0]}`", hint="leave one out")
    return parameter.name, words[0]


def _input_object(text: object, signature: Signature) -> dict[str, object]:
    """What `--input` says."""
    if text is None:
        return {}
    source, text = _read_input(str(text))
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{source} is not JSON: {error}", hint="it must be one object of arguments") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{source} must be a JSON object of arguments, got `{text.strip()[:40]}`")
    names = tuple(parameter.name for parameter in signature.parameters)
    for key in value:
        # A standalone component says nothing of its parameters.
        if names and key not in names:
            raise InvalidInput(f"{source} has the key `{key}`, which is no parameter", hint=nearest_hint(key, names))
    return value


def _read_input(text: str) -> tuple[str, str]:
    """Where it comes from, and what stands there."""
    if not text.startswith("@"):
        return "`--input`", text
    try:
        return f"`{text[1:]}`", Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"`--input {text}` cannot be read: {error}") from error
