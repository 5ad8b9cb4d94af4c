"""The chat format of pie-tiny: special tokens, the Jinja template, and the same rendering in plain Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pie_engine.model.tiny.draw import Example, Json

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLE_TOKENS = {role: f"<|{role}|>" for role in ("system", "user", "assistant", "tool")}
TOOL_CALL_OPEN, TOOL_CALL_CLOSE = "<tool_call>", "</tool_call>"

CONTROL_TOKENS = (PAD, BEGIN, END, *ROLE_TOKENS.values())
TEXT_TOKENS = (TOOL_CALL_OPEN, TOOL_CALL_CLOSE)

TOOLS_HEADING = "Tools:"

CHAT_TEMPLATE = """\
{%- macro tools_block() -%}
Tools:
{%- for tool in tools -%}
{%- set tool = tool.function if tool.function is defined else tool -%}
{{- '\\n{"name": ' + tool.name | tojson -}}
{%- if tool.description %}{{ ', "description": ' + tool.description | tojson }}{% endif -%}
{{- ', "parameters": ' + (tool.parameters or {}) | tojson + '}' -}}
{%- endfor -%}
{%- endmacro -%}
{%- macro text(content) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content -%}
{%- for part in content -%}{{- part.text -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{- '<|begin|>' -}}
{%- for message in messages -%}
{%- if loop.first and tools and message.role != 'system' -%}
{{- '<|system|>' + tools_block() + '<|end|>' -}}
{%- endif -%}
{{- '<|' + message.role + '|>' + text(message.content) -}}
{%- if loop.first and tools and message.role == 'system' -%}
{{- '\\n\\n' + tools_block() -}}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{%- set call = call.function if call.function is defined else call -%}
{{- '<tool_call>{"name": ' + call.name | tojson + ', "arguments": ' -}}
{{- call.arguments if call.arguments is string else call.arguments | tojson -}}
{{- '}</tool_call>' -}}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered example, and whether the model has to learn to write it."""

    text: str
    is_answer: bool


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def tool_call_text(name: str, arguments: Json) -> str:
    return f'{TOOL_CALL_OPEN}{{"name": {to_json(name)}, "arguments": {to_json(arguments)}}}{TOOL_CALL_CLOSE}'


def tools_text(tools: list[Json]) -> str:
    return "\n".join([TOOLS_HEADING, *(to_json(tool) for tool in tools)])


def prompt_text(messages: list[Json], tools: list[Json]) -> str:
    """What the model reads before it answers: all messages and the open assistant turn."""
    rendered = "".join(segment.text for segment in _chat_segments(messages, tools))
    return rendered + ROLE_TOKENS["assistant"]


def segments(example: Example) -> Iterator[Segment]:
    """The rendered example in order; joined, it equals what the chat template renders."""
    if example.messages:
        yield from _chat_segments(example.messages, example.tools)
    else:
        yield Segment(BEGIN, is_answer=False)
        yield Segment(example.text + END, is_answer=True)


def _chat_segments(messages: list[Json], tools: list[Json]) -> Iterator[Segment]:
    yield Segment(BEGIN, is_answer=False)
    for index, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if index == 0 and tools:
            if role != "system":
                yield Segment(f"{ROLE_TOKENS['system']}{tools_text(tools)}{END}", is_answer=False)
            else:
                content = f"{content}\n\n{tools_text(tools)}"
        content += "".join(tool_call_text(call["name"], call["arguments"]) for call in message.get("tool_calls", ()))
        yield Segment(ROLE_TOKENS[role], is_answer=False)
        yield Segment(content + END, is_answer=role == "assistant")
