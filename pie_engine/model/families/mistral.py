"""Mistral (https://arxiv.org/abs/2310.06825): Llama, where tokens see a window of those before them."""

from __future__ import annotations

from pie_engine.model.description import ModelConfig
from pie_engine.model.families import llama
from pie_engine.model.fields import Fields


def describe(get: Fields) -> ModelConfig:
    return llama.plain(get).with_windows([get.optional_size("sliding_window")])
