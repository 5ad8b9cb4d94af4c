"""A model on torch that gives the same bits whatever else is in the step: one token at a time, where `steady` fails.

The shapes of a token's pass are fixed by its position alone, not by its neighbours, the chunk or the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pie_engine.model.kv_cache import KvCache
from pie_engine.model.load import Model
from pie_engine.model.lora.weights import Adapter
from pie_engine.model.span import Span


class OneByOne:
    """Another model, run so. Implements `load.Model`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.config, self.dtype, self.kv_dtype, self.kernels = model.config, model.dtype, model.kv_dtype, model.kernels
        self.choose = model.choose

    def set_num_threads(self, num_threads: int) -> None:
        self._model.set_num_threads(num_threads)

    def add_adapter(self, adapter: Adapter) -> None:
        self._model.add_adapter(adapter)

    def remove_adapter(self, adapter_id: str) -> None:
        self._model.remove_adapter(adapter_id)

    def new_cache(self, num_pages: int, page_size: int) -> KvCache:
        return self._model.new_cache(num_pages, page_size)

    def forward(
        self,
        spans: Sequence[Span],
        tokens: Sequence[int],
        cache: KvCache,
        wanted: Sequence[int],
        states: Tensor | None = None,
    ) -> Tensor:
        """As `Decoder.forward`."""
        places = {token: place for place, token in enumerate(wanted)}
        logits = torch.empty(len(wanted), self.config.vocab_size)
        for span in spans:
            for index in range(span.length):
                place = places.get(span.first + index)
                own = None if states is None or place is None else states[place : place + 1]
                alone = span.token(index)
                result = self._model.forward(
                    [alone], [tokens[span.first + index]], cache, [] if place is None else [0], own
                )
                if place is not None:
                    logits[place] = result[0]
        return logits
