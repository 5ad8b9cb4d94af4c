"""What the CPU driver needs of a model, and what goes through one at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, repeat
from operator import add
from typing import Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor

from pie_engine.kv.layout import Layout
from pie_engine.model.description import Kernels, ModelConfig
from pie_engine.model.kv_cache import KvCache
from pie_engine.model.lora.weights import Adapter
from pie_engine.model.span import Span
from pie_engine.sampling.sampler import Choose


class Inputs(msgspec.Struct, frozen=True, dict=True):
    """What goes through a model at once: the spans of a step, in the order of `span.row_order`, in columns."""

    lengths: Sequence[int]
    """Tokens of each span."""
    starts: Sequence[int]
    """Their first slots."""
    tables: Sequence[Sequence[int]]
    """Their pages."""
    tokens: Sequence[int]
    """Of all spans, one after the other."""
    cache: KvCache
    """Has the KV of what came before, and gets that of `tokens`."""
    wanted: Sequence[int]
    """Indices into `tokens`: whose logits are wanted."""
    states: Tensor | None = None
    """[len(wanted), hidden size] gets what the output layer gets: the last hidden states after the final norm."""
    layouts: Sequence[Layout | None] = ()
    """Of each span; empty: none has one."""
    adapters: Sequence[str] = ()
    """Of each span; empty: none has one."""

    @classmethod
    def of(
        cls, spans: Sequence[Span], tokens: Sequence[int], cache: KvCache, wanted: Sequence[int], states: Tensor | None
    ) -> Inputs:
        """Of `spans`, whose tokens lie one after the other."""
        return cls(
            [span.length for span in spans],
            [span.start for span in spans],
            [span.page_ids for span in spans],
            tokens,
            cache,
            wanted,
            states,
            [span.layout for span in spans],
            [span.adapter for span in spans],
        )

    @cached_property
    def spans(self) -> list[Span]:
        """The same, one by one."""
        firsts = accumulate(self.lengths, initial=0)
        layouts, adapters = self.layouts or repeat(None), self.adapters or repeat("")
        columns = zip(firsts, self.lengths, self.starts, self.tables, layouts, adapters, strict=False)
        return [Span(*each) for each in columns]

    @cached_property
    def num_slots(self) -> int:
        """One more than the highest slot that is written."""
        highest: int = max(map(add, self.starts, self.lengths))
        return highest

    @cached_property
    def num_positions(self) -> int:
        """One more than the highest position that a span knows of."""
        return max(span.num_positions for span in self.spans) if any(self.layouts) else self.num_slots


class Model(Protocol):
    """A model on the CPU. What implements it inherits from it."""

    dtype: torch.dtype
    """Of the weights."""
    kv_dtype: torch.dtype
    config: ModelConfig
    """As loaded: where it differs from the checkpoint's, this is the one that counts."""
    kernels: Kernels
    """What runs it."""
    choose: Choose | None
    """What chooses tokens beside it, if it has something faster than what `sampling` does."""

    @abstractmethod
    def new_cache(self, num_pages: int, page_size: int) -> KvCache: ...

    @abstractmethod
    def set_num_threads(self, num_threads: int) -> None: ...

    @abstractmethod
    def add_adapter(self, adapter: Adapter) -> None:
        """From here on spans may name it."""

    @abstractmethod
    def remove_adapter(self, adapter_id: str) -> None: ...

    @abstractmethod
    def compute(self, inputs: Inputs) -> Tensor:
        """Run the tokens through the model, write their KV, and return the logits [len(wanted), vocab] in fp32."""

    def logits(self, inputs: Inputs) -> np.ndarray:
        """`compute`, for who does not work on with torch."""
        return self.compute(inputs).numpy()

    def forward(
        self,
        spans: Sequence[Span],
        tokens: Sequence[int],
        cache: KvCache,
        wanted: Sequence[int],
        states: Tensor | None = None,
    ) -> Tensor:
        """`compute`, with the parts of its `Inputs` one by one."""
        return self.compute(Inputs.of(spans, tokens, cache, wanted, states))


class Wrapper(Model):
    """Another model that is run in another way, and is the same otherwise."""

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
