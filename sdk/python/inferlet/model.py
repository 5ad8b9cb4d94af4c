"""The models that are loaded, their tokenizers and chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inferlet import _checks, _transport
from inferlet._packing import pack_tokens, unpack_tokens


@dataclass(frozen=True)
class ModelInfo:
    """What the engine knows of a model."""

    name: str
    vocab_size: int
    max_context_tokens: int
    """Most tokens of prompt and reply together."""
    page_size: int
    """Tokens in a page of the KV cache."""
    stop_tokens: tuple[int, ...]
    """Token ids that end a reply."""


class Model:
    """One loaded model. `Model()` is the default one.

    >>> Model().info.max_context_tokens
    >>> Model().tokenizer.encode("Hello")
    """

    def __init__(self, name: str = "") -> None:
        """`name` as `Model.names()` lists it; empty: the default model. It is looked up when it is first used."""
        self._name = _checks.text("the name of a model", name)

    @staticmethod
    def names() -> list[str]:
        """The names of all loaded models, the default one first."""
        return _transport.call(_transport.host.model.list)

    @cached_property
    def info(self) -> ModelInfo:
        """Sizes and stop tokens. Raises `NotFound` for a name that is not loaded."""
        wire = _transport.call(_transport.host.model.describe, self._name)
        return ModelInfo(wire.name, wire.vocab_size, wire.max_context_tokens, wire.page_size, tuple(wire.stop_tokens))

    @property
    def name(self) -> str:
        """Its name."""
        return self._name or self.info.name

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return Tokenizer(self)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] = (),
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt text of `messages` by the checkpoint's own chat template.

        Special tokens inside of a message are marked (U+FDD0 after their first character), so that `encode` and
        `Context.append` read them as plain text: no message can end its own turn.

        `messages`: `{"role": …, "content": …}`; `tools`: `@tool` functions or JSON schemas. Raises `Unsupported` when
        the model has no chat template, `InvalidInput` when the template refuses the messages.
        """
        from inferlet.tools import schemas

        tools_json = json.dumps(schemas(tools)) if tools else None
        messages_json = json.dumps([dict(message) for message in messages])
        render = _transport.host.model.render_chat
        return _transport.call(render, self._name, messages_json, tools_json, bool(add_generation_prompt))

    def __repr__(self) -> str:
        return f"Model({self._name!r})"


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self, model: Model | None = None) -> None:
        self._model = model or Model()

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text`. `special=False` reads special tokens in it as plain text, for text you do not trust."""
        encode = _transport.host.model.encode
        checked = _checks.text("what is encoded", text)
        return unpack_tokens(_transport.call(encode, self._model._name, checked, bool(special)))

    def decode(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids. `skip_special=True` leaves special tokens out."""
        packed = pack_tokens(_checks.token_ids("what is decoded", tokens))
        return _transport.call(_transport.host.model.decode, self._model._name, packed, bool(skip_special))
