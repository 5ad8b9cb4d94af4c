"""The fake host's model and the contexts with it."""

from __future__ import annotations

import json
from types import SimpleNamespace

from inferlet import errors
from inferlet._packing import pack_tokens, unpack_tokens
from inferlet.testing._base import FakeBase
from inferlet.testing._records import Placement


class FakeContexts(FakeBase):
    """The interfaces `model` and `context`."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: dict[int, list[int]] = {}
        self.adapters: list[str] = []
        self.adapter_of: dict[int, str] = {}
        """The adapter of each context; empty: none."""
        self.saved: dict[str, tuple[list[int], str, str]] = {}
        """Saved contexts by name: tokens, what the SDK keeps with them, and their adapter."""
        self.model = self._interface(
            "model",
            list=lambda: ["fake"],
            adapters=lambda model: [
                SimpleNamespace(name=name, adapter_id=f"id of {name}", rank=8, num_bytes=1024) for name in self.adapters
            ],
            describe=self._describe,
            encode=lambda model, text, special: pack_tokens(self.encode(text, special)),
            decode=lambda model, tokens, skip: self.decode(unpack_tokens(tokens), skip),
            render_chat=self._render_chat,
        )
        self.context = self._interface(
            "context",
            create=self._create,
            append=lambda ctx, tokens: self._tokens_of(ctx).extend(tokens),
            append_packed=lambda ctx, tokens: self._tokens_of(ctx).extend(unpack_tokens(tokens)),
            append_text=self._append_text,
            encode=lambda ctx, text: pack_tokens(self.encode(text)),
            flush=lambda ctx: self._new_handle(is_ready=True),
            finish_flush=lambda handle: None,
            fork=self._fork,
            truncate=self._truncate,
            drop=self._drop,
            slide=self._slide,
            place=self._place,
            release=lambda ctx: self.contexts.pop(ctx, None) and None,
            save=self._save,
            finish_save=lambda handle: None,
            open=self._open,
            delete=self._delete,
            list_saved=lambda model: [
                SimpleNamespace(name=name, num_tokens=len(tokens), num_bytes=0, saved_at=0.0)
                for name, (tokens, _, _) in sorted(self.saved.items())
            ],
            length=lambda ctx: len(self._tokens_of(ctx)),
            tokens=lambda ctx, start, end: pack_tokens(self._tokens_of(ctx)[start:end]),
        )
        self.context.Placement = Placement

    def text_of(self, ctx: int) -> str:
        """All that a context holds."""
        return self.decode(self.contexts[ctx])

    def _describe(self, model: str) -> SimpleNamespace:
        if model not in ("", "fake"):
            raise errors.NotFound(f"no model `{model}` is loaded; there is: fake")
        return SimpleNamespace(name="fake", vocab_size=256, max_context_tokens=65536, page_size=16, stop_tokens=[3])

    def _render_chat(self, model: str, messages: str, tools: str | None, add_generation_prompt: bool) -> str:
        system = f"<|system|>Tools: {tools}<|end|>" if tools else ""
        turns = "".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in json.loads(messages))
        return f"<|begin|>{system}{turns}" + ("<|assistant|>" if add_generation_prompt else "")

    def _create(self, model: str, seed: int | None, adapter: str = "") -> int:
        self._describe(model)
        if adapter and adapter not in self.adapters:
            raise errors.NotFound(f"fake has no adapter called `{adapter}`")
        ctx = self._new_handle()
        self.contexts[ctx] = []
        self.adapter_of[ctx] = adapter
        return ctx

    def _tokens_of(self, ctx: int) -> list[int]:
        if ctx not in self.contexts:
            raise errors.NotFound(f"no context {ctx}")
        return self.contexts[ctx]

    def _append_text(self, ctx: int, text: str, special: bool) -> int:
        tokens = self.encode(text, special)
        self._tokens_of(ctx).extend(tokens)
        return len(tokens)

    def _fork(self, ctx: int) -> int:
        child = self._create("", None, self.adapter_of[ctx])
        self.contexts[child] = list(self._tokens_of(ctx))
        return child

    def _truncate(self, ctx: int, length: int) -> None:
        del self._tokens_of(ctx)[length:]

    def _drop(self, ctx: int, first: int, end: int) -> None:
        """The tokens stay: this model does not look at them."""
        there = len(self._tokens_of(ctx))
        if not first < end <= there:
            raise errors.InvalidInput(f"cannot drop tokens {first} … {end - 1} of context {ctx}: it has {there}")

    def _slide(self, ctx: int, window: int, sinks: int) -> None:
        """This model looks at nothing, so at no less."""
        self._tokens_of(ctx)

    def _place(self, ctx: int, tokens: list[int], placement: Placement) -> None:
        self._tokens_of(ctx).extend(tokens)

    def _save(self, ctx: int, name: str, meta: str, durable: bool) -> int:
        self.saved[name] = (list(self._tokens_of(ctx)), meta, self.adapter_of[ctx])
        return self._new_handle(is_ready=True)

    def _open(self, model: str, name: str, seed: int | None) -> SimpleNamespace:
        self._find_saved(name)
        tokens, meta, adapter = self.saved[name]
        ctx = self._create(model, seed, adapter)
        self.contexts[ctx] = list(tokens)
        return SimpleNamespace(ctx=ctx, meta=meta, adapter=adapter)

    def _delete(self, model: str, name: str) -> None:
        self._find_saved(name)
        del self.saved[name]

    def _find_saved(self, name: str) -> None:
        if name not in self.saved:
            raise errors.NotFound(f"no context is saved as `{name}` with model fake")
