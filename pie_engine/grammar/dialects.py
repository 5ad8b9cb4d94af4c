"""The kinds of grammars, and what llguidance says of those that it does not take.

What it knows of each: https://github.com/guidance-ai/llguidance/tree/main/docs (json_schema.md, syntax.md).
"""

from __future__ import annotations

import json
import re
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from pie_engine.errors import InvalidInput, PieError, Unsupported
from pie_engine.protocol.plan import Grammar

MAX_GRAMMAR_BYTES = 1 << 20
_JSON_OPTIONS: Any = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # `oneOf` is read as `anyOf`, which is what pydantic means by it.
    "coerce_one_of": True,
}
"""One line as `json.dumps` writes it, so that nothing between the values is left to the model: it is forced, and costs
no passes. A schema's own `x-guidance` goes over these."""
_MAX_SHOWN = 600


def source_of(grammar: Grammar) -> str:
    """The grammar in llguidance's own form. Raises `InvalidInput`."""
    num_bytes = len(grammar.text.encode("utf-8", "replace"))
    if num_bytes > MAX_GRAMMAR_BYTES:
        raise InvalidInput(f"the grammar has {num_bytes} bytes; at most {MAX_GRAMMAR_BYTES} are taken")
    match grammar.kind:
        case "json-schema":
            _json_of(grammar.text, dict, "a JSON schema has to be an object")
            return LLMatcher.grammar_from_json_schema(grammar.text, defaults=_JSON_OPTIONS)
        case "regex":
            return LLMatcher.grammar_from_regex(grammar.text)
        case "lark":
            return LLMatcher.grammar_from_lark(grammar.text)
        case "ebnf":
            return LLMatcher.grammar_from_lark(_lark_of(grammar.text))
        case "choice":
            return LLMatcher.grammar_from_lark(_alternatives(grammar.text))


def _lark_of(ebnf: str) -> str:
    try:
        return any_to_lark(ebnf)
    except Exception as error:  # its own class, and whatever odd input brings about
        raise InvalidInput(f"the EBNF grammar is not valid: {_shown(str(error))}") from error


def _alternatives(text: str) -> str:
    choices = _json_of(text, list, "a choice has to be a list of texts")
    if not choices or not all(isinstance(choice, str) and choice for choice in choices):
        raise InvalidInput("a choice has to be a list of texts, at least one and none of them empty")
    return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def _json_of(text: str, kind: type, wanted: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{wanted}: {error}") from error
    if not isinstance(value, kind):
        raise InvalidInput(f"{wanted}; got {_shown(text)}")
    return value


# What llguidance says, as an error with a way out.

_KINDS = {
    "json-schema": "the JSON schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
    "ebnf": "the EBNF grammar",
    "choice": "the choice",
}


def refusal(grammar: Grammar, message: str) -> PieError:
    """The error for what llguidance says of a grammar that it does not compile."""
    what = _KINDS[grammar.kind]
    if found := re.match(r"Unimplemented keys: (\[.*\])", message):
        keys = json.loads(found[1])
        where = ", ".join(f"`{_path_of(grammar.text, key)}`" for key in keys)
        return Unsupported(
            f"{what} uses {where}, which cannot be enforced while tokens are generated",
            hint="take it out and check the reply in the program, or have it ignored with "
            '`"x-guidance": {"lenient": true}` at the top of the schema',
        )
    if found := re.match(r"Unknown format: (.*)", message):
        return Unsupported(
            f"{what} uses the format `{found[1]}`, which is not known", hint="say it as a `pattern`, or leave it out"
        )
    if found := re.match(r"Resource '(.*?)' is not present", message):
        return Unsupported(
            f"{what} refers to `{found[1]}`; nothing outside the schema is read",
            hint="put the definition into its `$defs`",
        )
    if "look-around" in message or "backreferences" in message:
        feature = "look-around" if "look-around" in message else "back references"
        return Unsupported(
            f"a regular expression uses {feature}, which cannot be enforced while tokens are generated",
            hint="write it without, or use a Lark grammar, which has `&` and `~` on terminals",
        )
    if found := re.match(r"Unsatisfiable schema: (.*)", message, re.DOTALL):
        return InvalidInput(f"no value satisfies {what}: {_shown(found[1])}")
    if "too big" in message or "too many" in message or "limit" in message:
        return too_complex(grammar, message)
    if found := re.search(r"regex parse error:\n(.*?)\nerror: ([^\n]*)", message, re.DOTALL):
        return InvalidInput(f"{what} is not valid: {found[2]}\n{found[1].rstrip()[:_MAX_SHOWN]}")
    return InvalidInput(f"{what} is not valid: {_shown(message)}")


def too_complex(grammar: Grammar, message: str) -> PieError:
    """The error for a grammar that went over a limit of llguidance."""
    return InvalidInput(
        f"{_KINDS[grammar.kind]} is too complex: {_shown(message)}",
        hint="split it, or bound its repetitions and patterns more loosely",
    )


def _path_of(schema: str, key: str) -> str:
    """Where in the schema a keyword stands first, as `$.properties.tags.uniqueItems`."""
    todo = [("$", json.loads(schema))]
    for path, value in todo:
        if isinstance(value, dict):
            if key in value and not path.endswith(".properties"):
                return f"{path}.{key}"
            todo += [(f"{path}.{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            todo += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return key


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
