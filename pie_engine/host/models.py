"""A core's model as programs see it from the host: tokenizer, chat template and sizes, without the weights."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pie_engine.errors import ContextTooLong, InvalidInput, PieError
from pie_engine.model.chat import ChatTemplate
from pie_engine.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class HostAdapter:
    """An adapter that a core has loaded; `model.adapter`."""

    name: str
    adapter_id: str
    rank: int
    num_bytes: int


def adapters_of_detail(detail: dict[str, Any]) -> dict[str, HostAdapter]:
    """From the `detail` of a core in the topology, by name; without those that could not be loaded."""
    loaded = (entry for entry in detail.get("adapters", []) if "failed" not in entry)
    return {
        entry["name"]: HostAdapter(entry["name"], entry["adapter_id"], entry["rank"], entry["num_bytes"])
        for entry in loaded
    }


@dataclass(frozen=True, slots=True)
class HostModel:
    """What a ready core says about its model, and what is read from its folder."""

    name: str
    vocab_size: int
    max_context_tokens: int
    page_size: int
    tokenizer: Tokenizer
    chat: ChatTemplate | PieError
    """A template that cannot be read is the trouble of who wants to render it."""
    model_id: str = ""
    """Configuration, weights and dtype: KV of another one is of no use."""

    @property
    def stop_tokens(self) -> list[int]:
        return list(self.tokenizer.eos_ids)

    @classmethod
    def of_detail(cls, detail: dict[str, object]) -> HostModel:
        """From the `detail` of a core in the topology."""
        vocab_size, max_context_tokens, page_size = (
            int(str(detail[key])) for key in ("vocab_size", "max_context_tokens", "page_size")
        )
        tokenizer, chat = _read_folder(str(detail["folder"]), str(detail.get("chat_template", "")))
        sizes = (vocab_size, max_context_tokens, page_size)
        return cls(str(detail["model"]), *sizes, tokenizer, chat, str(detail.get("model_id", "")))

    def render_chat(self, messages: list[Any], tools: list[Any] | None, add_generation_prompt: bool) -> str:
        if isinstance(self.chat, PieError):
            raise self.chat
        return self.chat.render(self._shielded(messages), self._shielded(tools), add_generation_prompt)

    def _shielded(self, value: Any) -> Any:
        """With the special tokens in all texts as plain text: what a user or a tool says must not end its own turn."""
        if isinstance(value, str):
            return self.tokenizer.shield(value)
        if isinstance(value, list):
            return [self._shielded(item) for item in value]
        if isinstance(value, dict):
            return {key: self._shielded(item) for key, item in value.items()}
        return value

    def check_tokens(self, tokens: Sequence[int]) -> None:
        if tokens and max(tokens) >= self.vocab_size:
            raise InvalidInput(
                f"token id {max(tokens)} is not in the vocabulary of {self.name} (0 … {self.vocab_size - 1})"
            )

    def check_length(self, num_tokens: int) -> None:
        if num_tokens > self.max_context_tokens:
            raise ContextTooLong(
                f"the context would have {num_tokens} tokens; {self.name} takes {self.max_context_tokens}",
                hint="shorten the prompt, or use a model with a longer context",
            )


@lru_cache(maxsize=8)
def _read_folder(folder: str, chat_template: str) -> tuple[Tokenizer, ChatTemplate | PieError]:
    """Kept, since a core that comes back brings the same model."""
    tokenizer = Tokenizer.load(folder)
    try:
        return tokenizer, ChatTemplate.load(folder, chat_template)
    except PieError as error:
        return tokenizer, error


def pack_tokens(tokens: Sequence[int]) -> str:
    """base64 of little-endian u32, the form in which long lists cross into a guest."""
    return base64.b64encode(struct.pack(f"<{len(tokens)}I", *tokens)).decode("ascii")


def unpack_tokens(packed: str) -> list[int]:
    try:
        raw = base64.b64decode(packed, validate=True)
        return list(struct.unpack(f"<{len(raw) // 4}I", raw))
    except (ValueError, struct.error) as error:
        raise InvalidInput(f"packed tokens are not base64 of little-endian u32: {error}") from error
