"""`model`: the loaded models, their tokenizers and chat templates; answered in the host, without a core."""

from __future__ import annotations

import json
from typing import Any

from pie_engine.errors import InvalidInput
from pie_engine.host.imports import Function
from pie_engine.host.models import HostAdapter, HostModel, pack_tokens, unpack_tokens
from pie_engine.host.process import Process


def list_models(process: Process) -> list[str]:
    return process.model_names


def adapters(process: Process, model: str) -> list[HostAdapter]:
    return list(process.core(model).adapters.values())


def describe(process: Process, model: str) -> HostModel:
    return process.core(model).model


def encode(process: Process, model: str, text: str, special: bool) -> str:
    return pack_tokens(process.core(model).model.tokenizer.encode(text, special=special))


def decode(process: Process, model: str, tokens: str, skip_special: bool) -> str:
    return process.core(model).model.tokenizer.decode(unpack_tokens(tokens), skip_special=skip_special)


def render_chat(process: Process, model: str, messages: str, tools: str | None, add_generation_prompt: bool) -> str:
    parsed_tools = None if tools is None else _parse("tools", tools)
    return process.core(model).model.render_chat(_parse("messages", messages), parsed_tools, add_generation_prompt)


def _parse(name: str, text: str) -> list[Any]:
    """A JSON list of objects."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{name} are not JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInput(f"{name} have to be a list of objects")
    return value


FUNCTIONS: dict[str, Function] = {
    "list": list_models,
    "adapters": adapters,
    "describe": describe,
    "encode": encode,
    "decode": decode,
    "render-chat": render_chat,
}
