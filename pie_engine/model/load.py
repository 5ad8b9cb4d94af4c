"""From a checkpoint to a model that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pie_engine.model.attention import KvCache, Span
from pie_engine.model.checkpoint import Checkpoint
from pie_engine.model.decoder import Decoder
from pie_engine.model.description import ModelConfig


class Model(Protocol):
    """What the CPU driver needs of a model."""

    dtype: torch.dtype
    config: ModelConfig
    """As loaded: where it differs from the checkpoint's, this is the one that counts."""

    def new_cache(self, num_pages: int, page_size: int) -> KvCache: ...

    def forward(self, spans: Sequence[Span], tokens: Sequence[int], cache: KvCache, wanted: Sequence[int]) -> Tensor:
        """Run `tokens` through the model, write their KV, and return the logits [len(wanted), vocab] in fp32."""


def load_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Model:
    """The checkpoint's weights in memory, ready to run; raises `ModelError` or `Unsupported`."""
    if checkpoint.config.needs_transformers:
        from pie_engine.model.transformers_model import TransformersModel

        return TransformersModel(checkpoint, dtype)
    return Decoder(checkpoint, dtype)
