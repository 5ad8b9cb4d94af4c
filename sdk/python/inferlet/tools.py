"""Tools: typed functions that a model may call, by the `<tool_call>{json}</tool_call>` format of many chat templates.

>>> @tool
... def weather(city: str) -> str:
...     '''Get the weather in a city.'''
>>> ctx = Context(tools=[weather])
>>> ctx.user("How is the weather in Paris?")
>>> for call in parse_calls(await ctx.generate()):
...     ctx.tool(await call.run([weather]))
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, update_wrapper
from typing import Any

from inferlet.errors import InvalidInput
from inferlet.signature import Signature, dump_json, near_hint

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

    async def run(self, tools: Sequence[Tool]) -> str:
        """The result of the tool that is asked for, as text (JSON unless it is a text already).

        Raises `InvalidInput` for an unknown tool or wrong arguments; its message can be shown to the model. What the
        tool itself raises comes through.
        """
        known = {tool.name: tool for tool in tools}
        if self.name not in known:
            raise InvalidInput(f"there is no tool `{self.name}`", hint=near_hint(self.name, list(known)))
        result = await known[self.name].run(self.arguments)
        return result if isinstance(result, str) else dump_json(result)


def parse_calls(text: str) -> list[ToolCall]:
    """The tool calls in a reply, in order; empty if it has none.

    Raises `InvalidInput` when what stands between the tags is not a call; its message can be shown to the model.
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
        shown = text if len(text) <= 80 else f"{text[:79]}…"
        raise InvalidInput(f"not a tool call: {shown}", hint='write {"name": "…", "arguments": {…}} between the tags')
    return ToolCall(name, arguments)
