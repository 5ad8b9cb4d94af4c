"""Tools: typed functions that a model may call, by the `<tool_call>{json}</tool_call>` format of many chat templates.

>>> @tool
... def weather(city: str) -> str:
...     '''Get the weather in a city.'''
>>> ctx = Context(tools=[weather])
>>> ctx.user("How is the weather in Paris?")
>>> for call in parse_calls(await ctx.generate()):
...     ctx.tool(await call.result([weather]))
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, update_wrapper
from typing import Any

from inferlet._plain_json import readable_json
from inferlet.errors import InvalidInput
from inferlet.signature import Signature

_SECTION = re.compile(r"\n\s*\n\s*(?:Args|Arguments|Parameters|Returns|Raises):")
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


class Tool:
    """A function with the JSON schema that models are shown. Made by `@tool`; calling it calls the function."""

    def __init__(self, function: Callable[..., Any], *, name: str = "", description: str = "") -> None:
        self.function = function
        self.name = name or function.__name__
        update_wrapper(self, function)
        self._description = description

    @cached_property
    def signature(self) -> Signature:
        """Raises `InvalidProgram` for a parameter that JSON cannot carry."""
        return Signature.of(self.function)

    @property
    def description(self) -> str:
        """The docstring without its section on arguments, which become descriptions in the schema."""
        return self._description or _SECTION.split(self.signature.doc)[0]

    @property
    def schema(self) -> dict[str, Any]:
        """As chat templates and OpenAI's API have it."""
        function = {"name": self.name, "description": self.description, "parameters": self.signature.to_schema()}
        return {"type": "function", "function": {key: value for key, value in function.items() if value}}

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Check and convert `arguments`, call the function, await it if it is async. Raises `InvalidInput`."""
        result = self.function(**self.signature.bind(arguments))
        return await result if inspect.isawaitable(result) else result

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}>"


def tool(function: Callable[..., Any] | None = None, *, name: str = "", description: str = "") -> Any:
    """Make a typed function a `Tool`. Use it as `@tool` or `@tool(name=…)`.

    The annotations become the schema, the docstring the description, and its `Args:` section those of the parameters.
    """
    if function is None:
        return lambda function: Tool(function, name=name, description=description)
    return Tool(function, name=name, description=description)


@dataclass(frozen=True)
class ToolCall:
    """One call that a model asks for."""

    name: str
    arguments: dict[str, Any]
    unreadable: str = ""
    """What the model wrote instead of a call; then there is no name, and `run` raises."""

    async def result(self, tools: Sequence[Tool]) -> str:
        """What to tell the model: the text that `run` returns, or `error: …` where the call is wrong.

        Wrong is what raises `InvalidInput`: the call itself, or a tool that refuses its arguments so. Anything else
        that a tool raises is a fault of the program and comes through.
        """
        try:
            return await self.run(tools)
        except InvalidInput as error:
            return f"error: {error.message}" + (f"; {error.hint}" if error.hint else "")

    async def run(self, tools: Sequence[Tool]) -> str:
        """The result of the tool that is asked for, as text (JSON unless it is a text already).

        Raises `InvalidInput` for what is no call, an unknown tool or wrong arguments. What the tool itself raises
        comes through.
        """
        if self.unreadable:
            shown = self.unreadable if len(self.unreadable) <= 80 else f"{self.unreadable[:79]}…"
            hint = 'write {"name": "…", "arguments": {…}} between the tags'
            raise InvalidInput(f"not a tool call: {shown}", hint=hint)
        known = {tool.name: tool for tool in tools}
        if self.name not in known:
            raise InvalidInput(f"there is no tool `{self.name}`", hint=_known_hint(self.name, list(known)))
        result = await known[self.name].run(self.arguments)
        return result if isinstance(result, str) else readable_json(result)


def parse_calls(text: str) -> list[ToolCall]:
    """The tool calls in a reply, in order; empty if it has none.

    Raises nothing: where the text between the tags is no call, `ToolCall.result` says so to the model.
    """
    return [_parse_call(match[1].strip()) for match in _CALL.finditer(text)]


def schemas(tools: Sequence[Tool | dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON schemas of tools, as chat templates take them; what is a schema already stays as it is."""
    return [_schema(tool) for tool in tools]


def _schema(tool: Any) -> dict[str, Any]:
    if isinstance(tool, dict):
        return tool
    if isinstance(tool, Tool):
        return tool.schema
    if callable(tool):
        raise InvalidInput(f"{tool.__name__} is not a tool", hint="write `@tool` above its `def`")
    raise InvalidInput(f"a tool is an `@tool` function or a JSON schema; got {type(tool).__name__}")


def _parse_call(text: str) -> ToolCall:
    try:
        call = json.loads(text)
        name, arguments = call["name"], call.get("arguments", {})
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, KeyError, TypeError, AttributeError):
        name, arguments = None, None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return ToolCall("", {}, text or "nothing")
    return ToolCall(name, arguments)


def _known_hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"there is: {', '.join(known)}" if known else "there are no tools"
