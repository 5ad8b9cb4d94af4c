"""Models of Transformers with attention of their own, which nobody can replace: ALiBi, sinks, layers of several sizes.

Each sequence of a step runs alone, as it is written there, over a cache that is filled from the sequence's pages; what
the model adds to it goes back to the pages. That takes nothing but a cache of keys and values
(https://huggingface.co/docs/transformers/cache_explanation), so it fits nearly any decoder, and it is slow: no batches,
and keys and values are copied in every step.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pie_engine.errors import Unsupported
from pie_engine.model.base import Inputs, Model
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.description import Kernels, LayerConfig, ModelConfig
from pie_engine.model.kv_cache import HeadShape, KvCache
from pie_engine.model.lora.weights import Adapter
from pie_engine.model.span import Span
from pie_engine.model.transformers_checks import HINT, library_for, where
from pie_engine.sampling.sampler import Choose

_TRIED = [3, 29, 11, 41, 5, 23, 17]
"""Tokens that a model is tried with."""
_CHUNKS = (4, 1, 2)
_MAX_DISTANCE = {torch.float32: 2e-4}
_MAX_DISTANCE_OTHERWISE = 0.1
"""How far logits of chunks may be from those of the whole, in their standard deviations: only rounding tells them
apart, while a model that keeps less than it needs gives other ones."""


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """What a layer keeps for each token."""

    index: int
    """In Transformers' cache; some layers use another one's keys and values and have none."""
    num_heads: int
    key_dim: int
    value_dim: int


class ByTransformers(Model):
    """What all models of Transformers have in common."""

    kernels: Kernels = "torch"
    choose: Choose | None = None
    kv_dtype = torch.float32

    dtype: torch.dtype
    config: ModelConfig

    def set_num_threads(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)

    def is_like(self, expected: Tensor) -> bool:
        """Whether it computes in chunks what the model computes as a whole: the logits that `tried` has given."""
        page = 4
        pages = list(range(-(-len(_TRIED) // page)))
        cache = self.new_cache(len(pages), page)
        parts, start = [], 0
        for length in _CHUNKS:
            part = _TRIED[start : start + length]
            parts.append(self.forward([Span(0, length, start, pages)], part, cache, range(length)))
            start += length
        distance = float((torch.cat(parts) - expected).abs().mean() / expected.std())
        return distance <= _MAX_DISTANCE.get(self.dtype, _MAX_DISTANCE_OTHERWISE)

    def add_adapter(self, adapter: Adapter) -> None:
        raise AssertionError("`layout_of` has refused it")

    def remove_adapter(self, adapter_id: str) -> None:
        raise AssertionError(f"adapter {adapter_id} is not loaded")


class OwnAttentionModel(ByTransformers):
    """Behind the same methods as `Decoder`."""

    def __init__(self, checkpoint: Checkpoint, model: Any, dtype: torch.dtype) -> None:
        """`model` is loaded, with attention that is its own. Raises `Unsupported` if it cannot go on from a cache."""
        self.dtype = dtype
        self._model, self._new_past = model, library_for(checkpoint).DynamicCache
        accepted = inspect.signature(model.forward).parameters
        self._keeps_logits, self._takes_positions = "logits_to_keep" in accepted, "position_ids" in accepted
        try:
            self._layers, vocab_size = self._probe()
            width = max(layer.num_heads * max(layer.key_dim, layer.value_dim) for layer in self._layers)
            self._heads = HeadShape(1, 1, width)
            self.config = replace(
                checkpoint.config,
                num_heads=1,
                num_kv_heads=1,
                head_dim=width,
                layers=(LayerConfig(),) * len(self._layers),
                vocab_size=vocab_size,
                has_own_attention=True,
            )
            is_like = self.is_like(tried(model))
        except Exception as error:  # of any kind, from any model's code
            raise Unsupported(
                f"{where(checkpoint)} does not run over a cache of keys and values: {error}", hint=HINT
            ) from error
        if not is_like:
            raise Unsupported(
                f"{where(checkpoint)} computes something else in chunks than as a whole: it sees later tokens, keeps"
                " more than keys and values, or does not count positions from 0",
                hint=HINT,
            )

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return KvCache(self.config.num_layers, num_pages, page_size, self._heads)

    @torch.inference_mode()
    def compute(self, inputs: Inputs) -> Tensor:
        tokens, cache, wanted, states = inputs.tokens, inputs.cache, inputs.wanted, inputs.states
        logits = torch.empty(len(wanted), self.config.vocab_size)
        for span in inputs.spans:
            last = span.first + span.length
            rows = [row for row, token in enumerate(wanted) if span.first <= token < last]
            kept = [wanted[row] - span.first for row in rows]
            past = self._read(span, cache)
            found, hidden = self._run(past, tokens[span.first : last], span.start, kept, states is not None)
            self._write(span, cache, past)
            logits[rows] = found
            if states is not None and hidden is not None:
                states[rows] = hidden
        return logits

    def _run(
        self, past: Any, tokens: Sequence[int], start: int, kept: Sequence[int], wants_states: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the tokens `kept`, and their last hidden states; `past` grows."""
        positions = torch.arange(start, start + len(tokens)).unsqueeze(0)
        rows = torch.tensor(kept, dtype=torch.int64)
        options: dict[str, Any] = {"logits_to_keep": rows} if self._keeps_logits else {}
        if self._takes_positions:
            options["position_ids"] = positions
        if wants_states:
            options["output_hidden_states"] = True
        result = self._model(input_ids=torch.tensor([tokens]), past_key_values=past, use_cache=True, **options)
        logits: Tensor = result.logits[0] if self._keeps_logits else result.logits[0][rows]
        return logits.float(), result.hidden_states[-1][0][rows].float() if wants_states else None

    def _read(self, span: Span, cache: KvCache) -> Any:
        """Transformers' cache with the tokens before the span."""
        past = self._new_past()
        if not span.start:
            return past
        pages = torch.tensor(span.page_ids[: -(-span.start // cache.page_size)])
        for at, layer in enumerate(self._layers):
            stored = cache.layer(at)
            keys = stored.keys[pages].transpose(1, 2).flatten(0, 1)[: span.start]
            values = stored.values[pages].flatten(0, 1)[: span.start]
            past.update(
                self._by_head(keys, layer.num_heads, layer.key_dim),
                self._by_head(values, layer.num_heads, layer.value_dim),
                layer.index,
            )
        return past

    def _by_head(self, rows: Tensor, num_heads: int, dim: int) -> Tensor:
        """[1, heads, tokens, dim] in the model's dtype, from [tokens, at least heads * dim]."""
        return rows[:, : num_heads * dim].view(len(rows), num_heads, dim).transpose(0, 1)[None].to(self.dtype)

    def _write(self, span: Span, cache: KvCache, past: Any) -> None:
        """What the model has added for the tokens of the span."""
        size = cache.page_size
        positions = torch.arange(span.start, span.end)
        pages, offsets = torch.tensor(span.page_ids)[positions // size], positions % size
        for at, layer in enumerate(self._layers):
            stored, grown = cache.layer(at), past.layers[layer.index]
            keys, values = (
                part[0, :, -span.length :].transpose(0, 1).flatten(1) for part in (grown.keys, grown.values)
            )
            stored.keys[pages, : keys.shape[1], offsets] = keys.float()
            stored.values[pages, offsets, : values.shape[1]] = values.float()

    @torch.inference_mode()
    def _probe(self) -> tuple[list[StoredLayer], int]:
        """What each layer keeps, and the size of the vocabulary."""
        past = self._new_past()
        logits, _ = self._run(past, [0], 0, [0])
        layers = []
        for index, layer in enumerate(past.layers):
            if layer.keys is None:
                continue
            (_, num_heads, num_tokens, key_dim), value_shape = layer.keys.shape, layer.values.shape
            assert num_tokens == 1, f"layer {index} keeps {num_tokens} keys for a token"
            assert value_shape[:3] == (1, num_heads, 1), f"layer {index} keeps values of shape {[*value_shape]}"
            layers.append(StoredLayer(index, num_heads, key_dim, value_shape[3]))
        assert layers, "it keeps none"
        return layers, logits.shape[-1]


@torch.inference_mode()
def tried(model: Any) -> Tensor:
    """What the model as it is, without a cache, gives for some tokens: logits [tokens, vocabulary] in fp32."""
    logits: Tensor = model(input_ids=torch.tensor([_TRIED]), use_cache=False).logits[0]
    return logits.float()
