"""The words behind `pie run`: its own options, and the program's, which are the parameters of `main`.

A program's option wins over one of `pie run` with the same name; that one can still be given before TARGET.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pie_cli import schema
from pie_engine.errors import InvalidInput
from pie_engine.protocol.program import Parameter, Signature

SHORT = {"-i": "--interactive"}
TRISTATE = frozenset({"interactive", "summary"})
"""Own flags that are on or off by themselves, by what stdin and stderr are."""


def own_option(name: str, kind: str, description: str) -> Parameter:
    """One of a verb's own options."""
    return Parameter(name, {"type": kind, "description": description}, required=False)


INPUT = own_option("input", "string", "The arguments as one JSON object, or @FILE that holds it.")
JSON = own_option("json", "boolean", "Write every event as one JSON object a line.")
ENDOWMENT = own_option("endowment", "number", "Credits that it brings to the market of each model.")
HELP = own_option("help", "boolean", "Show the options of the program and leave.")

OWN = [
    INPUT,
    JSON,
    own_option("watch", "boolean", "Run it again whenever one of its files is saved."),
    own_option("detach", "boolean", "Print the process id and leave; see `pie logs`."),
    own_option("record", "string", "Write every call of the program and its result to this file; see `pie replay`."),
    own_option("profile", "boolean", "End with where the time went, line by line; see `pie profile`."),
    own_option("trace", "string", "Write a timeline to this file, for ui.perfetto.dev and `pie profile`."),
    ENDOWMENT,
    own_option("interactive", "boolean", "Send each line of stdin to the program, as a message."),
    own_option("summary", "boolean", "End with a line of tokens, TTFT, tokens/s and credits spent."),
    HELP,
]
"""What `pie run` itself understands."""


class Verb(NamedTuple):
    """A verb that runs programs, and takes their parameters as options beside its own."""

    name: str
    own: Sequence[Parameter]


RUN = Verb("run", OWN)


class Flag(NamedTuple):
    """One spelling of an option."""

    parameter: Parameter
    is_own: bool
    is_negative: bool = False


@dataclass
class Values:
    """What a command line said."""

    own: dict[str, object] = field(default_factory=dict)
    program: dict[str, object] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    """Everything that is no option."""


def spelled(name: str) -> str:
    """The option of a parameter: `max_tokens` is `--max-tokens`."""
    return "--" + name.replace("_", "-")


def negated(name: str) -> str:
    return "--no-" + spelled(name).removeprefix("--")


def see_help(target: str, signature: Signature, verb: Verb = RUN) -> str:
    """The hint that names the program's help; `--help` behind TARGET may be a parameter of the program's own."""
    is_taken = any(parameter.name == "help" for parameter in signature.parameters)
    words = ["--help", shlex.quote(target)] if is_taken else [shlex.quote(target), "--help"]
    return f"see `pie {verb.name} {' '.join(words)}`"


def split_target(tokens: Sequence[str], verb: Verb = RUN) -> tuple[Values, list[str]]:
    """The options of the verb before TARGET, and TARGET with everything behind it."""
    reader = _Reader(_flags(verb.own, is_own=True), f"`pie {verb.name}`", "the program's own options come after TARGET")
    rest = list(tokens)
    while rest and _is_option(rest[0]):
        reader.read_option(rest)
    return reader.values, rest


def read_options(label: str, signature: Signature, tokens: Sequence[str], verb: Verb = RUN) -> Values:
    """What stands behind TARGET. Raises `InvalidInput` that names the parameter."""
    flags = _flags(verb.own, is_own=True) | _flags(signature.parameters, is_own=False)
    reader = _Reader(flags, f"`{label}`", see_help(label, signature, verb))
    rest = list(tokens)
    while rest:
        if rest[0] == "--":
            reader.values.words += rest[1:]
            break
        if _is_option(rest[0]):
            reader.read_option(rest)
        else:
            reader.values.words.append(rest.pop(0))
    return reader.values


def text_parameter(signature: Signature) -> Parameter | None:
    """The parameter that may be given without its name: the only required `str`, or where none is required, the first
    parameter if it is one."""
    texts = [p for p in signature.parameters if p.required and schema.is_text(p.schema)]
    if not texts and signature.parameters and schema.is_text(signature.parameters[0].schema):
        return signature.parameters[0]
    return texts[0] if len(texts) == 1 else None


def lacks_text(signature: Signature, given: dict[str, object]) -> bool:
    """Whether there is such a parameter, and `main` gets nothing for it."""
    parameter = text_parameter(signature)
    return parameter is not None and not given.get(parameter.name, parameter.default)


def missing_parameters(signature: Signature, given: dict[str, object]) -> list[Parameter]:
    return [p for p in signature.parameters if p.required and p.name not in given]


class _Reader:
    """Takes options from the front of a list of words."""

    def __init__(self, flags: dict[str, Flag], label: str, hint: str) -> None:
        self._flags = flags
        self._label = label
        self._hint = hint
        self.values = Values()

    def read_option(self, rest: list[str]) -> None:
        token = rest.pop(0)
        name, has_value, value = SHORT.get(token, token).partition("=")
        flag = self._flag(name)
        if schema.is_flag(flag.parameter.schema) and not has_value:
            self._set(flag, not flag.is_negative)
        elif flag.is_negative:
            raise InvalidInput(f"`{name}` takes no value")
        else:
            self._set(flag, self._parsed(flag, value if has_value else self._next(flag, rest)))

    def _flag(self, name: str) -> Flag:
        found = self._flags.get(name) or self._flags.get(name.replace("_", "-"))
        if found is None:
            raise InvalidInput(f"{self._label} has no option `{name}`", hint=self._nearest(name))
        return found

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._flags, n=1)
        return f"did you mean `{near[0]}`?" if near else self._hint

    def _next(self, flag: Flag, rest: list[str]) -> str:
        if not rest or rest[0].partition("=")[0] in self._flags:
            name = spelled(flag.parameter.name)
            raise InvalidInput(f"`{name}` needs {schema.expected(_single(flag.parameter))}", hint=self._hint)
        return rest.pop(0)

    def _parsed(self, flag: Flag, text: str) -> object:
        single = _single(flag.parameter)
        try:
            return schema.parse(single, text)
        except ValueError:
            name = spelled(flag.parameter.name)
            raise InvalidInput(f"`{name}` needs {schema.expected(single)}, got `{text}`", hint=self._hint) from None

    def _set(self, flag: Flag, value: object) -> None:
        values = self.values.own if flag.is_own else self.values.program
        name = flag.parameter.name
        if schema.is_repeatable(flag.parameter.schema):
            before = values.get(name)
            values[name] = [*(before if isinstance(before, list) else []), value]
        else:
            values[name] = value


def _flags(parameters: Sequence[Parameter], *, is_own: bool) -> dict[str, Flag]:
    flags = {}
    for parameter in parameters:
        flags[spelled(parameter.name)] = Flag(parameter, is_own)
        if schema.is_flag(parameter.schema) and (not is_own or parameter.name in TRISTATE):
            flags[negated(parameter.name)] = Flag(parameter, is_own, is_negative=True)
    return flags


def _single(parameter: Parameter) -> schema.Schema:
    """The schema of one value on the command line."""
    return schema.item_of(parameter.schema) if schema.is_repeatable(parameter.schema) else parameter.schema


def _is_option(token: str) -> bool:
    """`-` alone stands for stdin, and `-5` is a number."""
    return token.startswith("-") and len(token) > 1 and token != "--" and not token[1].isdigit()
